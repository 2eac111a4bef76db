//! Reductions (<https://onnx.ai/onnx/operators/onnx__ReduceMean.html>): axes as an attribute before
//! opset 18, for `ReduceSum` before 13.

use sartor_ir::Attr;

use super::Draft;

pub(super) fn newest(draft: &mut Draft) -> Result<(), String> {
    if draft.attrs.get("axes") == Some(&Attr::Ints(Vec::new())) {
        return Err("an empty list of axes means different things to different programs".to_owned());
    }
    draft.ints_to_input("axes", 1)
}

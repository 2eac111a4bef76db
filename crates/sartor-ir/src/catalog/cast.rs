//! `CastLike` (<https://onnx.ai/onnx/operators/onnx__CastLike.html>), whose target type is that of a value, and the forms
//! of `Dropout` (<https://onnx.ai/onnx/operators/onnx__Dropout.html>) that may draw numbers.

use super::{Entry, no_axes};
use crate::{DType, Fact, Named};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "CastLike", infer: infer_cast_like, axes: no_axes },
    Entry { domain: "", name: "Dropout", infer: infer_dropout, axes: no_axes },
];

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn infer_cast_like(
    _: &Named,
    inputs: &[Option<&Fact>],
    _: usize,
) -> Result<Vec<Option<Fact>>, String> {
    let [Some(x), Some(like)] = inputs else { return Ok(vec![None]) };
    Ok(vec![Some(x.with_dtype(like.ty.dtype))])
}

/// The mask is boolean from opset 10 on.
#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn infer_dropout(
    op: &Named,
    inputs: &[Option<&Fact>],
    _: usize,
) -> Result<Vec<Option<Fact>>, String> {
    let Some(x) = inputs.first().copied().flatten() else { return Ok(vec![None; 2]) };
    let mask = if op.version < 10 { x.ty.dtype } else { DType::Bool };
    Ok(vec![Some(Fact::of(x.ty.clone())), Some(x.with_dtype(mask))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attrs, TensorType};

    #[test]
    fn types_come_from_the_value_and_the_opset() {
        let fact = |dtype| Fact::of(TensorType::fixed(dtype, &[2, 3]));
        let (x, like) = (fact(DType::F32), fact(DType::F16));
        let op = |name: &str, version| Named {
            domain: String::new(),
            name: name.to_owned(),
            version,
            attributes: Attrs::new(),
        };
        let made = infer_cast_like(&op("CastLike", 19), &[Some(&x), Some(&like)], 1).unwrap();
        assert_eq!(made, [Some(like)]);
        for (version, mask) in [(7, DType::F32), (13, DType::Bool)] {
            let made = infer_dropout(&op("Dropout", version), &[Some(&x)], 2).unwrap();
            assert_eq!(made, [Some(x.clone()), Some(fact(mask))]);
        }
    }
}

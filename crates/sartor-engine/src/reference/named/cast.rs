//! `CastLike` (<https://onnx.ai/onnx/operators/onnx__CastLike.html>).

use sartor_ir::{DType, Named};

use super::Rule;
use crate::{
    Array,
    reference::{cast, evaluate::array},
};

pub(super) const RULES: &[Rule] = &[Rule { domain: "", name: "CastLike", evaluate: cast_like }];

fn cast_like(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    let saturate = op.attributes.clone().flag("saturate", true)?;
    let to = dtypes.first().copied().unwrap_or(array(inputs, 1)?.dtype());
    Ok(vec![cast::cast(array(inputs, 0)?, to, saturate)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Data;
    use sartor_ir::Attrs;

    fn op(name: &str, attributes: Attrs) -> Named {
        Named { domain: String::new(), name: name.to_owned(), version: 22, attributes }
    }

    #[test]
    fn the_target_type_is_that_of_the_value() {
        let x = Array::f32(&[2], vec![1.7, -2.2]);
        let like = Array { shape: vec![0], data: Data::I32(Vec::new()) };
        let op = op("CastLike", Attrs::new());
        let made = cast_like(&op, &[Some(&x), Some(&like)], &[DType::I32]).unwrap();
        assert_eq!(made[0].data, Data::I32(vec![1, -2]));
    }
}

//! `CastLike` (<https://onnx.ai/onnx/operators/onnx__CastLike.html>), whose target type is that of a value.

use super::{Entry, no_axes};
use crate::{Fact, Named};

pub(super) const ENTRIES: &[Entry] =
    &[Entry { domain: "", name: "CastLike", infer: infer_cast_like, axes: no_axes }];

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
fn infer_cast_like(
    _: &Named,
    inputs: &[Option<&Fact>],
    _: usize,
) -> Result<Vec<Option<Fact>>, String> {
    let [Some(x), Some(like)] = inputs else { return Ok(vec![None]) };
    Ok(vec![Some(x.with_dtype(like.ty.dtype))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attrs, DType, TensorType};

    #[test]
    fn the_type_is_that_of_the_second_value() {
        let fact = |dtype| Fact::of(TensorType::fixed(dtype, &[2, 3]));
        let (x, like) = (fact(DType::F32), fact(DType::F16));
        let op = Named {
            domain: String::new(),
            name: "CastLike".to_owned(),
            version: 19,
            attributes: Attrs::new(),
        };
        let made = infer_cast_like(&op, &[Some(&x), Some(&like)], 1).unwrap();
        assert_eq!(made, [Some(like)]);
    }
}

//! `CastLike` (<https://onnx.ai/onnx/operators/onnx__CastLike.html>), and the forms of `Dropout`
//! (<https://onnx.ai/onnx/operators/onnx__Dropout.html>) that may draw numbers.

use sartor_ir::{DType, Named};

use super::Rule;
use crate::{
    Array, Data,
    reference::{cast, evaluate::array},
    train::dropout,
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "CastLike", evaluate: cast_like },
    Rule { domain: "", name: "Dropout", evaluate: drop_out },
];

fn cast_like(
    op: &Named,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    let saturate = op.attributes.clone().flag("saturate", true)?;
    let to = dtypes.first().copied().unwrap_or(array(inputs, 1)?.dtype());
    Ok(vec![cast::cast(array(inputs, 0)?, to, saturate)])
}

/// The input and a mask of ones where nothing is to be learned; else what `seed` draws, the same at each run.
fn drop_out(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Result<Vec<Array>, String> {
    let x = array(inputs, 0)?;
    let training = inputs.get(2).copied().flatten().is_some_and(|it| it.to_i64() == [1]);
    let ratio = if op.version >= 12 && training { dropout::ratio(inputs)? } else { 0.0 };
    let seed = op.attributes.clone().int("seed", 0)?.cast_unsigned();
    let factors = dropout::mask(x.len(), ratio, seed, 0);
    let dropped = x.to_f64().into_iter().zip(&factors).map(|(x, by)| x * f64::from(*by)).collect();
    let dropped = Array { shape: x.shape.clone(), data: Data::F64(dropped) };
    let kept = factors.iter().map(|it| *it != 0.0).collect();
    let mask = Array { shape: x.shape.clone(), data: Data::Bool(kept) };
    let types = [x.dtype(), DType::Bool];
    let dtype = |i: usize| dtypes.get(i).copied().unwrap_or(types[i]);
    Ok(vec![cast::cast(&dropped, dtype(0), true), cast::cast(&mask, dtype(1), true)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use sartor_ir::{Attr, Attrs};

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

    #[test]
    fn dropout_draws_only_in_training() {
        let x = Array::f32(&[1000], vec![1.0; 1000]);
        let ratio = Array::scalar(Data::F32(vec![0.25]));
        let truth = |it| Array::scalar(Data::Bool(vec![it]));
        let op = op("Dropout", Attrs::new().with("seed", Attr::Int(5)));
        let types = [DType::F32, DType::Bool];
        let run = |training: &Array| {
            drop_out(&op, &[Some(&x), Some(&ratio), Some(training)], &types).unwrap()
        };
        assert_eq!(run(&truth(false))[0], x);
        let made = run(&truth(true));
        let (values, mask) = (made[0].as_f32().unwrap(), made[1].to_i64());
        assert!(
            values.iter().zip(&mask).all(|(x, kept)| (*x - 4.0 / 3.0 * *kept as f32).abs() < 1e-6)
        );
        let kept: i64 = mask.iter().sum();
        assert!((700..800).contains(&kept), "{kept}");
        assert_eq!(made, run(&truth(true)));
    }
}

//! Bits, remainders and marks of odd floats (<https://onnx.ai/onnx/operators/onnx__BitShift.html>,
//! <https://onnx.ai/onnx/operators/onnx__Mod.html>, <https://onnx.ai/onnx/operators/onnx__IsInf.html>).

use sartor_ir::{Binary, DType, Named, Op};

use super::Rule;
use crate::{
    Array, Data,
    reference::{
        evaluate::{array, evaluate, joint_shape},
        layout::View,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "BitShift", evaluate: shift },
    Rule { domain: "", name: "BitwiseAnd", evaluate: bitwise },
    Rule { domain: "", name: "BitwiseOr", evaluate: bitwise },
    Rule { domain: "", name: "BitwiseXor", evaluate: bitwise },
    Rule { domain: "", name: "BitwiseNot", evaluate: bitwise_not },
    Rule { domain: "", name: "Mod", evaluate: remainder },
    Rule { domain: "", name: "IsInf", evaluate: is_infinite },
    Rule { domain: "", name: "IsNaN", evaluate: is_nan },
];

type Made = Result<Vec<Array>, String>;

/// A shape and the elements of two operands.
type Pair<T> = (Vec<usize>, Vec<T>, Vec<T>);

/// Inputs 0 and 1 broadcast to their joint shape.
fn spread<T: Copy>(
    inputs: &[Option<&Array>],
    read: impl Fn(&Array) -> Vec<T>,
) -> Result<Pair<T>, String> {
    let (a, b) = (array(inputs, 0)?, array(inputs, 1)?);
    let shape = joint_shape(&[&a.shape, &b.shape])?;
    let one = |it: &Array| {
        let view = View::expand(&it.shape, &shape).ok_or("the shapes do not broadcast")?;
        Ok::<_, String>(view.read(&read(it)))
    };
    let (a, b) = (one(a)?, one(b)?);
    Ok((shape, a, b))
}

/// Integers combined one by one, of the type of input 0.
fn combined(inputs: &[Option<&Array>], f: impl Fn(i64, i64) -> i64) -> Made {
    let dtype = array(inputs, 0)?.dtype();
    if dtype.is_float() || dtype != array(inputs, 1)?.dtype() {
        return Err("the operands are no integers of one type".to_owned());
    }
    let (shape, a, b) = spread(inputs, Array::to_i64)?;
    let numbers = a.into_iter().zip(b).map(|(a, b)| f(a, b)).collect();
    Ok(vec![Array { shape, data: Data::from_integers(numbers, dtype) }])
}

/// Bits that leave the type are lost; zeros come in.
fn shift(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let by = |b: i64| u32::try_from(b).unwrap_or(64);
    let bits = |it: i64| it.cast_unsigned();
    match op.text("direction", "")? {
        "LEFT" => combined(inputs, |a, b| bits(a).checked_shl(by(b)).unwrap_or(0).cast_signed()),
        "RIGHT" => combined(inputs, |a, b| bits(a).checked_shr(by(b)).unwrap_or(0).cast_signed()),
        other => Err(format!("attribute `direction`: `{other}` is neither LEFT nor RIGHT")),
    }
}

fn bitwise(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    match op.name.as_str() {
        "BitwiseAnd" => combined(inputs, |a, b| a & b),
        "BitwiseOr" => combined(inputs, |a, b| a | b),
        _ => combined(inputs, |a, b| a ^ b),
    }
}

fn bitwise_not(_: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    if x.dtype().is_float() {
        return Err("floats have no bits to turn".to_owned());
    }
    let turned = x.to_i64().into_iter().map(|it| !it).collect();
    Ok(vec![Array { shape: x.shape.clone(), data: Data::from_integers(turned, x.dtype()) }])
}

/// With `fmod` the remainder has the dividend's sign, as in C, else the divisor's, as in Python.
fn remainder(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let c = op.flag("fmod", false)?;
    let (a, b) = (array(inputs, 0)?, array(inputs, 1)?);
    if a.dtype() != b.dtype() {
        return Err(format!("{} modulo {} is not defined", a.dtype(), b.dtype()));
    }
    if a.dtype().is_float() {
        let (shape, x, y) = spread(inputs, Array::to_f64)?;
        let one = |(x, y): (f64, f64)| {
            let rest = x % y;
            if !c && rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
        };
        let data = Data::F64(x.into_iter().zip(y).map(one).collect());
        let made = Array { shape, data }.cast(a.dtype());
        return Ok(vec![made.ok_or("there is no such float type")?]);
    }
    if c && a.dtype() != DType::U64 {
        return combined(inputs, |a, b| a.checked_rem(b).unwrap_or(0));
    }
    evaluate(&Op::Binary(Binary::Mod), inputs, dtypes)
}

/// Truth values of the floats of input 0.
fn marks(inputs: &[Option<&Array>], f: impl Fn(f64) -> bool) -> Made {
    let x = array(inputs, 0)?;
    let data = Data::Bool(x.to_f64().into_iter().map(f).collect());
    Ok(vec![Array { shape: x.shape.clone(), data }])
}

fn is_infinite(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (below, above) = (op.flag("detect_negative", true)?, op.flag("detect_positive", true)?);
    marks(inputs, |it| it.is_infinite() && if it < 0.0 { below } else { above })
}

fn is_nan(_: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    marks(inputs, f64::is_nan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{named, run};
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn shifts_and_remainders() {
        let array = |data| Array { shape: vec![3], data };
        let bytes = array(Data::U8(vec![200, 4, 1]));
        let by = array(Data::U8(vec![1, 2, 9]));
        let way = |word: &str| Attrs::new().with("direction", Attr::Str(word.into()));
        let left = run(&named("BitShift", way("LEFT")), &[&bytes, &by]);
        assert_eq!(left[0].data, Data::U8(vec![144, 16, 0]));
        let right = run(&named("BitShift", way("RIGHT")), &[&bytes, &by]);
        assert_eq!(right[0].data, Data::U8(vec![100, 1, 0]));
        let not = run(&named("BitwiseNot", Attrs::new()), &[&bytes]);
        assert_eq!(not[0].data, Data::U8(vec![55, 251, 254]));
        let (a, b) = (array(Data::I32(vec![-7, 7, -7])), array(Data::I32(vec![3, -3, 0])));
        for (c, expected) in [(0, vec![2, -2, 0]), (1, vec![-1, 1, 0])] {
            let op = named("Mod", Attrs::new().with("fmod", Attr::Int(c)));
            assert_eq!(run(&op, &[&a, &b])[0].data, Data::I32(expected));
        }
    }
}

//! Elementwise operators over arrays of every type, with broadcasting.

use half::{bf16, f16};
use sartor_ir::{Binary, DType, Op, Unary, Variadic};

use super::{View, array, floats, joint_shape, optional};
use crate::{
    Array, Data,
    array::each,
    reference::elementwise::{self, Number},
};

pub(super) fn evaluate(op: &Op, inputs: &[Option<&Array>]) -> Result<Array, String> {
    match op {
        Op::Unary(it) => unary(*it, array(inputs, 0)?),
        Op::Binary(it) => binary(*it, array(inputs, 0)?, array(inputs, 1)?),
        Op::Variadic(it) => variadic(*it, inputs),
        Op::Clip => clip(inputs),
        Op::PRelu => prelu(inputs),
        Op::Where => choose(inputs),
        Op::Cast(it) => Ok(cast(array(inputs, 0)?, it.to)),
        _ => Err("is not elementwise".to_owned()),
    }
}

/// Integers as another integer type, wrapping; truth values are "not 0".
pub(super) fn narrowed(values: Vec<i64>, to: DType) -> Data {
    match to {
        DType::I32 => Data::I32(values.into_iter().map(|it| it as i32).collect()),
        DType::I8 => Data::I8(values.into_iter().map(|it| it as i8).collect()),
        DType::U8 => Data::U8(values.into_iter().map(|it| it as u8).collect()),
        DType::Bool => Data::Bool(values.into_iter().map(|it| it != 0).collect()),
        DType::F32 => Data::F32(values.into_iter().map(|it| it as f32).collect()),
        _ => Data::I64(values),
    }
}

fn unary(op: Unary, x: &Array) -> Result<Array, String> {
    let data = match (&x.data, op) {
        (Data::F32(values), _) => {
            Data::F32(values.iter().map(|&it| elementwise::unary(op, it)).collect())
        }
        (Data::Bool(values), Unary::Not) => Data::Bool(values.iter().map(|it| !it).collect()),
        (Data::Bool(_), _) => return Err(format!("{op:?} of truth values is not defined")),
        (_, Unary::Abs | Unary::Neg | Unary::Sign | Unary::Relu) => {
            let one = |it: i64| match op {
                Unary::Abs => it.wrapping_abs(),
                Unary::Neg => it.wrapping_neg(),
                Unary::Sign => it.signum(),
                _ => it.max(0),
            };
            narrowed(x.to_i64().into_iter().map(one).collect(), x.dtype())
        }
        _ => return Err(format!("{op:?} of {} is not defined", x.dtype())),
    };
    Ok(Array { shape: x.shape.clone(), data })
}

/// `array` broadcast to `shape`.
fn expanded(array: &Array, shape: &[usize]) -> Result<Data, String> {
    if array.shape == shape {
        return Ok(array.data.clone());
    }
    let view = View::expand(&array.shape, shape);
    let view =
        view.ok_or_else(|| format!("shape {:?} does not broadcast to {shape:?}", array.shape))?;
    Ok(each!(&array.data, values => view.read(values)))
}

fn pairs<T: Copy, U>(a: &[T], b: &[T], f: impl Fn(T, T) -> U) -> Vec<U> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

fn computed<T: Number>(op: Binary, a: &[T], b: &[T], wrap: fn(Vec<T>) -> Data) -> Data {
    if op.is_predicate() {
        Data::Bool(pairs(a, b, |a, b| elementwise::compare(op, a, b)))
    } else {
        wrap(pairs(a, b, |a, b| T::arithmetic(op, a, b)))
    }
}

fn binary(op: Binary, a: &Array, b: &Array) -> Result<Array, String> {
    let shape = joint_shape(&[&a.shape, &b.shape])?;
    // The exponent of Pow may be of another type.
    let converted =
        if op == Binary::Pow && a.dtype() != b.dtype() { Some(cast(b, a.dtype())) } else { None };
    let (wide_a, wide_b) =
        (expanded(a, &shape)?, expanded(converted.as_ref().unwrap_or(b), &shape)?);
    let data = match (&wide_a, &wide_b) {
        (Data::F32(a), Data::F32(b)) => computed(op, a, b, Data::F32),
        (Data::I64(a), Data::I64(b)) => computed(op, a, b, Data::I64),
        (Data::I32(a), Data::I32(b)) => computed(op, a, b, Data::I32),
        (Data::I8(a), Data::I8(b)) => computed(op, a, b, Data::I8),
        (Data::U8(a), Data::U8(b)) => computed(op, a, b, Data::U8),
        (Data::Bool(a), Data::Bool(b)) if op.is_predicate() => {
            Data::Bool(pairs(a, b, |a, b| elementwise::logical(op, a, b)))
        }
        _ => return Err(format!("{op:?} of {} and {} is not defined", a.dtype(), b.dtype())),
    };
    Ok(Array { shape, data })
}

fn variadic(op: Variadic, inputs: &[Option<&Array>]) -> Result<Array, String> {
    fn fold<T: Number>(op: Variadic, a: &[T], b: &[T]) -> Vec<T> {
        match op {
            Variadic::Max => pairs(a, b, elementwise::larger),
            Variadic::Min => pairs(a, b, elementwise::smaller),
            Variadic::Sum | Variadic::Mean => pairs(a, b, |a, b| T::arithmetic(Binary::Add, a, b)),
        }
    }
    let shapes: Vec<_> = inputs.iter().flatten().map(|it| it.shape.as_slice()).collect();
    let shape = joint_shape(&shapes)?;
    let mut data = expanded(array(inputs, 0)?, &shape)?;
    for other in inputs.iter().skip(1).flatten() {
        data = match (&data, &expanded(other, &shape)?) {
            (Data::F32(a), Data::F32(b)) => Data::F32(fold(op, a, b)),
            (Data::I64(a), Data::I64(b)) => Data::I64(fold(op, a, b)),
            (Data::I32(a), Data::I32(b)) => Data::I32(fold(op, a, b)),
            (Data::I8(a), Data::I8(b)) => Data::I8(fold(op, a, b)),
            (Data::U8(a), Data::U8(b)) => Data::U8(fold(op, a, b)),
            _ => return Err(format!("{op:?} of these types is not defined")),
        };
    }
    if op == Variadic::Mean {
        let Data::F32(values) = &mut data else {
            return Err("Mean of integers is not defined".to_owned());
        };
        for it in values {
            *it /= shapes.len() as f32;
        }
    }
    Ok(Array { shape, data })
}

fn clip(inputs: &[Option<&Array>]) -> Result<Array, String> {
    let x = array(inputs, 0)?;
    let data = if let Data::F32(values) = &x.data {
        let bound = |i: usize, open: f32| match optional(inputs, i) {
            None => Ok(open),
            Some(it) => it.to_f32().first().copied().ok_or_else(|| format!("bound {i} is empty")),
        };
        let (low, high) = (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?);
        Data::F32(values.iter().map(|&it| elementwise::clip(it, low, high)).collect())
    } else {
        let bound = |i: usize, open: i64| {
            optional(inputs, i).and_then(|it| it.to_i64().first().copied()).unwrap_or(open)
        };
        let (low, high) = (bound(1, i64::MIN), bound(2, i64::MAX));
        narrowed(x.to_i64().into_iter().map(|it| it.max(low).min(high)).collect(), x.dtype())
    };
    Ok(Array { shape: x.shape.clone(), data })
}

fn prelu(inputs: &[Option<&Array>]) -> Result<Array, String> {
    let x = array(inputs, 0)?;
    let Data::F32(slope) = expanded(array(inputs, 1)?, &x.shape)? else {
        return Err("the slope is not f32".to_owned());
    };
    let one = |(&x, slope): (&f32, f32)| if x < 0.0 { slope * x } else { x };
    Ok(Array::f32(&x.shape, floats(inputs, 0)?.iter().zip(slope).map(one).collect()))
}

fn pick<T: Copy>(first: &[bool], a: &[T], b: &[T]) -> Vec<T> {
    first.iter().zip(a.iter().zip(b)).map(|(&first, (&a, &b))| if first { a } else { b }).collect()
}

fn choose(inputs: &[Option<&Array>]) -> Result<Array, String> {
    let (condition, a, b) = (array(inputs, 0)?, array(inputs, 1)?, array(inputs, 2)?);
    let shape = joint_shape(&[&condition.shape, &a.shape, &b.shape])?;
    let Data::Bool(first) = expanded(condition, &shape)? else {
        return Err(format!("the condition is {}, expected bool", condition.dtype()));
    };
    let (wide_a, wide_b) = (expanded(a, &shape)?, expanded(b, &shape)?);
    let data = match (&wide_a, &wide_b) {
        (Data::F32(a), Data::F32(b)) => Data::F32(pick(&first, a, b)),
        (Data::I64(a), Data::I64(b)) => Data::I64(pick(&first, a, b)),
        (Data::I32(a), Data::I32(b)) => Data::I32(pick(&first, a, b)),
        (Data::I8(a), Data::I8(b)) => Data::I8(pick(&first, a, b)),
        (Data::U8(a), Data::U8(b)) => Data::U8(pick(&first, a, b)),
        (Data::Bool(a), Data::Bool(b)) => Data::Bool(pick(&first, a, b)),
        _ => {
            return Err(format!(
                "the choices are {} and {}, expected one type",
                a.dtype(),
                b.dtype()
            ));
        }
    };
    Ok(Array { shape, data })
}

/// Conversion: floats to integers are truncated, integers wrap, narrower floats are rounded.
pub(super) fn cast(x: &Array, to: DType) -> Array {
    let integer = || match &x.data {
        Data::F32(values) if to == DType::Bool => {
            values.iter().map(|&it| i64::from(it != 0.0)).collect()
        }
        _ => x.to_i64(),
    };
    let data = match to {
        DType::F16 => {
            Data::F32(x.to_f32().into_iter().map(|it| f16::from_f32(it).to_f32()).collect())
        }
        DType::BF16 => {
            Data::F32(x.to_f32().into_iter().map(|it| bf16::from_f32(it).to_f32()).collect())
        }
        DType::F32 | DType::F64 => Data::F32(x.to_f32()),
        DType::U32 => Data::I64(integer().into_iter().map(|it| i64::from(it as u32)).collect()),
        DType::I16 => Data::I32(integer().into_iter().map(|it| i32::from(it as i16)).collect()),
        DType::U16 => Data::I32(integer().into_iter().map(|it| i32::from(it as u16)).collect()),
        _ => narrowed(integer(), to),
    };
    Array { shape: x.shape.clone(), data }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_and_types() {
        let a = Array { shape: vec![2, 1], data: Data::I32(vec![1, 2]) };
        let b = Array { shape: vec![3], data: Data::I32(vec![10, 20, 30]) };
        let sum = binary(Binary::Add, &a, &b).unwrap();
        assert_eq!(sum, Array { shape: vec![2, 3], data: Data::I32(vec![11, 21, 31, 12, 22, 32]) });
        let less = binary(Binary::Less, &a, &b).unwrap();
        assert_eq!(less.data, Data::Bool(vec![true; 6]));
        assert!(binary(Binary::Add, &a, &Array::f32(&[1], vec![1.0])).is_err());
        let squares = binary(
            Binary::Pow,
            &Array::f32(&[2], vec![3.0, -2.0]),
            &Array::scalar(Data::I64(vec![2])),
        );
        assert_eq!(squares.unwrap().data, Data::F32(vec![9.0, 4.0]));
    }

    #[test]
    fn casts() {
        let x = Array::f32(&[4], vec![-1.7, 0.3, 300.0, 1.0 / 3.0]);
        assert_eq!(cast(&x, DType::I64).data, Data::I64(vec![-1, 0, 300, 0]));
        assert_eq!(cast(&x, DType::Bool).data, Data::Bool(vec![true; 4]));
        assert_eq!(cast(&x, DType::F16).as_f32().unwrap()[3], 0.333_251_95);
    }
}

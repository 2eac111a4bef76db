//! Elementwise operators over arrays of every type, with broadcasting.

use sartor_ir::{Binary, DType, Op, Unary, Variadic};

use super::{View, array, joint_shape, optional};
use crate::{
    Array, Data,
    array::{Element, each},
    reference::{
        cast::cast,
        elementwise::{self, Float, Number},
    },
};

pub(super) fn evaluate(op: &Op, inputs: &[Option<&Array>]) -> Result<Array, String> {
    match op {
        Op::Unary(it) => unary(*it, array(inputs, 0)?),
        Op::Binary(it) => binary(*it, array(inputs, 0)?, array(inputs, 1)?),
        Op::Variadic(it) => variadic(*it, inputs),
        Op::Clip => clip(inputs),
        Op::PRelu => prelu(inputs),
        Op::Where => choose(inputs),
        Op::Cast(it) => Ok(cast(array(inputs, 0)?, it.to, it.saturate)),
        _ => Err("is not elementwise".to_owned()),
    }
}

/// The expression for arrays of numbers, `$values` the elements; what is given for truth values.
macro_rules! on_numbers {
    ($data:expr, $values:ident => $body:expr, $other:expr) => {
        match $data {
            Data::F32($values) => $body,
            Data::F64($values) => $body,
            Data::I64($values) => $body,
            Data::I32($values) => $body,
            Data::I16($values) => $body,
            Data::I8($values) => $body,
            Data::U64($values) => $body,
            Data::U32($values) => $body,
            Data::U16($values) => $body,
            Data::U8($values) => $body,
            Data::Bool(_) => $other,
        }
    };
}

fn unary(op: Unary, x: &Array) -> Result<Array, String> {
    fn all<T: Float>(op: Unary, values: &[T]) -> Data {
        T::wrap(values.iter().map(|&it| T::unary(op, it)).collect())
    }
    let data = match (&x.data, op) {
        (Data::F32(values), _) => all(op, values),
        (Data::F64(values), _) => all(op, values),
        (Data::Bool(values), Unary::Not) => Data::Bool(values.iter().map(|it| !it).collect()),
        (Data::Bool(_), _) => return Err(format!("{op:?} of truth values is not defined")),
        (Data::U64(_), Unary::Abs | Unary::Relu) => x.data.clone(),
        (Data::U64(values), Unary::Sign) => Data::U64(values.iter().map(|&it| it.min(1)).collect()),
        (_, Unary::Abs | Unary::Neg | Unary::Sign | Unary::Relu) => {
            let one = |it: i64| match op {
                Unary::Abs => it.wrapping_abs(),
                Unary::Neg => it.wrapping_neg(),
                Unary::Sign => it.signum(),
                _ => it.max(0),
            };
            Data::from_integers(x.to_i64().into_iter().map(one).collect(), x.dtype())
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

fn computed<T: Number>(op: Binary, a: &[T], b: &[T]) -> Data {
    if op.is_predicate() {
        Data::Bool(pairs(a, b, |a, b| elementwise::compare(op, a, b)))
    } else {
        T::wrap(pairs(a, b, |a, b| T::arithmetic(op, a, b)))
    }
}

/// A base of an integer type to the power of a float, and the other way round, are computed in 64 bits.
fn power(a: &Array, b: &Array) -> Result<Array, String> {
    let wide = |it: &Array| cast(it, DType::F64, true);
    let made = binary(Binary::Pow, &wide(a), &wide(b))?;
    Ok(cast(&made, a.dtype(), true))
}

fn binary(op: Binary, a: &Array, b: &Array) -> Result<Array, String> {
    // The exponent of Pow may be of another type.
    if op == Binary::Pow && a.dtype() != b.dtype() {
        if b.dtype().is_float() && !a.dtype().is_float() {
            return power(a, b);
        }
        return binary(op, a, &cast(b, a.dtype(), true));
    }
    let shape = joint_shape(&[&a.shape, &b.shape])?;
    let undefined = || format!("{op:?} of {} and {} is not defined", a.dtype(), b.dtype());
    let (wide_a, wide_b) = (expanded(a, &shape)?, expanded(b, &shape)?);
    let data = on_numbers!(&wide_a, a => computed(op, a, like(a, &wide_b).ok_or_else(undefined)?), {
        match (&wide_a, &wide_b) {
            (Data::Bool(a), Data::Bool(b)) if op.is_predicate() => {
                Data::Bool(pairs(a, b, |a, b| elementwise::logical(op, a, b)))
            }
            _ => return Err(undefined()),
        }
    });
    Ok(Array { shape, data })
}

/// The elements of `data` if they are of the type of `_first`.
fn like<'a, T: Element>(_first: &[T], data: &'a Data) -> Option<&'a [T]> {
    T::of(data)
}

fn variadic(op: Variadic, inputs: &[Option<&Array>]) -> Result<Array, String> {
    fn fold<T: Number>(op: Variadic, a: &[T], b: &[T]) -> Data {
        T::wrap(match op {
            Variadic::Max => pairs(a, b, elementwise::larger),
            Variadic::Min => pairs(a, b, elementwise::smaller),
            Variadic::Sum | Variadic::Mean => pairs(a, b, |a, b| T::arithmetic(Binary::Add, a, b)),
        })
    }
    let undefined = || format!("{op:?} of these types is not defined");
    let shapes: Vec<_> = inputs.iter().flatten().map(|it| it.shape.as_slice()).collect();
    let shape = joint_shape(&shapes)?;
    let mut data = expanded(array(inputs, 0)?, &shape)?;
    for other in inputs.iter().skip(1).flatten() {
        let other = expanded(other, &shape)?;
        data = on_numbers!(&data, a => fold(op, a, like(a, &other).ok_or_else(undefined)?), {
            return Err(undefined());
        });
    }
    if op == Variadic::Mean {
        let count = shapes.len() as f32;
        match &mut data {
            Data::F32(values) => values.iter_mut().for_each(|it| *it /= count),
            Data::F64(values) => values.iter_mut().for_each(|it| *it /= f64::from(count)),
            _ => return Err("Mean of integers is not defined".to_owned()),
        }
    }
    Ok(Array { shape, data })
}

fn clip(inputs: &[Option<&Array>]) -> Result<Array, String> {
    fn all<T: Number>(values: &[T], inputs: &[Option<&Array>]) -> Result<Data, String> {
        let bound = |i: usize, open: T| match optional(inputs, i) {
            None => Ok(open),
            Some(it) => it
                .values::<T>()
                .and_then(|it| it.first().copied())
                .ok_or_else(|| format!("bound {i} is empty or of another type than the input")),
        };
        let (low, high) = (bound(1, T::ENDS.0)?, bound(2, T::ENDS.1)?);
        Ok(T::wrap(values.iter().map(|&it| elementwise::clip(it, low, high)).collect()))
    }
    let x = array(inputs, 0)?;
    let data = on_numbers!(&x.data, values => all(values, inputs)?, {
        return Err("Clip of truth values is not defined".to_owned());
    });
    Ok(Array { shape: x.shape.clone(), data })
}

fn prelu(inputs: &[Option<&Array>]) -> Result<Array, String> {
    fn all<T: Number>(x: &[T], slope: &[T]) -> Data {
        let zero = T::default();
        let one = |x: T, slope: T| if x < zero { T::arithmetic(Binary::Mul, slope, x) } else { x };
        T::wrap(pairs(x, slope, one))
    }
    let x = array(inputs, 0)?;
    let slope = expanded(array(inputs, 1)?, &x.shape)?;
    let other = || format!("the slope is not {}", x.dtype());
    let data = on_numbers!(&x.data, x => all(x, like(x, &slope).ok_or_else(other)?), {
        return Err("PRelu of truth values is not defined".to_owned());
    });
    Ok(Array { shape: x.shape.clone(), data })
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
    let apart = || format!("the choices are {} and {}, expected one type", a.dtype(), b.dtype());
    let (wide_a, wide_b) = (expanded(a, &shape)?, expanded(b, &shape)?);
    let data = each!(&wide_a, a => pick(&first, a, like(a, &wide_b).ok_or_else(apart)?));
    Ok(Array { shape, data })
}

#[cfg(test)]
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
}

//! Elementwise mathematics.

use sartor_ir::{Binary, Unary};

/// The value of a unary operator at `x`.
pub fn unary(op: Unary, x: f32) -> f32 {
    let below = |value: f32| if x < 0.0 { value } else { x };
    match op {
        Unary::Relu => below(0.0),
        Unary::LeakyRelu { alpha } => below(alpha * x),
        Unary::Elu { alpha } => below(alpha * x.exp_m1()),
        Unary::Selu { alpha, gamma } => gamma * below(alpha * x.exp_m1()),
        Unary::Gelu { tanh: false } => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Unary::Gelu { tanh: true } => {
            let root = (2.0 / std::f32::consts::PI).sqrt();
            0.5 * x * (1.0 + (root * (x + 0.044_715 * x * x * x)).tanh())
        }
        Unary::HardSigmoid { alpha, beta } => clip(alpha * x + beta, 0.0, 1.0),
        Unary::HardSwish => x * clip(x / 6.0 + 0.5, 0.0, 1.0),
        Unary::Mish => x * softplus(x).tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::Tanh => x.tanh(),
        Unary::Abs => x.abs(),
        Unary::Ceil => x.ceil(),
        Unary::Cos => x.cos(),
        Unary::Erf => erf(x),
        Unary::Exp => x.exp(),
        Unary::Floor => x.floor(),
        Unary::Log => x.ln(),
        Unary::Neg => -x,
        Unary::Not => f32::from(u8::from(x == 0.0)),
        Unary::Reciprocal => 1.0 / x,
        Unary::Round => x.round_ties_even(),
        Unary::Sign if x == 0.0 || x.is_nan() => x,
        Unary::Sign => x.signum(),
        Unary::Sin => x.sin(),
        Unary::Sqrt => x.sqrt(),
    }
}

fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `min(max(x, low), high)` that passes NaN on.
pub fn clip(x: f32, low: f32, high: f32) -> f32 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

/// The error function, through the Chebyshev fit of `erfc` in Numerical Recipes (section 6.2), relative
/// error below 1.2e-7; near 0 by the first terms of its series, so that it keeps the sign and the slope.
pub fn erf(x: f32) -> f32 {
    const FIT: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let z = f64::from(x).abs();
    if z < 0.05 {
        let x = f64::from(x);
        let square = x * x;
        return (std::f64::consts::FRAC_2_SQRT_PI
            * x
            * (1.0 - square / 3.0 + square * square / 10.0)) as f32;
    }
    let t = 1.0 / (1.0 + 0.5 * z);
    let fit = FIT.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let erfc = t * (fit - z * z).exp();
    (1.0 - erfc).copysign(f64::from(x)) as f32
}

/// Arithmetic that numbers of all run-time types have.
pub trait Number: Copy + PartialOrd {
    /// The value of an arithmetic operator; predicates are [`compare`]'s.
    fn arithmetic(op: Binary, a: Self, b: Self) -> Self;
    /// Neither equal nor ordered to itself.
    fn is_nan(self) -> bool;
}

impl Number for f32 {
    fn arithmetic(op: Binary, a: f32, b: f32) -> f32 {
        match op {
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Pow if b.to_bits() == 2f32.to_bits() => a * a,
            Binary::Pow => a.powf(b),
            Binary::Mod => a % b,
            _ => a + b,
        }
    }

    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
}

macro_rules! integer {
    ($($t:ty),*) => { $(
        impl Number for $t {
            fn arithmetic(op: Binary, a: $t, b: $t) -> $t {
                match op {
                    Binary::Sub => a.wrapping_sub(b),
                    Binary::Mul => a.wrapping_mul(b),
                    // A quotient by 0 is undefined in ONNX; 0 keeps the engine from stopping.
                    Binary::Div => a.checked_div(b).unwrap_or(0),
                    Binary::Pow => u32::try_from(b).map_or(0, |it| a.wrapping_pow(it)),
                    // The remainder has the divisor's sign, as in Python.
                    Binary::Mod => {
                        let rest = a.checked_rem(b).unwrap_or(0);
                        if rest != 0 && (i64::from(rest) < 0) != (i64::from(b) < 0) { rest.wrapping_add(b) } else { rest }
                    }
                    _ => a.wrapping_add(b),
                }
            }

            fn is_nan(self) -> bool {
                false
            }
        }
    )* };
}
integer!(i64, i32, i8, u8);

/// The value of a comparison.
pub fn compare<T: Copy + PartialOrd>(op: Binary, a: T, b: T) -> bool {
    match op {
        Binary::Greater => a > b,
        Binary::GreaterOrEqual => a >= b,
        Binary::Less => a < b,
        Binary::LessOrEqual => a <= b,
        _ => a == b,
    }
}

/// The value of a logical operator.
pub fn logical(op: Binary, a: bool, b: bool) -> bool {
    match op {
        Binary::And => a && b,
        Binary::Or => a || b,
        Binary::Xor => a != b,
        _ => a == b,
    }
}

/// The larger of two, NaN if one is.
pub fn larger<T: Number>(a: T, b: T) -> T {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller of two, NaN if one is.
pub fn smaller<T: Number>(a: T, b: T) -> T {
    if a.is_nan() || a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unary_values() {
        let near = |op, x: f32, expected: f32| {
            let found = unary(op, x);
            assert!(
                (found - expected).abs() <= 2e-7 * expected.abs().max(1.0),
                "{op:?} of {x}: {found}, not {expected}"
            );
        };
        near(Unary::Gelu { tanh: false }, 1.0, 0.841_344_7);
        near(Unary::Gelu { tanh: true }, 1.0, 0.841_192);
        near(Unary::Erf, 0.5, 0.520_499_9);
        near(Unary::Erf, -2.0, -0.995_322_3);
        near(Unary::Erf, 1e-4, 1.128_379_2e-4);
        near(Unary::Softplus, 100.0, 100.0);
        near(Unary::Mish, 1.0, 0.865_098_4);
        near(Unary::HardSwish, 1.0, 0.666_666_7);
        near(Unary::Round, 2.5, 2.0);
        for (x, sign) in [(-3.0, -1.0), (0.0, 0.0), (0.5, 1.0), (7.0, 1.0)] {
            near(Unary::Sign, x, sign);
        }
        for op in [Unary::Relu, Unary::Sigmoid, Unary::Erf, Unary::Sign, Unary::HardSwish] {
            assert!(unary(op, f32::NAN).is_nan(), "{op:?} of NaN");
        }
    }

    #[test]
    fn integers_as_in_python() {
        assert_eq!(i64::arithmetic(Binary::Mod, -7, 3), 2);
        assert_eq!(i32::arithmetic(Binary::Mod, 7, -3), -2);
        assert_eq!(u8::arithmetic(Binary::Mod, 7, 3), 1);
        assert_eq!(i32::arithmetic(Binary::Div, i32::MIN, 0), 0);
        assert_eq!(i64::arithmetic(Binary::Pow, 3, 4), 81);
        assert!(larger(f32::NAN, 1.0).is_nan() && smaller(1.0, f32::NAN).is_nan());
    }
}

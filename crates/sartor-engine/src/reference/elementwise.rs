//! Elementwise mathematics.

use sartor_ir::{Binary, Unary};

use crate::array::Element;

/// Generates the value of a unary operator in one float type.
macro_rules! unary_in {
    ($(#[$doc:meta])* $name:ident, $softplus:ident, $t:ident, $erf:path) => {
        $(#[$doc])*
        pub fn $name(op: Unary, x: $t) -> $t {
            use std::$t::consts;
            let below = |value: $t| if x < 0.0 { value } else { x };
            let float = |it: f32| $t::from(it);
            match op {
                Unary::Relu => below(0.0),
                Unary::LeakyRelu { alpha } => below(float(alpha) * x),
                Unary::Elu { alpha } => below(float(alpha) * x.exp_m1()),
                Unary::Celu { alpha } => below(float(alpha) * (x / float(alpha)).exp_m1()),
                Unary::Selu { alpha, gamma } => {
                    float(gamma) * below(float(alpha) * x.exp_m1())
                }
                Unary::ThresholdedRelu { alpha } if x <= float(alpha) => 0.0,
                Unary::ThresholdedRelu { .. } => x,
                Unary::Shrink { bias, lambd } if x < -float(lambd) => x + float(bias),
                Unary::Shrink { bias, lambd } if x > float(lambd) => x - float(bias),
                Unary::Shrink { .. } => x * 0.0,
                Unary::Gelu { tanh: false } => {
                    0.5 * x * (1.0 + $erf(x * consts::FRAC_1_SQRT_2))
                }
                Unary::Gelu { tanh: true } => {
                    let root = (2.0 / consts::PI).sqrt();
                    0.5 * x * (1.0 + (root * (x + 0.044_715 * x * x * x)).tanh())
                }
                Unary::HardSigmoid { alpha, beta } => {
                    clip(float(alpha) * x + float(beta), 0.0, 1.0)
                }
                Unary::HardSwish => x * clip(x / 6.0 + 0.5, 0.0, 1.0),
                Unary::Mish => x * $softplus(x).tanh(),
                Unary::Swish { alpha } => x / (1.0 + (-float(alpha) * x).exp()),
                Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                Unary::Softplus => $softplus(x),
                Unary::Softsign => x / (1.0 + x.abs()),
                Unary::Abs => x.abs(),
                Unary::Ceil => x.ceil(),
                Unary::Erf => $erf(x),
                Unary::Exp => x.exp(),
                Unary::Floor => x.floor(),
                Unary::Log => x.ln(),
                Unary::Neg => -x,
                Unary::Not => $t::from(u8::from(x == 0.0)),
                Unary::Reciprocal => 1.0 / x,
                Unary::Round => x.round_ties_even(),
                Unary::Sign if x == 0.0 || x.is_nan() => x,
                Unary::Sign => x.signum(),
                Unary::Sqrt => x.sqrt(),
                Unary::Acos => x.acos(),
                Unary::Acosh => x.acosh(),
                Unary::Asin => x.asin(),
                Unary::Asinh => x.asinh(),
                Unary::Atan => x.atan(),
                Unary::Atanh => x.atanh(),
                Unary::Cos => x.cos(),
                Unary::Cosh => x.cosh(),
                Unary::Sin => x.sin(),
                Unary::Sinh => x.sinh(),
                Unary::Tan => x.tan(),
                Unary::Tanh => x.tanh(),
            }
        }

        fn $softplus(x: $t) -> $t {
            x.max(0.0) + (-x.abs()).exp().ln_1p()
        }
    };
}
unary_in! {
    /// The value of a unary operator at `x`.
    unary, softplus, f32, erf
}
unary_in! {
    /// As [`unary`], in double precision.
    unary_f64, softplus_f64, f64, libm::erf
}

/// `min(max(x, low), high)` that passes NaN on.
pub fn clip<T: PartialOrd>(x: T, low: T, high: T) -> T {
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
pub(crate) trait Number: Element + PartialOrd {
    /// Below and above every number.
    const ENDS: (Self, Self);
    /// The value of an arithmetic operator; predicates are [`compare`]'s.
    fn arithmetic(op: Binary, a: Self, b: Self) -> Self;
    /// Neither equal nor ordered to itself.
    fn is_nan(self) -> bool;
    /// `start + sum of a b`: floats are summed in 64 bits, integers wrap.
    fn dot(start: Self, pairs: impl Iterator<Item = (Self, Self)>) -> Self;
}

/// A float type of the run time.
pub(crate) trait Float: Number + Into<f64> {
    /// The nearest number of this type.
    fn narrow(x: f64) -> Self;
    /// The value of a unary operator.
    fn unary(op: Unary, x: Self) -> Self;
}

macro_rules! float {
    ($t:ty, $unary:path) => {
        impl Number for $t {
            const ENDS: (Self, Self) = (<$t>::NEG_INFINITY, <$t>::INFINITY);

            fn arithmetic(op: Binary, a: $t, b: $t) -> $t {
                match op {
                    Binary::Sub => a - b,
                    Binary::Mul => a * b,
                    Binary::Div => a / b,
                    Binary::Pow if b.to_bits() == <$t>::to_bits(2.0) => a * a,
                    Binary::Pow => a.powf(b),
                    Binary::Mod => a % b,
                    _ => a + b,
                }
            }

            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }

            fn dot(start: $t, pairs: impl Iterator<Item = ($t, $t)>) -> $t {
                let sum =
                    pairs.fold(f64::from(start), |sum, (a, b)| sum + f64::from(a) * f64::from(b));
                Float::narrow(sum)
            }
        }

        impl Float for $t {
            fn narrow(x: f64) -> $t {
                x as $t
            }

            fn unary(op: Unary, x: $t) -> $t {
                $unary(op, x)
            }
        }
    };
}
float!(f32, unary);
float!(f64, unary_f64);

macro_rules! integer {
    ($($t:ty),*) => { $(
        impl Number for $t {
            const ENDS: (Self, Self) = (<$t>::MIN, <$t>::MAX);

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
                        let apart = (i128::from(rest) < 0) != (i128::from(b) < 0);
                        if rest != 0 && apart { rest.wrapping_add(b) } else { rest }
                    }
                    _ => a.wrapping_add(b),
                }
            }

            fn is_nan(self) -> bool {
                false
            }

            fn dot(start: $t, pairs: impl Iterator<Item = ($t, $t)>) -> $t {
                pairs.fold(start, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(b)))
            }
        }
    )* };
}
integer!(i64, i32, i16, i8, u64, u32, u16, u8);

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
pub(crate) fn larger<T: Number>(a: T, b: T) -> T {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller of two, NaN if one is.
pub(crate) fn smaller<T: Number>(a: T, b: T) -> T {
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
        near(Unary::Celu { alpha: 2.0 }, -1.0, -0.786_938_7);
        near(Unary::Swish { alpha: 1.0 }, 1.0, 0.731_058_6);
        near(Unary::ThresholdedRelu { alpha: 2.0 }, 2.0, 0.0);
        near(Unary::Shrink { bias: 0.5, lambd: 1.5 }, -2.0, -1.5);
        for (x, sign) in [(-3.0, -1.0), (0.0, 0.0), (0.5, 1.0), (7.0, 1.0)] {
            near(Unary::Sign, x, sign);
        }
        for op in [Unary::Relu, Unary::Sigmoid, Unary::Erf, Unary::Sign, Unary::HardSwish] {
            assert!(unary(op, f32::NAN).is_nan(), "{op:?} of NaN");
        }
    }

    #[test]
    fn both_precisions_agree() {
        for i in -40..40i16 {
            let x = f32::from(i) * 0.11 + 0.01;
            for op in
                [Unary::Erf, Unary::Mish, Unary::Tanh, Unary::Asinh, Unary::Gelu { tanh: false }]
            {
                let (narrow, wide) = (f64::from(unary(op, x)), unary_f64(op, f64::from(x)));
                assert!((narrow - wide).abs() <= 1e-6 * wide.abs().max(0.1), "{op:?} of {x}");
            }
        }
    }

    #[test]
    fn integers_as_in_python() {
        assert_eq!(i64::arithmetic(Binary::Mod, -7, 3), 2);
        assert_eq!(i32::arithmetic(Binary::Mod, 7, -3), -2);
        assert_eq!(u8::arithmetic(Binary::Mod, 7, 3), 1);
        assert_eq!(i32::arithmetic(Binary::Div, i32::MIN, 0), 0);
        assert_eq!(i64::arithmetic(Binary::Pow, 3, 4), 81);
        assert_eq!(u64::arithmetic(Binary::Mod, u64::MAX, 10), 5);
        assert_eq!(i16::arithmetic(Binary::Add, i16::MAX, 1), i16::MIN);
        assert!(larger(f32::NAN, 1.0).is_nan() && smaller(1.0, f32::NAN).is_nan());
    }
}

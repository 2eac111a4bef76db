//! Elementwise operators (<https://onnx.ai/onnx/operators/>), without and with broadcasting.

use super::{required, shape_of, unless};
use crate::{
    Attr, AttrError, Attrs, AxisLink, DType, Dim, Fact, Port, TensorType,
    shape::{broadcast, list},
};

/// One input, elementwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// `max(x, 0)`.
    Relu,
    /// `x` or `alpha x` below 0.
    LeakyRelu {
        /// Slope below 0.
        alpha: f32,
    },
    /// `x` or `alpha (exp(x) - 1)` below 0.
    Elu {
        /// Limit below 0.
        alpha: f32,
    },
    /// `gamma` times `x`, or `gamma alpha (exp(x) - 1)` below 0.
    Selu {
        /// Limit below 0.
        alpha: f32,
        /// Overall factor.
        gamma: f32,
    },
    /// `max(x, 0) + min(0, alpha (exp(x / alpha) - 1))`.
    Celu {
        /// Limit below 0.
        alpha: f32,
    },
    /// `x` above `alpha`, else 0.
    ThresholdedRelu {
        /// Threshold.
        alpha: f32,
    },
    /// `x` moved towards 0 by `bias` outside of `[-lambd, lambd]`, 0 within.
    Shrink {
        /// Distance.
        bias: f32,
        /// Half width of the dead zone.
        lambd: f32,
    },
    /// `x / (1 + exp(-alpha x))`.
    Swish {
        /// Steepness.
        alpha: f32,
    },
    /// Gauss error linear unit.
    Gelu {
        /// Whether by the tanh approximation.
        tanh: bool,
    },
    /// `clamp(alpha x + beta, 0, 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `x clamp(x / 6 + 1/2, 0, 1)`.
    HardSwish,
    /// `x tanh(softplus(x))`.
    Mish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// Hyperbolic tangent.
    Tanh,
    /// Magnitude.
    Abs,
    /// Upwards to an integer.
    Ceil,
    /// Inverse cosine.
    Acos,
    /// Inverse hyperbolic cosine.
    Acosh,
    /// Inverse sine.
    Asin,
    /// Inverse hyperbolic sine.
    Asinh,
    /// Inverse tangent.
    Atan,
    /// Inverse hyperbolic tangent.
    Atanh,
    /// Cosine.
    Cos,
    /// Hyperbolic cosine.
    Cosh,
    /// Error function.
    Erf,
    /// Exponential.
    Exp,
    /// Downwards to an integer.
    Floor,
    /// Natural logarithm.
    Log,
    /// `-x`.
    Neg,
    /// Logical not.
    Not,
    /// `1 / x`.
    Reciprocal,
    /// To the nearest integer, ties to even.
    Round,
    /// -1, 0 or 1.
    Sign,
    /// Sine.
    Sin,
    /// Hyperbolic sine.
    Sinh,
    /// Tangent.
    Tan,
    /// Square root.
    Sqrt,
}

/// ONNX's default `alpha` and `gamma` of `Selu`.
const SELU: (f32, f32) = (1.673_263_2, 1.050_701);

/// Operators without attributes.
const PLAIN: &[(Unary, &str)] = &[
    (Unary::Relu, "Relu"),
    (Unary::HardSwish, "HardSwish"),
    (Unary::Mish, "Mish"),
    (Unary::Sigmoid, "Sigmoid"),
    (Unary::Softplus, "Softplus"),
    (Unary::Softsign, "Softsign"),
    (Unary::Tanh, "Tanh"),
    (Unary::Abs, "Abs"),
    (Unary::Ceil, "Ceil"),
    (Unary::Acos, "Acos"),
    (Unary::Acosh, "Acosh"),
    (Unary::Asin, "Asin"),
    (Unary::Asinh, "Asinh"),
    (Unary::Atan, "Atan"),
    (Unary::Atanh, "Atanh"),
    (Unary::Cos, "Cos"),
    (Unary::Cosh, "Cosh"),
    (Unary::Erf, "Erf"),
    (Unary::Exp, "Exp"),
    (Unary::Floor, "Floor"),
    (Unary::Log, "Log"),
    (Unary::Neg, "Neg"),
    (Unary::Not, "Not"),
    (Unary::Reciprocal, "Reciprocal"),
    (Unary::Round, "Round"),
    (Unary::Sign, "Sign"),
    (Unary::Sin, "Sin"),
    (Unary::Sinh, "Sinh"),
    (Unary::Tan, "Tan"),
    (Unary::Sqrt, "Sqrt"),
];

impl Unary {
    pub(super) fn build(name: &str, attrs: &mut Attrs) -> Option<Result<Self, AttrError>> {
        if let Some(row) = PLAIN.iter().find(|row| row.1 == name) {
            return Some(Ok(row.0));
        }
        Some(match name {
            "LeakyRelu" => attrs.float("alpha", 0.01).map(|alpha| Unary::LeakyRelu { alpha }),
            "Elu" => attrs.float("alpha", 1.0).map(|alpha| Unary::Elu { alpha }),
            "Selu" => attrs.float("alpha", SELU.0).and_then(|alpha| {
                let gamma = attrs.float("gamma", SELU.1)?;
                Ok(Unary::Selu { alpha, gamma })
            }),
            "Celu" => attrs.float("alpha", 1.0).map(|alpha| Unary::Celu { alpha }),
            "ThresholdedRelu" => {
                attrs.float("alpha", 1.0).map(|alpha| Unary::ThresholdedRelu { alpha })
            }
            "Swish" => attrs.float("alpha", 1.0).map(|alpha| Unary::Swish { alpha }),
            "Shrink" => attrs.float("bias", 0.0).and_then(|bias| {
                let lambd = attrs.float("lambd", 0.5)?;
                Ok(Unary::Shrink { bias, lambd })
            }),
            "HardSigmoid" => attrs.float("alpha", 0.2).and_then(|alpha| {
                let beta = attrs.float("beta", 0.5)?;
                Ok(Unary::HardSigmoid { alpha, beta })
            }),
            "Gelu" => {
                attrs.text("approximate", "none").map(|it| Unary::Gelu { tanh: it == "tanh" })
            }
            _ => return None,
        })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Unary::LeakyRelu { .. } => "LeakyRelu",
            Unary::Elu { .. } => "Elu",
            Unary::Selu { .. } => "Selu",
            Unary::Celu { .. } => "Celu",
            Unary::ThresholdedRelu { .. } => "ThresholdedRelu",
            Unary::Shrink { .. } => "Shrink",
            Unary::Swish { .. } => "Swish",
            Unary::HardSigmoid { .. } => "HardSigmoid",
            Unary::Gelu { .. } => "Gelu",
            _ => {
                PLAIN
                    .iter()
                    .find(|row| row.0 == *self)
                    .expect("every plain operator has a row in PLAIN")
                    .1
            }
        }
    }

    pub(super) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        match *self {
            Unary::LeakyRelu { alpha } => unless(&mut attrs, "alpha", alpha, 0.01, Attr::Float),
            Unary::Elu { alpha }
            | Unary::Celu { alpha }
            | Unary::ThresholdedRelu { alpha }
            | Unary::Swish { alpha } => unless(&mut attrs, "alpha", alpha, 1.0, Attr::Float),
            Unary::Shrink { bias, lambd } => {
                unless(&mut attrs, "bias", bias, 0.0, Attr::Float);
                unless(&mut attrs, "lambd", lambd, 0.5, Attr::Float);
            }
            Unary::Selu { alpha, gamma } => {
                unless(&mut attrs, "alpha", alpha, SELU.0, Attr::Float);
                unless(&mut attrs, "gamma", gamma, SELU.1, Attr::Float);
            }
            Unary::HardSigmoid { alpha, beta } => {
                unless(&mut attrs, "alpha", alpha, 0.2, Attr::Float);
                unless(&mut attrs, "beta", beta, 0.5, Attr::Float);
            }
            Unary::Gelu { tanh: true } => attrs.set("approximate", Attr::Str("tanh".to_owned())),
            _ => {}
        }
        attrs
    }

    /// Whether 0 goes to 0, so that a dead channel stays dead.
    pub fn keeps_zero(&self) -> bool {
        !matches!(
            self,
            Unary::Acos
                | Unary::Acosh
                | Unary::Cosh
                | Unary::Sigmoid
                | Unary::HardSigmoid { .. }
                | Unary::Softplus
                | Unary::Cos
                | Unary::Exp
                | Unary::Log
                | Unary::Not
                | Unary::Reciprocal
        ) && !matches!(self, Unary::Shrink { lambd, .. } if *lambd < 0.0)
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$variant_doc])* $variant),* }

        impl $type {
            pub(super) fn named(name: &str) -> Option<Self> {
                match name { $(stringify!($variant) => Some($type::$variant),)* _ => None }
            }

            pub(super) fn name(self) -> &'static str {
                match self { $($type::$variant => stringify!($variant)),* }
            }
        }
    };
}

named! {
    /// Two inputs, elementwise with broadcasting.
    Binary {
        /// `a + b`.
        Add,
        /// `a - b`.
        Sub,
        /// `a b`.
        Mul,
        /// `a / b`.
        Div,
        /// `a` to the power of `b`.
        Pow,
        /// Remainder.
        Mod,
        /// Logical and.
        And,
        /// Logical or.
        Or,
        /// Logical exclusive or.
        Xor,
        /// `a = b`.
        Equal,
        /// `a > b`.
        Greater,
        /// `a >= b`.
        GreaterOrEqual,
        /// `a < b`.
        Less,
        /// `a <= b`.
        LessOrEqual,
    }
}

named! {
    /// One or more inputs, elementwise with broadcasting.
    Variadic {
        /// Largest.
        Max,
        /// Smallest.
        Min,
        /// Sum.
        Sum,
        /// Mean.
        Mean,
    }
}

impl Binary {
    /// Whether the output is boolean whatever the inputs are.
    pub fn is_predicate(self) -> bool {
        !matches!(
            self,
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Pow | Binary::Mod
        )
    }

    pub(super) fn infer(self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let fact = infer_broadcast(inputs)?;
        Ok(if self.is_predicate() { fact.map(|it| it.with_dtype(DType::Bool)) } else { fact })
    }
}

/// Attributes of `Cast`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// Target type.
    pub to: DType,
    /// For 8-bit floats: whether numbers beyond the largest become the largest.
    pub saturate: bool,
}

impl Cast {
    /// To a type, saturating.
    pub fn to(to: DType) -> Self {
        Cast { to, saturate: true }
    }

    pub(super) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        let saturate = attrs.flag("saturate", true)?;
        let to = attrs.text("to", "")?.parse().map_err(|it: String| AttrError::new("to", it))?;
        Ok(Cast { to, saturate })
    }

    pub(super) fn attributes(self) -> Attrs {
        let mut attrs = Attrs::new().with("to", Attr::Str(self.to.name().to_owned()));
        unless(&mut attrs, "saturate", self.saturate, true, |it| Attr::Int(i64::from(it)));
        attrs
    }

    pub(super) fn infer(self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        Ok(infer_same(inputs)?.map(|it| it.with_dtype(self.to)))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "all inference rules have one signature")]
pub(super) fn infer_same(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    Ok(required(inputs, 0).map(|it| Fact::of(it.ty.clone())))
}

pub(super) fn infer_broadcast(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let Some(first) = required(inputs, 0) else { return Ok(None) };
    let mut shape: Option<Vec<Dim>> = first.ty.shape.clone();
    for i in 1..inputs.len() {
        shape = match (shape, shape_of(inputs, i)) {
            (Some(a), Some(b)) => Some(broadcast(&a, b)?),
            _ => None,
        };
    }
    Ok(Some(Fact::of(TensorType { dtype: first.ty.dtype, shape })))
}

pub(super) fn infer_prelu(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    if let (Some(x), Some(slope)) = (shape_of(inputs, 0), shape_of(inputs, 1))
        && broadcast(x, slope)?.len() != x.len()
    {
        return Err(format!("slope {} does not broadcast to input {}", list(slope), list(x)));
    }
    infer_same(inputs)
}

pub(super) fn infer_where(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let dtype = required(inputs, 1).map(|it| it.ty.dtype);
    Ok(infer_broadcast(inputs)?.zip(dtype).map(|(it, dtype)| it.with_dtype(dtype)))
}

/// Every axis of input 0 passes to the same axis of the outputs.
pub(super) fn axes_same(inputs: &[Option<&Fact>], outputs: &[Port]) -> Vec<AxisLink> {
    let rank = super::rank_of(inputs, 0).unwrap_or(0);
    let pass =
        |axis| outputs.iter().map(move |&out| AxisLink::same((Port::Input(0), axis), (out, axis)));
    (0..rank).flat_map(pass).collect()
}

/// Axes aligned at the end pass through; an extent of 1 that is broadcast takes no part.
pub(super) fn axes_broadcast(
    inputs: &[Option<&Fact>],
    outputs: &[Option<&TensorType>],
) -> Vec<AxisLink> {
    let Some(out) = outputs.first().copied().flatten().and_then(|it| it.shape.as_ref()) else {
        return Vec::new();
    };
    let mut links = Vec::new();
    for i in 0..inputs.len() {
        let Some(shape) = shape_of(inputs, i) else { continue };
        for (axis, dim) in shape.iter().enumerate() {
            let at = axis + out.len() - shape.len();
            if *dim == out[at] {
                links.push(AxisLink::same((Port::Input(i), axis), (Port::Output(0), at)));
            } else if *dim == Dim::Known(1) {
                links.push(AxisLink::Free { at: (Port::Input(i), axis) });
            }
        }
    }
    links
}

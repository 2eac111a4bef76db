//! Recurrent operators (<https://onnx.ai/onnx/operators/onnx__LSTM.html>,
//! <https://onnx.ai/onnx/operators/onnx__GRU.html>, <https://onnx.ai/onnx/operators/onnx__RNN.html>).
//!
//! Inputs are `X [steps, batch, input]`, `W [directions, gates hidden, input]`, `R [directions, gates
//! hidden, hidden]`, `B? [directions, 2 gates hidden]`, `sequence_lens? [batch]`, `initial_h? [directions,
//! batch, hidden]`, and of an `LSTM` `initial_c?` of the same shape and `P? [directions, 3 hidden]`; outputs
//! are `Y [steps, directions, batch, hidden]`, `Y_h [directions, batch, hidden]` and of an `LSTM` `Y_c`. With
//! `layout = 1` the batch is the first axis of `X`, `Y` and the states.

use super::{Entry, no_axes};
use crate::{DType, Dim, Fact, Named, TensorType, Unary, shape::list};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "GRU", infer, axes: no_axes },
    Entry { domain: "", name: "LSTM", infer, axes: no_axes },
    Entry { domain: "", name: "RNN", infer, axes: no_axes },
];

/// The kind of a recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// One function of input and state (Elman 1990).
    Rnn,
    /// Gated recurrent unit (Cho et al. 2014), gates in the order update, reset, hidden.
    Gru,
    /// Long short-term memory (Hochreiter & Schmidhuber 1997), gates in the order input, output, forget,
    /// cell.
    Lstm,
}

impl Cell {
    /// Blocks of `hidden` rows in the weights.
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }

    /// ONNX's default functions of one direction.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Cell::Rnn => &["Tanh"],
            Cell::Gru => &["Sigmoid", "Tanh"],
            Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// A function inside a recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// That of an operator.
    Unary(Unary),
    /// `alpha x + beta`.
    Affine {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `alpha tanh(beta x)`.
    ScaledTanh {
        /// Limit.
        alpha: f32,
        /// Steepness.
        beta: f32,
    },
}

impl Activation {
    /// The function of this name; those with parameters take them from the lists, in order.
    fn named(
        name: &str,
        alphas: &mut impl Iterator<Item = f32>,
        betas: &mut impl Iterator<Item = f32>,
    ) -> Result<Self, String> {
        let mut alpha = |default: f32| alphas.next().unwrap_or(default);
        let unary = match name.to_ascii_lowercase().as_str() {
            "relu" => Unary::Relu,
            "tanh" => Unary::Tanh,
            "sigmoid" => Unary::Sigmoid,
            "softsign" => Unary::Softsign,
            "softplus" => Unary::Softplus,
            "leakyrelu" => Unary::LeakyRelu { alpha: alpha(0.01) },
            "thresholdedrelu" => Unary::ThresholdedRelu { alpha: alpha(1.0) },
            "elu" => Unary::Elu { alpha: alpha(1.0) },
            "hardsigmoid" => {
                Unary::HardSigmoid { alpha: alpha(0.2), beta: betas.next().unwrap_or(0.5) }
            }
            "affine" => {
                let beta = betas.next().unwrap_or(0.0);
                return Ok(Activation::Affine { alpha: alpha(1.0), beta });
            }
            "scaledtanh" => {
                let beta = betas.next().unwrap_or(1.0);
                return Ok(Activation::ScaledTanh { alpha: alpha(1.0), beta });
            }
            _ => return Err(format!("`{name}` is no function of a recurrent cell")),
        };
        Ok(Activation::Unary(unary))
    }
}

/// The attributes of `RNN`, `GRU` and `LSTM`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// The kind of cell.
    pub cell: Cell,
    /// Whether each direction, in order, walks from the end to the start.
    pub reversed: Vec<bool>,
    /// Extent of the state, if it is said; else it follows from the weights.
    pub hidden: Option<usize>,
    /// The functions of each direction: of an `LSTM` those of gates, cell and output, of a `GRU` those of
    /// gates and hidden state.
    pub functions: Vec<Vec<Activation>>,
    /// What functions are applied to is limited to minus and plus this number.
    pub clip: f32,
    /// Of an `LSTM`: whether the forget gate is one minus the input gate.
    pub input_forget: bool,
    /// Of a `GRU`: whether the reset gate acts behind the recurrent product.
    pub linear_before_reset: bool,
    /// Whether the batch comes before the steps (`layout = 1`).
    pub batch_first: bool,
}

impl Recurrent {
    /// Reads the attributes.
    ///
    /// # Errors
    /// An operator that is not recurrent, or an attribute that is wrong.
    pub fn of(op: &Named) -> Result<Self, String> {
        let cell = match op.name.as_str() {
            "RNN" => Cell::Rnn,
            "GRU" => Cell::Gru,
            "LSTM" => Cell::Lstm,
            other => return Err(format!("`{other}` is not recurrent")),
        };
        let reversed = match op.text("direction", "forward")?.to_ascii_lowercase().as_str() {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(format!("direction `{other}` is not known")),
        };
        let list = |name| Ok::<_, String>(op.floats(name)?.unwrap_or_default().iter().copied());
        let (mut alphas, mut betas) = (list("activation_alpha")?, list("activation_beta")?);
        let defaults = cell.functions();
        let names = op.texts("activations")?.unwrap_or_default();
        let given: Vec<&str> = names.iter().map(String::as_str).collect();
        let names = if given.is_empty() { defaults.repeat(reversed.len()) } else { given };
        if names.len() != defaults.len() * reversed.len() {
            return Err(format!(
                "{} activations, expected {} for each of {} directions",
                names.len(),
                defaults.len(),
                reversed.len()
            ));
        }
        let mut functions = Vec::with_capacity(names.len());
        for name in names {
            functions.push(Activation::named(name, &mut alphas, &mut betas)?);
        }
        let hidden = op.int("hidden_size", 0)?;
        let clip = op.float("clip", 0.0)?;
        Ok(Recurrent {
            cell,
            reversed,
            hidden: usize::try_from(hidden).ok().filter(|it| *it > 0),
            functions: functions.chunks(defaults.len()).map(<[_]>::to_vec).collect(),
            clip: if clip > 0.0 { clip } else { f32::INFINITY },
            input_forget: op.flag("input_forget", false)?,
            linear_before_reset: op.flag("linear_before_reset", false)?,
            batch_first: op.flag("layout", false)?,
        })
    }
}

fn shape<'a>(
    inputs: &[Option<&'a Fact>],
    i: usize,
    rank: usize,
) -> Result<Option<&'a [Dim]>, String> {
    let known = inputs.get(i).copied().flatten().and_then(|it| it.ty.shape.as_deref());
    match known {
        Some(it) if it.len() != rank => {
            Err(format!("input {i} is {}, expected {rank} axes", list(it)))
        }
        known => Ok(known),
    }
}

fn infer(
    op: &Named,
    inputs: &[Option<&Fact>],
    n_outputs: usize,
) -> Result<Vec<Option<Fact>>, String> {
    let it = Recurrent::of(op)?;
    let (x, w, r) = (shape(inputs, 0, 3)?, shape(inputs, 1, 3)?, shape(inputs, 2, 3)?);
    let stored = r.map_or(Dim::Unknown, |it| it[2].clone());
    let hidden = it.hidden.map_or(stored.clone(), Dim::Known);
    if !hidden.compatible(&stored) {
        return Err(format!("`hidden_size` is {hidden}, R has {stored} columns"));
    }
    if let (Some(x), Some(w)) = (x, w)
        && !x[2].compatible(&w[2])
    {
        return Err(format!("input {} does not fit W {}", list(x), list(w)));
    }
    let rows = hidden.times(&Dim::Known(it.cell.gates()));
    for weights in [w, r].into_iter().flatten() {
        if !weights[0].compatible(&Dim::Known(it.reversed.len())) || !weights[1].compatible(&rows) {
            let (expected, found) = (it.reversed.len(), list(weights));
            return Err(format!("weights are {found}, expected [{expected},{rows},…]"));
        }
    }
    let Some(dtype) = inputs.first().copied().flatten().map(|it| it.ty.dtype) else {
        return Ok(vec![None; n_outputs]);
    };
    Ok(outputs(&it, dtype, x, &hidden, n_outputs))
}

fn outputs(
    it: &Recurrent,
    dtype: DType,
    x: Option<&[Dim]>,
    hidden: &Dim,
    n_outputs: usize,
) -> Vec<Option<Fact>> {
    let extent = |axis: usize| x.map_or(Dim::Unknown, |it| it[axis].clone());
    let directions = Dim::Known(it.reversed.len());
    let (all, last) = if it.batch_first {
        let (batch, steps) = (extent(0), extent(1));
        (
            vec![batch.clone(), steps, directions.clone(), hidden.clone()],
            vec![batch, directions, hidden.clone()],
        )
    } else {
        let (steps, batch) = (extent(0), extent(1));
        (
            vec![steps, directions.clone(), batch.clone(), hidden.clone()],
            vec![directions, batch, hidden.clone()],
        )
    };
    let fact = |shape: Vec<Dim>| Some(Fact::of(TensorType::new(dtype, shape)));
    [fact(all), fact(last.clone()), fact(last)].into_iter().take(n_outputs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attr, Attrs};

    fn named(attributes: Attrs) -> Named {
        Named { domain: String::new(), name: "LSTM".into(), version: 14, attributes }
    }

    #[test]
    fn functions_take_their_parameters_in_order() {
        let texts = |list: &[&str]| Attr::Strs(list.iter().map(|&it| it.to_owned()).collect());
        let attrs = Attrs::new()
            .with("activations", texts(&["HardSigmoid", "Tanh", "Elu"]))
            .with("activation_alpha", Attr::Floats(vec![0.3, 2.0]));
        let it = Recurrent::of(&named(attrs)).unwrap();
        let unary = Activation::Unary;
        assert_eq!(
            it.functions,
            [[
                unary(Unary::HardSigmoid { alpha: 0.3, beta: 0.5 }),
                unary(Unary::Tanh),
                unary(Unary::Elu { alpha: 2.0 }),
            ]]
        );
        let short = Attrs::new().with("activations", texts(&["Tanh"]));
        assert!(Recurrent::of(&named(short)).unwrap_err().contains("expected 3"));
    }

    #[test]
    fn shapes_by_layout_and_direction() {
        let fact = |shape: &[usize]| Fact::of(TensorType::fixed(DType::F32, shape));
        let (x, w, r) = (fact(&[5, 2, 3]), fact(&[2, 16, 3]), fact(&[2, 16, 4]));
        let attrs = Attrs::new().with("direction", Attr::Str("bidirectional".into()));
        let shapes = |attrs: Attrs| -> Result<Vec<String>, String> {
            let made = infer(&named(attrs), &[Some(&x), Some(&w), Some(&r)], 3)?;
            Ok(made.into_iter().flatten().map(|it| it.ty.to_string()).collect())
        };
        let plain = shapes(attrs.clone()).unwrap();
        assert_eq!(plain, ["f32[5,2,2,4]", "f32[2,2,4]", "f32[2,2,4]"]);
        let first = shapes(attrs.with("layout", Attr::Int(1))).unwrap();
        assert_eq!(first, ["f32[5,2,2,4]", "f32[5,2,4]", "f32[5,2,4]"]);
        assert!(shapes(Attrs::new()).unwrap_err().contains("expected [1,16,…]"));
    }
}

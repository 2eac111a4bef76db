//! Losses (<https://onnx.ai/onnx/operators/onnx__NegativeLogLikelihoodLoss.html>,
//! <https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>).

use sartor_ir::{DType, Named};

use super::{Lanes, Rule, output_shape};
use crate::{
    Array, Data,
    reference::{
        evaluate::{array, integers, optional},
        norm,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "NegativeLogLikelihoodLoss", evaluate: loss },
    Rule { domain: "", name: "SoftmaxCrossEntropyLoss", evaluate: loss },
];

type Made = Result<Vec<Array>, String>;

/// What becomes of the losses of all elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    None,
    Sum,
    /// Divided by the sum of the weights.
    Mean,
}

/// The elements of a loss: which score counts in each, and how much.
pub(crate) struct Terms {
    pub(crate) reduction: Reduction,
    /// Scores `[n, c, …]` along the classes.
    pub(crate) lanes: Lanes,
    /// The place of the target's score and its weight, for each element of the target; `None` if ignored.
    pub(crate) picks: Vec<Option<(usize, f64)>>,
}

impl Terms {
    /// # Errors
    /// Operands that do not fit, and a target that is no class.
    pub(crate) fn new(op: &Named, inputs: &[Option<&Array>]) -> Result<Self, String> {
        let reduction = match op.text("reduction", "mean")? {
            "mean" => Reduction::Mean,
            "sum" => Reduction::Sum,
            "none" => Reduction::None,
            other => return Err(format!("attribute `reduction`: `{other}` is not known")),
        };
        let ignored = match op.attributes.get("ignore_index") {
            Some(_) => Some(op.int("ignore_index", 0)?),
            None => None,
        };
        let scores = array(inputs, 0)?;
        output_shape(op, inputs)?;
        let lanes = Lanes::new(&scores.shape, 1);
        let weights = optional(inputs, 2).map(Array::to_f64);
        if weights.as_ref().is_some_and(|it| it.len() != lanes.extent) {
            return Err(format!("the weights are not those of {} classes", lanes.extent));
        }
        let targets = integers(inputs, 1).ok_or("the target is missing")?;
        let pick = |(first, target): (usize, i64)| {
            if Some(target) == ignored {
                return Ok(None);
            }
            let class = usize::try_from(target).ok().filter(|it| *it < lanes.extent);
            let class = class.ok_or_else(|| format!("target {target} is no class"))?;
            let weight = weights.as_ref().map_or(1.0, |it| it[class]);
            Ok(Some((first + class * lanes.inner, weight)))
        };
        let picks = lanes.starts().zip(targets).map(pick).collect::<Result<_, String>>()?;
        Ok(Terms { reduction, lanes, picks })
    }

    /// What the sum of all losses is divided by.
    pub(crate) fn divisor(&self) -> f64 {
        match self.reduction {
            Reduction::Mean => self.picks.iter().flatten().map(|it| it.1).sum(),
            Reduction::None | Reduction::Sum => 1.0,
        }
    }
}

/// Logarithms of softmax along the classes.
pub(crate) fn logarithms(x: &[f64], lanes: Lanes) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    norm::softmax(x, lanes.extent, lanes.inner, true, &mut y);
    y
}

fn loss(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let (shape, terms) = (output_shape(op, inputs)?, Terms::new(op, inputs)?);
    let scores = array(inputs, 0)?;
    let mut values = scores.to_f64();
    if op.name == "SoftmaxCrossEntropyLoss" {
        values = logarithms(&values, terms.lanes);
    }
    let one = |it: &Option<(usize, f64)>| it.map_or(0.0, |(at, weight)| -values[at] * weight);
    let losses: Vec<f64> = terms.picks.iter().map(one).collect();
    let losses = match terms.reduction {
        Reduction::None => losses,
        _ => vec![losses.iter().sum::<f64>() / terms.divisor()],
    };
    let all = [
        Array { shape, data: Data::F64(losses) },
        Array { shape: scores.shape.clone(), data: Data::F64(values) },
    ];
    let narrow = |it: Array| it.cast(scores.dtype()).ok_or("text has no loss".to_owned());
    all.into_iter().take(dtypes.len()).map(narrow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{named, run};
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn reductions_weights_and_what_is_ignored() {
        let scores = Array::f32(&[3, 2], vec![-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
        let target = Array { shape: vec![3], data: Data::I64(vec![0, 1, 1]) };
        let weights = Array::f32(&[2], vec![1.0, 3.0]);
        let ignore = ("ignore_index", Attr::Int(0));
        for (word, skip, expected) in [
            ("sum", false, vec![1.0 + 12.0 + 18.0]),
            ("mean", false, vec![31.0 / 7.0]),
            ("none", false, vec![1.0, 12.0, 18.0]),
            ("mean", true, vec![5.0]),
            ("none", true, vec![0.0, 12.0, 18.0]),
        ] {
            let mut attrs = Attrs::new().with("reduction", Attr::Str(word.into()));
            if skip {
                attrs.set(ignore.0, ignore.1.clone());
            }
            let op = named("NegativeLogLikelihoodLoss", attrs);
            let y = run(&op, &[&scores, &target, &weights]);
            assert_eq!(y[0].to_f32(), expected, "{word} {skip}");
        }
        let even = Array::f32(&[1, 4], vec![5.0; 4]);
        let target = Array { shape: vec![1], data: Data::I32(vec![2]) };
        let y = run(&named("SoftmaxCrossEntropyLoss", Attrs::new()), &[&even, &target]);
        assert!((y[0].to_f32()[0] - 4f32.ln()).abs() < 1e-6);
    }
}

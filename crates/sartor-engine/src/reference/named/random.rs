//! Random numbers (<https://onnx.ai/onnx/operators/onnx__RandomNormal.html>,
//! <https://onnx.ai/onnx/operators/onnx__RandomUniform.html>, their forms `…Like`,
//! <https://onnx.ai/onnx/operators/onnx__Bernoulli.html>,
//! <https://onnx.ai/onnx/operators/onnx__Multinomial.html>, <https://onnx.ai/onnx/operators/onnx__Dropout.html>).
//!
//! ONNX fixes the distribution, not the generator. Here the same node gives the same numbers in every run:
//! they follow from its seed, and a node without a seed has seed 0.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sartor_ir::{Attr, DType, Named};

use super::{Rule, output_shape};
use crate::{
    Array, Data,
    reference::evaluate::{array, optional},
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "RandomNormal", evaluate: random },
    Rule { domain: "", name: "RandomUniform", evaluate: random },
    Rule { domain: "", name: "RandomNormalLike", evaluate: random },
    Rule { domain: "", name: "RandomUniformLike", evaluate: random },
    Rule { domain: "", name: "Bernoulli", evaluate: bernoulli },
    Rule { domain: "", name: "Multinomial", evaluate: multinomial },
    Rule { domain: "", name: "Dropout", evaluate: dropout },
];

type Made = Result<Vec<Array>, String>;

/// A source of numbers in 0..1.
struct Source(ChaCha8Rng);

impl Source {
    fn of(op: &Named) -> Result<Self, String> {
        // `Dropout` has an integer, the others a float.
        let seed = match op.attributes.get("seed") {
            Some(Attr::Int(it)) => it.cast_unsigned(),
            _ => u64::from(op.float("seed", 0.0)?.to_bits()),
        };
        Ok(Source(ChaCha8Rng::seed_from_u64(seed)))
    }

    fn next(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / 2f64.powi(53)
    }

    /// Box and Muller 1958, "A note on the generation of random normal deviates".
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.next()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.next()).cos()
    }
}

fn as_type(shape: Vec<usize>, values: Vec<f64>, dtypes: &[DType]) -> Made {
    let dtype = dtypes.first().copied().unwrap_or(DType::F32);
    let made = Array { shape, data: Data::F64(values) }.cast(dtype);
    Ok(vec![made.ok_or("text cannot be drawn")?])
}

fn random(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let count = shape.iter().product();
    let mut source = Source::of(op)?;
    let values = if op.name.starts_with("RandomNormal") {
        let (mean, scale) = (f64::from(op.float("mean", 0.0)?), f64::from(op.float("scale", 1.0)?));
        std::iter::repeat_with(|| source.normal() * scale + mean).take(count).collect()
    } else {
        let (low, high) = (f64::from(op.float("low", 0.0)?), f64::from(op.float("high", 1.0)?));
        std::iter::repeat_with(|| low + source.next() * (high - low)).take(count).collect()
    };
    as_type(shape, values, dtypes)
}

/// 1 with the probability that the input gives.
fn bernoulli(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    let mut source = Source::of(op)?;
    let one = |p: f64| f64::from(u8::from(source.next() < p));
    let values = x.to_f64().into_iter().map(one).collect();
    as_type(x.shape.clone(), values, dtypes)
}

/// Classes drawn by their unnormalized logarithmic probabilities, `[n, classes]`.
fn multinomial(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let x = array(inputs, 0)?;
    let &[_, classes] = x.shape.as_slice() else {
        return Err(format!("input {:?} is no matrix", x.shape));
    };
    let mut source = Source::of(op)?;
    let mut values = Vec::with_capacity(shape.iter().product());
    for logits in x.to_f64().chunks_exact(classes.max(1)) {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|it| (it - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for _ in 0..shape[1] {
            let mut rest = source.next() * total;
            let drawn = weights.iter().position(|it| {
                rest -= it;
                rest < 0.0
            });
            values.push(drawn.unwrap_or(classes - 1) as f64);
        }
    }
    as_type(shape, values, dtypes)
}

/// The factor of each element under `Dropout`: 0 or `1 / (1 - ratio)`; `None` where nothing is dropped.
///
/// # Errors
/// A ratio that is no probability below 1.
pub(crate) fn dropped(op: &Named, inputs: &[Option<&Array>]) -> Result<Option<Vec<f64>>, String> {
    let x = array(inputs, 0)?;
    let given = |i: usize| optional(inputs, i).and_then(|it| it.to_f64().first().copied());
    let training = op.version >= 12 && given(2).is_some_and(|it| it != 0.0);
    let ratio = given(1).unwrap_or(0.5);
    if !(0.0..1.0).contains(&ratio) {
        return Err(format!("the ratio is {ratio}, expected at least 0 and below 1"));
    }
    if !training || ratio == 0.0 {
        return Ok(None);
    }
    let mut source = Source::of(op)?;
    let one = || if source.next() < ratio { 0.0 } else { 1.0 / (1.0 - ratio) };
    Ok(Some(std::iter::repeat_with(one).take(x.len()).collect()))
}

/// The forms that the closed set has not: with a seed, or training.
fn dropout(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    let factors = dropped(op, inputs)?.unwrap_or_else(|| vec![1.0; x.len()]);
    let kept = |it: f64| f64::from(u8::from(it > 0.0));
    let values = x.to_f64().iter().zip(&factors).map(|(x, by)| x * by).collect();
    let both = [values, factors.iter().map(|&it| kept(it)).collect()];
    let made = both.into_iter().zip(dtypes).map(|(values, &dtype)| {
        let wide = Array { shape: x.shape.clone(), data: Data::F64(values) };
        wide.cast(dtype).ok_or_else(|| "text cannot be dropped".to_owned())
    });
    made.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{named, run};
    use sartor_ir::Attrs;

    #[test]
    fn distributions() {
        let attrs = |seed: f32| {
            Attrs::new().with("shape", Attr::Ints(vec![4000])).with("seed", Attr::Float(seed))
        };
        let moments = |it: &Array| {
            let values = it.to_f64();
            let mean = values.iter().sum::<f64>() / 4000.0;
            (mean, values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / 4000.0)
        };
        let normal = run(&named("RandomNormal", attrs(1.0).with("mean", Attr::Float(2.0))), &[]);
        let (mean, variance) = moments(&normal[0]);
        assert!((mean - 2.0).abs() < 0.1 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
        let uniform = run(&named("RandomUniform", attrs(1.0)), &[]);
        let (mean, variance) = moments(&uniform[0]);
        assert!((mean - 0.5).abs() < 0.03 && (variance - 1.0 / 12.0).abs() < 0.01);
        let again = run(&named("RandomUniform", attrs(1.0)), &[]);
        assert_eq!(uniform, again);
        assert_ne!(uniform, run(&named("RandomUniform", attrs(2.0)), &[]));
        let chance = Array::f32(&[4000], vec![0.25; 4000]);
        let (mean, _) = moments(&run(&named("Bernoulli", Attrs::new()), &[&chance])[0]);
        assert!((mean - 0.25).abs() < 0.03, "{mean}");
        let (half, yes) =
            (Array::scalar(Data::F32(vec![0.25])), Array::scalar(Data::Bool(vec![true])));
        let y = run(&named("Dropout", Attrs::new()), &[&chance, &half, &yes]);
        let (mean, variance) = moments(&y[0]);
        assert!((mean - 0.25).abs() < 0.02 && variance > 0.01, "{mean} {variance}");
        let logits = Array::f32(&[1, 2], vec![0.0, 3f32.ln()]);
        let op = named("Multinomial", Attrs::new().with("sample_size", Attr::Int(4000)));
        let (mean, _) = moments(&run(&op, &[&logits])[0]);
        assert!((mean - 0.75).abs() < 0.03, "{mean}");
    }
}

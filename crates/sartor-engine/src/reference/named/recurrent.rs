//! `RNN`, `GRU` and `LSTM` (<https://onnx.ai/onnx/operators/onnx__LSTM.html>).

use sartor_ir::{DType, Named, catalog::Recurrent};

use super::Rule;
use crate::{
    Array, Data,
    reference::{evaluate::array, recurrent},
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "GRU", evaluate },
    Rule { domain: "", name: "LSTM", evaluate },
    Rule { domain: "", name: "RNN", evaluate },
];

fn evaluate(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Result<Vec<Array>, String> {
    let it = Recurrent::of(op)?;
    let mut made = match array(inputs, 0)?.data {
        Data::F64(_) => recurrent::evaluate::<f64>(it, inputs)?,
        _ => recurrent::evaluate::<f32>(it, inputs)?,
    };
    made.truncate(dtypes.len());
    Ok(made)
}

#[cfg(test)]
mod tests {
    use sartor_ir::{Attr, Attrs};

    use super::*;

    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + (-x).exp())
    }

    fn run(
        name: &str,
        attributes: Attrs,
        inputs: &[Option<Array>],
        outputs: usize,
    ) -> Vec<Vec<f32>> {
        let op = Named { domain: String::new(), name: name.to_owned(), version: 14, attributes };
        let given: Vec<_> = inputs.iter().map(Option::as_ref).collect();
        let made = evaluate(&op, &given, &vec![DType::F32; outputs]).unwrap();
        made.iter().map(Array::to_f32).collect()
    }

    #[expect(clippy::unnecessary_wraps, reason = "inputs of an operator are optional")]
    fn array(shape: &[usize], values: &[f32]) -> Option<Array> {
        Some(Array::f32(shape, values.to_vec()))
    }

    fn close(found: &[f32], expected: &[f32]) {
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(found.len() == expected.len() && near, "{found:?}, not {expected:?}");
    }

    #[test]
    fn a_walk_back_begins_at_the_end_of_each_sequence() {
        let lengths = Array { shape: vec![2], data: Data::I32(vec![3, 2]) };
        let x = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        let attributes = Attrs::new()
            .with("direction", Attr::Str("reverse".into()))
            .with("activations", Attr::Strs(vec!["Affine".into()]));
        let one = |value| array(&[1, 1, 1], &[value]);
        let inputs = [array(&[3, 2, 1], &x), one(1.0), one(0.5), None, Some(lengths), None];
        let made = run("RNN", attributes, &inputs, 2);
        close(&made[0], &[1.0 + 1.75, 10.0 + 10.0, 2.0 + 1.5, 20.0, 3.0, 0.0]);
        close(&made[1], &[2.75, 20.0]);
    }

    #[test]
    fn a_reset_gate_acts_before_or_behind_the_product() {
        let (x, h) = (0.5, 0.8);
        let inputs = [
            array(&[1, 1, 1], &[x]),
            array(&[1, 3, 1], &[0.1, 0.2, 0.3]),
            array(&[1, 3, 1], &[0.4, 0.5, 0.6]),
            array(&[1, 6], &[0.1, 0.0, 0.2, 0.0, 0.3, 0.7]),
            None,
            array(&[1, 1, 1], &[h]),
        ];
        let (z, r) = (sigmoid(0.1 * x + 0.1 + 0.4 * h), sigmoid(0.2 * x + 0.5 * h + 0.3));
        let before = (0.3 * x + 0.2 + 0.6 * (r * h) + 0.7).tanh();
        let behind = (0.3 * x + 0.2 + r * (0.6 * h + 0.7)).tanh();
        for (late, candidate) in [(0, before), (1, behind)] {
            let attributes = Attrs::new().with("linear_before_reset", Attr::Int(late));
            let made = run("GRU", attributes, &inputs, 1);
            close(&made[0], &[(1.0 - z) * candidate + z * h]);
        }
    }

    #[test]
    fn an_lstm_with_peepholes_and_a_limit() {
        let (x, h, c) = (0.5, 0.2, -0.6);
        let inputs = [
            array(&[1, 1, 1], &[x]),
            array(&[1, 4, 1], &[0.1, 0.2, 0.3, 4.0]),
            array(&[1, 4, 1], &[0.4, 0.5, 0.6, 0.7]),
            None,
            None,
            array(&[1, 1, 1], &[h]),
            array(&[1, 1, 1], &[c]),
            array(&[1, 3], &[0.3, 0.2, 0.1]),
        ];
        let input = sigmoid(0.1 * x + 0.4 * h + 0.3 * c);
        let forget = sigmoid(0.3 * x + 0.6 * h + 0.1 * c);
        for coupled in [false, true] {
            let forget = if coupled { 1.0 - input } else { forget };
            let after = forget * c + input * 1.0f32.tanh();
            let output = sigmoid(0.2 * x + 0.5 * h + 0.2 * after);
            let attributes = Attrs::new()
                .with("clip", Attr::Float(1.0))
                .with("input_forget", Attr::Int(i64::from(coupled)));
            let made = run("LSTM", attributes, &inputs, 3);
            close(&made[0], &[output * after.tanh()]);
            close(&made[2], &[after]);
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let op = Named {
            domain: String::new(),
            name: "RNN".into(),
            version: 14,
            attributes: Attrs::new(),
        };
        let x = Array::f32(&[2, 1, 3], vec![0.0; 6]);
        let (w, r) = (Array::f32(&[1, 4, 2], vec![0.0; 8]), Array::f32(&[1, 4, 4], vec![0.0; 16]));
        let error = evaluate(&op, &[Some(&x), Some(&w), Some(&r)], &[DType::F32]).unwrap_err();
        assert_eq!(error, "input 1 has shape [1, 4, 2], expected [1, 4, 3]");
        let w = Array::f32(&[1, 4, 3], vec![0.0; 12]);
        let long = Array { shape: vec![1], data: Data::I32(vec![5]) };
        let inputs = [Some(&x), Some(&w), Some(&r), None, Some(&long)];
        assert!(evaluate(&op, &inputs, &[DType::F32]).unwrap_err().contains("up to 2 steps"));
    }
}

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

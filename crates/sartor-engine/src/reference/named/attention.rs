//! `Attention` and `RotaryEmbedding` (<https://onnx.ai/onnx/operators/onnx__Attention.html>).

use rayon::prelude::*;
use sartor_ir::{DType, Named, catalog::Attention};

use super::Rule;
use crate::{
    Array, Data,
    reference::{
        attention::{Operands, Turns, rotate},
        elementwise::Float,
        evaluate::array,
        recurrent::Product,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "Attention", evaluate: attend },
    Rule { domain: "", name: "RotaryEmbedding", evaluate: rotary },
];

type Made = Result<Vec<Array>, String>;

fn attend(op: &Named, inputs: &[Option<&Array>], dtypes: &[DType]) -> Made {
    let it = Attention::of(op)?;
    let mut made = match array(inputs, 0)?.data {
        Data::F64(_) => attended::<f64>(it, inputs)?,
        _ => attended::<f32>(it, inputs)?,
    };
    made.truncate(dtypes.len());
    Ok(made)
}

fn attended<T: Product>(it: Attention, inputs: &[Option<&Array>]) -> Made {
    let it = Operands::<T>::new(it, inputs)?;
    let heads: Vec<(Vec<T>, Vec<T>)> = (0..it.heads.batch * it.heads.heads)
        .into_par_iter()
        .map(|at| {
            let mut shown = Vec::new();
            let y = it.head(at, |when, row| {
                if it.it.shown == when {
                    shown.extend(row.iter().map(|&it| T::narrow(it)));
                }
            });
            (y, shown)
        })
        .collect();
    let (y, scores): (Vec<_>, Vec<_>) = heads.into_iter().unzip();
    let shape = vec![it.heads.batch, it.heads.heads, it.heads.queries, it.heads.keys];
    let y = it.output(&y.concat());
    Ok(vec![y, it.k.array(), it.v.array(), Array { shape, data: T::wrap(scores.concat()) }])
}

fn rotary(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn turned<T: Float>(op: &Named, inputs: &[Option<&Array>]) -> Result<Array, String> {
        let turns = Turns::<T>::of(op, inputs)?;
        let x = array(inputs, 0)?;
        let mut y = x.values::<T>().ok_or("its operands are of different types")?.to_vec();
        for (i, head) in y.chunks_exact_mut(turns.head.max(1)).enumerate() {
            let (cos, sin) = turns.angles(i);
            rotate(head, cos, sin, turns.interleaved);
        }
        Ok(Array { shape: x.shape.clone(), data: T::wrap(y) })
    }
    Ok(vec![match array(inputs, 0)?.data {
        Data::F64(_) => turned::<f64>(op, inputs)?,
        _ => turned::<f32>(op, inputs)?,
    }])
}

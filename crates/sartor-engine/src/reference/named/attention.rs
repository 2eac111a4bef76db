//! `Attention` and `RotaryEmbedding` (<https://onnx.ai/onnx/operators/onnx__Attention.html>).

use sartor_ir::{
    DType, Named,
    catalog::{Attention, Shown},
};

use super::Rule;
use crate::{
    Array, Data,
    reference::{
        attention::{Operands, Row, Turns, attention, rotate},
        elementwise::Float,
        evaluate::array,
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

fn attended<T: Float>(it: Attention, inputs: &[Option<&Array>]) -> Made {
    let it = Operands::<T>::new(it, inputs)?;
    let (mut scores, mut weights) = (Vec::new(), Vec::new());
    let shown = it.it.shown;
    let mut show = |when: Shown, row: &[f64]| {
        if shown == when {
            scores.extend(row.iter().map(|&it| T::narrow(it)));
        }
    };
    let edit = |row: Row, own: &mut [f64]| {
        show(Shown::Products, own);
        it.cap(own);
        show(Shown::Capped, own);
        it.mask(row, own);
        show(Shown::Masked, own);
    };
    let seen = |_: Row, row: &[f64]| {
        if shown == Shown::Weights {
            weights.extend(row.iter().map(|&it| T::narrow(it)));
        }
    };
    let operands = (&it.q.values[..], &it.k.values[..], &it.v.values[..]);
    let y = attention(&it.heads, operands, it.factor, edit, seen);
    let shape = vec![it.heads.batch, it.heads.heads, it.heads.queries, it.heads.keys];
    let values = if shown == Shown::Weights { weights } else { scores };
    let y = it.output(y);
    Ok(vec![y, it.k.array(), it.v.array(), Array { shape, data: T::wrap(values) }])
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

//! Pooling by norms, and its reversal (<https://onnx.ai/onnx/operators/onnx__LpPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__GlobalLpPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__MaxUnpool.html>).

use super::{Entry, Made, no_axes, passing_channels, shapeless, typed};
use crate::{
    Attr, Dim, Fact, GlobalPool, Named, Op, Pool,
    op::{required, shape_of},
    shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "LpPool", infer: infer_lp_pool, axes: passing_channels },
    Entry { domain: "", name: "GlobalLpPool", infer: infer_global, axes: passing_channels },
    Entry { domain: "", name: "MaxUnpool", infer: infer_unpool, axes: no_axes },
];

/// The average pooling over the same windows as an `LpPool`.
///
/// # Errors
/// An attribute of another kind or out of range.
pub fn lp_windows(op: &Named) -> Result<Pool, String> {
    let mut attributes = op.attributes.clone();
    attributes.take("p");
    match Op::from_attributes("AveragePool", attributes) {
        Some(Ok(Op::Pool(it))) => Ok(it),
        Some(Err(it)) => Err(it.to_string()),
        _ => Err("its windows are not those of a pooling".to_owned()),
    }
}

fn infer_lp_pool(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Made {
    Op::Pool(lp_windows(op)?).infer(inputs, n_outputs)
}

fn infer_global(_: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Made {
    Op::GlobalPool(GlobalPool::Average).infer(inputs, n_outputs)
}

/// The natural extents: `(n - 1) stride - pads + kernel`.
fn infer_unpool(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    if required(inputs, 2).is_some() {
        let shape = required(inputs, 2).and_then(|it| it.value.as_ref());
        let shape = shape.map(|it| it.elements().iter().map(crate::Scalar::to_dim).collect());
        return Ok(vec![match shape {
            Some(shape) => typed(inputs, 0, shape),
            None => typed(inputs, 0, vec![Dim::Unknown; x.len()]),
        }]);
    }
    let windows = lp_windows(&Named {
        attributes: op.attributes.clone().with("auto_pad", Attr::Str("NOTSET".into())),
        ..op.clone()
    })?;
    if x.len() != windows.spatial.kernel.len() + 2 {
        return Err(format!("input {} does not fit the kernel", list(x)));
    }
    let mut shape = x[..2].to_vec();
    for (i, dim) in x[2..].iter().enumerate() {
        let Some(n) = dim.known() else {
            shape.push(Dim::Unknown);
            continue;
        };
        let [kernel, stride, _, before, after] =
            windows.spatial.geometry(&[], &vec![n; x.len() - 2])?[i];
        let full = (n.max(1) - 1).saturating_mul(stride).saturating_add(kernel);
        let left = full.checked_sub(before + after);
        shape.push(Dim::Known(left.ok_or("the pads cut off the whole output")?));
    }
    Ok(vec![typed(inputs, 0, shape)])
}

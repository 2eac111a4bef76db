//! Normalizations of values by their own statistics
//! (<https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>,
//! <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html> and others), and forms of
//! `BatchNormalization`, `Softmax` and `LogSoftmax` that the closed set does not have.

use super::{Entry, no_axes};
use crate::{
    AxisLink, DType, Dim, Fact, Named, Port, TensorType, normalize_axis,
    op::{normalize_axes, required, shape_of},
    shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "BatchNormalization", infer: infer_batch_norm, axes: no_axes },
    Entry { domain: "", name: "GroupNormalization", infer: infer_group, axes: no_axes },
    Entry { domain: "", name: "Hardmax", infer: infer_along, axes: no_axes },
    Entry { domain: "", name: "InstanceNormalization", infer: infer_channels, axes: axes_channels },
    Entry { domain: "", name: "LRN", infer: infer_lrn, axes: no_axes },
    Entry { domain: "", name: "LayerNormalization", infer: infer_layer, axes: no_axes },
    Entry { domain: "", name: "LogSoftmax", infer: infer_along, axes: no_axes },
    Entry { domain: "", name: "LpNormalization", infer: infer_along, axes: no_axes },
    Entry { domain: "", name: "MeanVarianceNormalization", infer: infer_moments, axes: no_axes },
    Entry { domain: "", name: "RMSNormalization", infer: infer_layer, axes: no_axes },
    Entry { domain: "", name: "Softmax", infer: infer_along, axes: no_axes },
];

type Facts = Result<Vec<Option<Fact>>, String>;

fn same(inputs: &[Option<&Fact>]) -> Option<Fact> {
    required(inputs, 0).map(|it| Fact::of(it.ty.clone()))
}

/// The axes that a node normalizes together: the one that `axis` names, or, before opset 13, all from it
/// on (softmax alone; the default is then 1 and not -1).
///
/// # Errors
/// An axis that the rank does not have.
pub fn softmax_axes(op: &Named, rank: usize) -> Result<std::ops::Range<usize>, String> {
    let joint = op.version < 13 && op.name != "LpNormalization";
    let axis = op.int("axis", if joint { 1 } else { -1 })?;
    let axis = normalize_axis(axis, rank)?;
    Ok(axis..if joint { rank } else { axis + 1 })
}

fn infer_along(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    if let Some(shape) = shape_of(inputs, 0) {
        softmax_axes(op, shape.len())?;
    }
    Ok(vec![same(inputs)])
}

/// The axes over which `MeanVarianceNormalization` takes its moments, ascending.
///
/// # Errors
/// An axis that the rank does not have.
pub fn moment_axes(op: &Named, rank: usize) -> Result<Vec<usize>, String> {
    let axes = op.ints("axes")?.unwrap_or(&[0, 2, 3]);
    normalize_axes(axes, rank)
}

fn infer_moments(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    if let Some(shape) = shape_of(inputs, 0) {
        moment_axes(op, shape.len())?;
    }
    Ok(vec![same(inputs)])
}

fn infer_lrn(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    let size = op.int("size", 0)?;
    if size < 1 {
        return Err(format!("`size` is {size}, expected at least 1"));
    }
    has_channels(inputs)?;
    Ok(vec![same(inputs)])
}

/// The channels of input 0.
fn has_channels(inputs: &[Option<&Fact>]) -> Result<Dim, String> {
    match shape_of(inputs, 0) {
        Some(x) if x.len() < 2 => Err(format!("input {} has no channels", list(x))),
        Some(x) => Ok(x[1].clone()),
        None => Ok(Dim::Unknown),
    }
}

/// Scale and shift must have one number for each of `count`.
fn parameters_fit(inputs: &[Option<&Fact>], count: &Dim) -> Result<(), String> {
    for i in 1..inputs.len() {
        if let Some(it) = shape_of(inputs, i)
            && (it.len() != 1 || !it[0].compatible(count))
        {
            return Err(format!("input {i} is {}, expected [{count}]", list(it)));
        }
    }
    Ok(())
}

fn infer_channels(_: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    parameters_fit(inputs, &has_channels(inputs)?)?;
    Ok(vec![same(inputs)])
}

/// A channel is normalized by itself.
fn axes_channels(_: &Named, inputs: &[Option<&Fact>], _: &[Option<&TensorType>]) -> Vec<AxisLink> {
    let channel = (Port::Input(0), 1);
    let own = [(Port::Output(0), 1), (Port::Input(1), 0), (Port::Input(2), 0)];
    let known = shape_of(inputs, 0).is_some_and(|it| it.len() > 1);
    own.into_iter().filter(|_| known).map(|it| AxisLink::same(channel, it)).collect()
}

fn infer_group(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Facts {
    let channels = has_channels(inputs)?;
    let groups = op.int("num_groups", 0)?;
    let groups = usize::try_from(groups).ok().filter(|it| *it > 0);
    let groups = groups.ok_or("`num_groups` is not positive")?;
    if channels.known().is_some_and(|it| it % groups != 0) {
        return Err(format!("{channels} channels do not divide into {groups} groups"));
    }
    // Opset 18 has one scale for each group.
    parameters_fit(inputs, &if op.version < 21 { Dim::Known(groups) } else { channels })?;
    Ok(vec![same(inputs)])
}

fn infer_layer(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Facts {
    let axis = op.int("axis", -1)?;
    let stash = op.dtype("stash_type")?.unwrap_or(DType::F32);
    if !stash.is_float() {
        return Err(format!("`stash_type` is {stash}, no float type"));
    }
    let Some(x) = required(inputs, 0) else { return Ok(vec![None; n_outputs]) };
    let Some(shape) = &x.ty.shape else {
        let open = Some(Fact::of(TensorType { dtype: stash, shape: None }));
        let made = [same(inputs), open.clone(), open];
        return Ok(made.into_iter().take(n_outputs).collect());
    };
    let axis = normalize_axis(axis, shape.len())?;
    for i in 1..inputs.len() {
        if let Some(it) = shape_of(inputs, i)
            && crate::broadcast(shape, it)?.len() != shape.len()
        {
            return Err(format!(
                "input {i} is {}, which does not broadcast to {}",
                list(it),
                list(shape)
            ));
        }
    }
    let one = |(i, it): (usize, &Dim)| if i < axis { it.clone() } else { Dim::Known(1) };
    let reduced = shape.iter().enumerate().map(one).collect();
    let moment = Some(Fact::of(TensorType::new(stash, reduced)));
    Ok([same(inputs), moment.clone(), moment].into_iter().take(n_outputs).collect())
}

/// The training form, and that of opset 7 whose parameters differ by position.
fn infer_batch_norm(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Facts {
    let channels = has_channels(inputs)?;
    if op.version >= 9 || op.flag("spatial", true)? {
        parameters_fit(inputs, &channels)?;
    }
    let parameter = |i: usize| required(inputs, i).map(|it| Fact::of(it.ty.clone()));
    let made = [same(inputs), parameter(3), parameter(4), parameter(3), parameter(4)];
    Ok(made.into_iter().take(n_outputs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attr, Attrs};

    fn named(name: &str, version: i64, attributes: Attrs) -> Named {
        Named { domain: String::new(), name: name.into(), version, attributes }
    }

    fn fact(shape: &[usize]) -> Fact {
        Fact::of(TensorType::fixed(DType::F16, shape))
    }

    #[test]
    fn moments_of_layers() {
        let (x, scale) = (fact(&[2, 3, 4]), fact(&[3, 4]));
        let op = named("LayerNormalization", 17, Attrs::new().with("axis", Attr::Int(-2)));
        let made = infer_layer(&op, &[Some(&x), Some(&scale)], 3).unwrap();
        let text: Vec<_> = made.iter().flatten().map(|it| it.ty.to_string()).collect();
        assert_eq!(text, ["f16[2,3,4]", "f32[2,1,1]", "f32[2,1,1]"]);
        assert!(infer_layer(&op, &[Some(&x), Some(&fact(&[3]))], 1).is_err());
    }

    #[test]
    fn groups_have_channels_and_parameters() {
        let attrs = || Attrs::new().with("num_groups", Attr::Int(2));
        let x = fact(&[1, 4, 5]);
        for (version, count, fits) in [(18, 2, true), (18, 4, false), (21, 4, true), (21, 2, false)]
        {
            let scale = fact(&[count]);
            let op = named("GroupNormalization", version, attrs());
            let made = infer_group(&op, &[Some(&x), Some(&scale), Some(&scale)], 1);
            assert_eq!(made.is_ok(), fits, "opset {version} with {count}");
        }
    }

    #[test]
    fn softmax_once_took_all_axes_behind() {
        let axes = |version, axis: i64| {
            softmax_axes(&named("Softmax", version, Attrs::new().with("axis", Attr::Int(axis))), 4)
        };
        assert_eq!((axes(11, 1), axes(13, 1)), (Ok(1..4), Ok(1..2)));
        assert!(axes(13, 4).is_err());
        assert_eq!(softmax_axes(&named("Hardmax", 12, Attrs::new()), 3), Ok(1..3));
    }
}

//! Taking channels out of a graph, or silencing them in place.

use std::collections::{BTreeMap, BTreeSet};

use sartor_ir::{Binary, Dim, Graph, Op, Tensor, TensorType, ValueId, infer_facts, verify};

use super::{groups::Groups, rewrite};
use crate::CompressError;

/// The channels to take out: indices into [`super::Group::channels`], ascending, by group name.
pub type Removed = BTreeMap<String, Vec<usize>>;

/// What is left of each axis that loses indices: the old indices, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<(ValueId, usize), Vec<usize>>);

impl Kept {
    /// What `removed` leaves of the axes of `groups`' graph, whose types are inferred. Groups and channels
    /// that are not there are ignored.
    pub(super) fn of(graph: &Graph, groups: &Groups, removed: &Removed) -> Self {
        let mut lost: BTreeMap<(ValueId, usize), BTreeSet<usize>> = BTreeMap::new();
        for cell in cells(groups, removed) {
            lost.entry((cell.value, cell.axis)).or_default().insert(cell.index);
        }
        let dims = |id: ValueId, axis: usize| {
            let ty = graph.value(id).ty.as_ref()?;
            ty.shape.as_ref()?.get(axis)?.known()
        };
        let kept = lost.into_iter().filter_map(|(at, lost)| {
            let extent = dims(at.0, at.1)?;
            Some((at, (0..extent).filter(|it| !lost.contains(it)).collect()))
        });
        Kept(kept.collect())
    }

    /// The old indices that are left of an axis; `None` if it loses none.
    pub fn get(&self, value: ValueId, axis: usize) -> Option<&[usize]> {
        self.0.get(&(value, axis)).map(Vec::as_slice)
    }

    fn of_value(&self, value: ValueId) -> impl Iterator<Item = (usize, &[usize])> {
        self.0
            .range((value, 0)..=(value, usize::MAX))
            .map(|(&(_, axis), kept)| (axis, kept.as_slice()))
    }
}

fn cells<'a>(groups: &'a Groups, removed: &'a Removed) -> impl Iterator<Item = super::Cell> + 'a {
    groups.all().iter().flat_map(move |group| {
        let gone = removed.get(&group.name).map_or(&[] as &[usize], Vec::as_slice);
        gone.iter().filter_map(|&i| group.channels.get(i)).flat_map(|it| it.0.iter().copied())
    })
}

/// Takes channels out: constants lose their slices, layout operators get new extents, everything else stays
/// as it is, names and the free batch included. `graph` must have its types inferred and be the one that
/// `kept` was made for.
///
/// # Errors
/// A result that is not a valid graph, which is a fault of ours.
pub(super) fn remove(graph: &Graph, kept: &Kept) -> Result<Graph, CompressError> {
    let facts = infer_facts(graph, &BTreeMap::new())?;
    let mut small = graph.clone();
    for (id, value) in graph.values() {
        let mut shape = value.ty.as_ref().and_then(|it| it.shape.clone());
        let mut tensor = value.constant.clone();
        for (axis, kept) in kept.of_value(id) {
            if let Some(dim) = shape.as_mut().and_then(|it| it.get_mut(axis)) {
                *dim = Dim::Known(kept.len());
            }
            tensor = tensor.map(|it| gathered(&it, axis, kept));
        }
        match tensor {
            Some(tensor) => small.set_constant(id, tensor),
            None => small
                .set_type(id, value.ty.as_ref().map(|ty| TensorType { dtype: ty.dtype, shape })),
        }
    }
    for (id, _) in graph.nodes() {
        rewrite::rewrite(graph, &facts, kept, id, &mut small);
    }
    let small = small.compacted();
    verify(&small)?;
    Ok(small)
}

/// The network with the same shapes in which the removed channels are silent: every parameter slice of theirs
/// is zero, on the side that makes them and on the side that sums over them. What takes channels out must
/// compute what this network computes.
///
/// Statistics of `BatchNormalization` and what others divide by or take powers with stay, since a zero there
/// makes infinities and not silence.
pub fn masked(graph: &Graph, groups: &Groups, removed: &Removed) -> Graph {
    let mut silent = graph.clone();
    let keep = not_to_be_zeroed(graph);
    let mut zeroed: BTreeMap<(ValueId, usize), BTreeSet<usize>> = BTreeMap::new();
    for cell in cells(groups, removed).filter(|it| !keep.contains(&it.value)) {
        zeroed.entry((cell.value, cell.axis)).or_default().insert(cell.index);
    }
    for ((id, axis), indices) in zeroed {
        if let Some(tensor) = silent.constant(id).filter(|it| it.dtype().is_float()) {
            let tensor = without(tensor, axis, &indices);
            silent.set_constant(id, tensor);
        }
    }
    silent
}

fn not_to_be_zeroed(graph: &Graph) -> BTreeSet<ValueId> {
    let mut keep = BTreeSet::new();
    for (_, node) in graph.nodes() {
        let inputs: &[usize] = match node.op {
            Op::BatchNormalization(_) => &[3, 4],
            Op::Binary(Binary::Div | Binary::Pow | Binary::Mod) => &[1],
            _ => &[],
        };
        keep.extend(inputs.iter().filter_map(|&i| node.input(i)));
    }
    keep
}

/// Bytes of one index of `axis` in a row: the extent and the run's length.
fn run_bytes(tensor: &Tensor, axis: usize) -> (usize, usize) {
    let inner: usize = tensor.shape()[axis + 1..].iter().product();
    (tensor.shape()[axis], inner * tensor.dtype().bits() / 8)
}

/// The tensor with only `kept` of `axis`.
fn gathered(tensor: &Tensor, axis: usize, kept: &[usize]) -> Tensor {
    let (extent, run) = run_bytes(tensor, axis);
    let mut bytes = Vec::with_capacity(tensor.data().len());
    for row in tensor.data().chunks_exact((extent * run).max(1)) {
        for &i in kept {
            bytes.extend_from_slice(&row[i * run..(i + 1) * run]);
        }
    }
    let mut shape = tensor.shape().to_vec();
    shape[axis] = kept.len();
    Tensor::new(tensor.dtype(), shape, bytes).expect("whole indices of whole bytes were kept")
}

/// The tensor with zeros at `indices` of `axis`.
fn without(tensor: &Tensor, axis: usize, indices: &BTreeSet<usize>) -> Tensor {
    let (extent, run) = run_bytes(tensor, axis);
    let mut bytes = tensor.data().to_vec();
    for row in bytes.chunks_exact_mut((extent * run).max(1)) {
        for &i in indices {
            row[i * run..(i + 1) * run].fill(0);
        }
    }
    Tensor::new(tensor.dtype(), tensor.shape().to_vec(), bytes).expect("the length did not change")
}

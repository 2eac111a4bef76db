//! The operators whose attributes or constant operands speak of extents, after channels went.

use sartor_ir::{Dim, Fact, Graph, Node, NodeId, Op, Tensor, ValueId};

use super::remove::Kept;

/// One node of the old graph, seen with what its values keep.
struct At<'a> {
    graph: &'a Graph,
    facts: &'a [Option<Fact>],
    kept: &'a Kept,
    node: &'a Node,
}

impl At<'_> {
    fn shape(&self, id: Option<ValueId>) -> &[Dim] {
        id.and_then(|id| self.facts[id.index()].as_ref()?.ty.shape.as_deref()).unwrap_or(&[])
    }

    fn integers(&self, i: usize) -> Option<Vec<i64>> {
        self.facts[self.node.input(i)?.index()].as_ref()?.integers()
    }

    fn changed(&self, id: Option<ValueId>, axis: usize) -> bool {
        id.is_some_and(|id| self.kept.get(id, axis).is_some())
    }

    /// How many of the old indices in `range` of an axis are left.
    fn left(&self, id: Option<ValueId>, axis: usize, range: std::ops::Range<usize>) -> i64 {
        let kept = id.and_then(|id| self.kept.get(id, axis));
        kept.map_or(range.len(), |kept| kept.iter().filter(|it| range.contains(it)).count()) as i64
    }

    fn axes(&self, i: usize, rank: usize, count: usize) -> Option<Vec<usize>> {
        let given = self.node.input(i).is_some();
        let axes = if given { self.integers(i)? } else { (0..count as i64).collect() };
        axes.into_iter()
            .map(|it| usize::try_from(if it < 0 { it + rank as i64 } else { it }).ok())
            .collect()
    }
}

/// Writes the new extents of node `id` of `graph` into `small`.
pub(super) fn rewrite(
    graph: &Graph,
    facts: &[Option<Fact>],
    kept: &Kept,
    id: NodeId,
    small: &mut Graph,
) {
    let node = graph.node(id);
    let at = At { graph, facts, kept, node };
    match &node.op {
        Op::Conv(_) => depthwise(&at, id, small),
        Op::Reshape(it) => replace(small, id, 1, "shape", reshape(&at, it.allow_zero)),
        Op::Split(it) => replace(small, id, 1, "split", split(&at, it.axis)),
        Op::Pad(_) => replace(small, id, 1, "pads", pads(&at)),
        Op::Slice => {
            if let Some((starts, ends)) = slice(&at) {
                replace(small, id, 1, "starts", Some(starts));
                replace(small, id, 2, "ends", Some(ends));
            }
        }
        Op::Dropout => {
            // Its mask is not used, but its old type must not contradict the new one.
            if let Some(mask) = node.outputs.get(1).copied().flatten() {
                small.set_type(mask, None);
            }
        }
        _ => {}
    }
}

fn replace(small: &mut Graph, id: NodeId, i: usize, what: &str, list: Option<Vec<i64>>) {
    let Some(list) = list else { return };
    let stem = format!("{}_{what}", super::ties::node_name(small, small.node(id)));
    let constant = small.add_fresh_constant(&stem, Tensor::from_i64(&[list.len()], &list));
    small.set_input(id, i, Some(constant));
}

/// Depthwise convolution has as many groups as channels.
fn depthwise(at: &At, id: NodeId, small: &mut Graph) {
    let channels = at.shape(at.node.input(0)).get(1).and_then(Dim::known);
    let depth = at.shape(at.node.input(1)).get(1).and_then(Dim::known);
    let Some(kept) = at.node.input(0).and_then(|it| at.kept.get(it, 1)) else { return };
    if let Op::Conv(conv) = &mut small.node_mut(id).op
        && conv.group > 1
        && depth == Some(1)
        && channels == Some(conv.group)
    {
        conv.group = kept.len();
    }
}

/// The target shape: what the file says where nothing changed or the entry follows by itself (0, -1), the new
/// extent elsewhere. A computed target becomes a constant with at most one -1.
fn reshape(at: &At, allow_zero: bool) -> Option<Vec<i64>> {
    let (input, output) = (at.node.input(0), at.node.outputs[0]);
    let (from, to) = (at.shape(input), at.shape(output));
    let changed: Vec<usize> = (0..to.len()).filter(|&axis| at.changed(output, axis)).collect();
    let target = at.integers(1);
    let follows = |axis: &usize| {
        let entry = target.as_ref().and_then(|it| it.get(*axis).copied());
        matches!(entry, Some(-1)) || (entry == Some(0) && !allow_zero && at.changed(input, *axis))
    };
    let literal = at.node.input(1).is_some_and(|it| at.graph.constant(it).is_some());
    if changed.is_empty() || (literal && changed.iter().all(follows)) {
        return None;
    }
    let new = |axis: usize| match (
        to[axis].known(),
        target.as_ref().and_then(|it| it.get(axis).copied()),
    ) {
        (_, Some(entry @ (0 | -1)))
            if literal && (entry == -1 || !allow_zero && from.get(axis) == Some(&to[axis])) =>
        {
            entry
        }
        (Some(extent), _) => at.left(output, axis, 0..extent),
        (None, _)
            if !allow_zero
                && matches!(to[axis], Dim::Symbol(_))
                && from.get(axis) == Some(&to[axis]) =>
        {
            0
        }
        (None, _) => -1,
    };
    Some((0..to.len()).map(new).collect())
}

fn split(at: &At, axis: i64) -> Option<Vec<i64>> {
    let shape = at.shape(at.node.input(0));
    let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
    if !at.changed(at.node.input(0), axis) {
        return None;
    }
    let part =
        |id: &Option<ValueId>| Some(at.left(*id, axis, 0..at.shape(*id).get(axis)?.known()?));
    at.node.outputs.iter().map(part).collect()
}

/// Starts and ends: a window of step 1 begins after what is left before it.
fn slice(at: &At) -> Option<(Vec<i64>, Vec<i64>)> {
    let (whole, cut) = (at.node.input(0), at.node.outputs[0]);
    let (mut starts, mut ends) = (at.integers(1)?, at.integers(2)?);
    let rank = at.shape(whole).len();
    let axes = at.axes(3, rank, starts.len())?;
    let mut any = false;
    for (i, &axis) in axes.iter().enumerate().filter(|(_, axis)| at.changed(whole, **axis)) {
        let (extent, count) = (at.shape(whole)[axis].known()?, at.shape(cut)[axis].known()?);
        let wrapped =
            if starts[i] < 0 { starts[i].saturating_add(extent as i64) } else { starts[i] };
        let start = wrapped.clamp(0, extent as i64) as usize;
        starts[i] = at.left(whole, axis, 0..start);
        ends[i] = starts[i] + at.left(cut, axis, 0..count);
        any = true;
    }
    any.then_some((starts, ends))
}

/// Pads: as many before and after as are left there.
fn pads(at: &At) -> Option<Vec<i64>> {
    let (input, output) = (at.node.input(0), at.node.outputs[0]);
    let mut pads = at.integers(1)?;
    let count = pads.len() / 2;
    let axes = at.axes(3, at.shape(input).len(), count)?;
    let mut any = false;
    for (i, &axis) in axes.iter().enumerate().filter(|(_, axis)| at.changed(output, **axis)) {
        let (inner, total) = (at.shape(input)[axis].known()?, at.shape(output)[axis].known()?);
        let before = usize::try_from(pads[i]).ok()?;
        pads[i] = at.left(output, axis, 0..before);
        pads[count + i] = at.left(output, axis, before + inner..total);
        any = true;
    }
    any.then_some(pads)
}

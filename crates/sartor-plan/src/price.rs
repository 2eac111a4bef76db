//! Widths of groups as changes that the cost model prices without a pruned graph.

use std::collections::BTreeMap;

use sartor_compress::prune::Groups;
use sartor_cost::Change;
use sartor_ir::{Graph, ValueId, infer_facts};

use crate::PlanError;

/// What each group has on which axes, found once for a graph.
pub struct WidthChanges {
    /// By group: its size, and its axes with their extents and how many indices of them one channel has.
    groups: BTreeMap<String, (usize, Vec<Axis>)>,
}

struct Axis {
    at: (ValueId, usize),
    extent: usize,
    indices: usize,
}

impl WidthChanges {
    /// Reads `groups` of `graph`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn of(graph: &Graph, groups: &Groups) -> Result<Self, PlanError> {
        let facts =
            infer_facts(graph, &BTreeMap::new()).map_err(sartor_compress::CompressError::from)?;
        let extent = |(value, axis): (ValueId, usize)| {
            let shape = facts[value.index()].as_ref()?.ty.shape.as_ref()?;
            shape.get(axis)?.known()
        };
        let one = |group: &sartor_compress::prune::Group| {
            // All channels of a group touch the same axes equally often.
            let mut indices: BTreeMap<(ValueId, usize), usize> = BTreeMap::new();
            for cell in group.channels.first().iter().flat_map(|it| &it.0) {
                *indices.entry((cell.value, cell.axis)).or_default() += 1;
            }
            let axis = |(at, indices)| Some(Axis { at, extent: extent(at)?, indices });
            (group.name.clone(), (group.size(), indices.into_iter().filter_map(axis).collect()))
        };
        Ok(WidthChanges { groups: groups.all().iter().map(one).collect() })
    }

    /// The extents that all values have when the groups have these widths. Groups that are not there are ignored.
    pub fn changes(&self, widths: &BTreeMap<String, usize>) -> Vec<Change> {
        let mut left: BTreeMap<(ValueId, usize), usize> = BTreeMap::new();
        for (name, &width) in widths {
            let Some((size, axes)) = self.groups.get(name) else { continue };
            for axis in axes {
                let extent = left.entry(axis.at).or_insert(axis.extent);
                *extent = extent.saturating_sub(size.saturating_sub(width) * axis.indices);
            }
        }
        let change = |((value, axis), extent)| Change::Extent { value, axis, extent };
        left.into_iter().map(change).collect()
    }
}

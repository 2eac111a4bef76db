//! Which axes shrink together when a layer gets fewer output channels.

use sartor_ir::{AxisLink, Fact, IndexMap, Port, ValueId};

use crate::{Change, Model, model::Network};

/// Channels that one layer makes and others take: all may be narrowed together.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelGroup {
    /// Name of the first layer that makes them.
    pub layer: String,
    /// How many there are.
    pub width: usize,
    /// All axes on which they lie.
    pub axes: Vec<(ValueId, usize)>,
}

impl ChannelGroup {
    /// The changes that leave `width` channels.
    pub fn narrowed(&self, width: usize) -> Vec<Change> {
        let narrow =
            |&(value, axis): &(ValueId, usize)| Change::Extent { value, axis, extent: width };
        self.axes.iter().map(narrow).collect()
    }
}

impl Model<'_> {
    /// The channels of each layer with constant weights that may be narrowed with all layers tied to them, in the order of the
    /// layers. Channels that are tied to other indices than their own (by a padding or a reshape across them) are left out: pruning
    /// itself knows how to take those.
    pub fn channel_groups(&self) -> Vec<ChannelGroup> {
        let network = &*self.network;
        let mut groups: Vec<ChannelGroup> = Vec::new();
        for (at, job) in self.jobs.iter().enumerate() {
            let task = &network.tasks[at];
            let Some([part]) = job.as_ref().map(|it| it.parts.as_slice()) else { continue };
            let Some(weights) = network.node(at).input(part.product.weights) else { continue };
            let axis = part.product.output_axis;
            let constant = task.contents.iter().all(Option::is_some);
            let known = groups.iter().any(|it| it.axes.contains(&(weights, axis)));
            let width = network.shapes.dims(weights).and_then(|it| it.get(axis).copied());
            let Some(width) = width.filter(|_| constant && !known) else { continue };
            if let Some(axes) = linked(network, weights, axis) {
                groups.push(ChannelGroup { layer: task.name.clone(), width, axes });
            }
        }
        groups
    }
}

/// All axes that have the channels of `axis` of `value`, that one included. `None`: the channels may not go, because they leave or
/// enter the network, are tied to other indices than their own, or an operator needs all of them.
fn linked(network: &Network<'_>, value: ValueId, axis: usize) -> Option<Vec<(ValueId, usize)>> {
    let graph = &network.flat.graph;
    let mut found = vec![(value, axis)];
    let mut next = 0;
    while let Some(&(value, axis)) = found.get(next) {
        next += 1;
        if graph.outputs().contains(&value) || graph.inputs().contains(&value) {
            return None;
        }
        let mut uses = network.uses[value.index()].clone();
        uses.dedup();
        for at in uses {
            let node = network.node(at as usize);
            let facts: Vec<Option<&Fact>> =
                node.inputs.iter().map(|it| it.and_then(|it| network.shapes.fact(it))).collect();
            let types: Vec<_> = node
                .outputs
                .iter()
                .map(|it| it.and_then(|it| network.shapes.fact(it)).map(|it| &it.ty))
                .collect();
            let at_port = |port: Port| match port {
                Port::Input(i) => node.inputs.get(i).copied().flatten(),
                Port::Output(i) => node.outputs.get(i).copied().flatten(),
            };
            let here = |it: (Port, usize)| at_port(it.0) == Some(value) && it.1 == axis;
            let mut known = false;
            for link in node.op.axes(&facts, &types) {
                let (a, b, map) = match link {
                    AxisLink::Free { at } => {
                        known |= here(at);
                        continue;
                    }
                    AxisLink::Fixed { at, .. } if here(at) => return None,
                    AxisLink::Fixed { .. } => continue,
                    AxisLink::Tied { a, b, map } => (a, b, map),
                };
                let other = if here(a) {
                    b
                } else if here(b) {
                    a
                } else {
                    continue;
                };
                if map != IndexMap::Same {
                    return None;
                }
                known = true;
                let other = (at_port(other.0)?, other.1);
                if !found.contains(&other) {
                    found.push(other);
                }
            }
            if !known {
                return None;
            }
        }
    }
    Some(found)
}

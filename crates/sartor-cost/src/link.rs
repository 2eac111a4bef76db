//! Which axes shrink together when a layer gets fewer output channels.

use sartor_ir::{AxisLink, Fact, IndexMap, Port, ValueId};

use crate::model::Network;

/// All axes that have the channels of `axis` of `value`, that one included. `None`: the channels may not go, because they leave or
/// enter the network, are tied to other indices than their own, or an operator needs all of them.
pub(crate) fn linked(
    network: &Network<'_>,
    value: ValueId,
    axis: usize,
) -> Option<Vec<(ValueId, usize)>> {
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

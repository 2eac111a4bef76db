//! The nodes of two networks side by side.

use std::collections::{BTreeMap, VecDeque};

use crate::record::NodeEstimate;

/// A node before and after; one side is missing where a node came or went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) before: Option<&'a NodeEstimate>,
    pub(crate) after: Option<&'a NodeEstimate>,
}

impl<'a> Pair<'a> {
    /// Name and operator, of the side that is there.
    pub(crate) fn node(&self) -> Option<&'a NodeEstimate> {
        self.after.or(self.before)
    }

    /// The longer of the two latencies, in seconds.
    pub(crate) fn longest_s(&self) -> f64 {
        let side = |node: Option<&NodeEstimate>| node.map_or(0.0, |node| node.latency_s);
        side(self.before).max(side(self.after))
    }
}

/// Pairs nodes by name, in the order of the first network; new nodes follow in their own order.
pub(crate) fn pairs<'a>(before: &'a [NodeEstimate], after: &'a [NodeEstimate]) -> Vec<Pair<'a>> {
    let mut by_name: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
    for (i, node) in after.iter().enumerate() {
        by_name.entry(&node.name).or_default().push_back(i);
    }
    let mut taken = vec![false; after.len()];
    let mut all = Vec::with_capacity(before.len().max(after.len()));
    for node in before {
        let partner = by_name.get_mut(node.name.as_str()).and_then(VecDeque::pop_front);
        if let Some(i) = partner {
            taken[i] = true;
        }
        all.push(Pair { before: Some(node), after: partner.map(|i| &after[i]) });
    }
    let new = after.iter().zip(taken).filter(|(_, taken)| !taken);
    all.extend(new.map(|(node, _)| Pair { before: None, after: Some(node) }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    #[test]
    fn every_node_stands_in_one_pair() {
        let mut record = sample();
        // A name that stands twice keeps both of its nodes.
        record.nodes_before[5].name = "conv1".to_owned();
        let sides: Vec<_> = pairs(&record.nodes_before, &record.nodes_after)
            .iter()
            .map(|pair| {
                let name = |node: Option<&NodeEstimate>| node.map(|node| node.name.clone());
                (name(pair.before).unwrap_or_default(), name(pair.after).unwrap_or_default())
            })
            .collect();
        let expected = [
            ("conv1", "conv1"),
            ("bn1", ""),
            ("stage1/conv1", "stage1/conv1"),
            ("stage2/conv1", "stage2/conv1"),
            ("stage3/conv1", "stage3/conv1"),
            ("conv1", ""),
            ("fc", "fc"),
            ("", "pool"),
            ("", "logits/dequantize"),
        ];
        let expected = expected.map(|(before, after)| (before.to_owned(), after.to_owned()));
        assert_eq!(sides, expected);
    }
}

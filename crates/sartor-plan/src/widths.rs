//! Widths for a wanted share of the cost.

use std::collections::BTreeMap;

use sartor_compress::prune::{Groups, least_important, remove_channels};
use sartor_ir::Graph;

use crate::PlanError;

/// Widths by group name.
pub(crate) type Widths = BTreeMap<String, usize>;

/// Widths, multiples of `grain`, at which the network costs at most `share` of what it costs now, as `count`
/// (of `unit`) counts. One grain after another goes, each time from the group that loses the smallest part
/// of its importance per unit saved: the greedy solution of the knapsack (Dantzig 1957). A grain that saves
/// nothing is never taken.
///
/// # Errors
/// [`PlanError::Unreachable`] if even the smallest widths cost more; whatever `count` reports.
pub fn widths_for_share(
    graph: &Graph,
    groups: &Groups,
    importance: &[Vec<f64>],
    grain: usize,
    share: f64,
    unit: &'static str,
    count: &dyn Fn(&Graph) -> Result<u64, PlanError>,
) -> Result<Widths, PlanError> {
    let whole = count(graph)?;
    let wanted = (share * whole as f64).floor() as u64;
    let mut search =
        Greedy { graph, groups, importance, grain, count, widths: Widths::new(), cost: whole };
    let mut open: Vec<Option<Move>> = Vec::new();
    for at in 0..groups.all().len() {
        open.push(search.next_move(at)?);
    }
    while search.cost > wanted {
        let best = open.iter().enumerate().filter_map(|(i, it)| it.as_ref().map(|it| (i, it)));
        let Some((at, _)) = best.min_by(|a, b| a.1.price.total_cmp(&b.1.price)) else {
            let reached = 100.0 * search.cost as f64 / whole as f64;
            let frozen = groups.frozen().count();
            return Err(PlanError::Unreachable { unit, reached, asked: 100.0 * share, frozen });
        };
        // Earlier moves changed what this one saves: price it again before it is taken.
        let fresh = search.next_move(at)?;
        let others =
            open.iter().enumerate().filter(|(i, _)| *i != at).filter_map(|(_, it)| it.as_ref());
        let cheapest = others.map(|it| it.price).fold(f64::INFINITY, f64::min);
        match fresh {
            Some(it) if it.price <= cheapest => {
                search.widths.insert(groups.all()[at].name.clone(), it.width);
                search.cost = it.cost;
                open[at] = search.next_move(at)?;
            }
            it => open[at] = it,
        }
    }
    Ok(search.widths)
}

/// One grain less of one group.
struct Move {
    width: usize,
    cost: u64,
    /// Part of the group's importance lost per unit saved.
    price: f64,
}

struct Greedy<'a> {
    graph: &'a Graph,
    groups: &'a Groups,
    importance: &'a [Vec<f64>],
    grain: usize,
    count: &'a dyn Fn(&Graph) -> Result<u64, PlanError>,
    widths: Widths,
    cost: u64,
}

impl Greedy<'_> {
    /// The next narrower width of a group that saves something, if there is one.
    fn next_move(&self, at: usize) -> Result<Option<Move>, PlanError> {
        let group = &self.groups.all()[at];
        if group.frozen.is_some() {
            return Ok(None);
        }
        let now = self.widths.get(&group.name).copied().unwrap_or(group.size());
        for width in group.widths(self.grain).into_iter().rev().filter(|it| *it < now) {
            let mut widths = self.widths.clone();
            widths.insert(group.name.clone(), width);
            let removed = least_important(self.groups, self.importance, &widths)?;
            let lost = lost_importance(&self.importance[at], width)
                - lost_importance(&self.importance[at], now);
            let pruned = remove_channels(self.graph, self.groups.clone(), removed)?;
            let cost = (self.count)(&pruned.graph)?;
            if cost < self.cost {
                let price = lost.max(f64::MIN_POSITIVE) / (self.cost - cost) as f64;
                return Ok(Some(Move { width, cost, price }));
            }
        }
        Ok(None)
    }
}

/// Part of a group's importance that goes when its `width` most important channels stay.
fn lost_importance(importance: &[f64], width: usize) -> f64 {
    let mut sorted = importance.to_vec();
    sorted.sort_by(f64::total_cmp);
    let total: f64 = sorted.iter().sum();
    let lost: f64 = sorted[..sorted.len() - width.min(sorted.len())].iter().sum();
    lost / total.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use sartor_compress::prune::{Criterion, groups, importance};
    use sartor_ir::parse;

    use super::*;

    /// Two convolutions in a row; parameters stand for the cost.
    fn network() -> Graph {
        let ones = |n: usize| "0000803f".repeat(n);
        let text = format!(
            "graph \"g\" {{ opset \"\" 17 input %x: f32[N,1,4,4]
            const %a: f32[8,1,1,1] = hex \"{}\" const %b: f32[4,8,1,1] = hex \"{}\" const %c: f32[2,4,1,1] = hex \"{}\"
            node \"first\" %y = Conv(%x, %a) node \"second\" %z = Conv(%y, %b) node \"third\" %out = Conv(%z, %c) output %out }}",
            ones(8),
            ones(32),
            ones(8)
        );
        let mut graph = parse(&text).unwrap();
        sartor_ir::infer(&mut graph).unwrap();
        graph
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands for a count that can fail")]
    fn parameters(graph: &Graph) -> Result<u64, PlanError> {
        Ok(graph
            .values()
            .filter_map(|(_, it)| it.constant.as_ref())
            .map(|it| it.len() as u64)
            .sum())
    }

    #[test]
    fn widths_reach_the_share_on_the_grain() {
        let graph = network();
        let groups = groups(&graph).unwrap();
        let importance = importance(&graph, &groups, Criterion::L2);
        for (share, grain) in [(0.8, 2), (0.5, 2), (0.6, 4), (0.3, 1)] {
            let widths = widths_for_share(
                &graph,
                &groups,
                &importance,
                grain,
                share,
                "parameters",
                &parameters,
            )
            .unwrap();
            assert!(widths.values().all(|it| it % grain == 0), "{widths:?}");
            let removed = least_important(&groups, &importance, &widths).unwrap();
            let left = parameters(&remove_channels(&graph, groups.clone(), removed).unwrap().graph)
                .unwrap();
            assert!(left as f64 <= share * 48.0, "{share} of 48 by {widths:?}: {left}");
        }
    }

    #[test]
    fn an_impossible_share_says_what_is_possible() {
        let graph = network();
        let groups = groups(&graph).unwrap();
        let importance = importance(&graph, &groups, Criterion::L2);
        let error =
            widths_for_share(&graph, &groups, &importance, 4, 0.01, "parameters", &parameters)
                .unwrap_err();
        assert!(matches!(error, PlanError::Unreachable { .. }), "{error}");
    }
}

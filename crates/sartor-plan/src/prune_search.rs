//! Which channels are worth more on this chip than they cost in accuracy.

use sartor_chip::{Chip, Seconds};
use sartor_compress::{
    RestoreStatistics, Step, Workpiece,
    prune::{
        Criterion, Groups, Keep, PruneChannels, groups, importance, least_important,
        remove_channels,
    },
};
use sartor_cost::{Model, Options, Precision};
use sartor_ir::Graph;

use crate::{
    Judge, PlanError, Score, WidthChanges,
    search::{Event, Refusal, Request},
    widths::Widths,
};

/// What the search for channels found: steps in order, and the network after them.
pub(crate) struct Pruning {
    pub(crate) steps: Vec<Step>,
    pub(crate) piece: Option<Workpiece>,
    pub(crate) widths: Widths,
    pub(crate) refused: Vec<Refusal>,
}

/// Cuts that gain less than this share of the latency are not worth a word.
const LEAST_GAIN: f64 = 0.002;

/// Each round takes at most one grain from every group.
const MOST_ROUNDS: usize = 4;

/// One grain less of one group.
struct Cut {
    group: String,
    width: usize,
    gain: f64,
    price: f64,
}

/// Looks for cuts on the chip's grain in the precision that the network will have there. Every group is tried
/// alone: its predicted gain over its measured divergence ranks it (one step of greedy knapsack); the longest
/// prefix of the ranking that loses at most `allowed` points is taken, by bisection; again, until a round takes
/// less than all.
pub(crate) fn search(
    request: &Request<'_>,
    piece: &Workpiece,
    precision: Precision,
    reference: &Score,
    allowed: f64,
    judge: &mut dyn Judge,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Pruning, PlanError> {
    let graph = &piece.graph;
    let all = groups(graph)?;
    let importance = importance(graph, &all, Criterion::L2);
    let options = Options { batch: 1, precision };
    let model = Model::new(graph, request.chip, &options)?;
    let changes = WidthChanges::of(graph, &all)?;
    let mut search =
        Search { request, graph, all, importance, model, changes, refused: Vec::new() };
    search.note_frozen();
    let mut widths = Widths::new();
    for round in 0..MOST_ROUNDS {
        let cuts = search.cuts(&widths, round == 0, judge, observe)?;
        let taken =
            search.longest_prefix(piece, &widths, &cuts, reference, allowed, judge, observe)?;
        widths.extend(cuts[..taken].iter().map(|it| (it.group.clone(), it.width)));
        if taken < cuts.len() {
            search.note_untaken(&cuts[taken..], allowed);
            break;
        }
        if cuts.is_empty() {
            break;
        }
    }
    if widths.is_empty() {
        return Ok(Pruning { steps: Vec::new(), piece: None, widths, refused: search.refused });
    }
    let steps = search.steps(&widths);
    let pruned = apply(request, piece, &steps)?;
    Ok(Pruning { steps, piece: Some(pruned), widths, refused: search.refused })
}

struct Search<'a> {
    request: &'a Request<'a>,
    graph: &'a Graph,
    all: Groups,
    importance: Vec<Vec<f64>>,
    model: Model<'a>,
    changes: WidthChanges,
    refused: Vec<Refusal>,
}

impl Search<'_> {
    fn chip(&self) -> &Chip {
        self.request.chip
    }

    fn grain(&self) -> usize {
        usize::try_from(self.chip().grain()).unwrap_or(1).max(1)
    }

    fn pruned(&self, widths: &Widths) -> Result<Graph, PlanError> {
        let removed = least_important(&self.all, &self.importance, widths)?;
        Ok(remove_channels(self.graph, self.all.clone(), removed)?.graph)
    }

    /// The latency with these widths, without a pruned graph.
    fn latency(&self, widths: &Widths) -> Result<f64, PlanError> {
        let Seconds(seconds) = self.model.price(&self.changes.changes(widths))?.latency;
        Ok(seconds)
    }

    /// The next cut of every group that gains something, cheapest first.
    fn cuts(
        &mut self,
        widths: &Widths,
        first: bool,
        judge: &mut dyn Judge,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<Cut>, PlanError> {
        let now = self.pruned(widths)?;
        let (latency, divergence) = (self.latency(widths)?, judge.divergence(&now)?);
        let names: Vec<(String, Vec<usize>, usize)> = self
            .all
            .prunable()
            .map(|it| (it.name.clone(), it.widths(self.grain()), it.size()))
            .collect();
        let mut cuts = Vec::new();
        let mut gainless = Vec::new();
        for (name, allowed, size) in names {
            let width = widths.get(&name).copied().unwrap_or(size);
            let candidates = allowed.into_iter().rev().filter(|it| *it < width);
            let mut found = None;
            for width in candidates {
                let mut trial = widths.clone();
                trial.insert(name.clone(), width);
                let gain = 1.0 - self.latency(&trial)? / latency;
                if gain >= LEAST_GAIN {
                    found = Some((width, gain, self.pruned(&trial)?));
                    break;
                }
            }
            let Some((width, gain, graph)) = found else {
                gainless.push(name);
                continue;
            };
            observe(Event::Trying(&format!("`{name}` with {width} of {size} channels")));
            let price = (judge.divergence(&graph)? - divergence).max(f64::MIN_POSITIVE) / gain;
            cuts.push(Cut { group: name, width, gain, price });
        }
        if first && !gainless.is_empty() {
            self.refused.push(Refusal {
                what: "prune channels".to_owned(),
                where_: summary(&gainless),
                why: format!(
                    "no width on the chip's grain of {} gains {:.1} % of the latency: the cut reaches no step of the \
                     array or the layer does not bind",
                    self.grain(),
                    100.0 * LEAST_GAIN
                ),
            });
        }
        cuts.sort_by(|a, b| a.price.total_cmp(&b.price).then_with(|| a.group.cmp(&b.group)));
        Ok(cuts)
    }

    /// How many of the cheapest cuts together lose at most `allowed` points.
    #[expect(
        clippy::too_many_arguments,
        reason = "a bisection over everything that a candidate is made of"
    )]
    fn longest_prefix(
        &self,
        piece: &Workpiece,
        widths: &Widths,
        cuts: &[Cut],
        reference: &Score,
        allowed: f64,
        judge: &mut dyn Judge,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<usize, PlanError> {
        let (mut holds, mut fails) = (0, cuts.len() + 1);
        while fails - holds > 1 {
            let middle = usize::midpoint(holds, fails);
            let mut trial = widths.clone();
            trial.extend(cuts[..middle].iter().map(|it| (it.group.clone(), it.width)));
            observe(Event::Trying(&format!("{middle} of {} cuts together", cuts.len())));
            let pruned = apply(self.request, piece, &self.steps(&trial))?;
            let score = judge.score(&pruned.graph)?;
            if score.drop_from(reference) <= allowed { holds = middle } else { fails = middle }
        }
        Ok(holds)
    }

    fn steps(&self, widths: &Widths) -> Vec<Step> {
        let prune = PruneChannels {
            criterion: Criterion::L2,
            grain: self.grain(),
            keep: Keep::Widths(widths.clone()),
        };
        let restore = RestoreStatistics::default();
        vec![Step::PruneChannels(prune), Step::RestoreStatistics(restore)]
    }

    fn note_frozen(&mut self) {
        let frozen = self.all.frozen().map(|(group, reason)| Refusal {
            what: "prune channels".to_owned(),
            where_: group.name.clone(),
            why: reason.to_owned(),
        });
        self.refused = frozen.collect();
    }

    fn note_untaken(&mut self, cuts: &[Cut], allowed: f64) {
        let Some(next) = cuts.first() else { return };
        let names: Vec<_> = cuts.iter().map(|it| it.group.clone()).collect();
        self.refused.push(Refusal {
            what: "prune channels".to_owned(),
            where_: summary(&names),
            why: format!(
                "{} more groups would cost more accuracy than the {allowed:.2} points left for pruning; the next, \
                 `{}` at {} channels, would gain {:.1} % of the latency (fine-tuning could recover it)",
                cuts.len(),
                next.group,
                next.width,
                100.0 * next.gain
            ),
        });
    }
}

/// Applies steps in order.
pub(crate) fn apply(
    request: &Request<'_>,
    piece: &Workpiece,
    steps: &[Step],
) -> Result<Workpiece, PlanError> {
    let mut piece = piece.clone();
    for step in steps {
        piece = piece.apply(step, Some(request.calibration), &mut |_, _| {})?.0;
    }
    Ok(piece)
}

/// A few names and how many more there are.
pub(crate) fn summary(names: &[String]) -> String {
    let shown = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 3 { format!("{shown} and {} more", names.len() - 3) } else { shown }
}

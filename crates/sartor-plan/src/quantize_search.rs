//! Which ranges change the outputs least.

use sartor_compress::{Outcome, QuantizeStatic, QuantizedNode, RangeMethod, Step, Workpiece};

use crate::{
    Judge, PlanError, QuantizationScheme, Score,
    search::{Event, Refusal, Request},
};

/// What the search for ranges found.
pub(crate) struct Quantization {
    pub(crate) step: Step,
    pub(crate) piece: Workpiece,
    pub(crate) score: Score,
    pub(crate) nodes: Vec<QuantizedNode>,
    pub(crate) refused: Vec<Refusal>,
}

/// The range methods that are tried, with their names in a report.
const METHODS: &[(RangeMethod, &str)] = &[
    (RangeMethod::MinMax, "min-max"),
    (RangeMethod::Percentile(99.99), "percentile 99.99"),
    (RangeMethod::Mse, "mean squared error"),
];

/// Quantizes `piece` by the chip's scheme with each range method and keeps the one whose output
/// distribution is nearest to the original network's.
pub(crate) fn search(
    request: &Request<'_>,
    scheme: &QuantizationScheme,
    piece: &Workpiece,
    skip: &[String],
    judge: &mut dyn Judge,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Quantization, PlanError> {
    let mut best: Option<(Quantization, &str)> = None;
    let mut losers = Vec::new();
    for &(ranges, name) in METHODS {
        observe(Event::Trying(&format!("quantization with {name} ranges")));
        let config = QuantizeStatic { ranges, skip: skip.to_vec(), ..scheme.config.clone() };
        let step = Step::QuantizeStatic(config);
        let (quantized, outcome) = piece.apply(&step, Some(request.calibration), &mut |_, _| {})?;
        let score = judge.score(&quantized.graph)?;
        let Outcome::Quantized(nodes) = outcome else { continue };
        let found = Quantization { step, piece: quantized, score, nodes, refused: Vec::new() };
        match &best {
            Some((old, _)) if old.score.divergence <= score.divergence => {
                losers.push((name, score));
            }
            _ => {
                if let Some((old, old_name)) = best.replace((found, name)) {
                    losers.push((old_name, old.score));
                }
            }
        }
    }
    let (mut best, name) =
        best.expect("METHODS is not empty and every method gives a quantization");
    let refusal = |(loser, score): (&str, Score)| Refusal {
        what: format!("{loser} ranges"),
        where_: "all activations".to_owned(),
        why: worse(&score, &best.score, name),
    };
    best.refused = losers.into_iter().map(refusal).collect();
    Ok(best)
}

/// Why ranges were not taken that lost against those of `winner`.
fn worse(loser: &Score, best: &Score, winner: &str) -> String {
    let agreement = format!("{:.2} against {:.2} % agreement", loser.agreement, best.agreement);
    if loser.divergence <= 1.01 * best.divergence {
        return format!("no nearer to the float network than {winner} ranges: {agreement}");
    }
    format!(
        "outputs move further from the float network's than with {winner} ranges: \
         {:.2e} against {:.2e} nats, {agreement}",
        loser.divergence, best.divergence
    )
}

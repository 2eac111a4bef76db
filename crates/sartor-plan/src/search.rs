//! The search: from a request to a plan.

use sartor_chip::{Chip, NumberType};
use sartor_compress::{QuantizedNode, Recipe, Samples, Step, Workpiece};
use sartor_cost::{Estimate, Options, Precision, estimate};
use sartor_ir::{Fidelity, Graph};

use crate::{
    Judge, PlanError, QuantizationScheme, Score,
    prune_search::{self, Pruning, summary},
    quantization_scheme,
    quantize_search::{self, Quantization},
};

/// What the owner allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Points of top-1 accuracy (without labels: of agreement) that may go.
    pub max_drop: f64,
    /// Share of `max_drop` that the search may use up on the judge's samples, 0 to 1: less than 1 where
    /// those samples flatter the network, as training images do.
    pub reserve: f64,
}

/// What a plan is asked for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The network as it was read.
    pub graph: &'a Graph,
    /// The chip.
    pub chip: &'a Chip,
    /// What may be lost.
    pub limits: Limits,
    /// Seed of every random choice, for the recipe.
    pub seed: u64,
    /// Samples for ranges and corrections.
    pub calibration: &'a dyn Samples,
}

/// What a search says while it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A candidate is tried.
    Trying(&'a str),
}

/// A step with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// What, in words.
    pub what: String,
    /// Where.
    pub where_: String,
    /// Why.
    pub why: String,
    /// What it may do to the outputs.
    pub fidelity: Fidelity,
    /// Estimated latency before the step over that after it; `None` where the chip could not run the
    /// network before.
    pub predicted_gain: Option<f64>,
    /// Points of accuracy gained (lost if negative) on the judge's samples.
    pub measured_points: Option<f64>,
}

/// Something that was considered and not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What.
    pub what: String,
    /// Where.
    pub where_: String,
    /// Why not.
    pub why: String,
}

/// One combination of techniques that holds the limit on the judge's samples.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What to do.
    pub recipe: Recipe,
    /// The network after it.
    pub graph: Graph,
    /// The steps with their reasons.
    pub steps: Vec<PlannedStep>,
    /// What it reached on the judge's samples.
    pub score: Score,
    /// What it costs on the chip.
    pub estimate: Estimate,
    /// What became of each node, if it was quantized.
    pub nodes: Vec<QuantizedNode>,
    /// Variants of its steps that were tried and did worse.
    pub refused: Vec<Refusal>,
}

/// Every combination that holds the limit, fastest first, and what was refused.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The network as it came in.
    pub before: Estimate,
    /// Its score.
    pub reference: Score,
    /// What holds the limit. Empty if nothing does, not even the network that came in (a chip without its
    /// arithmetic).
    pub candidates: Vec<Candidate>,
    /// The nearest miss, where `candidates` is empty.
    pub nearest: Option<Candidate>,
    /// What was considered and not done.
    pub refused: Vec<Refusal>,
}

/// Part of the allowed loss that pruning may use when quantization follows.
const PRUNING_SHARE: f64 = 0.7;

/// Makes a plan.
///
/// # Errors
/// A network that cannot be priced, run or changed.
pub fn plan(
    request: &Request<'_>,
    judge: &mut dyn Judge,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Plan, PlanError> {
    let (clean, _) =
        Workpiece::new(request.graph.clone()).apply(&Step::Simplify, None, &mut |_, _| {})?;
    let mut refused = Vec::new();
    let scheme = match quantization_scheme(request.chip) {
        Ok(scheme) => Some(scheme),
        Err(why) => {
            let where_ = "the whole network".to_owned();
            refused.push(Refusal { what: "quantize to INT8".to_owned(), where_, why });
            None
        }
    };
    let before = price(&clean.graph, request.chip, Precision::AsIs)?;
    let reference = judge.score(&clean.graph)?;
    let mut search = Search { request, scheme, before, reference, refused, found: Vec::new() };
    let pruning = search.prune(&clean, judge, observe)?;
    search.combine(&clean, &pruning, judge, observe)?;
    Ok(search.finish())
}

struct Search<'a> {
    request: &'a Request<'a>,
    scheme: Option<QuantizationScheme>,
    before: Estimate,
    reference: Score,
    refused: Vec<Refusal>,
    found: Vec<Candidate>,
}

impl Search<'_> {
    fn allowed(&self) -> f64 {
        self.request.limits.max_drop * self.request.limits.reserve
    }

    fn prune(
        &mut self,
        clean: &Workpiece,
        judge: &mut dyn Judge,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Pruning, PlanError> {
        let (precision, share) = match &self.scheme {
            Some(it) => (Precision::As(it.types.0, it.types.1), PRUNING_SHARE),
            None => (Precision::AsIs, 1.0),
        };
        let allowed = share * self.allowed();
        let mut pruning = prune_search::search(
            self.request,
            clean,
            precision,
            &self.reference,
            allowed,
            judge,
            observe,
        )?;
        self.refused.append(&mut pruning.refused);
        Ok(pruning)
    }

    /// Tries pruned and whole, quantized and float.
    fn combine(
        &mut self,
        clean: &Workpiece,
        pruning: &Pruning,
        judge: &mut dyn Judge,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), PlanError> {
        let whole = Base { piece: clean, steps: &[], widths: &[], score: self.reference };
        let names: Vec<String> = pruning.widths.keys().cloned().collect();
        let mut bases = Vec::new();
        if let Some(piece) = &pruning.piece {
            let score = judge.score(&piece.graph)?;
            bases.push(Base { piece, steps: &pruning.steps, widths: &names, score });
        }
        bases.push(whole);
        for base in &bases {
            if let Some(scheme) = self.scheme.clone() {
                self.quantize(base, &scheme, judge, observe)?;
            }
            if self.request.chip.float_mode().is_some() {
                let candidate = self.described(base, None)?;
                self.found.push(candidate);
            }
        }
        Ok(())
    }

    /// Quantizes everything; where that loses too much and the chip has floats, without the last, then
    /// without the first and last layers (Nagel et al. 2021, section 4.2: the layers that suffer most).
    fn quantize(
        &mut self,
        base: &Base<'_>,
        scheme: &QuantizationScheme,
        judge: &mut dyn Judge,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), PlanError> {
        let mut skips = vec![Vec::new()];
        if self.request.chip.float_mode().is_some() {
            let heavy = heavy_nodes(&base.piece.graph);
            if let [first, .., last] = heavy.as_slice() {
                skips.push(vec![last.clone()]);
                skips.push(vec![first.clone(), last.clone()]);
            }
        }
        for skip in skips {
            let found =
                quantize_search::search(self.request, scheme, base.piece, &skip, judge, observe)?;
            let holds = found.score.drop_from(&self.reference) <= self.allowed();
            let candidate = self.described(base, Some((&found, scheme)))?;
            self.found.push(candidate);
            if holds {
                break;
            }
        }
        Ok(())
    }

    /// A candidate with its recipe and reasons.
    fn described(
        &self,
        base: &Base<'_>,
        quantization: Option<(&Quantization, &QuantizationScheme)>,
    ) -> Result<Candidate, PlanError> {
        let chip = self.request.chip;
        let float = price(&base.piece.graph, chip, Precision::AsIs)?;
        let mut steps = vec![simplify_step()];
        let mut recipe = vec![Step::Simplify];
        if !base.steps.is_empty() {
            recipe.extend_from_slice(base.steps);
            let gain = self.before.latency / float.latency;
            let points = -base.score.drop_from(&self.reference);
            steps.push(prune_step(chip, &self.before, base.widths, gain, points));
        }
        let Some((found, scheme)) = quantization else {
            let recipe = Recipe::new(Some(chip.id.clone()), self.request.seed, recipe);
            let graph = base.piece.graph.clone();
            return Ok(Candidate {
                recipe,
                graph,
                steps,
                score: base.score,
                estimate: float,
                nodes: Vec::new(),
                refused: Vec::new(),
            });
        };
        let estimate = price(&found.piece.graph, chip, Precision::AsIs)?;
        let gain = chip.float_mode().map(|_| float.latency / estimate.latency);
        steps.push(quantize_step(found, scheme, gain, -found.score.drop_from(&base.score)));
        recipe.push(found.step.clone());
        let recipe = Recipe::new(Some(chip.id.clone()), self.request.seed, recipe);
        let (graph, nodes, refused) =
            (found.piece.graph.clone(), found.nodes.clone(), found.refused.clone());
        Ok(Candidate { recipe, graph, steps, score: found.score, estimate, nodes, refused })
    }

    fn finish(mut self) -> Plan {
        self.found.sort_by(|a, b| a.estimate.latency.0.total_cmp(&b.estimate.latency.0));
        let allowed = self.allowed();
        let (mut held, mut lost) = (Vec::new(), Vec::new());
        for candidate in self.found {
            let drop = candidate.score.drop_from(&self.reference);
            let slower = self.request.chip.float_mode().is_some()
                && candidate.estimate.latency > self.before.latency;
            let why = if drop > allowed {
                format!("loses {drop:.2} points where {allowed:.2} may go in the search")
            } else if candidate.estimate.fallbacks.len() > self.before.fallbacks.len() {
                format!("sends work to the host: {}", candidate.estimate.fallbacks.join("; "))
            } else if slower {
                let ratio = candidate.estimate.latency / self.before.latency;
                format!("would be {ratio:.2}× as slow on the chip as the network that came in")
            } else {
                held.push(candidate);
                continue;
            };
            let what =
                candidate.steps.iter().map(|it| it.what.clone()).collect::<Vec<_>>().join(", ");
            self.refused.push(Refusal { what, where_: "the whole network".to_owned(), why });
            lost.push((drop, candidate));
        }
        lost.sort_by(|a, b| a.0.total_cmp(&b.0));
        let nearest = if held.is_empty() { lost.into_iter().next().map(|it| it.1) } else { None };
        Plan {
            before: self.before,
            reference: self.reference,
            candidates: held,
            nearest,
            refused: self.refused,
        }
    }
}

/// A network before quantization, and how it came about.
struct Base<'a> {
    piece: &'a Workpiece,
    steps: &'a [Step],
    widths: &'a [String],
    score: Score,
}

fn price(graph: &Graph, chip: &Chip, precision: Precision) -> Result<Estimate, PlanError> {
    Ok(estimate(graph, chip, &Options { batch: 1, precision })?)
}

fn heavy_nodes(graph: &Graph) -> Vec<String> {
    let heavy = |name: &str| matches!(name, "Conv" | "Gemm" | "MatMul");
    graph
        .nodes()
        .filter(|(_, it)| heavy(it.op.name()))
        .map(|(_, it)| it.name.clone())
        .filter(|it| !it.is_empty())
        .collect()
}

fn simplify_step() -> PlannedStep {
    PlannedStep {
        what: "simplify".to_owned(),
        where_: "the whole network".to_owned(),
        why: "what can be folded need not run, and every later step sees the weights that do"
            .to_owned(),
        fidelity: Fidelity::Rounding,
        predicted_gain: None,
        measured_points: None,
    }
}

fn prune_step(
    chip: &Chip,
    before: &Estimate,
    groups: &[String],
    gain: f64,
    points: f64,
) -> PlannedStep {
    PlannedStep {
        what: "prune channels".to_owned(),
        where_: summary(groups),
        why: format!(
            "the network is bound by {} on this chip; whole channels on its grain of {} relieve arithmetic and traffic \
             alike, and go before quantization so that ranges are found on what is left; of all groups these gain most \
             for what they cost",
            before.bound,
            chip.grain()
        ),
        fidelity: Fidelity::Lossy,
        predicted_gain: Some(gain),
        measured_points: Some(points),
    }
}

fn quantize_step(
    found: &Quantization,
    scheme: &QuantizationScheme,
    gain: Option<f64>,
    points: f64,
) -> PlannedStep {
    let done = found.nodes.iter().filter(|it| it.left_float_because.is_none()).count();
    let (weights, activations): (NumberType, NumberType) = scheme.types;
    PlannedStep {
        what: format!("quantize to {weights} weights and {activations} activations"),
        where_: format!("{done} of {} nodes", found.nodes.len()),
        why: scheme.reason.clone(),
        fidelity: Fidelity::Lossy,
        predicted_gain: gain,
        measured_points: Some(points),
    }
}

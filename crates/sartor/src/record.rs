//! What a run leaves in writing.

use sartor_chip::{Artefact, Chip};
use sartor_cost::{Estimate, NodeCost, Options, Precision, estimate};
use sartor_data::DataSpec;
use sartor_ir::Graph;
use sartor_plan::Plan;
use sartor_report::record::{
    Ceiling, ChipInfo, Fidelity, Figures, Limits, ModelInfo, NodeEstimate, Record, Refused, SCHEMA,
    StepRecord, TensorInfo, Verdict,
};

use crate::{
    Error, Evaluation, Model, Session,
    compress::{Chosen, DEFAULT_DROP},
    inspect::parameters,
};

/// Everything that a record is made from.
pub(crate) struct Findings<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) model: &'a Model,
    pub(crate) clean: &'a Graph,
    pub(crate) chip: &'a Chip,
    pub(crate) spec: &'a DataSpec,
    pub(crate) limits: &'a crate::Limits,
    pub(crate) plan: &'a Plan,
    pub(crate) chosen: &'a Chosen,
}

/// The record of a run.
pub(crate) fn record(it: &Findings<'_>) -> Result<Record, Error> {
    let before = estimate(it.clean, it.chip, &Options { batch: 1, precision: Precision::AsIs })?;
    let after = &it.chosen.candidate.estimate;
    let recipe = it.chosen.candidate.recipe.to_toml().map_err(|it| Error::Bug(it.to_string()))?;
    Ok(Record {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: it.session.seed,
        model: model_info(it.model, it.clean, &before),
        chip: chip_info(it.chip, after),
        data: Some(data_words(it)),
        verdict: verdict(it),
        limits: limits(it.limits),
        before: figures(&before, parameters(it.clean), it.model.bytes, it.chosen.before.as_ref()),
        after: figures(
            after,
            parameters(&it.chosen.candidate.graph),
            it.chosen.bytes.len() as u64,
            it.chosen.after.as_ref(),
        ),
        steps: it.chosen.candidate.steps.iter().map(step).collect(),
        refused: refused(it),
        warnings: warnings(it, after),
        recipe,
        deploy: deploy(it.chip),
        nodes_before: before.nodes.iter().map(|node| node_estimate(node, None)).collect(),
        nodes_after: after.nodes.iter().map(|node| node_estimate(node, Some(it.chosen))).collect(),
    })
}

fn model_info(model: &Model, clean: &Graph, before: &Estimate) -> ModelInfo {
    let ports = |ids: &[sartor_ir::ValueId]| {
        let one = |id: &sartor_ir::ValueId| {
            let value = clean.value(*id);
            let shape = value.ty.as_ref().and_then(|it| it.shape.clone()).unwrap_or_default();
            TensorInfo {
                name: value.name.clone(),
                dtype: value.ty.as_ref().map_or_else(|| "?".to_owned(), |it| it.dtype.to_string()),
                shape: shape.iter().map(ToString::to_string).collect(),
            }
        };
        ids.iter().map(one).collect()
    };
    ModelInfo {
        file: model.path.display().to_string(),
        name: model.graph.name.clone(),
        parameters: parameters(clean),
        macs: before.macs.0,
        opset: model.graph.opsets.get("").copied().unwrap_or_default().unsigned_abs(),
        inputs: ports(clean.inputs()),
        outputs: ports(clean.outputs()),
    }
}

/// The commands that bring the written model onto the chip.
fn deploy(chip: &Chip) -> Vec<String> {
    let takes_onnx = |it: &Artefact| matches!(it, Artefact::Onnx | Artefact::OnnxQdq);
    if chip.runtime.accepts.iter().any(takes_onnx) {
        return vec![chip.runtime.command_for("model.onnx")];
    }
    let formats: Vec<_> = chip.runtime.accepts.iter().map(ToString::to_string).collect();
    vec![
        format!(
            "# {} takes {}, which Sartor does not write yet: convert model.onnx with a tool that keeps the integers of \
             its QuantizeLinear pairs, then",
            chip.runtime.toolchain,
            formats.join(" or ")
        ),
        chip.runtime.command_for("model.tflite"),
    ]
}

/// The chip's roofs: the arithmetic of every mode, the bandwidth of every memory.
pub(crate) fn ceilings(chip: &Chip) -> Vec<Ceiling> {
    let compute = chip.modes().map(|mode| Ceiling::Compute {
        name: format!("{} × {}", mode.weights, mode.activations),
        macs_per_s: chip.rate(mode).0,
    });
    let memory = chip.system.memories.iter().filter_map(|it| {
        let read = it.read.as_ref()?;
        Some(Ceiling::Memory { name: it.name.clone(), bytes_per_s: read.value.0 })
    });
    compute.chain(memory).collect()
}

fn chip_info(chip: &Chip, estimate: &Estimate) -> ChipInfo {
    ChipInfo {
        id: chip.id.clone(),
        name: chip.name.clone(),
        low_confidence: estimate.low_confidence.clone(),
        ceilings: ceilings(chip),
    }
}

fn data_words(it: &Findings<'_>) -> String {
    let samples = it.chosen.after.as_ref().map_or(0, |it| it.samples);
    let splits: Vec<_> = it.spec.splits().collect();
    format!(
        "{samples} samples of the split `test`; the search chose on other samples (splits: {})",
        splits.join(", ")
    )
}

fn verdict(it: &Findings<'_>) -> Verdict {
    let gain = it.plan.before.latency / it.chosen.candidate.estimate.latency;
    if !it.chosen.misses.is_empty() {
        return Verdict { met: false, reason: it.chosen.misses.join("; ") };
    }
    let allowed = it.limits.max_drop.unwrap_or(DEFAULT_DROP);
    let reason = match (&it.chosen.before, &it.chosen.after) {
        (Some(before), Some(after)) => format!(
            "{gain:.2}× as fast by estimate, {:+.2} points on {} test samples where -{allowed:.2} were allowed",
            after.top1 - before.top1,
            after.samples
        ),
        _ => format!("{gain:.2}× as fast by estimate, within {allowed:.2} points of agreement"),
    };
    Verdict { met: true, reason }
}

fn limits(limits: &crate::Limits) -> Limits {
    Limits {
        max_drop_points: Some(limits.max_drop.unwrap_or(DEFAULT_DROP)),
        min_accuracy_percent: limits.min_accuracy,
        max_latency_s: limits.max_latency,
        max_size_bytes: limits.max_size,
        max_ram_bytes: limits.max_ram,
        ..Limits::default()
    }
}

fn figures(
    estimate: &Estimate,
    parameters: u64,
    bytes: u64,
    measured: Option<&Evaluation>,
) -> Figures {
    Figures {
        top1: measured.map(|it| it.top1),
        top1_low: measured.map(|it| it.top1_low),
        top1_high: measured.map(|it| it.top1_high),
        top5: measured.and_then(|it| it.top5),
        samples: measured.map(|it| it.samples as u64),
        agreement: measured.and_then(|it| it.agreement),
        latency_s: estimate.latency.0,
        energy_j: estimate.energy.joules.map(|it| it.0),
        bytes,
        macs: estimate.macs.0,
        mac_slots: estimate.mac_slots.0,
        parameters,
        peak_memory_bytes: estimate.peak_memory.0,
        bound: estimate.bound.to_string(),
    }
}

fn step(it: &sartor_plan::PlannedStep) -> StepRecord {
    let fidelity = match it.fidelity {
        sartor_ir::Fidelity::Exact => Fidelity::Exact,
        sartor_ir::Fidelity::Rounding => Fidelity::Rounding,
        sartor_ir::Fidelity::Lossy => Fidelity::Lossy,
    };
    StepRecord {
        what: it.what.clone(),
        where_: it.where_.clone(),
        why: it.why.clone(),
        fidelity,
        predicted_gain: it.predicted_gain,
        measured_points: it.measured_points,
    }
}

fn refused(it: &Findings<'_>) -> Vec<Refused> {
    let planned =
        it.plan.refused.iter().chain(&it.chosen.candidate.refused).map(|refusal| Refused {
            what: refusal.what.clone(),
            where_: refusal.where_.clone(),
            why: refusal.why.clone(),
        });
    let measured = it.chosen.refused.iter().map(|(candidate, misses)| Refused {
        what: candidate.steps.iter().map(|it| it.what.clone()).collect::<Vec<_>>().join(", "),
        where_: "the whole network".to_owned(),
        why: misses.join("; "),
    });
    let float = it.chosen.candidate.nodes.iter().filter_map(|node| {
        let why = node.left_float_because.clone()?;
        Some(Refused { what: "quantize".to_owned(), where_: node.name.clone(), why })
    });
    planned.chain(measured).chain(float).collect()
}

fn warnings(it: &Findings<'_>, after: &Estimate) -> Vec<String> {
    let mut warnings = Vec::new();
    if it.chosen.looks > 1 {
        warnings.push(format!(
            "{} candidates were measured on the test split before one held: its accuracy is slightly flattered",
            it.chosen.looks
        ));
    }
    warnings.push(format!("estimates assume {}", after.precision));
    warnings.extend(after.fallbacks.iter().cloned());
    warnings.extend(it.chip.runtime.quirks.iter().map(|it| it.text.clone()));
    warnings.extend(it.model.diagnostics.iter().map(ToString::to_string));
    warnings
}

fn node_estimate(node: &NodeCost, chosen: Option<&Chosen>) -> NodeEstimate {
    let quantized = chosen.and_then(|it| it.candidate.nodes.iter().find(|it| it.name == node.name));
    NodeEstimate {
        name: node.name.clone(),
        op: node.op.clone(),
        macs: node.macs.0,
        mac_slots: node.mac_slots.0,
        bytes: node.moved.iter().map(|it| it.1.0).max().unwrap_or(0),
        latency_s: node.latency.0,
        bound: node.bound.to_string(),
        weights: quantized.and_then(|it| it.weights.clone()),
        activations: quantized.and_then(|it| it.activations.clone()),
        what_was_done: quantized.map(|it| match &it.left_float_because {
            None => "quantized".to_owned(),
            Some(why) => format!("left float: {why}"),
        }),
    }
}

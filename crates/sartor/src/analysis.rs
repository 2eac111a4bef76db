//! The record of an analysis, from the estimate of the cost model.

use sartor_chip::{Chip, Seconds};
use sartor_cost::{CostError, Estimate, NodeCost, RunsOn};
use sartor_report::{
    Analysis,
    analysis::{AnalysisNode, Opportunity, Placement, Sensitivity, Share},
};

use crate::{Model, record::ceilings};

/// How many opportunities are shown.
const OPPORTUNITIES: usize = 10;
/// By how much each figure of the chip is varied, in percent.
const VARIED: f64 = 10.0;

/// What the prepared `network` of `model` costs on `chip`, as plain data.
pub(crate) fn analysis(
    model: &Model,
    chip: &Chip,
    network: &sartor_cost::Model<'_>,
) -> Result<Analysis, CostError> {
    let it = &network.estimate();
    let opportunities = network.opportunities(OPPORTUNITIES)?.into_iter().map(|it| Opportunity {
        where_: it.layer,
        what: it.change,
        why: it.reason,
        gain_s: it.gain.0,
    });
    let sensitivity = network.sensitivity(VARIED)?.into_iter().map(|it| Sensitivity {
        field: it.field,
        change_percent: it.change_percent,
        latency_change_percent: 100.0 * it.latency_change,
        energy_change_percent: it.energy_change.map(|it| 100.0 * it),
    });
    Ok(Analysis {
        chip: it.chip.clone(),
        chip_name: chip.name.clone(),
        model: model.path.display().to_string(),
        batch: it.batch as u64,
        precision: it.precision.clone(),
        latency_s: it.latency.0,
        latency_at_least: chip.host().is_none()
            && it.nodes.iter().any(|it| it.runs_on == RunsOn::Host),
        cycles: it.cycles.0,
        energy_j: it.energy.joules.map(|it| it.0),
        energy_at_most_j: it.energy.at_most.map(|it| it.0),
        energy_missing: it.energy.missing.clone(),
        macs: it.macs.0,
        mac_slots: it.mac_slots.0,
        utilisation: utilisation(it),
        parameters: it.parameters,
        weight_bytes: it.weight_bytes.0,
        peak_memory_bytes: it.peak_memory.0,
        weights_fit: it.weights.fits,
        activations_fit: it.activations.fits,
        placements: vec![
            placement("weights", &it.weights),
            placement("activations", &it.activations),
        ],
        bound: it.bound.to_string(),
        shares: shares(it),
        ceilings: ceilings(chip),
        opportunities: opportunities.collect(),
        sensitivity: sensitivity.collect(),
        fallbacks: it.fallbacks.clone(),
        low_confidence: it.low_confidence.clone(),
        nodes: it.nodes.iter().map(node).collect(),
    })
}

/// The nodes' shares of the array, weighted by their time.
fn utilisation(it: &Estimate) -> f64 {
    let used: Seconds = it.nodes.iter().map(|node| node.latency * node.utilisation).sum();
    if it.latency.0 > 0.0 { used / it.latency } else { 0.0 }
}

fn placement(what: &str, it: &sartor_cost::Placement) -> Placement {
    Placement {
        what: what.to_owned(),
        memory: it.memory.clone(),
        needed_bytes: it.needed.0,
        capacity_bytes: it.capacity.map(|it| it.0),
        fits: it.fits,
    }
}

fn shares(it: &Estimate) -> Vec<Share> {
    let mut shares: Vec<_> = it
        .shares
        .iter()
        .map(|(resource, time)| Share { resource: resource.to_string(), latency_s: time.0 })
        .collect();
    shares.sort_by(|a, b| b.latency_s.total_cmp(&a.latency_s));
    shares
}

fn node(it: &NodeCost) -> AnalysisNode {
    let runs_on = match it.runs_on {
        RunsOn::Chip => "chip",
        RunsOn::Host => "host",
        RunsOn::Nowhere => "nowhere",
    };
    AnalysisNode {
        name: it.name.clone(),
        op: it.op.clone(),
        runs_on: runs_on.to_owned(),
        macs: it.macs.0,
        mac_slots: it.mac_slots.0,
        bytes: it.moved.iter().map(|it| it.1.0).sum(),
        weight_bytes: it.weight_bytes.0,
        latency_s: it.latency.0,
        energy_j: it.energy.map(|it| it.0),
        bound: it.bound.to_string(),
        margin: it.margin,
        utilisation: it.utilisation,
        note: it.note.clone(),
    }
}

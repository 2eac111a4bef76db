//! The tables at the end of the page: every node, the setting of the run, how to repeat it.

use maud::{Markup, html};

use crate::format::{NONE, bytes, count, seconds};
use crate::pairs::Pair;
use crate::record::{Ceiling, NodeEstimate, Record, TensorInfo};

/// Every node before and after.
pub(super) fn nodes(pairs: &[Pair<'_>]) -> Markup {
    html! {
        @if !pairs.is_empty() {
            section {
                h2 { "Node by node " small.source { "estimate" } }
                div.scroll tabindex="0" {
                    table.nodes {
                        thead {
                            tr {
                                th { "Node" } th { "Operator" }
                                th.n { "Latency" } th.n { "MACs" } th.n { "MAC slots" } th.n { "Bytes" }
                                th { "Waits for" } th { "Weights" } th { "Activations" }
                                th { "What was done" }
                            }
                        }
                        tbody { @for pair in pairs { (node(pair)) } }
                    }
                }
                p.note { "Two figures in a cell are before and after." }
            }
        }
    }
}

fn node(pair: &Pair<'_>) -> Markup {
    let words = |field: fn(&NodeEstimate) -> Option<&str>| {
        change(pair, |node| field(node).unwrap_or(NONE).to_owned())
    };
    let done = match (pair.before, pair.after) {
        (_, Some(after)) => after.what_was_done.as_deref().unwrap_or_default(),
        _ => "gone",
    };
    html! {
        @if let Some(node) = pair.node() {
            tr {
                th scope="row" { (node.name) }
                td { (node.op) }
                td.n { (change(pair, |node| seconds(node.latency_s))) }
                td.n { (change(pair, |node| count(node.macs))) }
                td.n { (change(pair, |node| count(node.mac_slots))) }
                td.n { (change(pair, |node| bytes(node.bytes))) }
                td { (words(|node| Some(node.bound.as_str()))) }
                td { (words(|node| node.weights.as_deref())) }
                td { (words(|node| node.activations.as_deref())) }
                td { (done) @if pair.before.is_none() { " (new)" } }
            }
        }
    }
}

/// One figure where both sides agree or one is missing, else both with an arrow.
fn change(pair: &Pair<'_>, show: impl Fn(&NodeEstimate) -> String) -> Markup {
    let (before, after) = (pair.before.map(&show), pair.after.map(&show));
    html! {
        @match (before, after) {
            (Some(before), Some(after)) if before != after => {
                span.was { (before) } " → " b { (after) }
            }
            (before, after) => (after.or(before).unwrap_or_default()),
        }
    }
}

/// The network, the chip and the data.
pub(super) fn setting(record: &Record) -> Markup {
    let (model, chip) = (&record.model, &record.chip);
    html! {
        section {
            h2 { "Network, chip and data" }
            dl {
                dt { "Network" }
                dd {
                    (model.file) " (" (model.name) "), opset " (model.opset) ", "
                    (count(model.parameters)) " parameters, " (count(model.macs)) " MACs"
                }
                dt { "Inputs" } dd { (tensors(&model.inputs)) }
                dt { "Outputs" } dd { (tensors(&model.outputs)) }
                dt { "Chip" } dd { (chip.name) " (" code { (chip.id) } ")" }
                @if !chip.ceilings.is_empty() {
                    dt { "At best" }
                    dd { @for it in &chip.ceilings { div { (ceiling(it)) } } }
                }
                @if !chip.low_confidence.is_empty() {
                    dt { "Assumed" }
                    dd { @for it in &chip.low_confidence { div { (it) } } }
                }
                dt { "Data" }
                dd { (record.data.as_deref().unwrap_or("none was given: nothing was measured")) }
            }
        }
    }
}

fn tensors(tensors: &[TensorInfo]) -> Markup {
    html! {
        @for it in tensors {
            div { code { (it.name) } ": " (it.dtype) " [" (it.shape.join(", ")) "]" }
        }
    }
}

/// A ceiling in words.
pub(super) fn ceiling(ceiling: &Ceiling) -> String {
    match ceiling {
        Ceiling::Compute { name, macs_per_s } => {
            format!("{name} {}", crate::format::si(*macs_per_s, "MAC/s"))
        }
        Ceiling::Memory { name, bytes_per_s } => {
            format!("{name} {}", crate::format::si(*bytes_per_s, "B/s"))
        }
    }
}

/// What is needed to get the same bytes again, and to bring them onto the chip.
pub(super) fn repeat(record: &Record) -> Markup {
    html! {
        section {
            @if !record.deploy.is_empty() {
                h2 { "Onto the chip" }
                pre { code { (record.deploy.join("\n")) } }
            }
            h2 { "To repeat this run" }
            p { "Sartor " (record.version) ", seed " (record.seed) ", with this recipe:" }
            pre { code { (record.recipe) } }
        }
    }
}

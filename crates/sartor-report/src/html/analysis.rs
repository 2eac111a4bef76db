//! Analyses as one HTML page: the chips side by side, then each with its roofline, its opportunities and its nodes.

use maud::{Markup, html};

use super::roofline::{self, Panel, Work};
use super::{frame, roofline::color};
use crate::analysis::{Analysis, AnalysisNode};
use crate::format::{NONE, bytes, count, percent, ratio, seconds};
use crate::terminal::analysis::{latency, rows, signed};

/// Shows analyses of one network as one self-contained HTML file.
pub fn analysis_to_html(analyses: &[Analysis]) -> String {
    let model = analyses.first().map_or("", |it| it.model.as_str());
    let chips: Vec<_> = analyses.iter().map(|it| it.chip_name.as_str()).collect();
    let title = format!("{model} on {}", chips.join(", "));
    let body = html! {
        header {
            h1 { (model) " " span.for { "on " (chips.join(", ")) } }
            p.note { "Every figure is an " em { "estimate" } ", made from the network and the chip's file." }
        }
        (side_by_side(analyses))
        @for it in analyses { (chip(it, analyses.len() > 1)) }
    };
    frame(&title, &body)
}

fn side_by_side(analyses: &[Analysis]) -> Markup {
    html! {
        section {
            h2 { "The whole network " small.source { "estimate" } }
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr { th { "Measure" } @for it in analyses { th { (it.chip_name) } } }
                    }
                    tbody {
                        @for (title, value) in rows() {
                            tr {
                                th scope="row" { (title) }
                                @for it in analyses { td { (value(it)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn chip(it: &Analysis, titled: bool) -> Markup {
    html! {
        section {
            @if titled { h2 { (it.chip_name) " " span.place { (it.chip) } } }
            (shares(it))
            (roofline::figure(&[panel(it)], &it.ceilings))
            (opportunities(it))
            (sensitivity(it))
            (list("What runs elsewhere", &it.fallbacks))
            (list("Figures of low confidence that this rests on", &it.low_confidence))
            (nodes(it))
        }
    }
}

fn panel(it: &Analysis) -> Panel<'_> {
    let work = |node: &'_ AnalysisNode| Work {
        macs: node.macs,
        bytes: node.bytes,
        latency_s: node.latency_s,
        ..Work::default()
    };
    let nodes = it.nodes.iter().map(|node| Work {
        name: node.name.as_str(),
        bound: node.bound.as_str(),
        ..work(node)
    });
    Panel { name: &it.chip_name, nodes: nodes.collect() }
}

/// One bar, cut by the resource that the latency waits for.
fn shares(it: &Analysis) -> Markup {
    let shown: Vec<_> = it.shares.iter().filter(|share| share.latency_s > 0.0).collect();
    let total: f64 = shown.iter().map(|share| share.latency_s).sum();
    let share = |latency_s: f64| 100.0 * latency_s / total;
    let mut start = 0.0;
    let parts: Vec<_> = shown
        .iter()
        .map(|it| {
            start += share(it.latency_s);
            (start - share(it.latency_s), *it)
        })
        .collect();
    html! {
        @if total.is_finite() && total > 0.0 {
            figure {
                figcaption {
                    b { "What the latency of " (latency(it)) " waits for" }
                    span.legend {
                        @for (i, (_, part)) in parts.iter().enumerate() {
                            span {
                                i.dot.(color(i)) {}
                                (part.resource) " " (percent(share(part.latency_s)))
                            }
                        }
                    }
                }
                svg.bars width="100%" height="26" role="img" aria-label="latency by resource" {
                    @for (i, (start, part)) in parts.iter().enumerate() {
                        rect.(color(i)) x=(format!("{start:.2}%")) y="2" height="22"
                            width=(format!("{:.2}%", share(part.latency_s))) {
                            title { (part.resource) ": " (seconds(part.latency_s)) }
                        }
                    }
                }
            }
        }
    }
}

fn opportunities(it: &Analysis) -> Markup {
    html! {
        @if !it.opportunities.is_empty() {
            h3 { "Best opportunities" }
            div.scroll tabindex="0" {
                table {
                    thead { tr { th.n { "Gain" } th { "Where" } th { "Change" } th { "Why" } } }
                    tbody {
                        @for best in &it.opportunities {
                            tr {
                                td.n {
                                    b { (percent(100.0 * best.gain_s / it.latency_s)) } " "
                                    span.place { (seconds(best.gain_s)) }
                                }
                                th scope="row" { (best.where_) }
                                td { (best.what) }
                                td { (best.why) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn sensitivity(it: &Analysis) -> Markup {
    let moving: Vec<_> =
        it.sensitivity.iter().filter(|field| field.latency_change_percent != 0.0).collect();
    html! {
        @if !moving.is_empty() {
            h3 { "Which figure of the chip binds" }
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr { th { "Figure" } th.n { "If it were" } th.n { "Latency" } th.n { "Energy" } }
                    }
                    tbody {
                        @for field in moving {
                            tr {
                                th scope="row" { code { (field.field) } }
                                td.n { (signed(field.change_percent)) }
                                td.n { (signed(field.latency_change_percent)) }
                                td.n { (field.energy_change_percent.map_or_else(|| NONE.to_owned(), signed)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn list(title: &str, lines: &[String]) -> Markup {
    html! {
        @if !lines.is_empty() {
            h3 { (title) }
            ul.steps { @for line in lines { li { (line) } } }
        }
    }
}

fn nodes(it: &Analysis) -> Markup {
    html! {
        h3 { "Node by node" }
        div.scroll tabindex="0" {
            table.nodes {
                thead {
                    tr {
                        th { "Node" } th { "Operator" } th.n { "Latency" } th.n { "MACs" } th.n { "MAC slots" }
                        th.n { "Array used" } th.n { "Bytes" } th.n { "Weights" } th { "Waits for" }
                        th.n { "Margin" } th { "Notes" }
                    }
                }
                tbody { @for node in &it.nodes { (row(node)) } }
            }
        }
    }
}

fn row(node: &AnalysisNode) -> Markup {
    html! {
        tr {
            th scope="row" { (node.name) }
            td { (node.op) }
            td.n { (seconds(node.latency_s)) }
            td.n { (count(node.macs)) }
            td.n { (count(node.mac_slots)) }
            td.n { (percent(100.0 * node.utilisation)) }
            td.n { (bytes(node.bytes)) }
            td.n { (bytes(node.weight_bytes)) }
            td { @if node.latency_s > 0.0 { (node.bound) } @else { (NONE) } }
            td.n { (node.margin.map_or_else(|| NONE.to_owned(), ratio)) }
            td { @if node.runs_on == "host" { "on the host " } (node.note) }
        }
    }
}

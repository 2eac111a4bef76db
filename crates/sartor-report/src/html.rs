//! The record as one HTML file that needs nothing else: no script, no font, no picture from outside.
//!
//! It follows the reader's choice of light or dark, fits a telephone and prints. Every text of the
//! record is escaped by the template.

mod analysis;
mod axis;
mod details;
mod latency;
mod roofline;

pub use analysis::analysis_to_html;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::comparison::{Source, limits, rows};
use crate::pairs::pairs;
use crate::record::{Record, Refused, StepRecord};
use crate::table::Tone;
use crate::terminal::effect;

const STYLE: &str = include_str!("html/style.css");

/// Shows a record as one self-contained HTML file.
pub fn to_html(record: &Record) -> String {
    let title = format!("{} for {}", record.model.file, record.chip.name);
    let body = html! {
        (head(record))
        (figures(record))
        (steps(&record.steps))
        (refused(&record.refused))
        (plots(record))
        (details::nodes(&pairs(&record.nodes_before, &record.nodes_after)))
        (details::setting(record))
        (details::repeat(record))
    };
    frame(&title, &body)
}

/// A page around `body`, with the style sheet in it.
fn frame(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Sartor" }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

fn head(record: &Record) -> Markup {
    let (class, words) =
        if record.verdict.met { ("met", "Limits met") } else { ("unmet", "Limits not met") };
    html! {
        header {
            h1 { (record.model.file) " " span.for { "for " (record.chip.name) } }
            p.verdict.(class) { strong { (words) } " " (record.verdict.reason) }
            @let limits = limits(&record.limits);
            @if !limits.is_empty() {
                p.asked {
                    "Asked for: "
                    @for (i, (name, value)) in limits.iter().enumerate() {
                        @if i > 0 { ", " }
                        (name) " " b { (value) }
                    }
                }
            }
            @for warning in &record.warnings {
                p.warning { strong { "Warning" } " " (warning) }
            }
        }
    }
}

fn figures(record: &Record) -> Markup {
    let rows = rows(record);
    let tiles = ["latency", "size", "top-1", "energy", "peak memory"];
    let tiles = tiles.iter().filter_map(|measure| rows.iter().find(|row| row.measure == *measure));
    html! {
        section {
            h2 { "Before and after" }
            div.tiles {
                @for row in tiles.take(4) {
                    div.tile {
                        div.measure { (row.measure) " " (source(row.source)) }
                        div.value { (row.after) }
                        div.change { span.(tone(row.tone)) { (row.change) } " from " (row.before) }
                    }
                }
            }
            div.scroll tabindex="0" {
                table {
                    thead { tr { th { "Measure" } th.n { "Before" } th.n { "After" } th { "Change" } } }
                    tbody {
                        @for row in &rows {
                            tr {
                                th scope="row" { (row.measure) " " (source(row.source)) }
                                td.n { (row.before) }
                                td.n { b { (row.after) } }
                                td.(tone(row.tone)) { (row.change) }
                            }
                        }
                    }
                }
            }
            p.note {
                em { "Measured" } " figures come from a run over data, " em { "counted" }
                " figures from the network itself, " em { "estimates" } " from the model of the chip."
            }
        }
    }
}

fn steps(steps: &[StepRecord]) -> Markup {
    html! {
        section {
            h2 { "What was done" }
            @if steps.is_empty() { p { "Nothing: the network goes out as it came in." } }
            ol.steps {
                @for step in steps {
                    li {
                        h3 { (step.what) @if !step.where_.is_empty() { " " span.place { (step.where_) } } }
                        p { (step.why) }
                        p.effect { (effect(step)) }
                    }
                }
            }
        }
    }
}

fn refused(refused: &[Refused]) -> Markup {
    html! {
        @if !refused.is_empty() {
            section {
                h2 { "What was refused" }
                ul.steps {
                    @for it in refused {
                        li {
                            h3 { (it.what) @if !it.where_.is_empty() { " " span.place { (it.where_) } } }
                            p { (it.why) }
                        }
                    }
                }
            }
        }
    }
}

fn plots(record: &Record) -> Markup {
    html! {
        @if !(record.nodes_before.is_empty() && record.nodes_after.is_empty()) {
            section {
                h2 { "Where the time goes" }
                (roofline::figure(&panels(record), &record.chip.ceilings))
                (latency::figure(&pairs(&record.nodes_before, &record.nodes_after)))
            }
        }
    }
}

/// The nodes before and after, for the roofline.
fn panels(record: &Record) -> [roofline::Panel<'_>; 2] {
    [("Before", &record.nodes_before), ("After", &record.nodes_after)].map(|(name, nodes)| {
        roofline::Panel { name, nodes: nodes.iter().map(roofline::Work::from).collect() }
    })
}

fn source(source: Source) -> Markup {
    html! { small.source { (source.label()) } }
}

fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Plain | Tone::Strong | Tone::Faint | Tone::Caution => "plain",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::record::{Ceiling, NodeEstimate};
    use crate::sample::{sample, sample_analysis};

    /// Elements that have no end tag.
    const VOID: [&str; 1] = ["meta"];

    /// The names of the start tags, in order; fails where a tag is not closed by its own end.
    fn well_formed(page: &str) -> Vec<String> {
        let (mut open, mut all) = (Vec::new(), Vec::new());
        for tag in page.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').expect("a tag ends");
            assert!(!text.contains('>'), "stray bracket in {text:?}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.split_whitespace().next().expect("a tag has a name");
            if let Some(name) = name.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
            } else if !name.starts_with('!') {
                all.push(name.to_owned());
                if !VOID.contains(&name) {
                    open.push(name.to_owned());
                }
            }
        }
        assert!(open.is_empty(), "{open:?}");
        all
    }

    #[test]
    fn the_page_is_well_formed_and_holds_every_reason() {
        let record = sample();
        let page = to_html(&record);
        let tags = well_formed(&page);
        assert_eq!(tags.iter().filter(|tag| *tag == "svg").count(), 3);
        let reasons = record.steps.iter().map(|it| &it.why);
        let others = [&record.verdict.reason, &record.warnings[0], &record.deploy[0]];
        for text in reasons.chain(record.refused.iter().map(|it| &it.why)).chain(others) {
            assert!(page.contains(text.as_str()), "{text}");
        }
        for node in record.nodes_before.iter().chain(&record.nodes_after) {
            assert!(page.contains(&node.name), "{}", node.name);
        }
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        let page = to_html(&sample());
        for reference in ["http", "src=", "href", "url(", "@import", "<script", "<link", "//"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn names_are_escaped_wherever_they_stand() {
        const EVIL: &str = "\"><script>alert(1)</script>&amp;";
        fn replace(value: &mut Value) {
            match value {
                Value::String(text) => EVIL.clone_into(text),
                Value::Array(all) => all.iter_mut().for_each(replace),
                Value::Object(all) => {
                    let words = ["kind", "fidelity"];
                    let texts = all.iter_mut().filter(|(key, _)| !words.contains(&key.as_str()));
                    texts.for_each(|(_, value)| replace(value));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        let mut value = serde_json::to_value(sample()).unwrap();
        replace(&mut value);
        let record: Record = serde_json::from_value(value).unwrap();
        let page = to_html(&record);
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;"));
        assert!(!well_formed(&page).contains(&"script".to_owned()));
    }

    #[test]
    fn empty_and_absurd_records_are_shown() {
        let mut record = sample();
        record.steps.clear();
        record.refused.clear();
        record.nodes_before.clear();
        for latency_s in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
            for node in &mut record.nodes_after {
                *node = NodeEstimate { latency_s, macs: u64::MAX, bytes: 1, ..node.clone() };
            }
            for ceiling in &mut record.chip.ceilings {
                let (Ceiling::Compute { macs_per_s: it, .. }
                | Ceiling::Memory { bytes_per_s: it, .. }) = ceiling;
                *it = latency_s;
            }
            let page = to_html(&record);
            well_formed(&page);
            assert!(!page.contains("NaN") && !page.contains("inf"), "{latency_s}");
        }
        record.nodes_after.clear();
        record.chip.ceilings.clear();
        let page = to_html(&record);
        assert!(!page.contains("<svg"));
        assert!(page.contains("goes out as it came in"));
    }

    #[test]
    fn the_page_of_an_analysis_is_well_formed_and_whole() {
        let one = sample_analysis();
        let page = analysis_to_html(&[one.clone(), one.clone()]);
        assert_eq!(well_formed(&page).iter().filter(|tag| *tag == "svg").count(), 4);
        for text in [&one.opportunities[0].why, &one.fallbacks[0], &one.sensitivity[0].field] {
            assert_eq!(page.matches(text.as_str()).count(), 2, "{text}");
        }
        assert!(page.contains("does not fit flash"));
        for reference in ["http", "src=", "href", "url(", "<script", "//"] {
            assert!(!page.contains(reference), "{reference}");
        }
        well_formed(&analysis_to_html(&[]));
        let evil = "<script>".to_owned();
        let shown = analysis_to_html(&[crate::Analysis { model: evil, nodes: vec![], ..one }]);
        assert!(!shown.contains("<script"));
    }
}

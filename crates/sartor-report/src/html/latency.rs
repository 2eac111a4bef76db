//! Latency of each node before and after, as bars.
//!
//! Lengths are in percent of the width and heights in pixels, so that the plot fills a wide page
//! and a telephone alike while its letters keep their size.

use maud::{Markup, html};

use super::axis::time_marks;
use crate::format::seconds;
use crate::pairs::Pair;

/// More nodes than this are summed up in a sentence.
const SHOWN: usize = 20;
/// Height of a name and its two bars.
const ROW: usize = 38;
/// The share of the width, in percent, that the longest bar takes.
const WIDTH: f64 = 99.0;

/// A pair of bars.
struct Bars {
    name: String,
    before_s: Option<f64>,
    after_s: Option<f64>,
}

/// The plot with its legend; nothing where no node takes time.
pub(super) fn figure(pairs: &[Pair<'_>]) -> Markup {
    let (bars, rest) = bars(pairs);
    let sides = bars.iter().flat_map(|it| [it.before_s, it.after_s]).flatten();
    let longest_s = sides.filter(|it| it.is_finite()).fold(0.0, f64::max);
    html! {
        @if longest_s > 0.0 {
            figure {
                figcaption {
                    b { "Latency of each node" } " " small.source { "estimate" }
                    span.legend {
                        span { i.swatch.before {} "before" }
                        span { i.swatch.after {} "after" }
                    }
                }
                (plot(&bars, longest_s))
                @if let Some(rest) = rest {
                    p.note { (rest.name) ": " (times(&rest)) }
                }
            }
        }
    }
}

/// The slowest nodes in graph order, and the sum of the others.
fn bars(pairs: &[Pair<'_>]) -> (Vec<Bars>, Option<Bars>) {
    let mut by_time: Vec<usize> = (0..pairs.len()).collect();
    by_time.sort_by(|a, b| pairs[*b].longest_s().total_cmp(&pairs[*a].longest_s()));
    let (slow, rest) = by_time.split_at(SHOWN.min(pairs.len()));
    let mut slow = slow.to_vec();
    slow.sort_unstable();
    let bars = slow.into_iter().filter_map(|i| {
        Some(Bars {
            name: pairs[i].node()?.name.clone(),
            before_s: pairs[i].before.map(|node| node.latency_s),
            after_s: pairs[i].after.map(|node| node.latency_s),
        })
    });
    let others = || rest.iter().map(|i| &pairs[*i]);
    let rest = Bars {
        name: format!("All other nodes ({}) together", rest.len()),
        before_s: Some(others().filter_map(|pair| pair.before).map(|it| it.latency_s).sum()),
        after_s: Some(others().filter_map(|pair| pair.after).map(|it| it.latency_s).sum()),
    };
    (bars.collect(), (pairs.len() > SHOWN).then_some(rest))
}

fn plot(bars: &[Bars], longest_s: f64) -> Markup {
    let bottom = bars.len() * ROW + 4;
    html! {
        svg.bars width="100%" height=(bottom + 34) role="img" aria-label="latency of each node before and after" {
            @for (place, label) in time_marks(longest_s) {
                @let x = format!("{:.2}%", place * WIDTH);
                line.grid x1=(x) x2=(x) y1="0" y2=(bottom) {}
                text.mark x=(x) y=(bottom + 15) text-anchor=(anchor(place)) { (label) }
            }
            text.axis x="50%" y=(bottom + 30) text-anchor="middle" { "latency (estimate)" }
            @for (i, it) in bars.iter().enumerate() {
                @let top = i * ROW;
                text.label x="0" y=(top + 14) { (shortened(&it.name)) title { (it.name) } }
                text.mark x="100%" y=(top + 14) text-anchor="end" { (times(it)) }
                (bar("before", it.before_s, longest_s, top + 19))
                (bar("after", it.after_s, longest_s, top + 27))
            }
        }
    }
}

fn bar(class: &str, latency_s: Option<f64>, longest_s: f64, y: usize) -> Markup {
    let share = latency_s.filter(|it| it.is_finite()).map_or(0.0, |it| it.max(0.0) / longest_s);
    html! {
        rect.(class) x="0" y=(y) height="7" width=(format!("{:.2}%", share * WIDTH)) {}
    }
}

fn times(bars: &Bars) -> String {
    match (bars.before_s, bars.after_s) {
        (Some(before), Some(after)) => format!("{} → {}", seconds(before), seconds(after)),
        (Some(before), None) => format!("{}, gone", seconds(before)),
        (None, Some(after)) => format!("{}, new", seconds(after)),
        (None, None) => String::new(),
    }
}

/// The labels at both ends stay inside.
fn anchor(place: f64) -> &'static str {
    match place {
        place if place < 0.02 => "start",
        place if place > 0.95 => "end",
        _ => "middle",
    }
}

/// The end of a long name says more than its beginning.
fn shortened(name: &str) -> String {
    const LONGEST: usize = 30;
    let length = name.chars().count();
    if length <= LONGEST {
        name.to_owned()
    } else {
        std::iter::once('…').chain(name.chars().skip(length + 1 - LONGEST)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::pairs;
    use crate::record::NodeEstimate;
    use crate::sample::sample;

    #[test]
    fn the_rest_of_a_large_network_is_summed_up() {
        let node = sample().nodes_before[0].clone();
        let nodes: Vec<_> = (0..50_u32)
            .map(|i| NodeEstimate {
                name: format!("n{i}"),
                latency_s: f64::from(i),
                ..node.clone()
            })
            .collect();
        let (shown, rest) = bars(&pairs(&nodes, &nodes));
        assert_eq!(shown.len(), SHOWN);
        assert_eq!(shown[0].name, "n30");
        let rest = rest.unwrap();
        assert_eq!(rest.name, "All other nodes (30) together");
        assert_eq!(rest.after_s, Some(435.0));
        assert!(bars(&pairs(&nodes[..SHOWN], &[])).1.is_none());
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(
            shortened("model/features/block7/depthwise/conv"),
            "…eatures/block7/depthwise/conv"
        );
        assert_eq!(shortened("é".repeat(30).as_str()).chars().count(), 30);
    }
}

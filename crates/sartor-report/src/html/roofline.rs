//! Rooflines: what each node reaches on the chip, against what the chip could do.
//!
//! After S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful visual performance
//! model for multicore architectures" (2009), with multiply-accumulates for operations: a node of
//! arithmetic intensity `i` (MAC/B) reaches at most `min(compute, i · bandwidth)` (MAC/s).

use maud::{Markup, html};

use super::axis::LogAxis;
use super::details::ceiling;
use crate::format::{seconds, si, significant};
use crate::record::{Ceiling, NodeEstimate};

/// The plane in pixels: left, top, right and bottom of the frame inside a picture of 440 by 300.
const FRAME: (f64, f64, f64, f64) = (58.0, 20.0, 430.0, 256.0);

/// How many colours the style sheet has for resources.
const COLORS: usize = 6;

/// What both plots share, so that they can be compared.
struct Plane<'a> {
    /// Arithmetic intensity in MAC/B.
    intensity: LogAxis,
    /// Throughput in MAC/s.
    throughput: LogAxis,
    ceilings: &'a [Ceiling],
    /// Resources in the order of their colours.
    bounds: Vec<&'a str>,
}

/// What the plot needs to know of a node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work<'a> {
    pub(super) name: &'a str,
    pub(super) macs: u64,
    pub(super) bytes: u64,
    pub(super) latency_s: f64,
    pub(super) bound: &'a str,
}

impl<'a> From<&'a NodeEstimate> for Work<'a> {
    fn from(node: &'a NodeEstimate) -> Self {
        let NodeEstimate { name, macs, bytes, latency_s, bound, .. } = node;
        Self { name, macs: *macs, bytes: *bytes, latency_s: *latency_s, bound }
    }
}

/// One plot of several that share their axes.
pub(super) struct Panel<'a> {
    /// Its title.
    pub(super) name: &'a str,
    /// Its nodes.
    pub(super) nodes: Vec<Work<'a>>,
}

/// A node on the plane.
struct Point<'a> {
    node: Work<'a>,
    intensity: f64,
    throughput: f64,
}

/// All plots with one legend; nothing where no node multiplies.
pub(super) fn figure(panels: &[Panel<'_>], ceilings: &[Ceiling]) -> Markup {
    let points: Vec<_> = panels.iter().map(|panel| points(&panel.nodes)).collect();
    let plane = plane(&points, ceilings);
    html! {
        @if let Some(plane) = plane {
            figure {
                figcaption {
                    b { "Roofline" } " " small.source { "estimate" }
                    span.legend {
                        @for (i, bound) in plane.bounds.iter().enumerate() {
                            span { i.dot.(color(i)) {} "waits for " (bound) }
                        }
                    }
                }
                div.pair {
                    @for (panel, points) in panels.iter().zip(&points) {
                        div {
                            @if panels.len() > 1 { p.panel { (panel.name) } }
                            (plot(panel.name, &plane, points))
                            @let left_out = panel.nodes.len() - points.len();
                            @if left_out > 0 {
                                p.note { "Nodes left out, without multiplications or traffic: " (left_out) "." }
                            }
                        }
                    }
                }
                p.note {
                    "One point is one node; the larger it is, the more of the latency it takes. "
                    "The nearer to a roof, the better the chip is used."
                }
            }
        }
    }
}

fn points<'a>(nodes: &[Work<'a>]) -> Vec<Point<'a>> {
    let on_plane = |value: f64| value.is_finite() && value > 0.0;
    let point = |&node: &Work<'a>| {
        let intensity = node.macs as f64 / node.bytes as f64;
        let throughput = node.macs as f64 / node.latency_s;
        let seen = on_plane(intensity) && on_plane(throughput);
        seen.then_some(Point { node, intensity, throughput })
    };
    nodes.iter().filter_map(point).collect()
}

fn plane<'a>(panels: &[Vec<Point<'a>>], ceilings: &'a [Ceiling]) -> Option<Plane<'a>> {
    let all = || panels.iter().flatten();
    let ridges = ceilings.iter().flat_map(|memory| {
        ceilings.iter().filter_map(move |compute| match (compute, memory) {
            (Ceiling::Compute { macs_per_s, .. }, Ceiling::Memory { bytes_per_s, .. }) => {
                Some(macs_per_s / bytes_per_s)
            }
            _ => None,
        })
    });
    let roofs = ceilings.iter().filter_map(|ceiling| match ceiling {
        Ceiling::Compute { macs_per_s, .. } => Some(*macs_per_s),
        Ceiling::Memory { .. } => None,
    });
    let mut bounds: Vec<&str> = Vec::new();
    for point in all() {
        if !bounds.contains(&point.node.bound) {
            bounds.push(point.node.bound);
        }
    }
    if bounds.is_empty() {
        return None;
    }
    Some(Plane {
        intensity: LogAxis::around(all().map(|it| it.intensity).chain(ridges))?,
        throughput: LogAxis::around(all().map(|it| it.throughput).chain(roofs))?,
        ceilings,
        bounds,
    })
}

impl Plane<'_> {
    fn x(&self, intensity: f64) -> f64 {
        FRAME.0 + self.intensity.place(intensity) * (FRAME.2 - FRAME.0)
    }

    fn y(&self, throughput: f64) -> f64 {
        FRAME.3 - self.throughput.place(throughput) * (FRAME.3 - FRAME.1)
    }

    fn color(&self, bound: &str) -> String {
        color(self.bounds.iter().position(|it| *it == bound).unwrap_or_default())
    }

    /// The ends of a roof inside the frame: `(intensity, throughput)` twice.
    fn roof(&self, ceiling: &Ceiling) -> Option<[(f64, f64); 2]> {
        let (left, right) = self.intensity.ends();
        let (bottom, top) = self.throughput.ends();
        let inside = |value: f64| value.is_finite() && value > 0.0;
        match ceiling {
            Ceiling::Compute { macs_per_s: roof, .. } => {
                // The roof begins where the fastest memory can feed it.
                let start = self.bandwidth().map_or(left, |it| (roof / it).clamp(left, right));
                inside(*roof).then_some([(start, *roof), (right, *roof)])
            }
            Ceiling::Memory { bytes_per_s: slope, .. } => {
                let top = self.compute().unwrap_or(top);
                let (from, to) = (left.max(bottom / slope), right.min(top / slope));
                (inside(*slope) && from < to).then_some([(from, from * slope), (to, to * slope)])
            }
        }
    }

    fn bandwidth(&self) -> Option<f64> {
        let all = self.ceilings.iter().filter_map(|ceiling| match ceiling {
            Ceiling::Memory { bytes_per_s, .. } => Some(*bytes_per_s),
            Ceiling::Compute { .. } => None,
        });
        all.filter(|it| it.is_finite() && *it > 0.0).reduce(f64::max)
    }

    fn compute(&self) -> Option<f64> {
        let all = self.ceilings.iter().filter_map(|ceiling| match ceiling {
            Ceiling::Compute { macs_per_s, .. } => Some(*macs_per_s),
            Ceiling::Memory { .. } => None,
        });
        all.filter(|it| it.is_finite() && *it > 0.0).reduce(f64::max)
    }
}

fn plot(name: &str, plane: &Plane<'_>, points: &[Point<'_>]) -> Markup {
    html! {
        svg.roofline viewBox="0 0 440 300" role="img" aria-label={ (name) ": roofline" } {
            (axes(plane))
            @for ceiling in plane.ceilings { (roof(plane, ceiling)) }
            @let total_s: f64 = points.iter().map(|point| point.node.latency_s).sum();
            @for point in points { (dot(plane, point, total_s)) }
        }
    }
}

fn axes(plane: &Plane<'_>) -> Markup {
    let (left, top, right, bottom) = FRAME;
    html! {
        @for (place, label) in plane.intensity.marks() {
            @let x = px(left + place * (right - left));
            line.grid x1=(x) x2=(x) y1=(top) y2=(bottom) {}
            text.mark x=(x) y=(bottom + 15.0) text-anchor="middle" { (label) }
        }
        @for (place, label) in plane.throughput.marks() {
            @let y = bottom - place * (bottom - top);
            line.grid x1=(left) x2=(right) y1=(px(y)) y2=(px(y)) {}
            text.mark x=(left - 5.0) y=(px(y + 4.0)) text-anchor="end" { (label) }
        }
        text.axis x=(f64::midpoint(left, right)) y=(bottom + 36.0) text-anchor="middle" {
            "arithmetic intensity (MAC/B)"
        }
        @let middle = f64::midpoint(top, bottom);
        text.axis x="11" y=(middle) transform={ "rotate(-90 11 " (middle) ")" } text-anchor="middle" {
            "throughput (MAC/s)"
        }
    }
}

fn roof(plane: &Plane<'_>, ceiling: &Ceiling) -> Markup {
    html! {
        @if let Some([from, to]) = plane.roof(ceiling) {
            @let (x1, y1, x2, y2) = (plane.x(from.0), plane.y(from.1), plane.x(to.0), plane.y(to.1));
            line.roof x1=(px(x1)) y1=(px(y1)) x2=(px(x2)) y2=(px(y2)) {}
            @match ceiling {
                Ceiling::Compute { name, .. } => {
                    text.name x=(px(x2 - 3.0)) y=(px(y2 - 4.0)) text-anchor="end" {
                        (name) title { (self::ceiling(ceiling)) }
                    }
                }
                Ceiling::Memory { name, .. } => {
                    // Beside the lower end, along the slope.
                    @let angle = (y2 - y1).atan2(x2 - x1).to_degrees();
                    @let turn = format!("rotate({angle:.1} {x1:.1} {y1:.1})");
                    text.name x=(px(x1 + 8.0)) y=(px(y1 - 5.0)) transform=(turn) {
                        (name) title { (self::ceiling(ceiling)) }
                    }
                }
            }
        }
    }
}

fn dot(plane: &Plane<'_>, point: &Point<'_>, total_s: f64) -> Markup {
    let node = point.node;
    let radius = 3.0 + 11.0 * (node.latency_s / total_s).sqrt();
    let title = format!(
        "{} ({}): {}, {} MAC/B, waits for {}",
        node.name,
        si(point.throughput, "MAC/s"),
        seconds(node.latency_s),
        significant(point.intensity),
        node.bound
    );
    html! {
        circle.(plane.color(node.bound)) cx=(px(plane.x(point.intensity)))
            cy=(px(plane.y(point.throughput))) r=(px(radius)) { title { (title) } }
    }
}

/// The class of the style sheet for the resource at this place of a legend.
pub(super) fn color(index: usize) -> String {
    format!("c{}", index % COLORS)
}

/// A tenth of a pixel is as fine as the eye needs.
fn px(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::sample::sample;

    fn both(record: &Record) -> [Vec<Point<'_>>; 2] {
        [&record.nodes_before, &record.nodes_after]
            .map(|nodes| points(&nodes.iter().map(Work::from).collect::<Vec<_>>()))
    }

    #[test]
    fn nodes_without_multiplications_have_no_point() {
        let record = sample();
        let [before, after] = both(&record);
        assert_eq!(before.len(), 5);
        let names: Vec<_> = after.iter().map(|it| it.node.name).collect();
        assert_eq!(names, ["conv1", "stage1/conv1", "stage2/conv1", "stage3/conv1", "fc"]);
    }

    #[test]
    fn roofs_stay_inside_the_frame_and_meet_at_the_ridge() {
        let record = sample();
        let plane = plane(&both(&record), &record.chip.ceilings).unwrap();
        for ceiling in &record.chip.ceilings {
            for (intensity, throughput) in plane.roof(ceiling).unwrap() {
                assert!((FRAME.0..=FRAME.2).contains(&plane.x(intensity)));
                assert!((FRAME.1..=FRAME.3).contains(&plane.y(throughput)));
            }
        }
        let end = |i: usize| plane.roof(&record.chip.ceilings[i]).unwrap();
        assert!((end(1)[0].0 - end(2)[1].0).abs() < 1e-9);
        assert!((end(1)[0].0 - 9.6).abs() < 1e-9);
    }

    #[test]
    fn a_resource_has_one_color_in_both_plots() {
        let record = sample();
        let plane = plane(&both(&record), &[]).unwrap();
        assert_eq!(plane.bounds, ["compute", "flash"]);
        assert_eq!(plane.color("flash"), "c1");
    }
}

//! Contradictions: statements that are well formed one by one and cannot all be true.

use std::ops::Range;

use crate::chip::Chip;
use crate::compute::{Align, ComputeModel, Mode, Reduction};
use crate::memory::Content;

/// A contradiction in a chip file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The path of the key, such as `sparsity[0].speedup`.
    pub key: String,
    /// The bytes of the text to underline, where the file holds the key.
    pub span: Option<Range<usize>>,
    /// What is wrong, as a fragment.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Every contradiction in a chip, in the order of the schema; none in a sound file.
pub fn lint(chip: &Chip) -> Vec<Finding> {
    let mut report = Report { chip, findings: Vec::new() };
    identity(&mut report);
    for (index, mode) in chip.compute.modes.iter().enumerate() {
        mode_alone(&mut report, index, mode);
        mode_in_chip(&mut report, index, mode);
    }
    schemes(&mut report);
    sparsity(&mut report);
    memories(&mut report);
    deploy(&mut report);
    report.findings
}

struct Report<'a> {
    chip: &'a Chip,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, key: &str, message: String, help: &str) {
        // A key that is absent or inherited is shown at the nearest table around it.
        let around = |path: &str| path.rfind(['.', '[']).map(|end| path[..end].to_owned());
        let places = std::iter::successors(Some(key.to_owned()), |path| around(path));
        let span = places.into_iter().find_map(|path| self.chip.span(&path));
        self.findings.push(Finding { key: key.to_owned(), span, message, help: help.to_owned() });
    }
}

fn identity(report: &mut Report<'_>) {
    let chip = report.chip;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !chip.id.chars().all(good) {
        report.add(
            "chip.id",
            format!("`{}` is not a plain id", chip.id),
            "use lower-case letters, digits and hyphens",
        );
    }
    for source in chip.sources.keys().filter(|source| !chip.used_sources.contains(*source)) {
        let help = "remove it, or name it as `src` where it belongs";
        report.add(&format!("sources.{source}"), "no figure names this source".to_owned(), help);
    }
}

fn mode_alone(report: &mut Report<'_>, index: usize, mode: &Mode) {
    let key = |leaf: &str| format!("compute.mode[{index}].{leaf}");
    let efficiency = &mode.efficiency;
    if efficiency.value > 1.0 {
        let own = key("efficiency");
        let key = if report.chip.span(&own).is_some() {
            own
        } else {
            "compute.peak_efficiency".to_owned()
        };
        report.add(
            &key,
            format!("efficiency {} is above 1", efficiency.value),
            "give the share of the peak, 0 to 1",
        );
    }
    if mode.weights.is_float() != mode.activations.is_float() {
        let message =
            format!("{} weights do not multiply {} activations", mode.weights, mode.activations);
        report.add(&key("activations"), message, "name two float or two integer types");
        return;
    }
    let needed = bits_of_step(mode);
    if !mode.weights.is_float() && mode.accumulator.bits.value < needed {
        let bits = mode.accumulator.bits.value;
        let message = format!(
            "{bits} bits cannot hold one aligned step of the reduction, which needs {needed}"
        );
        report.add(&key("accumulator_bits"), message, "check the accumulator and `align.k`");
    }
}

/// Bits of the sum of one aligned step: the product's magnitude, `⌈log₂ k⌉` for the summands, and a sign.
fn bits_of_step(mode: &Mode) -> u64 {
    let product = mode.weights.magnitude_bits() + mode.activations.magnitude_bits();
    let summands =
        mode.align.value.k.max(1).checked_next_power_of_two().map_or(64, u64::trailing_zeros);
    u64::from(product + summands + 1)
}

fn mode_in_chip(report: &mut Report<'_>, index: usize, mode: &Mode) {
    let key = |leaf: &str| format!("compute.mode[{index}].{leaf}");
    let chip = report.chip;
    let pair = (mode.weights, mode.activations);
    if chip.compute.modes[..index].iter().any(|other| (other.weights, other.activations) == pair) {
        let message = format!("a second mode for {} weights and {} activations", pair.0, pair.1);
        report.add(&key("weights"), message, "keep one mode for each pair of types");
    }
    let scheme =
        chip.quantization.schemes.iter().any(|scheme| (scheme.weights, scheme.activations) == pair);
    if !mode.weights.is_float() && !scheme {
        let message =
            format!("no scheme quantizes to {} weights and {} activations", pair.0, pair.1);
        report.add(&key("weights"), message, "add a [[quantization.scheme]] or remove the mode");
    }
    let rate = mode.macs_per_cycle.value;
    let eight_bit = pair.0.bits() == 8 && pair.1.bits() == 8;
    let array = match &chip.compute.model {
        ComputeModel::Systolic { array } => {
            Some(array.value.rows.saturating_mul(array.value.columns))
        }
        ComputeModel::EthosU { block } => {
            let block = block.value;
            Some(
                [block.height, block.depth, block.dot_width]
                    .into_iter()
                    .fold(block.width, u64::saturating_mul),
            )
        }
        _ => None,
    };
    let array = array.map(|macs| macs.saturating_mul(chip.compute.cores.value) as f64);
    if let Some(macs) = array.filter(|macs| eight_bit && (rate - macs).abs() > 0.5) {
        let message = format!("{rate} MACs a cycle, but the array computes {macs}");
        report.add(&key("macs_per_cycle"), message, "array × cores must be the 8-bit rate");
    }
    if mode.depthwise.as_ref().is_some_and(|depthwise| depthwise.macs_per_cycle.value > rate) {
        let message = "depthwise convolution is faster than the array".to_owned();
        report.add(
            &key("depthwise.macs_per_cycle"),
            message,
            "give the whole chip's depthwise rate",
        );
    }
    let Align { k, n, reduction, .. } = mode.align.value;
    let step = if reduction == Reduction::Channels { k.min(n) } else { n };
    let grain = mode.grain.value;
    if !step.is_multiple_of(grain) && !grain.is_multiple_of(step) {
        let message =
            format!("grain {grain} and the alignment {step} are not multiples of each other");
        report.add(&key("grain"), message, "prune to a multiple that the array rounds to");
    }
}

fn schemes(report: &mut Report<'_>) {
    let chip = report.chip;
    for (index, scheme) in chip.quantization.schemes.iter().enumerate() {
        let key = |leaf: &str| format!("quantization.scheme[{index}].{leaf}");
        if chip.mode(scheme.weights, scheme.activations).is_none() {
            let message = format!(
                "no mode multiplies {} weights and {} activations",
                scheme.weights, scheme.activations
            );
            report.add(&key("weights"), message, "add a [[compute.mode]] or remove the scheme");
        }
        if scheme.ops.is_empty() || scheme.granularity.is_empty() {
            let leaf = if scheme.ops.is_empty() { "ops" } else { "granularity" };
            report.add(&key(leaf), "an empty list permits nothing".to_owned(), "name at least one");
        }
        for op in scheme.ops.iter().filter(|op| op.as_str() != "DepthwiseConv" && !chip.runs(op)) {
            report.add(
                &key("ops"),
                format!("`{op}` is not in operators.allow"),
                "allow it or leave it out",
            );
        }
    }
}

fn sparsity(report: &mut Report<'_>) {
    for (index, pattern) in report.chip.sparsity.iter().enumerate() {
        let key = |leaf: &str| format!("sparsity[{index}].{leaf}");
        let (n, m) = (pattern.n, pattern.m);
        if n >= m {
            report.add(&key("n"), format!("{n} of {m} keeps everything"), "n must be below m");
        }
        let ceiling = m as f64 / n as f64;
        if pattern.speedup.value > ceiling {
            let message = format!("speed-up {} is above {m}/{n}", pattern.speedup.value);
            report.add(&key("speedup"), message, "an array cannot skip more than the zeros");
        }
        for &weights in &pattern.weights {
            if !report.chip.compute.modes.iter().any(|mode| mode.weights == weights) {
                report.add(
                    &key("weights"),
                    format!("no mode has {weights} weights"),
                    "name the modes' weight types",
                );
            }
        }
    }
}

fn memories(report: &mut Report<'_>) {
    let chip = report.chip;
    for (index, memory) in chip.memories.iter().enumerate() {
        let key = |leaf: &str| format!("memory[{index}].{leaf}");
        if memory.holds.is_empty() {
            report.add(
                &key("holds"),
                format!("memory `{}` holds nothing", memory.name),
                "name weights or activations",
            );
        }
        if memory.keeps_weights
            && (memory.capacity.is_none() || !memory.holds.contains(&Content::Weights))
        {
            let message =
                format!("memory `{}` keeps weights but has no place for them", memory.name);
            report.add(
                &key("keeps_weights"),
                message,
                "state its capacity and that it holds weights",
            );
        }
        if chip.memories[..index].iter().any(|other| other.name == memory.name) {
            report.add(
                &key("name"),
                format!("a second memory `{}`", memory.name),
                "give each its own name",
            );
        }
        let nearer = chip.memories[..index].iter().filter_map(|nearer| nearer.read.as_ref());
        let slowest = nearer.map(|read| read.value.0).fold(f64::INFINITY, f64::min);
        if memory.read.as_ref().is_some_and(|read| read.value.0 > slowest) {
            let message = format!("memory `{}` is faster than a nearer one", memory.name);
            report.add(&key("read_bytes_per_s"), message, "list memories from near to far");
        }
    }
    for content in [Content::Weights, Content::Activations] {
        if chip.home_of(content).is_none() {
            report.add(
                "memory",
                format!("no memory holds {content}"),
                "add it to a memory's `holds`",
            );
        }
    }
    if chip.far_memory().read.is_none() {
        let message = format!(
            "the bandwidth of the farthest memory, `{}`, is not stated",
            chip.far_memory().name
        );
        let key = format!("memory[{}].read_bytes_per_s", chip.memories.len().saturating_sub(1));
        report.add(&key, message, "state it, as an assumption if need be: all weights pass there");
    }
}

fn deploy(report: &mut Report<'_>) {
    let deploy = &report.chip.deploy;
    if !deploy.command.contains("{model}") {
        report.add(
            "deploy.command",
            "the command does not say where the file goes".to_owned(),
            "write `{model}` there",
        );
    }
    if deploy.accepts.is_empty() {
        report.add("deploy.accepts", "no format is accepted".to_owned(), "name at least one");
    }
}

//! Contradictions: statements that are well formed one by one and cannot all be true.

use crate::chip::Chip;
use crate::crossbar::Noise;
use crate::engine::{Engine, EngineModel};
use crate::error::Place;
use crate::memory::Content;
use crate::mode::{Mode, Reduction, Unroll};

/// A contradiction in a chip file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The path of the key, such as `core.sparsity[0].speedup`.
    pub key: String,
    /// The text to underline, where a file holds the key or a table around it.
    pub place: Option<Place>,
    /// What is wrong, as a fragment.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Every contradiction in a chip, in the order of the schema; none in a sound file.
pub fn lint(chip: &Chip) -> Vec<Finding> {
    let mut report = Report { chip, findings: Vec::new() };
    identity(&mut report);
    engines(&mut report);
    for (at, engine) in chip.core.engines.iter().enumerate() {
        for (index, mode) in engine.modes.iter().enumerate() {
            let path = format!("core.engine[{at}].mode[{index}]");
            mode_alone(&mut report, &path, engine, at, mode);
            mode_in_engine(&mut report, &path, engine, index);
        }
        crossbar(&mut report, at, engine);
    }
    schemes(&mut report);
    limits(&mut report);
    sparsity(&mut report);
    memories(&mut report);
    energy(&mut report);
    runtime(&mut report);
    report.findings
}

struct Report<'a> {
    chip: &'a Chip,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, key: &str, message: String, help: &str) {
        // A key that is absent is shown at the nearest table around it.
        let around = |path: &str| path.rfind(['.', '[']).map(|end| path[..end].to_owned());
        let places = std::iter::successors(Some(key.to_owned()), |path| around(path));
        let place = places.into_iter().find_map(|path| self.chip.place(&path)).cloned();
        self.findings.push(Finding { key: key.to_owned(), place, message, help: help.to_owned() });
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
    for source in &chip.unused_sources {
        let help = "remove it, or name it as `src` where it belongs";
        report.add(&format!("sources.{source}"), "no figure names this source".to_owned(), help);
    }
}

fn engines(report: &mut Report<'_>) {
    let engines = &report.chip.core.engines;
    if engines[0].host {
        let help = "list the engine that runs networks first, the host last";
        report.add("core.engine[0].host", "the main engine is the host".to_owned(), help);
    }
    for (at, engine) in engines.iter().enumerate() {
        if engines[..at].iter().any(|other| other.name == engine.name) {
            let message = format!("a second engine `{}`", engine.name);
            report.add(&format!("core.engine[{at}].name"), message, "give each its own name");
        }
        for (index, rate) in engine.op_rates.iter().enumerate() {
            if rate.cycles_per_element.is_none() && rate.launch.is_none() {
                let help = "state `cycles_per_element` or `launch_us`, or remove it";
                let message = "operators without a figure".to_owned();
                report.add(&format!("core.engine[{at}].op[{index}]"), message, help);
            }
        }
        if engine.host && engines[..at].iter().any(|other| other.host) {
            let message = "a second host engine".to_owned();
            report.add(&format!("core.engine[{at}].host"), message, "one engine runs fallbacks");
        }
    }
}

fn mode_alone(report: &mut Report<'_>, path: &str, engine: &Engine, at: usize, mode: &Mode) {
    let key = |leaf: &str| format!("{path}.{leaf}");
    let efficiency = &mode.efficiency;
    if efficiency.value > 1.0 {
        let own = key("efficiency");
        let engines = format!("core.engine[{at}].efficiency");
        let key = if report.chip.place(&own).is_some() { own } else { engines };
        let message = format!("efficiency {} is above 1", efficiency.value);
        report.add(&key, message, "give the share of the peak, 0 to 1");
    }
    if mode.weights.is_float() != mode.activations.is_float() {
        let message =
            format!("{} weights do not multiply {} activations", mode.weights, mode.activations);
        report.add(&key("activations"), message, "name two float or two integer types");
        return;
    }
    // A crossbar sums currents; what its converters cannot hold is a loss of bits, not an overflow.
    let analog = matches!(engine.model, EngineModel::Crossbar(_));
    let needed = bits_of_step(mode);
    if !analog && !mode.weights.is_float() && mode.accumulator.bits.value < needed {
        let bits = mode.accumulator.bits.value;
        let message = format!(
            "{bits} bits cannot hold one unrolled step of the reduction, which needs {needed}"
        );
        report.add(&key("accumulator_bits"), message, "check the accumulator and `unroll.k`");
    }
}

/// Bits of the sum of one unrolled step: the product's magnitude, `⌈log₂ k⌉` for the summands, and a sign.
fn bits_of_step(mode: &Mode) -> u64 {
    let product = mode.weights.magnitude_bits() + mode.activations.magnitude_bits();
    let summands =
        mode.unroll.value.k.max(1).checked_next_power_of_two().map_or(64, u64::trailing_zeros);
    u64::from(product + summands + 1)
}

fn mode_in_engine(report: &mut Report<'_>, path: &str, engine: &Engine, index: usize) {
    let key = |leaf: &str| format!("{path}.{leaf}");
    let mode = &engine.modes[index];
    let pair = (mode.weights, mode.activations);
    if engine.modes[..index].iter().any(|other| (other.weights, other.activations) == pair) {
        let message = format!("a second mode for {} weights and {} activations", pair.0, pair.1);
        report.add(&key("weights"), message, "keep one mode for each pair of types");
    }
    let schemes = &report.chip.core.arithmetic.schemes;
    let scheme = schemes.iter().any(|scheme| (scheme.weights, scheme.activations) == pair);
    if !mode.weights.is_float() && !scheme && !engine.host {
        let message =
            format!("no scheme quantizes to {} weights and {} activations", pair.0, pair.1);
        report.add(&key("weights"), message, "add a [[core.arithmetic.scheme]] or remove the mode");
    }
    let rate = mode.macs_per_cycle.value;
    let eight_bit = pair.0.bits() == 8 && pair.1.bits() == 8;
    // A cell of a systolic array may do several small products in one cycle.
    let several = matches!(engine.model, EngineModel::Systolic { .. });
    let odd = |macs: f64| {
        let times = if several { (rate / macs).round().max(1.0) } else { 1.0 };
        (rate - macs * times).abs() > 0.5
    };
    if let Some(macs) = array_macs(engine).filter(|&macs| eight_bit && odd(macs)) {
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
    for (at, kernel) in mode.kernels.iter().enumerate() {
        if mode.kernels[..at].iter().any(|other| other.product == kernel.product) {
            let message = format!("a second kernel for {} products", kernel.product);
            report.add(
                &format!("{path}.kernel[{at}].product"),
                message,
                "keep one kernel for each kind",
            );
        }
        if kernel.macs_per_cycle.is_none() && kernel.cycles_per_output.is_none() {
            let message = format!("nothing is said of {} products", kernel.product);
            report.add(&format!("{path}.kernel[{at}]"), message, "state a rate, or remove it");
        }
    }
    let Unroll { k, n, reduction, .. } = mode.unroll.value;
    let step = if reduction == Reduction::Channels { k.min(n) } else { n };
    let grain = mode.grain.value;
    if !step.is_multiple_of(grain) && !grain.is_multiple_of(step) {
        let message =
            format!("grain {grain} and the unrolling {step} are not multiples of each other");
        report.add(&key("grain"), message, "prune to a multiple that the array rounds to");
    }
}

/// Multipliers of an engine whose geometry the file states.
fn array_macs(engine: &Engine) -> Option<f64> {
    let one = match &engine.model {
        EngineModel::Systolic { array } => array.value.rows.saturating_mul(array.value.columns),
        EngineModel::EthosU(it) => it.macs(),
        _ => return None,
    };
    Some(one.saturating_mul(engine.cores.value) as f64)
}

fn crossbar(report: &mut Report<'_>, at: usize, engine: &Engine) {
    let EngineModel::Crossbar(it) = &engine.model else { return };
    let key = |leaf: &str| format!("core.engine[{at}].crossbar.{leaf}");
    if it.active_rows() > it.rows.value {
        let message = format!("{} rows at once of {}", it.active_rows(), it.rows.value);
        report.add(&key("rows_parallel"), message, "at most all rows are driven at once");
    }
    if it.columns_per_adc.value > it.columns.value {
        let message = format!(
            "{} columns share a converter of {}",
            it.columns_per_adc.value, it.columns.value
        );
        report.add(&key("columns_per_adc"), message, "at most all columns share a converter");
    }
    if it.columns_per_weight() > it.columns.value {
        let message =
            format!("one weight takes {} columns of {}", it.columns_per_weight(), it.columns.value);
        report.add(&key("weight_bits"), message, "a weight must fit into one row of an array");
    }
    if it.dac_bits.value > it.input_bits.value {
        let message =
            format!("{} converter bits for {}-bit inputs", it.dac_bits.value, it.input_bits.value);
        report.add(&key("dac_bits"), message, "an input has at least the bits of one drive");
    }
    if it.adc.is_some() && it.adc_bits.is_none() {
        let message = "a conversion time without a converter".to_owned();
        report.add(&key("adc_ns"), message, "state `adc_bits`, or leave `adc_ns` out");
    }
    if let Some(noise) = &it.noise {
        self::noise(report, &key("noise"), noise);
    }
}

fn noise(report: &mut Report<'_>, path: &str, noise: &Noise) {
    let key = |leaf: &str| format!("{path}.{leaf}");
    if noise.stuck_rate.as_ref().is_some_and(|it| it.value > 1.0) {
        let message = "more cells are stuck than there are".to_owned();
        report.add(&key("stuck_rate"), message, "give the share of cells, 0 to 1");
    }
    for (leaf, law) in [("drift_mean", &noise.drift_mean), ("drift_sigma", &noise.drift_sigma)] {
        let Some(law) = law.as_ref().filter(|it| it.min.value > it.max.value) else { continue };
        let message = format!("the smallest exponent {} is above {}", law.min.value, law.max.value);
        report.add(&key(&format!("{leaf}.min")), message, "check `min` and `max`");
    }
    let scaled = noise.programming.is_some() || !noise.relaxed.is_empty();
    if scaled && noise.g_max.is_none() {
        let message = "a deviation by conductance without the largest conductance".to_owned();
        report.add(&key("programming_us"), message, "state `g_max_us`");
    }
    for (index, pair) in noise.relaxed.windows(2).enumerate() {
        if pair[1].after.value.0 <= pair[0].after.value.0 {
            let message = "a time that is not after the one before".to_owned();
            let at = key(&format!("relaxed[{}].after_s", index + 1));
            report.add(&at, message, "list times in ascending order");
        }
    }
}

fn schemes(report: &mut Report<'_>) {
    let chip = report.chip;
    let arithmetic = &chip.core.arithmetic;
    for (index, scheme) in arithmetic.schemes.iter().enumerate() {
        let key = |leaf: &str| format!("core.arithmetic.scheme[{index}].{leaf}");
        if chip.mode(scheme.weights, scheme.activations).is_none() {
            let message = format!(
                "no mode multiplies {} weights and {} activations",
                scheme.weights, scheme.activations
            );
            report.add(&key("weights"), message, "add a [[core.engine.mode]] or remove the scheme");
        }
        if scheme.ops.is_empty() || scheme.granularity.is_empty() {
            let leaf = if scheme.ops.is_empty() { "ops" } else { "granularity" };
            report.add(&key(leaf), "an empty list permits nothing".to_owned(), "name at least one");
        }
        if scheme.granularity.contains(&crate::Granularity::Block) == scheme.blocks.is_empty() {
            let message = "blocks without their lengths, or lengths without blocks".to_owned();
            report.add(&key("blocks"), message, "give `blocks` with granularity \"block\" only");
        }
        for op in scheme.ops.iter().filter(|op| op.as_str() != "DepthwiseConv" && !chip.runs(op)) {
            let message = format!("`{op}` is not in core.operators.allow, or is denied");
            report.add(&key("ops"), message, "allow it or leave it out");
        }
    }
    let multiplier = arithmetic.multiplier_bits.is_some();
    if multiplier && arithmetic.scale != crate::ScaleKind::Fixed {
        let message = format!("a multiplier's width, but scales are {}", arithmetic.scale);
        report.add("core.arithmetic.multiplier_bits", message, "only fixed scales have one");
    }
}

fn limits(report: &mut Report<'_>) {
    let operators = &report.chip.core.operators;
    for denied in &operators.deny {
        if operators.allow.as_ref().is_some_and(|allow| allow.contains(denied)) {
            let message = format!("`{denied}` is both allowed and denied");
            report.add("core.operators.deny", message, "decide");
        }
    }
    for (index, limit) in operators.limits.iter().enumerate() {
        let most = limit.kernel_max.as_ref().map_or(u64::MAX, |it| it.value);
        if limit.kernels.iter().any(|&kernel| kernel > most) {
            let message = format!("a kernel extent above the largest, {most}");
            report.add(
                &format!("core.operators.limit[{index}].kernels"),
                message,
                "leave one of the two out",
            );
        }
    }
}

fn sparsity(report: &mut Report<'_>) {
    for (index, pattern) in report.chip.core.sparsity.iter().enumerate() {
        let key = |leaf: &str| format!("core.sparsity[{index}].{leaf}");
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
            if !report.chip.modes().any(|mode| mode.weights == weights) {
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
    for (index, memory) in chip.system.memories.iter().enumerate() {
        let key = |leaf: &str| format!("system.memory[{index}].{leaf}");
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
        if chip.system.memories[..index].iter().any(|other| other.name == memory.name) {
            report.add(
                &key("name"),
                format!("a second memory `{}`", memory.name),
                "give each its own name",
            );
        }
        let nearer = chip.system.memories[..index].iter().filter_map(|it| it.read.as_ref());
        let slowest = nearer.map(|read| read.value.0).fold(f64::INFINITY, f64::min);
        if memory.read.as_ref().is_some_and(|read| read.value.0 > slowest) {
            let message = format!("memory `{}` is faster than a nearer one", memory.name);
            report.add(&key("read_bytes_per_s"), message, "list memories from near to far");
        }
    }
    for content in [Content::Weights, Content::Activations] {
        if chip.home_of(content).is_none() {
            report.add(
                "system.memory",
                format!("no memory holds {content}"),
                "add it to a memory's `holds`",
            );
        }
    }
    // Weights of a crossbar lie in its cells; they pass no memory while it computes.
    let resident = matches!(chip.engine().model, EngineModel::Crossbar(_));
    if chip.far_memory().read.is_none() && !resident {
        let message = format!(
            "the bandwidth of the farthest memory, `{}`, is not stated",
            chip.far_memory().name
        );
        let last = chip.system.memories.len().saturating_sub(1);
        report.add(
            &format!("system.memory[{last}].read_bytes_per_s"),
            message,
            "state it, as an assumption if need be: all weights pass there",
        );
    }
}

fn energy(report: &mut Report<'_>) {
    let chip = report.chip;
    for (index, memory) in chip.energy.memories.iter().enumerate() {
        if !chip.system.memories.iter().any(|it| it.name == memory.name) {
            let message = format!("no memory is called `{}`", memory.name);
            let help = "name one of [[system.memory]]";
            report.add(&format!("energy.memory[{index}].name"), message, help);
        }
    }
    for (index, mac) in chip.energy.macs.iter().enumerate() {
        if chip.mode(mac.weights, mac.activations).is_none() {
            let message = format!(
                "no mode multiplies {} weights and {} activations",
                mac.weights, mac.activations
            );
            let help = "name the types of a [[core.engine.mode]]";
            report.add(&format!("energy.mac[{index}].weights"), message, help);
        }
    }
    if chip.energy.process_scale.is_some() && chip.energy.table.is_none() {
        let message = "a scale without the table that it scales".to_owned();
        report.add("energy.process_scale", message, "name the `table`");
    }
    if let (Some(limit), Some(idle)) = (&chip.energy.limit, &chip.energy.idle)
        && idle.value.0 > limit.value.0
    {
        let message = format!("{} idle is above the limit, {}", idle.value, limit.value);
        report.add("energy.idle_w", message, "check both");
    }
    let crossbars = chip.core.engines.iter().any(|it| matches!(it.model, EngineModel::Crossbar(_)));
    if chip.energy.crossbar.is_some() && !crossbars {
        let message = "energies of a crossbar, but no engine is one".to_owned();
        report.add("energy.crossbar", message, "remove them");
    }
}

fn runtime(report: &mut Report<'_>) {
    let runtime = &report.chip.runtime;
    if !runtime.command.contains("{model}") {
        report.add(
            "runtime.command",
            "the command does not say where the file goes".to_owned(),
            "write `{model}` there",
        );
    }
    if runtime.accepts.is_empty() {
        report.add("runtime.accepts", "no format is accepted".to_owned(), "name at least one");
    }
    if let (Some(low), Some(high)) = (&runtime.opset_min, &runtime.opset_max)
        && low.value > high.value
    {
        let message = format!("opset {} is above the highest, {}", low.value, high.value);
        report.add("runtime.opset_min", message, "check both");
    }
}

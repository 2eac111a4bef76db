//! The figures of a chip that are not known, and the chip file that they make.
//!
//! Each unknown is a time: seconds by multiplication, byte, element or start. The cost model's latency of a network is a sum of them with
//! factors that only shapes decide, so that they can be solved for; the file states their inverses in the schema's units.

use std::fmt::Write as _;

use sartor_chip::ProductKind;

use super::Machine;

/// A pair of number types that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pair {
    F32,
    Int8,
}

impl Pair {
    pub(super) const ALL: [Pair; 2] = [Pair::F32, Pair::Int8];

    fn types(self) -> [&'static str; 2] {
        match self {
            Pair::F32 => ["f32", "f32"],
            Pair::Int8 => ["i8", "u8"],
        }
    }
}

/// What kernels tell apart: dense convolution, depthwise convolution, and the kinds of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dense,
    Depthwise,
    Own(ProductKind),
}

const KINDS: [Kind; 7] = [
    Kind::Dense,
    Kind::Depthwise,
    Kind::Own(ProductKind::Conv3x3),
    Kind::Own(ProductKind::Pointwise),
    Kind::Own(ProductKind::Grouped),
    Kind::Own(ProductKind::Matrix),
    Kind::Own(ProductKind::Recurrent),
];

impl Kind {
    /// The kind whose speed it never exceeds.
    fn at_most(self) -> Option<Kind> {
        match self {
            Kind::Depthwise | Kind::Own(ProductKind::Grouped) => Some(Kind::Dense),
            Kind::Own(ProductKind::Recurrent) => Some(Kind::Own(ProductKind::Matrix)),
            Kind::Dense | Kind::Own(_) => None,
        }
    }
}

/// Operators whose start is measured apart from that of all others.
const STARTS: [&[&str]; 4] = [
    &["Conv", "DepthwiseConv"],
    &["Gemm", "MatMul"],
    &["LSTM", "GRU", "RNN"],
    &["Reshape", "Flatten", "Squeeze", "Unsqueeze"],
];

/// One unknown, in seconds of its unit.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unknown {
    /// By run.
    Invoke,
    /// By operator without a start of its own.
    Launch,
    /// By operator of one of [`STARTS`].
    Start(usize),
    /// By byte of a memory, beyond that of the next nearer one: a farther memory is never faster.
    Byte(usize),
    /// By multiplication in the kernel that runs them fastest.
    Multiply(Pair),
    /// By multiplication in another kernel, beyond the fastest or beyond [`Kind::at_most`].
    Slower(Pair, Kind),
    /// By output of a kernel.
    Output(Pair, Kind),
    /// By element of an operator without products, and whether it computes with integers.
    Element(String, bool),
}

impl Unknown {
    /// Whether its share in a network depends on how the kernels of a pair are laid out.
    pub(super) fn depends_on_layout(&self, pair: Pair) -> bool {
        matches!(self, Unknown::Multiply(it) | Unknown::Slower(it, _) if *it == pair)
    }
}

/// What is known of a chip file before anything is measured.
#[derive(Clone, Debug)]
pub(super) struct Draft<'a> {
    pub(super) machine: &'a Machine,
    pub(super) id: &'a str,
    pub(super) toolchain: &'a str,
    pub(super) command: &'a str,
    /// Operators without products that the micro-networks contain, and whether they compute with integers there.
    pub(super) ops: &'a [(String, bool)],
    /// Output channels that kernels compute together, by pair.
    pub(super) unroll: [u64; 2],
}

/// What a rendered figure says of itself.
pub(super) struct Values<'a> {
    /// By unknown.
    pub(super) seconds: &'a [f64],
    /// By unknown: where it comes from, as a key of the schema with its text; `None`: nothing was seen of it.
    pub(super) origins: &'a [Option<String>],
}

/// The clock in which cycles are counted where the system does not tell its own.
const NANOSECONDS: f64 = 1e9;

/// Cycles by element that are as good as none, which the schema does not take.
const LEAST: f64 = 1e-9;

/// A rate that takes no time.
const AT_ONCE: f64 = 1e30;

impl Draft<'_> {
    /// All unknowns, in the order of their values.
    pub(super) fn unknowns(&self) -> Vec<Unknown> {
        let mut all = vec![Unknown::Invoke, Unknown::Launch];
        all.extend((0..STARTS.len()).map(Unknown::Start));
        all.extend((0..self.memories().len()).map(Unknown::Byte));
        for pair in Pair::ALL {
            all.push(Unknown::Multiply(pair));
            all.extend(KINDS.into_iter().map(|kind| Unknown::Slower(pair, kind)));
            all.extend(KINDS.into_iter().map(|kind| Unknown::Output(pair, kind)));
        }
        all.extend(self.ops.iter().map(|it| Unknown::Element(it.0.clone(), it.1)));
        all
    }

    /// Name and capacity of the memories, near to far.
    fn memories(&self) -> Vec<(&str, Option<u64>)> {
        let caches = self.machine.caches.iter().map(|it| (it.name.as_str(), Some(it.bytes)));
        caches.chain([("ram", None)]).collect()
    }

    fn clock(&self) -> f64 {
        self.machine.clock_hz.unwrap_or(NANOSECONDS)
    }

    /// The file.
    pub(super) fn render(&self, values: &Values<'_>) -> String {
        let table = Table { draft: self, unknowns: self.unknowns(), values };
        let mut text = table.head();
        text.push_str(&table.core());
        text.push_str(&table.system());
        text.push_str(&table.runtime());
        text
    }
}

/// Values by unknown, while the file is written.
struct Table<'a> {
    draft: &'a Draft<'a>,
    unknowns: Vec<Unknown>,
    values: &'a Values<'a>,
}

impl Table<'_> {
    fn at(&self, unknown: &Unknown) -> Option<usize> {
        self.unknowns.iter().position(|it| it == unknown)
    }

    fn seconds(&self, unknown: &Unknown) -> f64 {
        self.at(unknown).map_or(0.0, |it| self.values.seconds[it])
    }

    fn origin(&self, unknown: &Unknown) -> Option<&str> {
        self.values.origins[self.at(unknown)?].as_deref()
    }

    /// A figure by an unknown that was seen.
    fn figure(&self, value: f64, unknown: &Unknown) -> Option<String> {
        Some(format!("{{ v = {}, {} }}", number(value), self.origin(unknown)?))
    }

    /// Seconds of one multiplication in a kernel.
    fn multiplication(&self, pair: Pair, kind: Kind) -> f64 {
        let own = self.seconds(&Unknown::Slower(pair, kind));
        let best = self.seconds(&Unknown::Multiply(pair));
        let parent = kind.at_most().map_or(0.0, |it| self.seconds(&Unknown::Slower(pair, it)));
        best + own + parent
    }

    fn macs_per_cycle(&self, seconds: f64) -> f64 {
        if seconds > 0.0 { 1.0 / (seconds * self.draft.clock()) } else { AT_ONCE }
    }

    fn head(&self) -> String {
        let Machine { processor, vendor, date, threads, .. } = self.draft.machine;
        let (id, toolchain) = (self.draft.id, self.draft.toolchain);
        format!(
            "# {processor} under {toolchain}, as `sartor fit` measured it.\n\
             schema = 1\n\
             measured = {how}\n\
             \n[chip]\n\
             id = {id}\n\
             name = {name}\n\
             vendor = {vendor}\n\
             class = \"cpu\"\n\
             notes = [\"rates are those of one version of the runtime at batch 1: measure again when it changes\"]\n",
            how = quoted(&format!(
                "`sartor fit`, {date}: {processor}, {threads} threads, {toolchain}"
            )),
            id = quoted(id),
            name = quoted(&format!("{processor} with {threads} threads, {toolchain}")),
            vendor = quoted(vendor),
        )
    }

    fn core(&self) -> String {
        let threads = self.draft.machine.threads;
        let mut text = format!(
            "\n[core]\nversion = 1\noverlaps = false\n\
             \n[[core.engine]]\nname = \"cpu\"\nmodel = \"simd\"\ncores = {threads}\nefficiency = 1\n"
        );
        for pair in Pair::ALL {
            text.push_str(&self.mode(pair));
        }
        for (start, ops) in STARTS.iter().enumerate() {
            let unknown = Unknown::Start(start);
            if let Some(figure) = self.figure(self.seconds(&unknown) * 1e6, &unknown) {
                let ops = list(ops);
                let _ = write!(text, "\n[[core.engine.op]]\nops = {ops}\nlaunch_us = {figure}\n");
            }
        }
        for (op, integers) in self.draft.ops {
            let unknown = Unknown::Element(op.clone(), *integers);
            let cycles = self.seconds(&unknown) * self.draft.clock();
            let Some(figure) = self.figure(cycles.max(LEAST), &unknown) else { continue };
            let ops = list(&[op]);
            let integers = if *integers { "integers = true\n" } else { "" };
            let _ = write!(
                text,
                "\n[[core.engine.op]]\nops = {ops}\n{integers}cycles_per_element = {figure}\n"
            );
        }
        text.push_str(
            "\n[core.arithmetic]\nscale = \"float\"\nrounding = \"half_even\"\n\
             bias_bits = { v = 32, assumed = \"what ONNX prescribes for the bias of a quantized product\" }\n",
        );
        if self.seen(Pair::Int8) {
            text.push_str(
                "\n[[core.arithmetic.scheme]]\n\
                 ops = [\"Conv\", \"DepthwiseConv\", \"ConvTranspose\", \"Gemm\", \"MatMul\"]\n\
                 weights = \"i8\"\nactivations = \"u8\"\nweights_symmetric = true\n\
                 granularity = [\"channel\", \"tensor\"]\nnarrow_range = true\n",
            );
        }
        text.push_str("\n[core.operators]\nfallback = \"split\"\n");
        text
    }

    fn seen(&self, pair: Pair) -> bool {
        self.origin(&Unknown::Multiply(pair)).is_some()
    }

    /// A mode with its kernels; nothing if no network of the pair ran.
    fn mode(&self, pair: Pair) -> String {
        let best = Unknown::Multiply(pair);
        let [weights, activations] = pair.types();
        let rate = self.macs_per_cycle(self.seconds(&best));
        let Some(figure) = self.figure(rate, &best) else { return String::new() };
        let dense = self.multiplication(pair, Kind::Dense);
        let share = if dense > 0.0 { 1.0 / (rate * dense * self.draft.clock()) } else { 1.0 };
        let dense = Unknown::Slower(pair, Kind::Dense);
        let efficiency = self.figure(share.min(1.0), &dense).unwrap_or_else(|| "1".to_owned());
        let n = self.draft.unroll[pair as usize];
        let overflow = if pair == Pair::F32 { "float" } else { "wrap" };
        let mut text = format!(
            "\n[[core.engine.mode]]\nweights = \"{weights}\"\nactivations = \"{activations}\"\n\
             macs_per_cycle = {figure}\nefficiency = {efficiency}\n\
             accumulator_bits = {{ v = 32, assumed = \"what kernels of these types sum in\" }}\noverflow = \"{overflow}\"\n\
             unroll = {{ n = {n} }}\ngrain = {n}\n"
        );
        if let Some(figure) = self.output(pair, Kind::Dense) {
            let _ = writeln!(text, "cycles_per_output = {figure}");
        }
        let depthwise = Unknown::Slower(pair, Kind::Depthwise);
        let rate = self.macs_per_cycle(self.multiplication(pair, Kind::Depthwise) * share);
        if let Some(figure) = self.figure(rate, &depthwise) {
            let output = self.output(pair, Kind::Depthwise);
            let output = output.map_or(String::new(), |it| format!(", cycles_per_output = {it}"));
            let _ = writeln!(
                text,
                "depthwise = {{ macs_per_cycle = {figure}, unroll = {{ n = {n} }}{output} }}"
            );
        }
        for kind in KINDS {
            let Kind::Own(product) = kind else { continue };
            let rate = self.macs_per_cycle(self.multiplication(pair, kind));
            let Some(figure) = self.figure(rate, &Unknown::Slower(pair, kind)) else { continue };
            let _ = write!(
                text,
                "\n[[core.engine.mode.kernel]]\nproduct = \"{product}\"\nmacs_per_cycle = {figure}\n"
            );
            if let Some(figure) = self.output(pair, kind) {
                let _ = writeln!(text, "cycles_per_output = {figure}");
            }
        }
        text
    }

    /// Cycles by output of a kernel; nothing where they are none, as those of the mode.
    fn output(&self, pair: Pair, kind: Kind) -> Option<String> {
        let unknown = Unknown::Output(pair, kind);
        let seconds = self.seconds(&unknown);
        let general = self.seconds(&Unknown::Output(pair, Kind::Dense));
        let said = seconds > 0.0 || general > 0.0;
        said.then(|| self.figure(seconds * self.draft.clock(), &unknown)).flatten()
    }

    fn system(&self) -> String {
        let clock = self.draft.clock();
        let origin = match self.draft.machine.clock_hz {
            Some(_) => "measured = \"what the operating system says\"",
            None => "assumed = \"the system does not tell its clock: cycles are nanoseconds\"",
        };
        let mut text =
            format!("\n[system]\nversion = 1\ncore_hz = {{ v = {}, {origin} }}\n", number(clock));
        let memories = self.draft.memories();
        let (mut seconds, mut nearer) = (0.0, None);
        for (level, (name, bytes)) in memories.iter().enumerate() {
            let unknown = Unknown::Byte(level);
            seconds += self.seconds(&unknown);
            nearer = self.origin(&unknown).or(nearer);
            let _ = write!(text, "\n[[system.memory]]\nname = {}\n", quoted(name));
            if let Some(bytes) = bytes {
                let how = "measured = \"what the operating system says, of all threads' caches\"";
                let _ = writeln!(text, "capacity_bytes = {{ v = {bytes}, {how} }}");
                text.push_str("keeps_weights = true\n");
            }
            // The farthest memory needs a figure; one as fast as can be takes no time.
            let last = level + 1 == memories.len();
            let rate = number(if seconds > 0.0 { 1.0 / seconds } else { AT_ONCE });
            let assumed = "assumed = \"no micro-network read it\"";
            match nearer {
                Some(origin) if seconds > 0.0 => {
                    let _ = writeln!(text, "read_bytes_per_s = {{ v = {rate}, {origin} }}");
                    let _ = writeln!(text, "write_bytes_per_s = {{ v = {rate}, {origin} }}");
                }
                _ if last => {
                    let _ = writeln!(text, "read_bytes_per_s = {{ v = {rate}, {assumed} }}");
                    let _ = writeln!(text, "write_bytes_per_s = {{ v = {rate}, {assumed} }}");
                }
                _ => {}
            }
            text.push_str("holds = [\"weights\", \"activations\"]\n");
        }
        text
    }

    fn runtime(&self) -> String {
        let accepts = if self.seen(Pair::Int8) { "[\"onnx-qdq\", \"onnx\"]" } else { "[\"onnx\"]" };
        let mut text = format!(
            "\n[runtime]\nversion = 1\ntoolchain = {}\naccepts = {accepts}\ncommand = {}\n",
            quoted(self.draft.toolchain),
            quoted(self.draft.command),
        );
        for (key, unknown) in [("launch_us", Unknown::Launch), ("invoke_us", Unknown::Invoke)] {
            if let Some(figure) = self.figure(self.seconds(&unknown) * 1e6, &unknown) {
                let _ = writeln!(text, "{key} = {figure}");
            }
        }
        text
    }
}

/// Six significant digits, as TOML takes them.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0.0".to_owned();
    }
    let digits = 5 - value.abs().log10().floor() as i32;
    if (0..=12).contains(&digits) {
        let text = format!("{value:.*}", digits as usize);
        let text = if text.contains('.') { text.trim_end_matches('0') } else { &text };
        let text = text.trim_end_matches('.');
        return if text.contains('.') { text.to_owned() } else { format!("{text}.0") };
    }
    format!("{value:.5e}")
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    let plain: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|it| quoted(it.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_six_digits_and_stay_floats() {
        for (value, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (12.345_678_9, "12.3457"),
            (3.3e9, "3.30000e9"),
            (123_456.0, "123456.0"),
            (4.567_891e-9, "4.56789e-9"),
            (1e-4, "0.0001"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!(quoted("a \"b\"\\\n"), "\"a \\\"b\\\"\\\\ \"");
    }
}

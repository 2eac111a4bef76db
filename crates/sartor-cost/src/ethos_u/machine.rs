//! The parameters of an Ethos-U and of its board.

use sartor_chip::{Chip, Content, EngineModel, EthosBuffers, Figure, Granules, Hertz, Memory};

/// What no copy exceeds, where feature maps have nowhere else to go.
const UNBOUNDED: u64 = 1 << 30;

/// Height, width and depth of a feature map or of a block of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Volume {
    pub(crate) h: u64,
    pub(crate) w: u64,
    pub(crate) d: u64,
}

impl Volume {
    pub(crate) const fn new(h: u64, w: u64, d: u64) -> Self {
        Volume { h, w, d }
    }

    pub(crate) fn elements(self) -> u64 {
        self.h.saturating_mul(self.w).saturating_mul(self.d)
    }

    /// Positions: height × width.
    pub(crate) fn area(self) -> u64 {
        self.h.saturating_mul(self.w)
    }

    /// What one extent after the other makes of both.
    pub(crate) fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Volume { h: f(self.h, other.h), w: f(self.w, other.w), d: f(self.d, other.d) }
    }

    /// The smaller of the extents.
    pub(crate) fn min(self, other: Self) -> Self {
        self.zip(other, u64::min)
    }

    /// How many of `unit` cover it.
    pub(crate) fn units(self, unit: Self) -> Self {
        self.zip(unit, u64::div_ceil)
    }

    /// Rounded up to whole `unit`s.
    pub(crate) fn round_up(self, unit: Self) -> Self {
        self.zip(unit, u64::next_multiple_of)
    }

    pub(crate) fn with_depth(self, d: u64) -> Self {
        Volume { d, ..self }
    }

    /// Whether there is but one element.
    pub(crate) fn is_scalar(self) -> bool {
        self.elements() == 1
    }
}

/// A part of the output that the array makes in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MicroBlock {
    pub(crate) size: Volume,
    /// Units in which the input buffer is dealt out, for blocks at most one brick, two bricks and more bricks of 128 bits deep;
    /// depth in bricks. U85 alone.
    pub(crate) input_units: [Volume; 3],
}

/// The memory inside the array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Buffers {
    /// U55 and U65: banks of 1 KiB that inputs, accumulators, the output and the look-up table share.
    Shared { banks: u64, granules: Granules },
    /// U85: one memory for each, in bytes.
    Apart {
        input: u64,
        accumulators: u64,
        chaining: u64,
        output: u64,
        /// Outstanding 16-byte reads by [`Channel`]; writes have no limit of their own.
        outstanding: [u64; 6],
    },
}

/// Why the U85 reads or writes: each has its own share of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Channel {
    /// Copies from memory to memory.
    Copy,
    /// Operands that are streamed.
    Stream,
    /// Weights for the standard decoder.
    Weights,
    /// Weights for the fast decoder.
    FastWeights,
    /// Inputs that are held in the input buffer.
    Input,
    /// Biases and scales.
    Scales,
    /// Outputs.
    Write,
}

/// A memory as the array sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port {
    /// Bytes a cycle of the array.
    pub(crate) bandwidth: f64,
    /// Cycles until a read answers.
    pub(crate) read_latency: f64,
    /// Cycles until a write is done.
    pub(crate) write_latency: f64,
    /// Bytes of the longest burst.
    pub(crate) burst: u64,
    /// AXI ports on it.
    pub(crate) ports: u64,
    /// Reads in flight, of one port.
    pub(crate) reads: u64,
    /// Writes in flight, of one port.
    pub(crate) writes: u64,
}

/// An Ethos-U on its board.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    /// Multiply-accumulates in a cycle; of one core on the U65.
    pub(crate) macs: u64,
    /// U65: cores that share the outputs. U85: weight decoders. Else 1.
    pub(crate) cores: u64,
    /// Blocks of the output that the array may make in a step; U55 and U65 have one.
    pub(crate) micro_blocks: Vec<MicroBlock>,
    pub(crate) buffers: Buffers,
    /// Multiplications of the mode over those of the micro-blocks: 1, but where a chip is asked about that does not exist.
    pub(crate) speed: f64,
    /// Cycles for each output element. U55 and U65: 32-bit unary, 32-bit binary, product to 32 bits, product or 40-bit
    /// accumulators, simple sum, sum, maximum, other. U85: to 8, 16, 32, 48 bits, 32-bit chained or sum narrowed, 32-bit binary.
    pub(crate) output_cycles: Vec<f64>,
    /// Cycles for each activated element. U55 and U65: table, clamp, none. U85: in order, height and width exchanged.
    pub(crate) activation_cycles: Vec<f64>,
    /// Near to far.
    pub(crate) memories: Vec<Port>,
    /// Where copies of weights are staged, and feature maps if they fit.
    pub(crate) staging: usize,
    /// Where feature maps lie that find no room in `staging`.
    pub(crate) features: usize,
    /// Where weights lie.
    pub(crate) constants: usize,
    /// Bytes of `staging` that may be used; without limit where feature maps have nowhere else to go.
    pub(crate) staging_limit: u64,
}

impl Machine {
    /// Whether it is a U85, whose buffers are apart.
    pub(crate) fn is_u85(&self) -> bool {
        matches!(self.buffers, Buffers::Apart { .. })
    }

    /// Whether feature maps may leave the staging memory.
    pub(crate) fn spills(&self) -> bool {
        self.staging != self.features
    }

    /// Bytes a cycle that `channel` gets from memory `memory`.
    ///
    /// On the U85 a channel has so many requests in flight, each answered after the latency; a fifth of each is lost twice, to
    /// arbitration and to refills. Elsewhere all share the bandwidth.
    pub(crate) fn bandwidth(&self, memory: usize, channel: Channel) -> f64 {
        let port = &self.memories[memory];
        let Buffers::Apart { outstanding, .. } = &self.buffers else { return port.bandwidth };
        let words = (port.burst / 16).max(1) as f64;
        let (held, flight, latency) = match channel {
            Channel::Write => (f64::INFINITY, port.writes, port.write_latency),
            read => (outstanding[read as usize] as f64 / words, port.reads, port.read_latency),
        };
        let bursts = held.min((flight * port.ports) as f64 * 0.8);
        if latency == 0.0 {
            return port.bandwidth;
        }
        port.bandwidth.min(port.burst as f64 * bursts / latency * 0.8)
    }

    /// Cycles to copy `bytes` from one memory to another.
    pub(crate) fn copy_cycles(&self, from: usize, to: usize, bytes: u64) -> f64 {
        let read = (bytes as f64 / self.bandwidth(from, Channel::Copy)).floor();
        let write = (bytes as f64 / self.bandwidth(to, Channel::Write)).floor();
        (read + self.memories[from].read_latency).max(write + self.memories[to].write_latency)
    }

    /// Cycles to read `bytes` through `channel`.
    pub(crate) fn read_cycles(&self, from: usize, bytes: u64, channel: Channel) -> f64 {
        (bytes as f64 / self.bandwidth(from, channel) + self.memories[from].read_latency).floor()
    }
}

/// A memory as the chip file states it; what it leaves out does not bind.
fn port(memory: &Memory, clock: Hertz) -> Port {
    let rate = memory.read.as_ref().or(memory.write.as_ref());
    let count =
        |figure: &Option<Figure<u64>>, absent| figure.as_ref().map_or(absent, |it| it.value);
    let read_latency = memory.latency.as_ref().map_or(0.0, |it| it.value.0);
    Port {
        bandwidth: rate.map_or(f64::MAX, |it| it.value.0 / clock.0),
        read_latency,
        write_latency: memory.write_latency.as_ref().map_or(read_latency, |it| it.value.0),
        burst: memory.burst.as_ref().map_or(1, |it| it.value.0),
        ports: count(&memory.ports, 1),
        reads: count(&memory.max_reads, u64::from(u32::MAX)),
        writes: count(&memory.max_writes, u64::from(u32::MAX)),
    }
}

impl Machine {
    /// The Ethos-U of a chip; `None` where it is none.
    pub(crate) fn of(chip: &Chip) -> Option<Self> {
        let engine = chip.engine();
        let EngineModel::EthosU(tables) = &engine.model else { return None };
        let decoders = tables.decoders.as_ref().map_or(engine.cores.value, |it| it.value);
        let volume = |[h, w, d]: [u64; 3]| Volume::new(h, w, d);
        let micro = |it: &sartor_chip::MicroBlock| {
            let units = it.input_units.iter().map(|&unit| volume(unit)).collect::<Vec<_>>();
            let size = volume(it.size.value);
            MicroBlock { size, input_units: units.try_into().unwrap_or([size.with_depth(1); 3]) }
        };
        let whole = tables.macs().saturating_mul(engine.cores.value);
        let buffers = match &tables.buffers {
            EthosBuffers::Shared { banks, granules } => {
                Buffers::Shared { banks: banks.value, granules: *granules }
            }
            EthosBuffers::Apart { bytes, outstanding } => {
                let [input, accumulators, chaining, output] = bytes.value;
                let outstanding = outstanding.value;
                Buffers::Apart { input, accumulators, chaining, output, outstanding }
            }
        };
        let memories = &chip.system.memories;
        let holding = |content: Content| {
            let all = memories.iter().enumerate();
            all.filter(move |it| it.1.holds.contains(&content)).map(|it| it.0)
        };
        let staging = holding(Content::Activations).next()?;
        let features = holding(Content::Activations).next_back()?;
        let capacity = memories[staging].capacity.as_ref().map_or(UNBOUNDED, |it| it.value.0);
        Some(Machine {
            macs: tables.macs(),
            cores: decoders,
            micro_blocks: tables.micro_blocks.iter().map(micro).collect(),
            buffers,
            speed: chip.best_mode().macs_per_cycle.value / whole.max(1) as f64,
            output_cycles: tables.output_cycles.value.clone(),
            activation_cycles: tables.activation_cycles.value.clone(),
            memories: memories.iter().map(|it| port(it, chip.clock_of(engine).value)).collect(),
            staging,
            features,
            constants: holding(Content::Weights).next_back()?,
            staging_limit: if staging == features { UNBOUNDED } else { capacity },
        })
    }
}

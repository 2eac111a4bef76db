//! How many cycles a product takes on the chip's array.

use sartor_chip::{
    Bytes, Chip, Cycles, Engine, EngineModel, Macs, Mode, Seconds, Systolic, Tile, Unroll,
};

use crate::{arithmetic::Arithmetic, op::Product};

/// MACs rounded up to the array, and the time that they take when nothing else binds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Occupation {
    pub(crate) slots: Macs,
    pub(crate) time: Seconds,
    /// Parts into which the reduction was split to fill all cores; 1: not at all.
    pub(crate) split: u64,
    /// Partial sums that the split writes and reads again.
    pub(crate) partial: Bytes,
}

/// The occupation by `product`, all its steps, of the quickest engine that multiplies these types.
pub(crate) fn occupation(
    chip: &Chip,
    op: &str,
    arithmetic: &Arithmetic<'_>,
    product: &Product,
) -> Occupation {
    let types = (arithmetic.mode.weights, arithmetic.mode.activations);
    let runs = |it: &Engine| it.ops.as_ref().is_none_or(|it| it.iter().any(|known| known == op));
    let all = chip.engines().filter(|it| runs(it)).flat_map(|engine| {
        let modes = engine.modes.iter().filter(|it| (it.weights, it.activations) == types);
        modes.map(move |mode| on_engine(chip, engine, mode, arithmetic.speed, product))
    });
    let quicker = |a: Occupation, b: Occupation| if b.time < a.time { b } else { a };
    let engine = chip.engine_of(arithmetic.mode);
    all.reduce(quicker)
        .unwrap_or_else(|| on_engine(chip, engine, arithmetic.mode, arithmetic.speed, product))
}

/// The occupation of one engine in one mode, by the better of two layouts where the mode has an alternative; `speed` is a factor on
/// its speed.
pub(crate) fn on_engine(
    chip: &Chip,
    engine: &Engine,
    mode: &Mode,
    speed: f64,
    product: &Product,
) -> Occupation {
    let clock = chip.clock_of(engine).value;
    let bytes = chip.near_memory().read.as_ref().map(|it| it.value.0 / clock.0);
    let cores = Cores {
        engine,
        count: engine.cores.value.max(1),
        rate: mode.efficiency.value * speed,
        // Without bound where the bandwidth of the nearest memory is not known.
        bytes_per_cycle: bytes.unwrap_or(f64::INFINITY),
    };
    let kernel = product.kind.and_then(|it| mode.kernel(it));
    let once = if product.depthwise {
        depthwise(mode, product, cores.rate)
    } else {
        let own = kernel.and_then(|it| it.macs_per_cycle.as_ref()).map(|it| it.value * speed);
        let rate = own.unwrap_or(cores.rate * mode.macs_per_cycle.value);
        let cores = Cores { rate, ..cores };
        let first = dense(&cores, &mode.unroll.value, product);
        let second = mode.alternative.as_ref().map(|it| dense(&cores, &it.value, product));
        second.filter(|it| it.cycles < first.cycles).unwrap_or(first)
    };
    let own = match &mode.depthwise {
        Some(own) if product.depthwise => own.cycles_per_output.as_ref(),
        _ => kernel.and_then(|it| it.cycles_per_output.as_ref()),
    };
    let output = own.or(mode.cycles_per_output.as_ref()).map_or(Cycles(0.0), |it| it.value);
    let cycles = once.cycles + output * product.made() as f64;
    Occupation {
        slots: once.slots * product.steps,
        time: cycles * product.steps as f64 / clock,
        partial: once.partial * product.steps,
        split: once.split,
    }
}

/// One step on one engine.
#[derive(Clone, Copy)]
struct Step {
    slots: Macs,
    cycles: Cycles,
    split: u64,
    partial: Bytes,
}

/// An engine: its cores, what they reach together in MACs a cycle, and what the nearest memory gives them in bytes a cycle.
#[derive(Clone, Copy)]
struct Cores<'c> {
    engine: &'c Engine,
    count: u64,
    rate: f64,
    bytes_per_cycle: f64,
}

fn depthwise(mode: &Mode, product: &Product, reached: f64) -> Step {
    let (unroll, rate) = match &mode.depthwise {
        Some(own) => (own.unroll.value, own.macs_per_cycle.value),
        None => (mode.unroll.value, mode.macs_per_cycle.value),
    };
    let slots = unroll.mac_slots(1, product.taps, product.all_outputs(), product.positions);
    whole(slots, slots.0 as f64 / (rate * reached))
}

/// A step without a split.
fn whole(slots: Macs, cycles: f64) -> Step {
    Step { slots, cycles: Cycles(cycles), split: 1, partial: Bytes(0) }
}

/// A dense product in one layout.
fn dense(cores: &Cores<'_>, unroll: &Unroll, product: &Product) -> Step {
    let one = unroll.mac_slots(product.channels, product.taps, product.outputs, product.positions);
    let slots = one * product.groups;
    let rate = cores.rate;
    match &cores.engine.model {
        EngineModel::DotTile { tile } => tiled(&tile.value, unroll, product, cores, slots),
        EngineModel::Systolic { array } => {
            whole(slots, folds(&array.value, unroll, product, cores.count) / rate)
        }
        EngineModel::Simd => {
            whole(slots, slots.0 as f64 * unevenness(unroll, product, cores.count) / rate)
        }
        EngineModel::Roofline | EngineModel::EthosU(_) | EngineModel::Crossbar(_) => {
            whole(slots, slots.0 as f64 / rate)
        }
    }
}

/// The most loaded core's share over the mean: `⌈units / cores⌉ · cores / units`, where a unit is the register tile of the layout.
fn unevenness(unroll: &Unroll, product: &Product, cores: u64) -> f64 {
    let units = product
        .groups
        .saturating_mul(product.positions.div_ceil(unroll.m.max(1)))
        .saturating_mul(product.outputs.div_ceil(unroll.n.max(1)))
        .max(1);
    (units.div_ceil(cores) * cores) as f64 / units as f64
}

/// Weight-stationary folds, each of which passes all positions through the array and drains it:
/// `⌈folds / cores⌉ · cores · (positions + rows + columns − 2)` cycles of the whole array (Samajdar et al., SCALE-Sim, 2018,
/// equation 3).
fn folds(array: &Systolic, unroll: &Unroll, product: &Product, cores: u64) -> f64 {
    let folds =
        reduction(unroll, product).div_ceil(array.rows) * product.outputs.div_ceil(array.columns);
    let passes = folds.saturating_mul(product.groups).next_multiple_of(cores) as f64;
    let through = (product.positions + array.rows + array.columns).saturating_sub(2) as f64;
    passes * through * (array.rows * array.columns) as f64
}

/// Bytes of one partial sum.
const PARTIAL_SUM: u64 = 4;

/// Waves of output tiles over the cores, for the quickest tile and split of the reduction: `⌈tiles · s / cores⌉ · cores · m n ⌈K / s⌉`
/// (NVIDIA, Matrix multiplication background, wave quantization; split along K as in cuBLAS and CUTLASS). A split has at least one
/// step of the tile's depth and no more parts than there are idle cores; its partial sums are written and read, and it is made only
/// if that does not take longer than it gains.
fn tiled(
    tile: &Tile,
    unroll: &Unroll,
    product: &Product,
    &Cores { count: cores, rate, bytes_per_cycle, .. }: &Cores<'_>,
    slots: Macs,
) -> Step {
    let step = tile.k.max(1);
    let steps = reduction(unroll, product).div_ceil(step).max(1);
    let mut best: Option<Step> = None;
    for (m, n) in tiles(tile) {
        let count = product
            .groups
            .saturating_mul(product.positions.div_ceil(m))
            .saturating_mul(product.outputs.div_ceil(n))
            .max(1);
        for split in [1, (cores / count).clamp(1, steps)] {
            let parts = count.saturating_mul(split);
            let depth = steps.div_ceil(split) * step;
            let busy = (parts.div_ceil(cores) * cores) as f64 * (m * n) as f64 * depth as f64;
            let sums =
                if split > 1 { count.saturating_mul(m * n).saturating_mul(split) } else { 0 };
            let partial = Bytes(sums.saturating_mul(2 * PARTIAL_SUM));
            let found = Step { slots, cycles: Cycles(busy / rate), split, partial };
            let price = |it: &Step| it.cycles.0 + it.partial.0 as f64 / bytes_per_cycle;
            if best.is_none_or(|it| price(&found) < price(&it)) {
                best = Some(found);
            }
        }
    }
    best.unwrap_or_else(|| whole(slots, slots.0 as f64 / rate))
}

/// The tiles that kernels choose from: the chip's, halves of it, a quarter of it.
fn tiles(tile: &Tile) -> [(u64, u64); 4] {
    let half = |extent: u64| extent.div_ceil(2).max(1);
    let (m, n) = (tile.m.max(1), tile.n.max(1));
    [(m, n), (m, half(n)), (half(m), n), (half(m), half(n))]
}

/// Steps of the reduction of one output, rounded up.
fn reduction(unroll: &Unroll, product: &Product) -> u64 {
    let (n, m) = (unroll.n.max(1), unroll.m.max(1));
    unroll.mac_slots(product.channels, product.taps, n, m).0 / (n * m)
}

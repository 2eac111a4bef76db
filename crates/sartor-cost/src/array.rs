//! How many cycles a product takes on the chip's array.

use sartor_chip::{Chip, Cycles, EngineModel, Macs, Tile, Unroll};

use crate::{arithmetic::Arithmetic, op::Product};

/// MACs rounded up to the array, and the cycles that they take when nothing else binds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Occupation {
    pub(crate) slots: Macs,
    pub(crate) cycles: Cycles,
}

/// The occupation by `product`: by the better of two layouts where the mode has an alternative.
pub(crate) fn occupation(
    chip: &Chip,
    arithmetic: &Arithmetic<'_>,
    product: &Product,
) -> Occupation {
    let mode = arithmetic.mode;
    let reached = mode.efficiency.value * arithmetic.speed;
    if product.depthwise {
        let (align, rate) = match &mode.depthwise {
            Some(own) => (own.unroll.value, own.macs_per_cycle.value),
            None => (mode.unroll.value, mode.macs_per_cycle.value),
        };
        let slots = align.mac_slots(1, product.taps, product.all_outputs(), product.positions);
        return Occupation { slots, cycles: Cycles(slots.0 as f64 / (rate * reached)) };
    }
    let rate = mode.macs_per_cycle.value;
    let occupy = |align: &Unroll| {
        let one =
            align.mac_slots(product.channels, product.taps, product.outputs, product.positions);
        let slots = one * product.groups;
        let steps = match &chip.engine().model {
            EngineModel::DotTile { tile } if align.k > 1 || align.n > 1 => {
                let tile = tile.value;
                let depth = reduction(align, product).next_multiple_of(tile.k.max(1));
                let cores = chip.engine().cores.value;
                let steps = tiles(&tile).map(|(m, n)| {
                    let count = product.groups
                        * product.positions.div_ceil(m)
                        * product.outputs.div_ceil(n);
                    (count.div_ceil(cores) * cores) as f64 * (m * n) as f64 * depth as f64
                });
                steps.into_iter().fold(f64::INFINITY, f64::min)
            }
            EngineModel::Systolic { array } => {
                let array = array.value;
                let folds = reduction(align, product).div_ceil(array.rows)
                    * product.outputs.div_ceil(array.columns);
                let passes =
                    (folds * product.groups).next_multiple_of(chip.engine().cores.value) as f64;
                let through =
                    (product.positions + array.rows + array.columns).saturating_sub(2) as f64;
                passes * through * (array.rows * array.columns) as f64
            }
            // A mode that rounds nothing does not run in the tiles' units.
            EngineModel::Roofline
            | EngineModel::Simd
            | EngineModel::EthosU { .. }
            | EngineModel::Crossbar(_)
            | EngineModel::DotTile { .. } => slots.0 as f64,
        };
        Occupation { slots, cycles: Cycles(steps / (rate * reached)) }
    };
    let first = occupy(&mode.unroll.value);
    let second = mode.alternative.as_ref().map(|it| occupy(&it.value));
    second.filter(|it| it.cycles < first.cycles).unwrap_or(first)
}

/// The tiles that kernels choose from: the chip's, half of it, a quarter of it.
fn tiles(tile: &Tile) -> [(u64, u64); 3] {
    let half = |extent: u64| extent.div_ceil(2).max(1);
    [(tile.m, tile.n), (tile.m, half(tile.n)), (half(tile.m), half(tile.n))]
}

/// Steps of the reduction of one output, rounded up.
fn reduction(align: &Unroll, product: &Product) -> u64 {
    let (n, m) = (align.n.max(1), align.m.max(1));
    align.mac_slots(product.channels, product.taps, n, m).0 / (n * m)
}

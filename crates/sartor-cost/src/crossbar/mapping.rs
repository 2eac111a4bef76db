//! A layer on arrays: tiles of rows and columns, and the time of one product.

use sartor_chip::{Crossbar, Seconds};

use crate::op::Product;

/// What one layer asks of the arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Use {
    /// Arrays that hold its weights once.
    pub(crate) arrays: u64,
    /// Matrix-vector products in one inference.
    pub(crate) products: u64,
    /// Time of one.
    pub(crate) latency: Seconds,
    /// Multiply-accumulates of one.
    pub(crate) macs: u64,
    /// Rows driven in one slice of one product, over all tiles.
    pub(crate) rows: u64,
    /// Columns summed in one slice of one product, over all tiles.
    pub(crate) columns: u64,
    /// Cells read in one slice of one product.
    pub(crate) cells: u64,
    /// Slices of an input with their read phases.
    pub(crate) slices: u64,
    /// How often a slice is driven because not all rows are driven at once.
    pub(crate) row_steps: u64,
    /// Rows that one array writes to take its weights.
    pub(crate) written_rows: u64,
    /// Elements that go in and come out of one product.
    pub(crate) elements: (u64, u64),
    /// Whether its weights are constants, which may stay.
    pub(crate) constant: bool,
}

impl Use {
    /// The use by one product: `⌈K / rows⌉` tiles of rows by `⌈outputs / weights a row⌉` tiles of columns; groups that are small
    /// share an array along its diagonal.
    pub(crate) fn of(crossbar: &Crossbar, product: &Product, constant: bool) -> Use {
        let (rows, columns) = (crossbar.rows.value.max(1), crossbar.columns.value.max(1));
        let width = crossbar.columns_per_weight().max(1);
        let depth = product.channels.saturating_mul(product.taps).max(1);
        let outputs = product.outputs.max(1);
        let row_tiles = depth.div_ceil(rows);
        let column_tiles = match columns / width {
            // A weight is wider than an array: its slices lie in several.
            0 => outputs.saturating_mul(width).div_ceil(columns),
            a_row => outputs.div_ceil(a_row),
        };
        let shared = (rows / depth).min(columns / outputs.saturating_mul(width)).max(1);
        let groups = product.groups.max(1);
        let arrays = groups.div_ceil(shared).saturating_mul(row_tiles).saturating_mul(column_tiles);
        // Groups on one diagonal are driven together.
        let driven = depth.saturating_mul(shared.min(groups)).min(rows);
        let row_steps = driven.div_ceil(crossbar.active_rows().max(1));
        let phases = crossbar.phases.as_ref().map_or(1, |it| it.value);
        let slices = crossbar.input_bits.value.div_ceil(crossbar.dac_bits.value.max(1)) * phases;
        let conversion = crossbar.adc.as_ref().map_or(Seconds(0.0), |it| it.value);
        let phase = crossbar.read.value.max(conversion * crossbar.columns_per_adc.value as f64);
        let all = |per_group: u64| per_group.saturating_mul(groups);
        let used = all(outputs.saturating_mul(width));
        Use {
            arrays,
            products: product.positions.saturating_mul(product.steps),
            latency: phase * (slices * row_steps) as f64,
            macs: all(depth.saturating_mul(outputs)),
            rows: all(depth).saturating_mul(column_tiles),
            columns: used.saturating_mul(row_tiles),
            cells: used.saturating_mul(depth),
            slices,
            row_steps,
            written_rows: driven,
            elements: (all(depth), all(outputs)),
            constant,
        }
    }
}

/// One product of one array, all of it in use.
pub(crate) fn full(crossbar: &Crossbar) -> Use {
    let outputs = crossbar.columns.value / crossbar.columns_per_weight().max(1);
    Use::of(crossbar, &Product::matrix(1, 1, crossbar.rows.value, outputs.max(1)), true)
}

//! Memory arrays that multiply where the weights lie: geometry, converters, noise.

use serde::Serialize;

use crate::error::{ChipError, Fault};
use crate::figure::Figure;
use crate::reader::{Bound, Section};
use crate::units::Seconds;
use crate::words::words;

words! {
    /// What a cell is made of.
    Cell {
        /// Static RAM: digital or charge-based, no drift.
        Sram = "sram",
        /// Resistive RAM.
        Rram = "rram",
        /// Phase-change memory.
        Pcm = "pcm",
        /// Floating-gate flash.
        Flash = "flash",
    }
}

words! {
    /// How cells that hold magnitudes stand for signed weights.
    Sign {
        /// Two cells, one for each sign.
        Differential = "differential",
        /// One cell holding weight + offset; the offset times the inputs' sum is taken off digitally.
        Offset = "offset",
        /// Bit columns in two's complement, the topmost subtracted.
        TwosComplement = "twos_complement",
    }
}

/// A compute-in-memory engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Crossbar {
    /// Rows of one array: inputs.
    pub rows: Figure<u64>,
    /// Columns of one array: cells along which outputs lie.
    pub columns: Figure<u64>,
    /// Arrays of the chip. Absent: as many as the network needs (a reference macro).
    pub arrays: Option<Figure<u64>>,
    /// What a cell is made of.
    pub cell: Cell,
    /// Bits that one cell (or pair of cells) holds.
    pub cell_bits: Figure<u64>,
    /// Bits of a weight, spread over `⌈weight_bits / cell_bits⌉` cells.
    pub weight_bits: Figure<u64>,
    /// How weights get their sign.
    pub sign: Sign,
    /// Whether both cells of a differential pair share a column slot (two rows or a unit cell), so that a pair costs no column.
    pub pair_in_cell: bool,
    /// Rows that are driven at once. Absent: all.
    pub rows_parallel: Option<Figure<u64>>,
    /// Columns that share one converter.
    pub columns_per_adc: Figure<u64>,
    /// Bits of an input.
    pub input_bits: Figure<u64>,
    /// Bits that a row is driven with at once; the others follow bit-serially.
    pub dac_bits: Figure<u64>,
    /// Bits of a conversion. Absent: sums are digital.
    pub adc_bits: Option<Figure<u64>>,
    /// Whether weights are stored flipped where that saves the converter a bit (Shafiee et al., ISCA 2016, section V).
    pub encoding_saves_bit: bool,
    /// Time of one read phase: drive, settle, sample.
    pub read: Figure<Seconds>,
    /// Time of one conversion. Absent: hidden behind the read.
    pub adc: Option<Figure<Seconds>>,
    /// Read phases of one input slice: 4 where signs of inputs and weights are read one by one. Absent: 1.
    pub phases: Option<Figure<u64>>,
    /// Time to write one row of cells. Absent: weights are written once and stay; a network must fit.
    pub write_row: Option<Figure<Seconds>>,
    /// Deviations from exact sums. Absent: none known.
    pub noise: Option<Noise>,
}

/// How a crossbar deviates from exact sums. Conductances are given relative to `g_max`; polynomials have ascending coefficients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Noise {
    /// The largest conductance in siemens.
    pub g_max: Option<Figure<f64>>,
    /// Standard deviation of programming in siemens, as a polynomial in g / `g_max` (microsiemens in the file).
    pub programming: Option<Figure<Vec<f64>>>,
    /// Standard deviation of programming relative to the largest weight, where no polynomial is known.
    pub programming_sigma: Option<Figure<f64>>,
    /// The polynomial again, later on: where cells relax by no law. Ascending times; empty where `programming` holds for good.
    pub relaxed: Vec<Relaxed>,
    /// Standard deviation of a read relative to the largest weight.
    pub read_sigma: Option<Figure<f64>>,
    /// Noise of a read that grows with the time since programming. Absent: none.
    pub flicker: Option<Flicker>,
    /// Standard deviation of an output relative to the converter's range.
    pub output_sigma: Option<Figure<f64>>,
    /// Mean of the drift exponent ν in g(t) = g · ((t + t₀) / t₀)^−ν.
    pub drift_mean: Option<DriftLaw>,
    /// Standard deviation of ν.
    pub drift_sigma: Option<DriftLaw>,
    /// t₀, the time between programming and the first read.
    pub t0: Option<Figure<Seconds>>,
    /// Whether outputs are rescaled by the mean drift of a reference read (global drift compensation). Absent in the file: no.
    pub compensates_drift: bool,
    /// Largest over smallest conductance.
    pub on_off_ratio: Option<Figure<f64>>,
    /// Share of cells that cannot be written.
    pub stuck_rate: Option<Figure<f64>>,
    /// Voltage drop along a line, as a factor of the model of Rasch et al. (aihwkit's `ir_drop`).
    pub ir_drop: Option<Figure<f64>>,
}

/// How far conductances lie from their targets some time after programming.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Relaxed {
    /// The time since programming.
    pub after: Figure<Seconds>,
    /// As [`Noise::programming`].
    pub programming: Figure<Vec<f64>>,
}

/// 1/f noise of a read t seconds after programming, relative to the conductance itself:
/// σ = q(g) · √ln((t + window) / (2 · window)) with q(g) = min(factor / g^exponent, max) (Nandakumar et al., ICECS 2019, as aihwkit
/// has it).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flicker {
    /// q at the largest conductance.
    pub factor: Figure<f64>,
    /// How q grows towards small conductances.
    pub exponent: Figure<f64>,
    /// The largest q.
    pub max: Figure<f64>,
    /// The time of one read.
    pub window: Figure<Seconds>,
}

/// A drift coefficient by relative conductance g: below `below`, offset + slope · ln g, held between `min` and `max`; from there on
/// a polynomial in g.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DriftLaw {
    /// Where the two pieces meet. Absent: the first piece everywhere.
    pub below: Option<Figure<f64>>,
    /// Slope of the logarithmic piece.
    pub slope: Figure<f64>,
    /// Offset of the logarithmic piece.
    pub offset: Figure<f64>,
    /// Its smallest value.
    pub min: Figure<f64>,
    /// Its largest value.
    pub max: Figure<f64>,
    /// The other piece, ascending coefficients. Absent: the first piece everywhere.
    pub polynomial: Option<Figure<Vec<f64>>>,
}

fn nanoseconds(section: &Section<'_>, key: &str) -> Result<Option<Figure<Seconds>>, ChipError> {
    let figure = section.maybe_number(key, Bound::Positive)?;
    Ok(figure.map(|figure| figure.map(|nanoseconds| Seconds(nanoseconds * 1e-9))))
}

impl Crossbar {
    pub(crate) const KEYS: &'static [&'static str] = &[
        "rows",
        "columns",
        "arrays",
        "cell",
        "cell_bits",
        "weight_bits",
        "sign",
        "pair_in_cell",
        "rows_parallel",
        "columns_per_adc",
        "input_bits",
        "dac_bits",
        "adc_bits",
        "encoding_saves_bit",
        "read_ns",
        "adc_ns",
        "phases",
        "write_row_ns",
        "noise",
    ];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let noise = section.maybe_section("noise", Noise::KEYS)?;
        let read = section.number("read_ns", Bound::Positive)?;
        Ok(Self {
            rows: section.count("rows")?,
            columns: section.count("columns")?,
            arrays: section.maybe_count("arrays")?,
            cell: section.word("cell")?,
            cell_bits: section.count("cell_bits")?,
            weight_bits: section.count("weight_bits")?,
            sign: section.word("sign")?,
            pair_in_cell: section.flag("pair_in_cell")?,
            rows_parallel: section.maybe_count("rows_parallel")?,
            columns_per_adc: section.count("columns_per_adc")?,
            input_bits: section.count("input_bits")?,
            dac_bits: section.count("dac_bits")?,
            adc_bits: section.maybe_count("adc_bits")?,
            encoding_saves_bit: section.flag("encoding_saves_bit")?,
            read: read.map(|it| Seconds(it * 1e-9)),
            adc: nanoseconds(section, "adc_ns")?,
            phases: section.maybe_count("phases")?,
            write_row: nanoseconds(section, "write_row_ns")?,
            noise: noise.as_ref().map(Noise::read).transpose()?,
        })
    }

    /// Columns that one weight takes: a cell for each slice, twice where the sign takes a second column.
    pub fn columns_per_weight(&self) -> u64 {
        let slices = self.weight_bits.value.div_ceil(self.cell_bits.value);
        let pair = self.sign == Sign::Differential && !self.pair_in_cell;
        slices.saturating_mul(if pair { 2 } else { 1 })
    }

    /// Rows that are driven at once.
    pub fn active_rows(&self) -> u64 {
        self.rows_parallel.as_ref().map_or(self.rows.value, |it| it.value)
    }

    /// Bits of a conversion that loses nothing: `log2(rows) + dac + cell`, less one unless both exceed one bit (Shafiee et al.,
    /// ISCA 2016, section IV), less one more where weights are stored flipped.
    pub fn exact_adc_bits(&self) -> u64 {
        let rows = u64::from(self.active_rows().next_power_of_two().trailing_zeros());
        let (dac, cell) = (self.dac_bits.value, self.cell_bits.value);
        let both = u64::from(dac > 1 && cell > 1);
        (rows + dac + cell)
            .saturating_sub(1 - both)
            .saturating_sub(u64::from(self.encoding_saves_bit))
    }
}

impl Noise {
    const KEYS: &'static [&'static str] = &[
        "g_max_us",
        "programming_us",
        "programming_sigma",
        "relaxed",
        "read_sigma",
        "flicker",
        "output_sigma",
        "drift_mean",
        "drift_sigma",
        "t0_s",
        "compensates_drift",
        "on_off_ratio",
        "stuck_rate",
        "ir_drop",
    ];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let share = |key| section.maybe_number(key, Bound::NotNegative);
        let drift = |key| {
            section.maybe_section(key, DriftLaw::KEYS)?.as_ref().map(DriftLaw::read).transpose()
        };
        let g_max = section.maybe_number("g_max_us", Bound::Positive)?;
        let t0 = section.maybe_number("t0_s", Bound::Positive)?;
        let relaxed = section.sections("relaxed", Relaxed::KEYS)?;
        let flicker = section.maybe_section("flicker", Flicker::KEYS)?;
        Ok(Self {
            g_max: g_max.map(|it| it.map(|it| it * 1e-6)),
            programming: programming(section)?,
            programming_sigma: share("programming_sigma")?,
            relaxed: relaxed.iter().map(Relaxed::read).collect::<Result<_, _>>()?,
            read_sigma: share("read_sigma")?,
            flicker: flicker.as_ref().map(Flicker::read).transpose()?,
            output_sigma: share("output_sigma")?,
            drift_mean: drift("drift_mean")?,
            drift_sigma: drift("drift_sigma")?,
            t0: t0.map(|it| it.map(Seconds)),
            compensates_drift: section.flag("compensates_drift")?,
            on_off_ratio: section.maybe_number("on_off_ratio", Bound::Positive)?,
            stuck_rate: share("stuck_rate")?,
            ir_drop: share("ir_drop")?,
        })
    }
}

/// A polynomial in microsiemens as one in siemens.
fn programming(section: &Section<'_>) -> Result<Option<Figure<Vec<f64>>>, ChipError> {
    let micro = |all: Vec<f64>| all.into_iter().map(|it| it * 1e-6).collect();
    let found = section.maybe_numbers("programming_us", Bound::Any)?;
    Ok(found.map(|it| it.map(micro)))
}

impl Relaxed {
    const KEYS: &'static [&'static str] = &["after_s", "programming_us"];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let Some(programming) = programming(section)? else {
            let missing = Fault::MissingKey("coefficients of a polynomial");
            return Err(section.fault("programming_us", missing, None));
        };
        let after = section.number("after_s", Bound::Positive)?.map(Seconds);
        Ok(Self { after, programming })
    }
}

impl Flicker {
    const KEYS: &'static [&'static str] = &["factor", "exponent", "max", "window_ns"];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let window = section.number("window_ns", Bound::Positive)?;
        Ok(Self {
            factor: section.number("factor", Bound::Positive)?,
            exponent: section.number("exponent", Bound::NotNegative)?,
            max: section.number("max", Bound::Positive)?,
            window: window.map(|it| Seconds(it * 1e-9)),
        })
    }
}

impl DriftLaw {
    const KEYS: &'static [&'static str] = &["below", "slope", "offset", "min", "max", "polynomial"];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        Ok(Self {
            below: section.maybe_number("below", Bound::Positive)?,
            slope: section.number("slope", Bound::Any)?,
            offset: section.number("offset", Bound::Any)?,
            min: section.number("min", Bound::NotNegative)?,
            max: section.number("max", Bound::NotNegative)?,
            polynomial: section.maybe_numbers("polynomial", Bound::Any)?,
        })
    }
}

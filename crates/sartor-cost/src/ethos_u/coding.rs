//! How many bytes the weights take in the array's own code.
//!
//! The code is lossless. A palette of up to 32 values puts the frequent ones first; a weight becomes an index, coded by Rice's code
//! (Rice and Plaunt, 1971): a quotient in unary and a remainder; runs of zeros may be coded apart. Which of thirteen
//! parameters is used may change along the stream. Rules and sizes of headers: Vela 5.2.0, its `mlw_codec`. The bytes here are those of
//! the best parameters for each run of [`RUN`] weights, not a coded stream, so they may differ from Vela's by a few.

/// Weights for which one parameter is chosen.
const RUN: usize = 128;
/// Bits that a change of the parameter costs.
const CHANGE: u64 = 40;
/// Bits of a header: two parameters, a length and flags.
const HEADER: u64 = 23;
/// The most weights under one header.
const LONGEST: u64 = (1 << 15) - 1;

/// Size and statistics of coded weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coded {
    /// Bytes, whole 16.
    pub(crate) bytes: u64,
    /// Weights, padding included.
    pub(crate) weights: u64,
    /// Zeros that runs take up.
    pub(crate) skipped: u64,
    /// Different values, 17 for more.
    pub(crate) distinct: u64,
}

/// The size of `stream` in the standard code.
pub(crate) fn coded(stream: &[i16]) -> Coded {
    let census = Census::of(stream);
    let palette = Palette::new(&census);
    let mut symbols = Vec::with_capacity(stream.len());
    let mut runs = Vec::new();
    let mut run = 0u32;
    for &weight in stream {
        if census.skips_zeros && weight == 0 {
            run = run.saturating_add(1);
            continue;
        }
        symbols.push(palette.index(weight));
        if census.skips_zeros {
            runs.push(std::mem::take(&mut run));
        }
    }
    if census.skips_zeros {
        runs.push(run);
    }
    let headers = HEADER * (symbols.len() as u64).div_ceil(LONGEST).max(1);
    let bits = headers
        + 13
        + palette.entries.len() as u64 * palette.entry_bits
        + best(&symbols, &WEIGHT_CODES, palette.plain_bits)
        + best(&runs, &RUN_CODES, None)
        + 3;
    let skipped = if census.skips_zeros { census.count[ZERO] } else { 0 };
    Coded {
        bytes: bits.div_ceil(8).next_multiple_of(16),
        weights: stream.len() as u64,
        skipped,
        distinct: census.distinct(),
    }
}

/// Bytes of `weights` in the fast code: plain, or indices into a palette of 4 or 16 values.
pub(crate) fn fast_bytes(weights: u64, distinct: u64, palette: bool) -> u64 {
    let bits = match distinct {
        ..=4 if palette => 2,
        ..=16 if palette => 4,
        _ => 8,
    };
    (256 + weights * bits).next_multiple_of(256) / 8
}

/// Where zero is in the count of values from −256.
const ZERO: usize = 256;

/// How often each value occurs.
struct Census {
    count: Vec<u64>,
    /// Whether runs of zeros are coded apart.
    skips_zeros: bool,
}

impl Census {
    fn of(stream: &[i16]) -> Self {
        let mut count = vec![0; 512];
        let (mut run, mut in_runs) = (0u64, 0);
        for &weight in stream {
            count[(i64::from(weight) + 256).clamp(0, 511) as usize] += 1;
            if weight == 0 {
                run += 1;
            } else {
                in_runs += if run >= 2 { run } else { 0 };
                run = 0;
            }
        }
        in_runs += if run >= 2 { run } else { 0 };
        let zeros = count[ZERO];
        let common = count.iter().enumerate().filter(|&(i, _)| i != ZERO).map(|(_, &n)| n).max();
        let skips_zeros = in_runs >= zeros / 2 && zeros > 5 * common.unwrap_or(0);
        Census { count, skips_zeros }
    }

    fn distinct(&self) -> u64 {
        (self.count.iter().filter(|&&it| it > 0).count() as u64).min(17)
    }

    /// Folded values (0, −0, 1, −1 … as 0, 1, 2, 3 …) that are coded, with their counts, most frequent first.
    fn frequent(&self) -> Vec<(u64, u64)> {
        let folded = |i: usize| {
            let value = i as i64 - ZERO as i64;
            (value.unsigned_abs() << 1) | u64::from(value < 0)
        };
        let coded = self.count.iter().enumerate().skip(1);
        let coded = coded.filter(|&(i, &n)| n > 0 && !(i == ZERO && self.skips_zeros));
        let mut all: Vec<_> = coded.map(|(i, &n)| (folded(i), n)).collect();
        all.sort_by_key(|it| std::cmp::Reverse((it.1, it.0)));
        all
    }
}

/// The palette of a stream.
struct Palette {
    /// Folded values.
    entries: Vec<u64>,
    /// Bits of each entry as it is stored.
    entry_bits: u64,
    /// Folded values that never occur, from zero on.
    offset: u64,
    /// By value from −256: its index.
    indices: Vec<u32>,
    /// Bits of an index stored plainly, if it can be.
    plain_bits: Option<u64>,
}

impl Palette {
    fn new(census: &Census) -> Self {
        let frequent = census.frequent();
        let all: u64 = frequent.iter().map(|it| it.1).sum();
        let largest = frequent.iter().map(|it| it.0).max().unwrap_or(0);
        let offset = frequent.iter().map(|it| it.0).min().unwrap_or(0).min(31);
        let only = !frequent.is_empty() && frequent.len() <= 32;
        let most = match if only { 32 } else { 32.min(511 - largest) } {
            1 => 0,
            n => n as usize,
        };
        let taken = &frequent[..most.min(frequent.len())];
        let held: u64 = taken.iter().map(|it| it.1).sum();
        // A palette pays if it holds half of the weights.
        let mut entries: Vec<u64> = Vec::new();
        if held >= all / 2 {
            entries.extend(taken.iter().map(|it| it.0));
            if entries.len() == 1 {
                entries.push(0);
            }
        }
        let widest =
            if entries.is_empty() { largest } else { entries.iter().copied().max().unwrap_or(0) };
        let bits = |n: u64| u64::from(u64::BITS - n.leading_zeros());
        let plain_bits = match entries.len() as u64 {
            0 => Some(bits(widest).max(2)),
            n if only => Some(bits(n.saturating_sub(1))),
            _ => None,
        };
        let mut palette = Palette {
            entry_bits: bits(widest).max(2),
            entries,
            offset,
            indices: Vec::new(),
            plain_bits,
        };
        palette.indices = (-256..256).map(|value: i64| palette.position(value)).collect();
        palette
    }

    fn position(&self, value: i64) -> u32 {
        let folded = (value.unsigned_abs() << 1) | u64::from(value <= 0);
        let named = if value == 0 { 0 } else { folded };
        let found = self.entries.iter().position(|&it| it == named).map(|it| it as u64);
        let direct = (self.entries.len() as u64 + folded).saturating_sub(self.offset);
        found.unwrap_or(direct) as u32
    }

    fn index(&self, weight: i16) -> u32 {
        self.indices[(i64::from(weight) + 256).clamp(0, 511) as usize]
    }
}

/// A Rice code.
#[derive(Clone, Copy)]
struct Code {
    /// Bits of the remainder.
    remainder: u32,
    /// Whether the unary part ends after two.
    short: bool,
}

const WEIGHT_CODES: [Code; 12] = codes();
const RUN_CODES: [Code; 4] = [
    Code { remainder: 0, short: false },
    Code { remainder: 1, short: false },
    Code { remainder: 2, short: false },
    Code { remainder: 3, short: false },
];

const fn codes() -> [Code; 12] {
    let mut all = [Code { remainder: 0, short: false }; 12];
    let mut at = 0;
    while at < 12 {
        all[at] = Code { remainder: at as u32 % 6, short: at >= 6 };
        at += 1;
    }
    all
}

/// What no code takes for a symbol: more than any run of symbols takes.
const NEVER: u32 = 1 << 22;

/// Bits of `symbols` under the best sequence of `codes`; `plain`: bits of a symbol stored plainly, if it can be.
fn best<const N: usize>(symbols: &[u32], codes: &[Code; N], plain: Option<u64>) -> u64 {
    let runs = N == RUN_CODES.len();
    let bits = |symbol: u32| codes.map(|it| it.bits(u64::from(symbol), runs).unwrap_or(NEVER));
    let most = symbols.iter().copied().max().unwrap_or(0).min(1023);
    let table: Vec<[u32; N]> = (0..=most).map(bits).collect();
    let mut costs = [0u64; N];
    let mut plainly = plain.map(|_| 0u64);
    let mut lowest = 0;
    for chunk in symbols.chunks(RUN) {
        let mut sums = [0u32; N];
        for &symbol in chunk {
            let one = table.get(symbol as usize).copied().unwrap_or_else(|| bits(symbol));
            for (sum, bits) in sums.iter_mut().zip(one) {
                *sum += bits;
            }
        }
        // Staying with a code is free, changing is not.
        for (cost, sum) in costs.iter_mut().zip(sums) {
            *cost = (*cost).min(lowest + CHANGE) + u64::from(sum);
        }
        if let (Some(cost), Some(each)) = (&mut plainly, plain) {
            *cost = (*cost).min(lowest + CHANGE) + each * chunk.len() as u64;
        }
        lowest = costs.into_iter().chain(plainly).min().unwrap_or(0);
    }
    lowest
}

impl Code {
    /// Bits of one symbol; `None` if it has none in this code. Runs may be of any length.
    fn bits(self, symbol: u64, run: bool) -> Option<u32> {
        let quotient = symbol >> self.remainder;
        let most = match (run, self.short) {
            (true, _) => u64::MAX,
            (false, true) => 2,
            (false, false) => 31,
        };
        let unary = if self.short { (quotient + 1).min(2) } else { quotient + 1 };
        let bits = unary + u64::from(self.remainder);
        (quotient <= most).then(|| u32::try_from(bits).unwrap_or(NEVER).min(NEVER))
    }
}

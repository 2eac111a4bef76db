//! Depthwise convolution of bytes: the four products of a lane are four taps of a row.
#![expect(unsafe_code, reason = "raw pointers and instructions of one processor family")]
#![expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Vnni};
use super::{
    ByteLevel, Requant,
    conv::{Band, Shared},
    lanes::{Lanes, Line, Plain},
    tile::Results,
};
use crate::simd::{Level, conv::ConvShape, elementwise::leveled, level, scratch};

/// Bytes of the unfolded rows of a task.
const SCRATCH: usize = 1 << 17;
/// Products below which work is not cut for a second thread.
const TASK_WORK: usize = 1 << 20;
/// Tasks wanted where there is work for them.
const TASKS: usize = 16;

/// Weights of a depthwise convolution, laid out for its kernel.
#[derive(Clone, Debug)]
pub(super) struct Depthwise {
    level: ByteLevel,
    /// [vector of channels, tap row, four tap columns].
    weights: Vec<Line>,
    pad: u8,
    /// Output rows of a task.
    rows: usize,
}

/// One task: rows of one image, unfolded so that each channel has four taps of its row behind one another.
struct Walk<'a> {
    weights: &'a [Line],
    /// Where groups of four taps begin, from a position.
    taps: &'a [usize],
    source: *const u8,
    columns: usize,
    rows: usize,
    column_step: usize,
    row_step: usize,
    results: Results<'a>,
}

impl Depthwise {
    pub(super) fn new(level: ByteLevel, s: &ConvShape, weights: &[i8], pad: u8) -> Self {
        let (lanes, taps) = (level.lanes(), s.kernel.0 * s.kernel.1);
        let quads = s.kernel.1.div_ceil(4);
        let mut lines = Vec::new();
        for vector in 0..s.groups.div_ceil(lanes) {
            for (ky, quad) in (0..s.kernel.0 * quads).map(|i| (i / quads, i % quads)) {
                lines.push(Line::pack(lanes, |lane, input| {
                    let (c, kx) = (vector * lanes + lane, quad * 4 + input);
                    if c < s.groups && kx < s.kernel.1 {
                        weights[c * taps + ky * s.kernel.1 + kx]
                    } else {
                        0
                    }
                }));
            }
        }
        let row = Band::new(s, 1).columns * s.groups * 4;
        let halo = Band::new(s, 1).rows.saturating_sub(s.strides.0);
        let fitting = (SCRATCH / row.max(1)).saturating_sub(halo) / s.strides.0;
        let work = s.batch * s.groups * s.out_h * s.out_w * taps;
        let wanted = (work / TASK_WORK).clamp(1, TASKS).div_ceil(s.batch.max(1));
        let rows = fitting.min(s.out_h.div_ceil(wanted)).max(1);
        Depthwise { level, weights: lines, pad, rows }
    }

    pub(super) fn run(&self, s: &ConvShape, requant: &Requant, x: &[u8], y: &Shared) {
        let bands = s.out_h.div_ceil(self.rows);
        let task = |index: usize| {
            let (image, row) = (index / bands, index % bands * self.rows);
            self.task(s, requant, (x, y), image, (row, self.rows.min(s.out_h - row)));
        };
        let work = s.batch * s.groups * s.out_h * s.out_w * s.terms();
        if work < 2 * TASK_WORK {
            (0..s.batch * bands).for_each(task);
        } else {
            (0..s.batch * bands).into_par_iter().for_each(task);
        }
    }

    fn task(
        &self,
        s: &ConvShape,
        requant: &Requant,
        (x, y): (&[u8], &Shared),
        image: usize,
        (row, rows): (usize, usize),
    ) {
        let channels = s.groups;
        let band = Band::new(s, rows);
        let line = band.columns * channels;
        // Taps beyond the last column have weights of 0: any byte will do, but there must be one.
        let slack = 3 * s.dilations.1 * channels;
        let first = (image * s.out_h + row) * s.out_w;
        let quads = s.kernel.1.div_ceil(4);
        let taps: Vec<usize> = (0..s.kernel.0 * quads)
            .map(|i| {
                let (ky, quad) = (i / quads, i % quads);
                (ky * s.dilations.0 * line + quad * 4 * s.dilations.1 * channels) * 4
            })
            .collect();
        let plain = (band.rows * line + slack).next_multiple_of(64);
        scratch::with_bytes(plain + band.rows * line * 4 + 64, |memory| {
            let (plane, unfolded) = memory.split_at_mut(plain);
            let from = (image * s.in_h * s.in_w * channels, 0);
            let padded = &mut plane[..band.rows * line];
            band.fill(s, x, from, row, (channels, channels, self.pad), padded);
            unfold(plane, s.dilations.1 * channels, &mut unfolded[..band.rows * line * 4]);
            let walk = Walk {
                weights: &self.weights,
                taps: &taps,
                source: unfolded.as_ptr(),
                columns: s.out_w,
                rows,
                column_step: s.strides.1 * channels * 4,
                row_step: s.strides.0 * line * 4,
                results: requant.results(0, channels, y.from(first, 0), channels),
            };
            // SAFETY: the level is this processor's; the band holds four taps of each position and channel, and 64
            // bytes follow the last; tasks differ in image or rows.
            unsafe { run(self.level, &walk) };
        });
    }
}

leveled! {
    /// Puts behind each byte those at one, two and three steps from it.
    fn unfold(x: &[u8], step: usize, y: &mut [u8]) {
        let (y, _) = y.as_chunks_mut::<4>();
        let count = y.len();
        let (a, b) = (&x[..count], &x[step..][..count]);
        let (c, d) = (&x[2 * step..][..count], &x[3 * step..][..count]);
        for i in 0..count {
            let four = u32::from(a[i])
                | u32::from(b[i]) << 8
                | u32::from(c[i]) << 16
                | u32::from(d[i]) << 24;
            y[i] = four.to_le_bytes();
        }
    }
}

/// # Safety
/// The processor must have the instructions of `level`; all that [`Walk`] names must be readable, and 60 bytes behind
/// it; results are this task's alone.
unsafe fn run(level: ByteLevel, walk: &Walk<'_>) {
    // SAFETY: passed on to the caller.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            ByteLevel::Vnni => run_vnni(walk),
            #[cfg(target_arch = "x86_64")]
            ByteLevel::Avx2 => run_avx2(walk),
            _ => rows::<Plain, 1>(walk),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
unsafe fn run_vnni(walk: &Walk<'_>) {
    // SAFETY: the features are those of the lanes; the rest is passed on to the caller.
    unsafe { rows::<Vnni, 8>(walk) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(walk: &Walk<'_>) {
    // SAFETY: the features are those of the lanes; the rest is passed on to the caller.
    unsafe { rows::<Avx2, 4>(walk) }
}

#[inline(always)]
unsafe fn rows<L: Lanes, const P: usize>(walk: &Walk<'_>) {
    let vectors = walk.results.outputs.div_ceil(L::LANES);
    for row in 0..walk.rows {
        for vector in 0..vectors {
            let mut column = 0;
            // SAFETY: passed on to the caller.
            unsafe {
                while column + P <= walk.columns {
                    tile::<L, P>(walk, vector, row, column);
                    column += P;
                }
                while column < walk.columns {
                    tile::<L, 1>(walk, vector, row, column);
                    column += 1;
                }
            }
        }
    }
}

/// One vector of channels at `P` positions.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers"
)]
unsafe fn tile<L: Lanes, const P: usize>(
    walk: &Walk<'_>,
    vector: usize,
    row: usize,
    column: usize,
) {
    let channel = vector * L::LANES;
    // SAFETY: vectors lie inside weights and parameters; the caller answers for source and results.
    unsafe {
        let at = row * walk.row_step + column * walk.column_step + channel * 4;
        let from = walk.source.add(at);
        let mut sums = [L::load(walk.results.bias.as_ptr().add(channel)); P];
        let mut weights = walk.weights.as_ptr().add(vector * walk.taps.len());
        for &tap in walk.taps {
            let w = L::weights(weights);
            for p in 0..P {
                let x = L::groups(from.add(p * walk.column_step + tap));
                sums[p] = sums[p].dot(x, w);
            }
            weights = weights.add(1);
        }
        for p in 0..P {
            walk.results.store(sums[p], channel, row * walk.columns + column + p);
        }
    }
}

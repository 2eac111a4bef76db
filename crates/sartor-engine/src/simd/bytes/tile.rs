//! The register tile of byte products: a few positions × a few vectors of outputs, walking the inputs four at a time.
#![expect(unsafe_code, reason = "raw pointers and instructions of one processor family")]
#![expect(
    clippy::inline_always,
    reason = "must become part of the function compiled for the instruction set"
)]

use std::mem::MaybeUninit;

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Vnni};
use super::{
    ByteLevel,
    lanes::{Finish, Lanes, Line, Plain},
};

/// Where positions begin in the source: rows of columns, images of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) column_step: usize,
    pub(super) row_step: usize,
    pub(super) image_step: usize,
}

/// A cursor over [`Positions`].
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    column: usize,
    row: usize,
    at: usize,
    row_at: usize,
    image_at: usize,
}

impl Cursor {
    /// The offset of the position; moves to the next one.
    #[inline(always)]
    pub(super) fn next(&mut self, of: &Positions) -> usize {
        let at = self.at;
        self.column += 1;
        self.at += of.column_step;
        if self.column == of.columns {
            self.column = 0;
            self.row += 1;
            self.row_at += of.row_step;
            if self.row == of.rows {
                self.row = 0;
                self.image_at += of.image_step;
                self.row_at = self.image_at;
            }
            self.at = self.row_at;
        }
        at
    }
}

/// Where results of a task begin.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Bytes(*mut u8),
    Floats(*mut f32),
    /// Channels first: images of `channels` planes of `plane` positions each. The task begins at position `first` of
    /// the batch and at channel `channel`.
    Planes {
        y: *mut f32,
        first: usize,
        plane: usize,
        channel: usize,
        channels: usize,
    },
}

/// Most lanes of a vector.
const MOST_LANES: usize = 16;

/// Results of a task: their requantization and places.
#[derive(Clone, Copy)]
pub(super) struct Results<'a> {
    /// By output, filled up to whole vectors.
    pub(super) bias: &'a [i32],
    pub(super) factor: &'a [f32],
    pub(super) addend: &'a [f32],
    pub(super) bounds: (f32, f32),
    pub(super) zero: i32,
    /// Real outputs.
    pub(super) outputs: usize,
    pub(super) y: Target,
    /// Elements between positions.
    pub(super) step: usize,
}

impl Results<'_> {
    /// Stores the sums of the outputs from `first` on at `position`.
    #[inline(always)]
    pub(super) unsafe fn store<L: Lanes>(&self, sums: L, first: usize, position: usize) {
        // SAFETY: the caller answers for the position and that `first` begins a vector of outputs.
        unsafe {
            let finish = Finish {
                factor: self.factor.as_ptr().add(first),
                addend: self.addend.as_ptr().add(first),
                bounds: self.bounds,
                zero: self.zero,
            };
            let (at, count) = (position * self.step + first, self.outputs - first);
            match self.y {
                Target::Bytes(y) => sums.store_bytes(&finish, y.add(at), count),
                Target::Floats(y) => sums.store_floats(&finish, y.add(at), count),
                Target::Planes { y, first: start, plane, channel, channels } => {
                    let mut kept = [0.0; MOST_LANES];
                    let count = count.min(L::LANES);
                    sums.store_floats(&finish, kept.as_mut_ptr(), count);
                    let (image, within) = ((start + position) / plane, (start + position) % plane);
                    let at = (image * channels + channel + first) * plane + within;
                    for (lane, &value) in kept[..count].iter().enumerate() {
                        *y.add(at + lane * plane) = value;
                    }
                }
            }
        }
    }
}

/// One task: some positions of one group of channels.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    /// [block, run, group of four inputs, vector of the block].
    pub(super) weights: &'a [Line],
    /// Where runs of inputs begin, from a position.
    pub(super) runs: &'a [usize],
    /// Groups of four inputs of a run.
    pub(super) groups: usize,
    pub(super) source: *const u8,
    pub(super) places: Positions,
    pub(super) positions: usize,
    pub(super) results: Results<'a>,
}

/// Vectors of outputs that share what is loaded of the inputs.
pub(super) fn block_vectors(level: ByteLevel) -> usize {
    match level {
        ByteLevel::Vnni => 4,
        ByteLevel::Avx2 => 2,
        ByteLevel::Portable => 1,
    }
}

/// Computes all positions of a block of `width` vectors of outputs from vector `first` on.
///
/// # Safety
/// The processor must have the instructions of `level`, for which the weights were laid out. All bytes that [`Walk`]
/// names must be readable, all results writable by this task alone.
pub(super) unsafe fn run(level: ByteLevel, walk: &Walk<'_>, first: usize, width: usize) {
    // SAFETY: passed on to the caller.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            ByteLevel::Vnni => run_vnni(walk, first, width),
            #[cfg(target_arch = "x86_64")]
            ByteLevel::Avx2 => run_avx2(walk, first, width),
            _ => block::<Plain, 1, 2, 1>(walk, first),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
unsafe fn run_vnni(walk: &Walk<'_>, first: usize, width: usize) {
    // SAFETY: the features are those of the lanes; the rest is passed on to the caller.
    unsafe {
        match width {
            1 => block::<Vnni, 1, 12, 6>(walk, first),
            2 => block::<Vnni, 2, 12, 6>(walk, first),
            3 => block::<Vnni, 3, 8, 4>(walk, first),
            _ => block::<Vnni, 4, 6, 3>(walk, first),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(walk: &Walk<'_>, first: usize, width: usize) {
    // SAFETY: the features are those of the lanes; the rest is passed on to the caller.
    unsafe {
        match width {
            1 => block::<Avx2, 1, 4, 2>(walk, first),
            _ => block::<Avx2, 2, 3, 2>(walk, first),
        }
    }
}

/// All positions, `P` at a time, and the last ones `H` at a time where that is enough.
#[inline(always)]
unsafe fn block<L: Lanes, const V: usize, const P: usize, const H: usize>(
    walk: &Walk<'_>,
    first: usize,
) {
    let (mut next, mut position) = (Cursor::default(), 0);
    while position < walk.positions {
        // SAFETY: passed on to the caller.
        unsafe {
            if walk.positions - position > H {
                tile::<L, V, P>(walk, first, position, &mut next);
                position += P;
            } else {
                tile::<L, V, H>(walk, first, position, &mut next);
                position += H;
            }
        }
    }
}

/// `P` positions of `V` vectors of outputs; positions behind the last one repeat it and are not stored.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "constant ranges over arrays that live in registers"
)]
unsafe fn tile<L: Lanes, const V: usize, const P: usize>(
    walk: &Walk<'_>,
    first: usize,
    position: usize,
    next: &mut Cursor,
) {
    let count = P.min(walk.positions - position);
    // SAFETY: blocks lie inside weights and parameters; the caller answers for source and results.
    unsafe {
        let mut from = [walk.source; P];
        let mut last = 0;
        for p in 0..P {
            if p < count {
                last = next.next(&walk.places);
            }
            from[p] = walk.source.add(last);
        }
        let bias = walk.results.bias.as_ptr().add(first * L::LANES);
        let mut start = [L::load(bias); V];
        for v in 1..V {
            start[v] = L::load(bias.add(v * L::LANES));
        }
        let mut sums = [start; P];
        let mut weights = walk.weights.as_ptr().add(first * walk.runs.len() * walk.groups);
        for &run in walk.runs {
            let end = run + walk.groups * 4;
            let mut at = run;
            while at < end {
                let mut w = [L::weights(weights); V];
                for v in 1..V {
                    w[v] = L::weights(weights.add(v));
                }
                for p in 0..P {
                    let x = L::splat(from[p].add(at));
                    for v in 0..V {
                        sums[p][v] = sums[p][v].dot(x, w[v]);
                    }
                }
                weights = weights.add(V);
                at += 4;
            }
        }
        // The sums leave their registers here: a rolled loop over them would keep them in memory from the start.
        let mut done = MaybeUninit::<[[L; V]; P]>::uninit();
        let done = done.as_mut_ptr().cast::<L>();
        for p in 0..P {
            for v in 0..V {
                done.add(p * V + v).write(sums[p][v]);
            }
        }
        for v in 0..V {
            let output = (first + v) * L::LANES;
            if output >= walk.results.outputs {
                break;
            }
            for p in 0..count {
                walk.results.store(done.add(p * V + v).read(), output, position + p);
            }
        }
    }
}

//! A vector of 32-bit sums, by instruction set: the only thing in which byte kernels of different levels differ.
#![expect(unsafe_code, reason = "instructions of one processor family")]
#![expect(
    clippy::inline_always,
    reason = "must become part of the kernel compiled for the instruction set"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128i, __m256, __m256i, __m512, __m512i, _mm_mask_storeu_epi8, _mm_packs_epi32,
    _mm_packus_epi16, _mm_storel_epi64, _mm_storeu_si128, _mm256_add_epi32, _mm256_and_si256,
    _mm256_castsi256_si128, _mm256_cvtepi32_ps, _mm256_cvtps_epi32, _mm256_extracti128_si256,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_max_ps,
    _mm256_min_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_srli_epi16,
    _mm256_storeu_ps, _mm512_add_epi32, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps,
    _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_si512, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_storeu_ps,
};

/// The weights of one vector of outputs for one group of four inputs: a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [i8; 64]);

impl Line {
    /// Lays out the weight of each lane and each of its four inputs. Sixteen lanes take bytes as they are; eight lanes
    /// take pairs of 16 bits, first the even inputs of all lanes, then the odd ones.
    pub(super) fn pack(lanes: usize, weight: impl Fn(usize, usize) -> i8) -> Line {
        let mut line = Line([0; 64]);
        for lane in 0..lanes {
            for input in 0..4 {
                let weight = weight(lane, input);
                if lanes == 16 {
                    line.0[lane * 4 + input] = weight;
                } else {
                    let at = (input % 2 * 16 + lane * 2 + input / 2) * 2;
                    let [low, high] = i16::from(weight).to_le_bytes();
                    line.0[at] = low.cast_signed();
                    line.0[at + 1] = high.cast_signed();
                }
            }
        }
        line
    }
}

/// What happens to a vector of sums: see [`super::Requant`].
#[derive(Clone, Copy)]
pub(super) struct Finish {
    pub(super) factor: *const f32,
    pub(super) addend: *const f32,
    pub(super) bounds: (f32, f32),
    pub(super) zero: i32,
}

/// A few sums that are worked on at once.
///
/// # Safety
/// Every method must be called only where the processor has the instructions of the type. Pointers to sums, factors
/// and addends must be good for `LANES` elements, those to inputs for four bytes (`groups`: four for each lane), those
/// to outputs for `count` elements.
pub(super) unsafe trait Lanes: Copy {
    /// Number of sums.
    const LANES: usize;
    /// Four bytes for each lane.
    type Groups: Copy;
    /// The weights of a line.
    type Weights: Copy;

    unsafe fn load(from: *const i32) -> Self;
    /// The same four bytes for all lanes.
    unsafe fn splat(from: *const u8) -> Self::Groups;
    /// Four bytes for each lane.
    unsafe fn groups(from: *const u8) -> Self::Groups;
    unsafe fn weights(from: *const Line) -> Self::Weights;
    /// Adds the four products of each lane.
    unsafe fn dot(self, x: Self::Groups, w: Self::Weights) -> Self;
    /// Requantizes and stores the first `count` lanes.
    unsafe fn store_bytes(self, finish: &Finish, y: *mut u8, count: usize);
    /// Scales and stores the first `count` lanes.
    unsafe fn store_floats(self, finish: &Finish, y: *mut f32, count: usize);
}

/// Eight sums in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Plain([i32; 8]);

impl Plain {
    #[inline(always)]
    fn finished(self, finish: &Finish) -> [f32; 8] {
        let mut made = [0.0; 8];
        for (lane, (made, sum)) in made.iter_mut().zip(self.0).enumerate() {
            // SAFETY: the callers of the trait answer for `LANES` factors and addends.
            let (factor, addend) = unsafe { (*finish.factor.add(lane), *finish.addend.add(lane)) };
            let x = sum as f32 * factor + addend;
            let x = if x > finish.bounds.0 { x } else { finish.bounds.0 };
            *made = if x < finish.bounds.1 { x } else { finish.bounds.1 };
        }
        made
    }
}

// SAFETY: plain Rust needs no special instructions.
unsafe impl Lanes for Plain {
    const LANES: usize = 8;
    type Groups = [[i16; 4]; 8];
    type Weights = [i16; 32];

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller answers for the pointer.
        Plain(unsafe { from.cast::<[i32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn splat(from: *const u8) -> Self::Groups {
        // SAFETY: the caller answers for the pointer.
        [unsafe { from.cast::<[u8; 4]>().read_unaligned() }.map(i16::from); 8]
    }

    #[inline(always)]
    unsafe fn groups(from: *const u8) -> Self::Groups {
        // SAFETY: the caller answers for the pointer.
        unsafe { from.cast::<[[u8; 4]; 8]>().read_unaligned() }.map(|it| it.map(i16::from))
    }

    #[inline(always)]
    unsafe fn weights(from: *const Line) -> Self::Weights {
        // SAFETY: the caller answers for the pointer; a line holds 32 numbers of 16 bits.
        unsafe { from.cast::<[i16; 32]>().read() }.map(i16::from_le)
    }

    #[inline(always)]
    unsafe fn dot(mut self, x: Self::Groups, w: Self::Weights) -> Self {
        for (lane, (sum, x)) in self.0.iter_mut().zip(x).enumerate() {
            for (input, x) in x.into_iter().enumerate() {
                let weight = w[input % 2 * 16 + lane * 2 + input / 2];
                *sum += i32::from(x) * i32::from(weight);
            }
        }
        self
    }

    #[inline(always)]
    unsafe fn store_bytes(self, finish: &Finish, y: *mut u8, count: usize) {
        for (lane, x) in self.finished(finish).into_iter().take(count).enumerate() {
            // SAFETY: the caller answers for `count` elements.
            unsafe { *y.add(lane) = (x.round_ties_even() as i32 + finish.zero) as u8 };
        }
    }

    #[inline(always)]
    unsafe fn store_floats(self, finish: &Finish, y: *mut f32, count: usize) {
        for (lane, x) in self.finished(finish).into_iter().take(count).enumerate() {
            // SAFETY: the caller answers for `count` elements.
            unsafe { *y.add(lane) = x };
        }
    }
}

/// Eight sums in AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256i);

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    #[inline(always)]
    unsafe fn finished(self, finish: &Finish) -> __m256 {
        // SAFETY: the caller answers for the instructions and pointers. The second operand wins where one is NaN.
        unsafe {
            let sums = _mm256_cvtepi32_ps(self.0);
            let factor = _mm256_loadu_ps(finish.factor);
            let x = _mm256_fmadd_ps(sums, factor, _mm256_loadu_ps(finish.addend));
            let x = _mm256_max_ps(x, _mm256_set1_ps(finish.bounds.0));
            _mm256_min_ps(x, _mm256_set1_ps(finish.bounds.1))
        }
    }
}

// SAFETY: all instructions are AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
unsafe impl Lanes for Avx2 {
    const LANES: usize = 8;
    /// Even and odd bytes, widened to 16 bits.
    type Groups = (__m256i, __m256i);
    type Weights = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller answers for the instructions and the pointer.
        Avx2(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn splat(from: *const u8) -> Self::Groups {
        // SAFETY: the caller answers for the instructions and the pointer.
        unsafe { widen(_mm256_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn groups(from: *const u8) -> Self::Groups {
        // SAFETY: the caller answers for the instructions and the pointer.
        unsafe { widen(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const Line) -> Self::Weights {
        let from = from.cast::<__m256i>();
        // SAFETY: the caller answers for the instructions and the pointer.
        unsafe { (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))) }
    }

    #[inline(always)]
    unsafe fn dot(self, x: Self::Groups, w: Self::Weights) -> Self {
        // SAFETY: the caller answers for the instructions. Products of a byte and a signed byte: their pairs fit.
        unsafe {
            let even = _mm256_add_epi32(self.0, _mm256_madd_epi16(x.0, w.0));
            Avx2(_mm256_add_epi32(even, _mm256_madd_epi16(x.1, w.1)))
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, finish: &Finish, y: *mut u8, count: usize) {
        // SAFETY: the caller answers for the instructions and for `count` elements.
        unsafe {
            let zero = _mm256_set1_epi32(finish.zero);
            let made = _mm256_add_epi32(_mm256_cvtps_epi32(self.finished(finish)), zero);
            let (low, high) = (_mm256_castsi256_si128(made), _mm256_extracti128_si256::<1>(made));
            let words = _mm_packs_epi32(low, high);
            let bytes: __m128i = _mm_packus_epi16(words, words);
            if count >= 8 {
                _mm_storel_epi64(y.cast(), bytes);
            } else {
                let mut kept = [0; 16];
                _mm_storeu_si128(kept.as_mut_ptr().cast(), bytes);
                y.copy_from_nonoverlapping(kept.as_ptr(), count);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_floats(self, finish: &Finish, y: *mut f32, count: usize) {
        // SAFETY: the caller answers for the instructions and for `count` elements.
        unsafe {
            let made = self.finished(finish);
            if count >= 8 {
                _mm256_storeu_ps(y, made);
            } else {
                let mut kept = [0.0; 8];
                _mm256_storeu_ps(kept.as_mut_ptr(), made);
                y.copy_from_nonoverlapping(kept.as_ptr(), count);
            }
        }
    }
}

/// Even and odd bytes as numbers of 16 bits.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn widen(x: __m256i) -> (__m256i, __m256i) {
    // SAFETY: the caller answers for the instructions.
    unsafe { (_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x)) }
}

/// Sixteen sums in AVX-512 with VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Vnni(__m512i);

#[cfg(target_arch = "x86_64")]
impl Vnni {
    #[inline(always)]
    unsafe fn finished(self, finish: &Finish) -> __m512 {
        // SAFETY: the caller answers for the instructions and pointers. The second operand wins where one is NaN.
        unsafe {
            let sums = _mm512_cvtepi32_ps(self.0);
            let factor = _mm512_loadu_ps(finish.factor);
            let x = _mm512_fmadd_ps(sums, factor, _mm512_loadu_ps(finish.addend));
            let x = _mm512_max_ps(x, _mm512_set1_ps(finish.bounds.0));
            _mm512_min_ps(x, _mm512_set1_ps(finish.bounds.1))
        }
    }
}

// SAFETY: all instructions are AVX-512 F, BW, VL and VNNI.
#[cfg(target_arch = "x86_64")]
unsafe impl Lanes for Vnni {
    const LANES: usize = 16;
    type Groups = __m512i;
    type Weights = __m512i;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the caller answers for the instructions and the pointer.
        Vnni(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn splat(from: *const u8) -> Self::Groups {
        // SAFETY: the caller answers for the instructions and the pointer.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn groups(from: *const u8) -> Self::Groups {
        // SAFETY: the caller answers for the instructions and the pointer.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const Line) -> Self::Weights {
        // SAFETY: the caller answers for the instructions and the pointer; lines are aligned.
        unsafe { _mm512_load_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(self, x: Self::Groups, w: Self::Weights) -> Self {
        // SAFETY: the caller answers for the instructions.
        Vnni(unsafe { _mm512_dpbusd_epi32(self.0, x, w) })
    }

    #[inline(always)]
    unsafe fn store_bytes(self, finish: &Finish, y: *mut u8, count: usize) {
        // SAFETY: the caller answers for the instructions and for `count` elements.
        unsafe {
            let zero = _mm512_set1_epi32(finish.zero);
            let made = _mm512_add_epi32(_mm512_cvtps_epi32(self.finished(finish)), zero);
            let bytes = _mm512_cvtepi32_epi8(made);
            if count >= 16 {
                _mm_storeu_si128(y.cast(), bytes);
            } else {
                _mm_mask_storeu_epi8(y.cast(), (1 << count) - 1, bytes);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_floats(self, finish: &Finish, y: *mut f32, count: usize) {
        // SAFETY: the caller answers for the instructions and for `count` elements.
        unsafe {
            let made = self.finished(finish);
            if count >= 16 {
                _mm512_storeu_ps(y, made);
            } else {
                _mm512_mask_storeu_ps(y, (1 << count) - 1, made);
            }
        }
    }
}

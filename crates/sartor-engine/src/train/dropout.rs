//! Dropout while training (Srivastava et al. 2014, in the inverted form of
//! <https://onnx.ai/onnx/operators/onnx__Dropout.html>): each element is zeroed with probability `ratio`,
//! the others are divided by `1 - ratio`.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::Array;

/// ONNX's default ratio.
const RATIO: f32 = 0.5;

/// The probability that an element is zeroed: input 1, if given.
pub(crate) fn ratio(inputs: &[Option<&Array>]) -> Result<f32, String> {
    let given = inputs.get(1).copied().flatten();
    let ratio = given.map_or(Some(RATIO), |it| it.to_f32().first().copied());
    ratio.filter(|it| (0.0..1.0).contains(it)).ok_or_else(|| {
        format!("the ratio must be at least 0 and below 1, found {:?}", given.map(Array::to_f32))
    })
}

/// Bytes of one task.
const TASK: usize = 1 << 14;

/// Fills `bytes` by chance; the same for any number of threads.
pub(super) fn random_bytes(bytes: &mut [u8], seed: u64, stream: u64) {
    bytes.par_chunks_mut(TASK).enumerate().for_each(|(i, bytes)| {
        let mut numbers = ChaCha8Rng::seed_from_u64(seed);
        numbers.set_stream(stream);
        numbers.set_word_pos((i * TASK / size_of::<u32>()) as u128);
        numbers.fill_bytes(bytes);
    });
}

/// The factor of each element: 0 or `1 / (1 - ratio)`. `stream` tells the nodes of one run apart and the
/// runs of one node.
pub(crate) fn mask(len: usize, ratio: f32, seed: u64, stream: u64) -> Vec<f32> {
    let mut numbers = ChaCha8Rng::seed_from_u64(seed);
    numbers.set_stream(stream);
    // An element stays if its 32 random bits are at or above this.
    let limit = (f64::from(ratio) * 2f64.powi(32)) as u64;
    let factor = 1.0 / (1.0 - ratio);
    (0..len).map(|_| if u64::from(numbers.next_u32()) >= limit { factor } else { 0.0 }).collect()
}

//! Random changes of training images, made on their pixels before any arithmetic.

use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::preprocess::Image;

/// Random crops out of a padded image and random mirroring (Krizhevsky et al. 2012, section 4.1; with padding: He et al. 2016,
/// section 4.2). What happens to a sample follows from seed, epoch and sample alone, not from the batch that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augmentation {
    /// Pixels of black on every side, out of which the size of the image is cut at a random place; 0 for no crop.
    pub pad: usize,
    /// Whether an image is mirrored left to right with probability 1/2.
    pub flip: bool,
    /// From which all draws follow.
    pub seed: u64,
    /// Each epoch draws anew.
    pub epoch: u32,
}

impl Augmentation {
    /// Changes the image of sample `index`.
    pub(crate) fn apply(&self, image: &Image, index: usize) -> Image {
        let mut numbers = ChaCha8Rng::seed_from_u64(self.seed);
        numbers.set_stream((u64::from(self.epoch) << 32) ^ index as u64);
        let mut below = |n: usize| ((u64::from(numbers.next_u32()) * n as u64) >> 32) as usize;
        let (top, left) = (below(2 * self.pad + 1), below(2 * self.pad + 1));
        let mirrored = self.flip && below(2) == 1;
        self.cut(image, top, left, mirrored)
    }

    /// The window of the image's size whose corner is at row `top` and column `left` of the padded image.
    fn cut(&self, image: &Image, top: usize, left: usize, mirrored: bool) -> Image {
        let Image { height, width, channels, .. } = *image;
        let mut pixels = vec![0; image.pixels.len()];
        // Where a row or column of the window lies in the image, if it does.
        let within = |at: usize, extent: usize| at.checked_sub(self.pad).filter(|it| *it < extent);
        for y in 0..height {
            let Some(from_y) = within(y + top, height) else { continue };
            for x in 0..width {
                let Some(from_x) = within(x + left, width) else { continue };
                let to_x = if mirrored { width - 1 - x } else { x };
                let (to, from) =
                    ((y * width + to_x) * channels, (from_y * width + from_x) * channels);
                pixels[to..to + channels].copy_from_slice(&image.pixels[from..from + channels]);
            }
        }
        Image { height, width, channels, pixels }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn image() -> Image {
        Image { height: 2, width: 3, channels: 1, pixels: vec![1, 2, 3, 4, 5, 6] }
    }

    const DRAW: Augmentation = Augmentation { pad: 1, flip: true, seed: 7, epoch: 0 };

    #[test]
    fn windows_of_the_padded_image() {
        let cases: [(usize, usize, bool, [u8; 6]); 4] = [
            (1, 1, false, [1, 2, 3, 4, 5, 6]),
            (1, 1, true, [3, 2, 1, 6, 5, 4]),
            (0, 2, false, [0, 0, 0, 2, 3, 0]),
            (2, 0, true, [5, 4, 0, 0, 0, 0]),
        ];
        for (top, left, mirrored, expected) in cases {
            assert_eq!(DRAW.cut(&image(), top, left, mirrored).pixels, expected, "{top} {left}");
        }
    }

    #[test]
    fn draws_follow_from_seed_epoch_and_sample() {
        let seen = |it: Augmentation| -> Vec<Vec<u8>> {
            (0..200).map(|index| it.apply(&image(), index).pixels).collect()
        };
        assert_eq!(seen(DRAW), seen(DRAW));
        assert_ne!(seen(DRAW), seen(Augmentation { epoch: 1, ..DRAW }));
        assert_ne!(seen(DRAW), seen(Augmentation { seed: 8, ..DRAW }));
        // 3 x 3 places, each of them mirrored or not.
        assert_eq!(seen(DRAW).into_iter().collect::<BTreeSet<_>>().len(), 18);
        let still = Augmentation { pad: 0, flip: false, ..DRAW };
        assert!(seen(still).iter().all(|it| *it == image().pixels));
    }
}

//! What every format of images can do, and images that are in memory already.

use crate::{
    DataError, Result,
    preprocess::{Channels, Image},
};

/// Images of one split, read in two steps so that files are read in order and pictures decoded in parallel.
pub(crate) trait ImageSource: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;
    /// The channels that decoded images have.
    fn native(&self) -> Channels;
    /// The names of the classes, where the format knows them.
    fn classes(&self) -> Option<&[String]>;
    /// The class of every sample, where the format knows it.
    fn labels(&self) -> Result<Option<Vec<usize>>>;
    /// Announces that only these samples will be fetched.
    fn keep(&mut self, _indices: &[usize]) -> Result<()> {
        Ok(())
    }
    /// What errors call a sample.
    fn place(&self, index: usize) -> String;
    /// The bytes of samples, encoded as they are stored.
    fn fetch(&self, indices: &[usize]) -> Result<Vec<Vec<u8>>>;
    /// Decodes what `fetch` gave for a sample.
    fn decode(&self, index: usize, bytes: Vec<u8>) -> Result<Sample>;
}

/// One decoded image and its class.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) image: Image,
    pub(crate) label: Option<usize>,
}

/// Images that a program brings along.
#[derive(Debug)]
pub(crate) struct Embedded {
    pixels: Vec<u8>,
    size: [usize; 3],
    labels: Option<Vec<usize>>,
}

impl Embedded {
    /// `pixels` is `[n, height, width, channels]`, `size` the last three.
    pub(crate) fn new(
        pixels: Vec<u8>,
        size: [usize; 3],
        labels: Option<Vec<usize>>,
    ) -> Result<Self> {
        let place = "images in memory";
        let [h, w, c] = size;
        let bytes = h.checked_mul(w).and_then(|it| it.checked_mul(c)).unwrap_or(0);
        if ![1, 3].contains(&c) || bytes == 0 {
            let message = format!("size is {h} x {w} x {c}, expected pixels of 1 or 3 channels");
            return Err(DataError::invalid(place, message));
        }
        if !pixels.len().is_multiple_of(bytes) {
            let message =
                format!("{} bytes are no whole number of images of {bytes}", pixels.len());
            return Err(DataError::invalid(place, message));
        }
        match &labels {
            Some(it) if it.len() != pixels.len() / bytes => {
                let message = format!("{} labels for {} images", it.len(), pixels.len() / bytes);
                Err(DataError::invalid(place, message))
            }
            _ => Ok(Self { pixels, size, labels }),
        }
    }

    fn bytes(&self) -> usize {
        self.size.iter().product()
    }
}

impl ImageSource for Embedded {
    fn len(&self) -> usize {
        self.pixels.len() / self.bytes()
    }

    fn native(&self) -> Channels {
        if self.size[2] == 1 { Channels::Gray } else { Channels::Rgb }
    }

    fn classes(&self) -> Option<&[String]> {
        None
    }

    fn labels(&self) -> Result<Option<Vec<usize>>> {
        Ok(self.labels.clone())
    }

    fn place(&self, index: usize) -> String {
        format!("image {index} in memory")
    }

    fn fetch(&self, indices: &[usize]) -> Result<Vec<Vec<u8>>> {
        let bytes = self.bytes();
        Ok(indices.iter().map(|&it| self.pixels[it * bytes..][..bytes].to_vec()).collect())
    }

    fn decode(&self, index: usize, bytes: Vec<u8>) -> Result<Sample> {
        let [height, width, channels] = self.size;
        let image = Image { height, width, channels, pixels: bytes };
        Ok(Sample { image, label: self.labels.as_ref().map(|it| it[index]) })
    }
}

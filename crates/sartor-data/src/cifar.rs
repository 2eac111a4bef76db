//! The binary layout of CIFAR-10: records of one label byte and 3 x 32 x 32 pixel bytes, plane by plane
//! (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009).

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use crate::{
    DataError, Result,
    image_source::{ImageSource, Sample},
    preprocess::{Channels, Image},
    rows::{Packed, Packing, Rows},
};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;

/// The classes in the order of their labels.
pub const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

pub(crate) struct Cifar {
    rows: Rows,
    len: usize,
    classes: Vec<String>,
}

impl Cifar {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::metadata(path).map_err(|error| DataError::read(path, error))?.len();
        if bytes == 0 || bytes % RECORD as u64 != 0 {
            let message = format!(
                "{bytes} bytes, expected a multiple of {RECORD} (one label and 3 x 32 x 32 pixels a record); \
                 is it CIFAR-10 in its binary layout?"
            );
            return Err(DataError::invalid(path.display(), message));
        }
        let packed = Packed { path: path.to_owned(), start: 0, packing: Packing::Plain };
        let len = usize::try_from(bytes / RECORD as u64).unwrap_or(usize::MAX);
        Ok(Self {
            rows: Rows::new(packed, 0, RECORD),
            len,
            classes: CLASSES.map(str::to_owned).to_vec(),
        })
    }

    fn label(&self, index: usize, byte: u8) -> Result<usize> {
        if usize::from(byte) < CLASSES.len() {
            return Ok(byte.into());
        }
        Err(DataError::invalid(self.place(index), format!("label {byte}, expected 0 to 9")))
    }
}

impl ImageSource for Cifar {
    fn len(&self) -> usize {
        self.len
    }

    fn native(&self) -> Channels {
        Channels::Rgb
    }

    fn classes(&self) -> Option<&[String]> {
        Some(&self.classes)
    }

    fn labels(&self) -> Result<Option<Vec<usize>>> {
        let path = self.rows.path();
        let file = File::open(path).map_err(|error| DataError::read(path, error))?;
        let mut reader = BufReader::with_capacity(64 * RECORD, file);
        let mut record = [0; RECORD];
        let mut labels = Vec::new();
        for index in 0..self.len {
            reader.read_exact(&mut record).map_err(|error| DataError::read(path, error))?;
            labels.push(self.label(index, record[0])?);
        }
        Ok(Some(labels))
    }

    fn place(&self, index: usize) -> String {
        format!("record {index} of `{}`", self.rows.path().display())
    }

    fn fetch(&self, indices: &[usize]) -> Result<Vec<Vec<u8>>> {
        self.rows.read(indices)
    }

    fn decode(&self, index: usize, bytes: Vec<u8>) -> Result<Sample> {
        let label = self.label(index, bytes[0])?;
        let pixels =
            (0..PLANE).flat_map(|at| [0, 1, 2].map(|c| bytes[1 + c * PLANE + at])).collect();
        Ok(Sample {
            image: Image { height: SIDE, width: SIDE, channels: 3, pixels },
            label: Some(label),
        })
    }
}

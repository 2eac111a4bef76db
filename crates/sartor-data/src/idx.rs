//! IDX, the format of MNIST: a magic number with the element type and the number of axes, the axes big-endian, then
//! bytes (C. Burges and others, "The MNIST database of handwritten digits").

use std::{io::Read, path::Path};

use crate::{
    DataError, Result,
    image_source::{ImageSource, Sample},
    preprocess::{Channels, Image},
    rows::{Packed, Packing, Rows},
};

const UNSIGNED_BYTE: u8 = 8;

pub(crate) struct Idx {
    rows: Rows,
    len: usize,
    size: [usize; 2],
    labels: Option<Vec<u8>>,
}

impl Idx {
    /// Opens a file of images and, where given, one of labels; either may be gzip.
    pub(crate) fn open(images: &Path, labels: Option<&Path>) -> Result<Self> {
        let packed = Packed::file(images);
        let [len, height, width] = axes(&packed, packed.open()?.as_mut(), "images")?;
        let invalid = |message: String| DataError::invalid(images.display(), message);
        let row = height.checked_mul(width).filter(|&it| it > 0);
        let row = row.ok_or_else(|| invalid(format!("images of {height} x {width} pixels")))?;
        let header = 16;
        if packed.packing == Packing::Plain {
            let found = std::fs::metadata(images).map_err(|error| packed.error(error))?.len();
            let expected =
                (row as u64).checked_mul(len as u64).and_then(|it| it.checked_add(header));
            if expected != Some(found) {
                let message = format!(
                    "{found} bytes, but its header promises {len} images of {height} x {width}; the file is damaged"
                );
                return Err(invalid(message));
            }
        }
        let labels = labels.map(|path| read_labels(path, images, len)).transpose()?;
        Ok(Self { rows: Rows::new(packed, header, row), len, size: [height, width], labels })
    }
}

fn read_labels(path: &Path, images: &Path, len: usize) -> Result<Vec<u8>> {
    let packed = Packed::file(path);
    let mut reader = packed.open()?;
    let [count] = axes(&packed, reader.as_mut(), "labels")?;
    if count != len {
        let message = format!("{count} labels for the {len} images of `{}`", images.display());
        return Err(DataError::invalid(path.display(), message));
    }
    let mut labels = Vec::new();
    reader.take(len as u64).read_to_end(&mut labels).map_err(|error| packed.error(error))?;
    if labels.len() == len {
        return Ok(labels);
    }
    let message =
        format!("{} labels, but its header promises {len}; the file is truncated", labels.len());
    Err(DataError::invalid(path.display(), message))
}

/// Reads the magic number and `N` axes.
fn axes<const N: usize>(packed: &Packed, reader: &mut dyn Read, what: &str) -> Result<[usize; N]> {
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(|error| packed.error(error))?;
    let expected = [0, 0, UNSIGNED_BYTE, N as u8];
    if magic != expected {
        let message = format!(
            "begins with {magic:02x?}, expected {expected:02x?} (IDX, unsigned bytes, {N} axes) in a file of {what}"
        );
        return Err(DataError::invalid(packed.path.display(), message));
    }
    let mut axes = [0; N];
    for axis in &mut axes {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(|error| packed.error(error))?;
        *axis = u32::from_be_bytes(bytes) as usize;
    }
    Ok(axes)
}

impl ImageSource for Idx {
    fn len(&self) -> usize {
        self.len
    }

    fn native(&self) -> Channels {
        Channels::Gray
    }

    fn classes(&self) -> Option<&[String]> {
        None
    }

    fn labels(&self) -> Result<Option<Vec<usize>>> {
        Ok(self.labels.as_ref().map(|it| it.iter().map(|&label| label.into()).collect()))
    }

    fn place(&self, index: usize) -> String {
        format!("image {index} of `{}`", self.rows.path().display())
    }

    fn fetch(&self, indices: &[usize]) -> Result<Vec<Vec<u8>>> {
        self.rows.read(indices)
    }

    fn decode(&self, index: usize, bytes: Vec<u8>) -> Result<Sample> {
        let [height, width] = self.size;
        let label = self.labels.as_ref().map(|it| it[index].into());
        Ok(Sample { image: Image { height, width, channels: 1, pixels: bytes }, label })
    }
}

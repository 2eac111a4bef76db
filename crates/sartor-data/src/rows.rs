//! Rows of equal length in a file: read at random where it is plain, forwards where it is compressed.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use flate2::read::{DeflateDecoder, MultiGzDecoder};

use crate::{DataError, Result};

/// Where the bytes of a file, or of one member of a zip archive, begin and how they are packed.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) path: PathBuf,
    pub(crate) start: u64,
    pub(crate) packing: Packing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    /// So many bytes of a raw deflate stream.
    Deflate(u64),
}

impl Packed {
    /// A file on its own; it is gzip where its name ends in `.gz`.
    pub(crate) fn file(path: &Path) -> Self {
        let gzip = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("gz"));
        let packing = if gzip { Packing::Gzip } else { Packing::Plain };
        Self { path: path.to_owned(), start: 0, packing }
    }

    /// Opens the bytes from the first on.
    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>> {
        let file = self.open_file()?;
        Ok(match self.packing {
            Packing::Plain => Box::new(BufReader::new(file)),
            Packing::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file)))),
            Packing::Deflate(length) => {
                Box::new(BufReader::new(DeflateDecoder::new(file.take(length))))
            }
        })
    }

    fn open_file(&self) -> Result<File> {
        let mut file = File::open(&self.path).map_err(|error| self.error(error))?;
        file.seek(SeekFrom::Start(self.start)).map_err(|error| self.error(error))?;
        Ok(file)
    }

    pub(crate) fn error(&self, error: io::Error) -> DataError {
        DataError::read(&self.path, error)
    }
}

/// Rows of equal length.
pub(crate) struct Rows {
    packed: Packed,
    /// Bytes before the first row.
    header: u64,
    row: usize,
    reader: Mutex<Option<Reader>>,
}

enum Reader {
    Plain(File),
    Stream { bytes: Box<dyn Read + Send>, at: u64 },
}

impl Rows {
    /// Rows of `row` bytes after `header` bytes.
    pub(crate) fn new(packed: Packed, header: u64, row: usize) -> Self {
        Self { packed, header, row, reader: Mutex::new(None) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.packed.path
    }

    /// The rows asked for, in that order. They are read in the order of the file, so that a compressed one is walked at
    /// most once a call, and not from its beginning where the last call ended before.
    pub(crate) fn read(&self, indices: &[usize]) -> Result<Vec<Vec<u8>>> {
        // A panic elsewhere cannot have left the reader in a state that the next seek does not mend.
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<_> = (0..indices.len()).collect();
        order.sort_by_key(|&it| indices[it]);
        let mut rows = vec![Vec::new(); indices.len()];
        for slot in order {
            rows[slot] = self.row(&mut reader, indices[slot])?;
        }
        Ok(rows)
    }

    fn row(&self, reader: &mut Option<Reader>, index: usize) -> Result<Vec<u8>> {
        let target = self.header + index as u64 * self.row as u64;
        if matches!(reader, Some(Reader::Stream { at, .. }) if *at > target) {
            *reader = None;
        }
        let opened = match reader.take() {
            Some(opened) => opened,
            None if self.packed.packing == Packing::Plain => {
                Reader::Plain(self.packed.open_file()?)
            }
            None => Reader::Stream { bytes: self.packed.open()?, at: 0 },
        };
        let mut row = Vec::new();
        let wanted = self.row as u64;
        // Nothing is allocated ahead: a file that promises more than it holds ends in an error, not in memory.
        let result = match reader.insert(opened) {
            Reader::Plain(file) => file
                .seek(SeekFrom::Start(self.packed.start.saturating_add(target)))
                .and_then(|_| file.take(wanted).read_to_end(&mut row)),
            Reader::Stream { bytes, at } => {
                io::copy(&mut bytes.take(target - *at), &mut io::sink())
                    .and_then(|_| bytes.take(wanted).read_to_end(&mut row))
            }
        };
        if let Some(Reader::Stream { at, .. }) = reader {
            *at = target + wanted;
        }
        match result {
            Ok(_) if row.len() == self.row => Ok(row),
            Ok(_) => {
                *reader = None;
                let message = format!("ends within record {index}; the file is truncated");
                Err(DataError::invalid(self.path().display(), message))
            }
            Err(error) => {
                *reader = None;
                Err(self.packed.error(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn rows_come_in_the_order_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..=200).collect();
        let plain = folder.path().join("rows");
        File::create(&plain).unwrap().write_all(&bytes).unwrap();
        let gzip = folder.path().join("rows.gz");
        let mut encoder = flate2::write::GzEncoder::new(
            File::create(&gzip).unwrap(),
            flate2::Compression::fast(),
        );
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap();
        for path in [plain, gzip] {
            let rows = Rows::new(Packed::file(&path), 1, 4);
            for asked in [vec![0, 1, 2], vec![49, 0, 49], vec![], vec![3]] {
                let expected: Vec<_> =
                    asked.iter().map(|&it| bytes[1 + it * 4..][..4].to_vec()).collect();
                assert_eq!(rows.read(&asked).unwrap(), expected, "{}", path.display());
            }
            let error = rows.read(&[50]).unwrap_err().to_string();
            assert!(error.ends_with("ends within record 50; the file is truncated"), "{error}");
            assert_eq!(rows.read(&[1]).unwrap(), [bytes[5..9].to_vec()]);
        }
    }
}

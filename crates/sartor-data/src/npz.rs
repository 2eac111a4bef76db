//! NPZ, numpy's archive of named arrays: a zip of NPY files.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read, Write},
    path::Path,
};

use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{
    DataError, NamedArray, Result, Values,
    npy::Header,
    rows::{Packed, Packing},
};

/// One array of an NPZ, not read yet.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) packed: Packed,
    pub(crate) header: Header,
}

/// Lists the arrays of an NPZ in the order of the file.
pub(crate) fn list(path: &Path) -> Result<Vec<Member>> {
    let mut zip = open(path)?;
    let mut members = Vec::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(|error| DataError::read(path, error.into()))?;
        let Some(name) = array_name(entry.name_raw()) else { continue };
        let packing = match entry.compression() {
            CompressionMethod::Stored => Packing::Plain,
            CompressionMethod::Deflated => Packing::Deflate(entry.compressed_size()),
            other => {
                let message = format!(
                    "compressed by {other}, expected stored or deflated; save it with numpy"
                );
                return Err(DataError::invalid(place(path, &name), message));
            }
        };
        let (start, size) = (entry.data_start().unwrap_or_default(), entry.size());
        let packed = Packed { path: path.to_owned(), start, packing };
        let header = checked_header(packed.open()?.as_mut(), size, path, &name)?;
        members.push(Member { name, packed, header });
    }
    Ok(members)
}

/// Reads all arrays of an NPZ, as numpy's `savez` and `savez_compressed` write it: little-endian `float32`, `float64`,
/// `int64`, `int32`, `int8`, `uint8` and `bool`, row by row.
pub fn read_npz(path: &Path) -> Result<Vec<NamedArray>> {
    let mut zip = open(path)?;
    let mut arrays = Vec::new();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| DataError::read(path, error.into()))?;
        let Some(name) = array_name(entry.name_raw()) else { continue };
        let size = entry.size();
        let header = checked_header(&mut entry, size, path, &name)?;
        let mut bytes = Vec::new();
        // The size has been compared with the header; reading on to the end makes the zip reader check its sum.
        let invalid = |error: io::Error| DataError::invalid(place(path, &name), error.to_string());
        entry.take(size).read_to_end(&mut bytes).map_err(invalid)?;
        if header.data_bytes() != Some(bytes.len()) {
            return Err(DataError::invalid(
                place(path, &name),
                "ends within its elements; the file is truncated",
            ));
        }
        let values = Values::from_le_bytes(header.dtype, &bytes);
        arrays.push(NamedArray { name: Some(name), shape: header.shape, values });
    }
    Ok(arrays)
}

/// Writes arrays so that numpy's `load` reads them, uncompressed. An array without a name gets `arr_0` and so on, by its
/// place. Equal arrays give equal bytes.
///
/// # Errors
/// Where the writer fails, or a shape does not fit its values.
pub fn write_npz(mut writer: impl Write, arrays: &[NamedArray]) -> Result<()> {
    // In memory first: an archive that is dropped while its file cannot be written talks to standard error.
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let failed = |error: zip::result::ZipError| DataError::Write(error.into());
    for (index, array) in arrays.iter().enumerate() {
        let name = array.name.clone().unwrap_or_else(|| format!("arr_{index}"));
        let header = Header::write(array.values.dtype(), &array.shape);
        if array.shape.iter().try_fold(1_usize, |it, &axis| it.checked_mul(axis))
            != Some(array.values.len())
        {
            let message = format!("shape {:?} for {} values", array.shape, array.values.len());
            return Err(DataError::invalid(format!("array `{name}`"), message));
        }
        let bytes = array.values.to_le_bytes();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(u32::try_from(header.len() + bytes.len()).is_err());
        zip.start_file(format!("{name}.npy"), options).map_err(failed)?;
        zip.write_all(&header).and_then(|()| zip.write_all(&bytes)).map_err(DataError::Write)?;
    }
    let file = zip.finish().map_err(failed)?.into_inner();
    writer.write_all(&file).and_then(|()| writer.flush()).map_err(DataError::Write)
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(|error| DataError::read(path, error))?;
    let name = format!("`{}`", path.display());
    ZipArchive::new(BufReader::new(file)).map_err(|error| {
        DataError::invalid(
            name,
            format!("not an NPZ archive ({error}); save it with numpy's `savez`"),
        )
    })
}

fn array_name(file_name: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(file_name.strip_suffix(b".npy")?).into_owned())
}

pub(crate) fn place(path: &Path, name: &str) -> String {
    format!("array `{name}` of `{}`", path.display())
}

fn checked_header(reader: &mut dyn Read, size: u64, path: &Path, name: &str) -> Result<Header> {
    let invalid = |message: String| DataError::invalid(place(path, name), message);
    let header = Header::read(reader).map_err(|error| invalid(error.to_string()))?;
    let expected = header.data_bytes().and_then(|it| (it as u64).checked_add(header.length));
    if expected == Some(size) {
        return Ok(header);
    }
    let (dtype, shape) = (header.dtype.name(), &header.shape);
    Err(invalid(format!(
        "{size} bytes, which are not the {dtype} {shape:?} of its header; the file is damaged"
    )))
}

//! Files as memory.
#![expect(
    unsafe_code,
    reason = "a mapping is only sound while nobody truncates the file, which no type can say"
)]

use std::fs::File;

use bytes::Bytes;

/// Maps a file into memory, so that weights of many gigabytes are read as they are touched. The file must
/// not be truncated while the bytes live.
///
/// # Errors
/// As the operating system says; an empty file gives empty bytes.
pub fn map_file(file: &File) -> std::io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and private to us; the caller keeps the file from being truncated, as the
    // documentation asks. A write by another process changes elements, which any bit pattern may be.
    let map = unsafe { memmap2::Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}

//! Files below a folder, or in an archive that is read in place.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

use crate::{DataError, Result};

/// The most that is held of a `.tar.gz`: the encoded files of the samples chosen from it.
pub const MAX_RESIDENT_BYTES: u64 = 4 << 30;

/// The most that one member of an archive may unpack to.
const MAX_MEMBER_BYTES: u64 = 256 << 20;

/// Something that holds files.
pub(crate) enum Archive {
    Folder(PathBuf),
    Tar(PathBuf, Mutex<File>),
    /// The members kept, one after the other.
    TarGz(PathBuf, Vec<u8>),
    Zip(PathBuf, Mutex<ZipArchive<BufReader<File>>>),
}

/// One file in an [`Archive`].
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Path in the archive, with `/` between its parts.
    pub(crate) path: String,
    /// Where it begins: an offset in a tar, an index in a zip.
    at: u64,
    size: u64,
}

/// What is in an archive.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Paths of the folders that are listed themselves.
    pub(crate) folders: BTreeSet<String>,
    pub(crate) members: Vec<Member>,
}

impl Archive {
    /// Opens a folder, `.tar`, `.tar.gz`, `.tgz` or `.zip` and lists what is below `folder` in it, down to the files in
    /// the folders there.
    pub(crate) fn open(path: &Path, folder: &str) -> Result<(Self, Listing)> {
        let read_error = |error| DataError::read(path, error);
        if std::fs::metadata(path).map_err(read_error)?.is_dir() {
            let listing = list_folder(&path.join(folder))?;
            return Ok((Self::Folder(path.join(folder)), listing));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let is = |suffixes: &[&str]| suffixes.iter().any(|it| name.ends_with(it));
        let file = File::open(path).map_err(read_error)?;
        let (archive, listing) = if is(&[".tar"]) {
            let listing = list_tar(tar::Archive::new(BufReader::new(&file))).map_err(read_error)?;
            (Self::Tar(path.to_owned(), Mutex::new(file)), listing)
        } else if is(&[".tar.gz", ".tgz"]) {
            let listing = list_tar(tar::Archive::new(gunzip(file))).map_err(read_error)?;
            (Self::TarGz(path.to_owned(), Vec::new()), listing)
        } else if is(&[".zip"]) {
            let zip =
                ZipArchive::new(BufReader::new(file)).map_err(|error| read_error(error.into()))?;
            let listing = list_zip(&zip).map_err(|error| read_error(error.into()))?;
            (Self::Zip(path.to_owned(), Mutex::new(zip)), listing)
        } else {
            let message = "neither a folder nor a .tar, .tar.gz or .zip archive";
            return Err(DataError::invalid(path.display(), message));
        };
        Ok((archive, listing.below(folder)))
    }

    /// The path under which errors name a member, `inner` being its path below the folder opened.
    pub(crate) fn place(&self, inner: &str) -> String {
        match self {
            Self::Folder(path) | Self::Tar(path, _) | Self::TarGz(path, _) | Self::Zip(path, _) => {
                path.join(inner).display().to_string()
            }
        }
    }

    /// Announces that no other members will be read. A gzip stream is read a second time here to fetch them; their
    /// places change.
    pub(crate) fn keep<'a>(&mut self, members: impl Iterator<Item = &'a mut Member>) -> Result<()> {
        let Self::TarGz(path, kept) = self else { return Ok(()) };
        let mut wanted: Vec<_> = members.collect();
        wanted.sort_by_key(|it| it.at);
        let total: u64 = wanted.iter().map(|it| it.size).fold(0, u64::saturating_add);
        if total > MAX_RESIDENT_BYTES {
            let message = format!(
                "the images chosen take {total} bytes, and at most {MAX_RESIDENT_BYTES} of a gzip archive are held in \
                 memory; repack it as .tar or .zip, which are read in place"
            );
            return Err(DataError::invalid(path.display(), message));
        }
        kept.clear();
        let read = || {
            let mut reader = gunzip(File::open(&*path)?);
            let mut at = 0;
            for member in wanted {
                io::copy(&mut reader.by_ref().take(member.at - at), &mut io::sink())?;
                at = member.at + member.size;
                let start = kept.len() as u64;
                let read = reader.by_ref().take(member.size).read_to_end(kept)?;
                if read as u64 != member.size {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the archive is truncated",
                    ));
                }
                member.at = start;
            }
            Ok(())
        };
        read().map_err(|error| DataError::read(path, error))
    }

    /// The bytes of a member.
    pub(crate) fn read(&self, member: &Member) -> Result<Vec<u8>> {
        match self {
            Self::Folder(root) => {
                let path = root.join(&member.path);
                std::fs::read(&path).map_err(|error| DataError::read(&path, error))
            }
            Self::Tar(path, file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = file
                    .seek(SeekFrom::Start(member.at))
                    .and_then(|_| bounded(&mut *file, member.size));
                bytes.map_err(|error| DataError::read(path, error))
            }
            Self::TarGz(path, kept) => {
                let range = usize::try_from(member.at).ok().zip(usize::try_from(member.size).ok());
                let bytes = range.and_then(|(at, size)| kept.get(at..)?.get(..size));
                bytes.map(<[u8]>::to_vec).ok_or_else(|| {
                    DataError::invalid(
                        path.display(),
                        format!("`{}` was not kept when opened", member.path),
                    )
                })
            }
            Self::Zip(path, zip) => {
                let mut zip = zip.lock().unwrap_or_else(PoisonError::into_inner);
                let index = usize::try_from(member.at).unwrap_or(usize::MAX);
                let bytes = zip
                    .by_index(index)
                    .map_err(io::Error::from)
                    .and_then(|it| bounded(it, member.size));
                bytes.map_err(|error| DataError::read(&path.join(&member.path), error))
            }
        }
    }
}

fn bounded(reader: impl Read, size: u64) -> io::Result<Vec<u8>> {
    if size > MAX_MEMBER_BYTES {
        let message = format!("{size} bytes, at most {MAX_MEMBER_BYTES} are read of one image");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    // One byte more is asked for than promised: only then does a zip reader compare the checksum.
    let mut bytes = Vec::new();
    reader.take(size + 1).read_to_end(&mut bytes)?;
    bytes.truncate(size as usize);
    if bytes.len() as u64 == size {
        return Ok(bytes);
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is truncated"))
}

fn gunzip(file: File) -> BufReader<MultiGzDecoder<BufReader<File>>> {
    BufReader::with_capacity(1 << 16, MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file)))
}

fn list_tar(mut tar: tar::Archive<impl Read>) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in tar.entries()? {
        let entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let kind = entry.header().entry_type();
        listing.add(&path, kind.is_dir(), kind.is_file(), entry.raw_file_position(), entry.size());
    }
    Ok(listing)
}

fn list_zip(zip: &ZipArchive<BufReader<File>>) -> zip::result::ZipResult<Listing> {
    let mut listing = Listing::default();
    for index in 0..zip.len() {
        let entry = zip.by_index_data(index)?;
        listing.add(&entry.name()?, entry.is_dir(), entry.is_file(), index as u64, entry.size());
    }
    Ok(listing)
}

/// Lists the files directly below a folder, its folders, and the files in these.
fn list_folder(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for (name, is_folder) in entries(root)? {
        listing.add(&name, is_folder, !is_folder, 0, 0);
        if !is_folder || is_hidden(&name) {
            continue;
        }
        for (inner, is_folder) in entries(&root.join(&name))? {
            listing.add(&format!("{name}/{inner}"), is_folder, !is_folder, 0, 0);
        }
    }
    Ok(listing)
}

fn entries(folder: &Path) -> Result<Vec<(String, bool)>> {
    let read_error = |error| DataError::read(folder, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        let is_folder =
            std::fs::metadata(&path).map_err(|error| DataError::read(&path, error))?.is_dir();
        let name = path.file_name().and_then(|it| it.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| {
            DataError::invalid(path.display(), "the name is not UTF-8; rename it")
        })?;
        names.push((name, is_folder));
    }
    Ok(names)
}

/// Whether a name begins with a dot, or is where macOS puts its attributes.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name == "__MACOSX"
}

impl Listing {
    /// Adds a file or folder unless it or a folder above it is hidden.
    fn add(&mut self, path: &str, is_folder: bool, is_file: bool, at: u64, size: u64) {
        let parts: Vec<_> = path.split('/').filter(|it| !matches!(*it, "" | ".")).collect();
        if parts.is_empty() || parts.iter().any(|it| is_hidden(it)) {
            return;
        }
        let path = parts.join("/");
        if is_folder {
            self.folders.insert(path);
        } else if is_file {
            self.members.push(Member { path, at, size });
        }
    }

    /// What is below a folder, with paths relative to it; everything for an empty path.
    fn below(self, folder: &str) -> Self {
        let parts: Vec<_> = folder.split('/').filter(|it| !matches!(*it, "" | ".")).collect();
        if parts.is_empty() {
            return self;
        }
        let prefix = parts.join("/") + "/";
        let inner = |path: &str| path.strip_prefix(&prefix).map(str::to_owned);
        Self {
            folders: self.folders.iter().filter_map(|it| inner(it)).collect(),
            members: self
                .members
                .into_iter()
                .filter_map(|it| Some(Member { path: inner(&it.path)?, ..it }))
                .collect(),
        }
    }
}

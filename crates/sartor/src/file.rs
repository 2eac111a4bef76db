//! Files: read whole, written whole or not at all.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sartor_onnx::ExternalData;

use crate::Error;

/// Maps a file into memory, read-only.
///
/// # Errors
/// [`Error::Read`] with the path; an empty file or a folder is refused too.
pub fn read(path: &Path) -> Result<Bytes, Error> {
    let error = |source| Error::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(error)?;
    let about = file.metadata().map_err(error)?;
    if about.is_dir() {
        return Err(error(io::Error::other("it is a folder, expected a file")));
    }
    if about.len() == 0 && about.is_file() {
        return Err(error(io::Error::other("it is empty; fetch or export it again")));
    }
    sartor_engine::map_file(&file).map_err(error)
}

/// Reads a text file.
///
/// # Errors
/// [`Error::Read`] with the path, also where it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Writes a file under a temporary name in its folder and renames it, so that nobody ever sees half of
/// it. An existing file is only replaced if `force`.
///
/// # Errors
/// [`Error::Exists`], or [`Error::Write`] with the path; then nothing is left behind.
pub fn write_atomically(
    path: &Path,
    force: bool,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    check_output(path, force)?;
    let error = |source| Error::Write { path: path.to_owned(), source };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sartor-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    let mut file = builder.tempfile_in(parent(path)).map_err(|it| error(of_the_system(&it)))?;
    {
        let mut writer = io::BufWriter::new(file.as_file_mut());
        fill(&mut writer).map_err(error)?;
        writer.flush().map_err(error)?;
    }
    file.as_file().sync_all().map_err(error)?;
    file.persist(path).map_err(|it| error(it.error))?;
    Ok(())
}

/// Whether a file can be written, as far as that can be known before: its folder is there, and nothing
/// stands in its place, or (with `force`) a file. A device is never replaced.
///
/// # Errors
/// [`Error::Exists`] and [`Error::Write`].
pub fn check_output(path: &Path, force: bool) -> Result<(), Error> {
    let error =
        |what: String| Err(Error::Write { path: path.to_owned(), source: io::Error::other(what) });
    if path.is_dir() {
        return error("it is a folder, expected the name of a file in it".to_owned());
    }
    if path.exists() && !path.is_file() {
        return error("it is a device or pipe, expected a file".to_owned());
    }
    if path.exists() && !force {
        return Err(Error::Exists(path.to_owned()));
    }
    check_parent(path).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Whether a folder is there or can be made.
///
/// # Errors
/// [`Error::Write`].
pub(crate) fn check_folder(path: &Path) -> Result<(), Error> {
    let error = |source| Error::Write { path: path.to_owned(), source };
    if path.exists() && !path.is_dir() {
        return Err(error(io::Error::other("it is a file, expected a folder")));
    }
    check_parent(path).map_err(error)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check_parent(path: &Path) -> io::Result<()> {
    let folder = parent(path);
    if folder.is_dir() {
        return Ok(());
    }
    let found = if folder.exists() { "is no folder" } else { "does not exist, create it first" };
    Err(io::Error::other(format!("its folder `{}` {found}", folder.display())))
}

/// What the system says, without the random name of the temporary file that `tempfile` adds.
fn of_the_system(error: &io::Error) -> io::Error {
    let text = error.to_string();
    io::Error::other(text.split(" at path ").next().unwrap_or_default())
}

/// A folder that appears under its name only when it is complete.
#[derive(Debug)]
pub struct OutputFolder {
    work: tempfile::TempDir,
    target: PathBuf,
    force: bool,
}

impl OutputFolder {
    /// Begins a folder that will be `target`; files go under a hidden name beside it until [`Self::finish`].
    ///
    /// # Errors
    /// [`Error::Exists`] for a folder with something in it (unless `force`), or [`Error::Write`].
    pub fn begin(target: &Path, force: bool) -> Result<Self, Error> {
        let error = |source| Error::Write { path: target.to_owned(), source };
        check_folder(target)?;
        let full = target.is_dir() && fs::read_dir(target).map_err(error)?.next().is_some();
        if full && !force {
            return Err(Error::Exists(target.to_owned()));
        }
        let work = tempfile::Builder::new().prefix(".sartor-").tempdir_in(parent(target));
        let work = work.map_err(|it| error(of_the_system(&it)))?;
        Ok(OutputFolder { work, target: target.to_owned(), force })
    }

    /// Hands out where to write until the folder is finished; errors call files by their later names.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn fill<T>(&self, write: impl FnOnce(&Path) -> Result<T, Error>) -> Result<T, Error> {
        write(self.work.path()).map_err(|it| match it {
            Error::Write { path, source } => {
                let name = path.file_name().unwrap_or_default();
                Error::Write { path: self.target.join(name), source }
            }
            other => other,
        })
    }

    /// Moves every file to its place: the whole folder at once if it is new, else file by file.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish(self) -> Result<(), Error> {
        let error = |source| Error::Write { path: self.target.clone(), source };
        if !self.target.exists() {
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(self.work.path(), fs::Permissions::from_mode(0o755))
                    .map_err(error)?;
            }
            fs::rename(self.work.path(), &self.target).map_err(error)?;
            // It lies under its name now: nothing is left to clear away.
            let _ = self.work.keep();
            return Ok(());
        }
        for entry in fs::read_dir(self.work.path()).map_err(error)? {
            let entry = entry.map_err(error)?;
            let to = self.target.join(entry.file_name());
            if to.exists() && !self.force {
                return Err(Error::Exists(to));
            }
            fs::rename(entry.path(), to).map_err(error)?;
        }
        Ok(())
    }
}

/// External tensor files beside a model.
pub(crate) struct Beside<'a>(pub(crate) &'a Path);

impl ExternalData for Beside<'_> {
    fn open(&self, location: &str) -> io::Result<Bytes> {
        let path = self.0.join(location);
        let file = fs::File::open(&path)?;
        sartor_engine::map_file(&file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let full = write_atomically(&path, false, |it| {
            it.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(
            full.unwrap_err().to_string(),
            format!("cannot write `{}`: the disk is full", path.display())
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_overwritten_without_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for (force, text, kept) in
            [(false, "one", "one"), (false, "two", "one"), (true, "three", "three")]
        {
            let result = write_atomically(&path, force, |it| it.write_all(text.as_bytes()));
            assert_eq!(result.is_ok(), text == kept);
            assert_eq!(fs::read_to_string(&path).unwrap(), kept);
        }
    }

    #[test]
    fn a_folder_appears_whole() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("run");
        let output = OutputFolder::begin(&target, false).unwrap();
        output.fill(|it| write_atomically(&it.join("a"), false, |it| it.write_all(b"a"))).unwrap();
        assert!(!target.exists());
        output.finish().unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "a");
        assert!(matches!(OutputFolder::begin(&target, false), Err(Error::Exists(_))));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}

//! What lies in a folder.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every file and folder below, with the sizes of the files: what may not change where nothing may be
/// written.
pub(crate) fn listing(folder: &Path) -> BTreeSet<(PathBuf, u64)> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, about) = (entry.path(), entry.metadata().unwrap());
        if about.is_dir() {
            all.append(&mut listing(&path));
            all.insert((path, 0));
        } else {
            all.insert((path, about.len()));
        }
    }
    all
}

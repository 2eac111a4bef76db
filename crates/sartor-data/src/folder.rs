//! Images sorted into folders, one a class, on disk or in an archive.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Cursor,
    path::Path,
};

use image::ImageReader;

use crate::{
    DataError, Result,
    archive::{Archive, Listing, Member},
    image_source::{ImageSource, Sample},
    preprocess::{Channels, Image},
};

pub(crate) struct Folder {
    archive: Archive,
    /// The folder inside the archive, for errors.
    inner: String,
    classes: Vec<String>,
    images: Vec<(Member, usize)>,
}

impl Folder {
    /// Classes are the folders below `folder`, in the order of their names; images come class by class, by name.
    pub(crate) fn open(path: &Path, folder: &str) -> Result<Self> {
        let (archive, listing) = Archive::open(path, folder)?;
        let place = if folder.is_empty() { path.to_owned() } else { path.join(folder) };
        let (classes, images) = sort(listing, &place.display().to_string())?;
        // A folder on disk was opened together with `folder`.
        let inner = if matches!(archive, Archive::Folder(_)) { "" } else { folder };
        Ok(Self { archive, inner: inner.to_owned(), classes, images })
    }
}

type Sorted = (Vec<String>, Vec<(Member, usize)>);

fn sort(listing: Listing, place: &str) -> Result<Sorted> {
    let mut by_class = BTreeMap::<String, BTreeMap<String, Member>>::new();
    let mut loose = None;
    let mut nested = BTreeSet::new();
    for folder in listing.folders {
        if folder.contains('/') {
            nested.insert(folder);
        } else {
            by_class.entry(folder).or_default();
        }
    }
    for member in listing.members {
        match member.path.split_once('/') {
            None if is_image(&member.path) => loose = Some(member.path),
            None => {}
            Some((class, name)) => {
                if name.contains('/') {
                    nested.insert(member.path);
                } else if is_image(name) {
                    by_class.entry(class.to_owned()).or_default().insert(name.to_owned(), member);
                } else {
                    let message = "no JPEG or PNG (.jpg, .jpeg, .png), but in a class folder; convert or remove it";
                    return Err(DataError::invalid(format!("{place}/{}", member.path), message));
                }
            }
        }
    }
    if let Some(path) = nested.first() {
        let message =
            "a folder within a class folder; set `folder` to the folder that holds the classes";
        return Err(DataError::invalid(format!("{place}/{path}"), message));
    }
    if let Some(path) = loose {
        let message = "an image outside of any class folder, expected CLASS/IMAGE below the folder";
        return Err(DataError::invalid(format!("{place}/{path}"), message));
    }
    if by_class.is_empty() {
        let message =
            "no class folders, expected CLASS/IMAGE below it; is `path` or `folder` right?";
        return Err(DataError::invalid(place, message));
    }
    if let Some((class, _)) = by_class.iter().find(|(_, images)| images.is_empty()) {
        let message = "a class folder without images; remove it or fill it";
        return Err(DataError::invalid(format!("{place}/{class}"), message));
    }
    let classes = by_class.keys().cloned().collect();
    let images = by_class.into_values().enumerate();
    Ok((
        classes,
        images.flat_map(|(class, it)| it.into_values().map(move |it| (it, class))).collect(),
    ))
}

fn is_image(name: &str) -> bool {
    let extension = Path::new(name).extension().unwrap_or_default();
    ["jpg", "jpeg", "png"].iter().any(|it| extension.eq_ignore_ascii_case(it))
}

/// Whether the compressed data of a JPEG go on to their end. Decoders fill a truncated picture up with grey; the marker of
/// the end must stand behind the last scan.
fn is_whole(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.array_windows().rposition(|it| *it == marker);
    let is_jpeg = bytes.starts_with(&[0xff, 0xd8]);
    !is_jpeg || last([0xff, 0xd9]) > last([0xff, 0xda])
}

impl ImageSource for Folder {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn native(&self) -> Channels {
        Channels::Rgb
    }

    fn classes(&self) -> Option<&[String]> {
        Some(&self.classes)
    }

    fn labels(&self) -> Result<Option<Vec<usize>>> {
        Ok(Some(self.images.iter().map(|(_, class)| *class).collect()))
    }

    fn keep(&mut self, indices: &[usize]) -> Result<()> {
        let mut wanted = vec![false; self.images.len()];
        for &index in indices {
            wanted[index] = true;
        }
        let members =
            self.images.iter_mut().zip(wanted).filter_map(|((it, _), wanted)| wanted.then_some(it));
        self.archive.keep(members)
    }

    fn place(&self, index: usize) -> String {
        let inner = Path::new(&self.inner).join(&self.images[index].0.path);
        self.archive.place(&inner.to_string_lossy())
    }

    fn fetch(&self, indices: &[usize]) -> Result<Vec<Vec<u8>>> {
        indices.iter().map(|&it| self.archive.read(&self.images[it].0)).collect()
    }

    fn decode(&self, index: usize, bytes: Vec<u8>) -> Result<Sample> {
        let invalid = |message: String| DataError::invalid(self.place(index), message);
        if !is_whole(&bytes) {
            return Err(invalid("a truncated JPEG; replace or remove it".to_owned()));
        }
        let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
        let reader = reader.map_err(|error| invalid(format!("not a readable image: {error}")))?;
        let picture = reader.decode();
        let picture =
            picture.map_err(|error| invalid(format!("not a readable JPEG or PNG: {error}")))?;
        Ok(Sample { image: Image::from_picture(picture), label: Some(self.images[index].1) })
    }
}

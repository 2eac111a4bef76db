//! An open split: samples by number, and batches of them in order.

use std::{fmt, path::Path, sync::Arc};

use rayon::prelude::*;

use crate::{
    Augmentation, DataError, Dtype, InputSpec, NamedArray, Result, Values,
    cifar::Cifar,
    folder::Folder,
    idx::Idx,
    image_source::{Embedded, ImageSource},
    npz_source::NpzSource,
    preprocess::Preprocess,
    sample::{balanced, held_out},
    spec::{Format, RawSplit, Source},
};

/// The samples of a split, opened but not read. A clone or a subset shares the open files.
#[derive(Clone)]
pub struct DataSet {
    content: Arc<Content>,
    /// Which samples of the content, in order.
    selection: Vec<usize>,
}

enum Content {
    Images {
        images: Box<dyn ImageSource>,
        preprocess: Preprocess,
        name: Option<String>,
        shape: [usize; 3],
    },
    Arrays(NpzSource),
}

/// Some samples, ready for a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The number of each sample in the [`DataSet`].
    pub indices: Vec<usize>,
    /// One array for each input described, a row a sample.
    pub inputs: Vec<NamedArray>,
    /// The class of each sample, where there are labels.
    pub labels: Option<Vec<usize>>,
    /// What a network shall answer, a row a sample, where the split names it.
    pub targets: Option<NamedArray>,
}

impl DataSet {
    /// Images that a program brings along: `pixels` is `[n, height, width, channels]` and `size` its last three axes, with
    /// one channel or RGB.
    pub fn from_memory(
        pixels: Vec<u8>,
        size: [usize; 3],
        labels: Option<Vec<usize>>,
        input: InputSpec,
    ) -> Result<Self> {
        let images = Embedded::new(pixels, size, labels)?;
        let selection = (0..images.len()).collect();
        Self::of_images(Box::new(images), (None, input), selection)
    }

    fn of_images(
        images: Box<dyn ImageSource>,
        (name, input): (Option<String>, InputSpec),
        selection: Vec<usize>,
    ) -> Result<Self> {
        let preprocess = Preprocess::new(input, images.native())
            .map_err(|it| DataError::invalid("the images", it))?;
        let shape = match selection.first() {
            Some(&first) => {
                let bytes = images.fetch(&[first])?.concat();
                let sample = images.decode(first, bytes)?;
                let arranged = preprocess.arrange(sample.image);
                preprocess
                    .shape(&arranged.map_err(|it| DataError::invalid(images.place(first), it))?)
            }
            None => [0; 3],
        };
        Ok(Self {
            content: Arc::new(Content::Images { images, preprocess, name, shape }),
            selection,
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.selection.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.selection.is_empty()
    }

    /// The names of the classes in the order of their labels, where the format knows them.
    pub fn classes(&self) -> Option<&[String]> {
        match &*self.content {
            Content::Images { images, .. } => images.classes(),
            Content::Arrays(_) => None,
        }
    }

    /// The class of every sample, without decoding any, where there are labels.
    pub fn labels(&self) -> Result<Option<Vec<usize>>> {
        let all = match &*self.content {
            Content::Images { images, .. } => images.labels()?,
            Content::Arrays(arrays) => arrays.labels().map(<[_]>::to_vec),
        };
        Ok(all.map(|all| self.selection.iter().map(|&it| all[it]).collect()))
    }

    /// The name of each input, where it has one, and the shape of one sample, without the batch.
    pub fn shapes(&self) -> Vec<(Option<String>, Vec<usize>)> {
        match &*self.content {
            Content::Images { name, shape, .. } => vec![(name.clone(), shape.to_vec())],
            Content::Arrays(arrays) => arrays.shapes(),
        }
    }

    /// Checks that samples fit an input of a network. `shape` is the input's whole shape, the batch first, `None` where an
    /// axis is free. The data set's only input fits any name, unless it has another.
    pub fn check_input(&self, name: &str, shape: &[Option<usize>]) -> Result<()> {
        let shapes = self.shapes();
        let found = shapes.iter().position(|(it, _)| it.as_ref().is_none_or(|it| it == name));
        let Some((at, (_, sample))) = found.and_then(|at| Some((at, shapes.get(at)?))) else {
            let names: Vec<_> =
                shapes.iter().filter_map(|(it, _)| Some(format!("`{}`", it.as_ref()?))).collect();
            let message = format!(
                "nothing feeds the network's input `{name}`; the data feed {}",
                names.join(", ")
            );
            return Err(DataError::invalid("the data", message));
        };
        let wanted = shape.split_first().map_or(&[][..], |(_, rest)| rest);
        let fits = |sample: &[usize]| {
            sample.len() == wanted.len()
                && sample.iter().zip(wanted).all(|(&a, &b)| b.is_none_or(|b| a == b))
        };
        if fits(sample) {
            return Ok(());
        }
        let place = match &*self.content {
            Content::Images { images, .. } => {
                self.selection.first().map_or_else(String::new, |&it| images.place(it))
            }
            Content::Arrays(arrays) => arrays.place(at),
        };
        let text: Vec<_> = wanted
            .iter()
            .map(|it| it.map_or_else(|| "?".to_owned(), |it| it.to_string()))
            .collect();
        let help = match *sample.as_slice() {
            [a, b, c] if fits(&[b, c, a]) || fits(&[c, a, b]) => "change `layout`",
            _ => "set `resize`, `crop`, `channels` or `layout`",
        };
        let text = text.join(", ");
        Err(DataError::invalid(
            place,
            format!("samples of shape {sample:?}, the input `{name}` takes [{text}]; {help}"),
        ))
    }

    /// The samples with these numbers, as a data set of their own; numbers beyond the end are dropped.
    #[must_use]
    pub fn subset(&self, indices: &[usize]) -> Self {
        let selection = indices.iter().filter_map(|&it| self.selection.get(it).copied()).collect();
        Self { content: Arc::clone(&self.content), selection }
    }

    /// The samples without a share of them, and that share: as much of each class as of the whole where there are labels, else
    /// drawn from all; both keep their order.
    ///
    /// # Errors
    /// Labels that cannot be read; a share of which nothing is left on one side.
    pub fn hold_out(&self, share: f64, seed: u64) -> Result<(Self, Self)> {
        let (stay, held) = held_out(self.labels()?.as_deref(), self.len(), share, seed);
        if stay.is_empty() || held.is_empty() {
            let message =
                format!("a share of {share} of {} samples leaves one side empty", self.len());
            return Err(DataError::invalid("the data", message));
        }
        Ok((self.subset(&stay), self.subset(&held)))
    }

    /// All samples in order, `batch` at a time (at least one), the last batch perhaps fewer. Each batch is read when it is
    /// asked for; nothing of it is kept. After an error there are no more.
    pub fn batches(&self, batch: usize) -> impl Iterator<Item = Result<Batch>> + '_ {
        let batch = batch.max(1);
        let mut failed = false;
        (0..self.len()).step_by(batch).map_while(move |start| {
            if failed {
                return None;
            }
            let indices: Vec<_> = (start..self.len().min(start.saturating_add(batch))).collect();
            let result = self.read(&indices);
            failed = result.is_err();
            Some(result)
        })
    }

    /// Reads samples by their numbers, in any order.
    ///
    /// # Errors
    /// Where a number is not below [`DataSet::len`], or a sample cannot be read.
    pub fn read(&self, indices: &[usize]) -> Result<Batch> {
        self.read_changed(indices, None)
    }

    /// As [`DataSet::read`], each image changed at random on its pixels, before `divide`, `mean` and `std`.
    ///
    /// # Errors
    /// As [`DataSet::read`], and arrays, which are no images.
    pub fn read_augmented(&self, indices: &[usize], augment: &Augmentation) -> Result<Batch> {
        self.read_changed(indices, Some(augment))
    }

    fn read_changed(&self, indices: &[usize], augment: Option<&Augmentation>) -> Result<Batch> {
        let mut places = Vec::with_capacity(indices.len());
        for &index in indices {
            let Some(&place) = self.selection.get(index) else {
                let message = format!("sample {index} of {}", self.len());
                return Err(DataError::invalid("the data", message));
            };
            places.push(place);
        }
        let (inputs, labels, targets) = match &*self.content {
            Content::Images { images, preprocess, name, shape } => {
                let (values, labels) = {
                    let from = Reader { images: images.as_ref(), preprocess, shape: *shape };
                    from.read(&places, augment)?
                };
                let shape = [&[indices.len()], &shape[..]].concat();
                (vec![NamedArray { name: name.clone(), shape, values }], labels, None)
            }
            Content::Arrays(arrays) if augment.is_some() => {
                let message = "random crops and flips are for images, this split has format `npz`; leave them out";
                return Err(DataError::invalid(arrays.place(0), message));
            }
            Content::Arrays(arrays) => {
                let labels = arrays.labels().map(|all| places.iter().map(|&it| all[it]).collect());
                (arrays.read(&places)?, labels, arrays.targets(&places)?)
            }
        };
        Ok(Batch { indices: indices.to_vec(), inputs, labels, targets })
    }
}

impl fmt::Debug for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSet")
            .field("len", &self.len())
            .field("shapes", &self.shapes())
            .finish_non_exhaustive()
    }
}

/// Images with all that is done to them.
struct Reader<'a> {
    images: &'a dyn ImageSource,
    preprocess: &'a Preprocess,
    shape: [usize; 3],
}

impl Reader<'_> {
    /// Reads in order, decodes in parallel; of several faulty images the first is reported.
    fn read(
        &self,
        indices: &[usize],
        augment: Option<&Augmentation>,
    ) -> Result<(Values, Option<Vec<usize>>)> {
        let fetched = self.images.fetch(indices)?;
        let length = self.shape.iter().product::<usize>().max(1);
        let mut values = vec![0.0; if indices.is_empty() { 0 } else { indices.len() * length }];
        let rows = values.par_chunks_exact_mut(length).zip(indices.par_iter().zip(fetched));
        let labels: Vec<Result<Option<usize>>> =
            rows.map(|(out, (&index, bytes))| self.write(index, bytes, augment, out)).collect();
        let labels = labels.into_iter().collect::<Result<Vec<_>>>()?;
        let values = values_as(values, self.preprocess, self.images, indices)?;
        Ok((values, labels.into_iter().collect()))
    }

    /// Writes the values of one image and returns its label.
    fn write(
        &self,
        index: usize,
        bytes: Vec<u8>,
        augment: Option<&Augmentation>,
        out: &mut [f32],
    ) -> Result<Option<usize>> {
        let sample = self.images.decode(index, bytes)?;
        let invalid = |message| DataError::invalid(self.images.place(index), message);
        let arranged = self.preprocess.arrange(sample.image).map_err(invalid)?;
        let found = self.preprocess.shape(&arranged);
        if found != self.shape {
            let message = format!(
                "shape {found:?}, but the first sample has {:?}; add `resize` or `crop`",
                self.shape
            );
            return Err(invalid(message));
        }
        let image = match augment {
            Some(it) => it.apply(&arranged, index),
            None => arranged,
        };
        self.preprocess.write(&image, out);
        Ok(sample.label)
    }
}

fn values_as(
    values: Vec<f32>,
    pre: &Preprocess,
    images: &dyn ImageSource,
    indices: &[usize],
) -> Result<Values> {
    let dtype = pre.spec().dtype.unwrap_or(Dtype::F32);
    Values::F32(values).cast(dtype).ok_or_else(|| {
        let place = indices.first().map_or_else(String::new, |&it| images.place(it));
        DataError::invalid(
            place,
            format!("values that {} cannot hold; change `dtype`", dtype.name()),
        )
    })
}

/// Opens a split of a spec that has been checked.
pub(crate) fn open(
    source: &Source,
    base: &Path,
    inputs: &[(Option<String>, InputSpec)],
    split: &RawSplit,
) -> Result<DataSet> {
    let path = base.join(split.path.get_ref());
    let labels = split.labels.as_ref().map(|it| it.get_ref().as_str());
    let mut images: Box<dyn ImageSource> = match split.format.get_ref() {
        Format::Cifar => Box::new(Cifar::open(&path)?),
        Format::ImageFolder => {
            Box::new(Folder::open(&path, split.folder.as_ref().map_or("", |it| it.get_ref()))?)
        }
        Format::Idx => Box::new(Idx::open(&path, labels.map(|it| base.join(it)).as_deref())?),
        Format::Npz => {
            let arrays = split.arrays.as_ref().map(|it| it.get_ref().clone()).unwrap_or_default();
            let targets = split.targets.as_ref().map(|it| it.get_ref().as_str());
            let arrays = NpzSource::open(&path, inputs, &arrays, [labels, targets])?;
            let selection =
                select(source, split, arrays.len(), || Ok(arrays.labels().map(<[_]>::to_vec)))?;
            return Ok(DataSet { content: Arc::new(Content::Arrays(arrays)), selection });
        }
    };
    let selection = select(source, split, images.len(), || images.labels())?;
    images.keep(&selection)?;
    let input = inputs.first().cloned().unwrap_or_default();
    DataSet::of_images(images, input, selection)
}

/// The samples that `first` or `sample` choose of `len`.
fn select(
    source: &Source,
    split: &RawSplit,
    len: usize,
    labels: impl FnOnce() -> Result<Option<Vec<usize>>>,
) -> Result<Vec<usize>> {
    let path = split.path.get_ref();
    if len == 0 {
        return Err(source.error(
            format!("`{path}` holds no samples"),
            None,
            Some(split.path.span()),
        ));
    }
    let too_many = |key: &str, count: usize, span| {
        let message = format!("`{key}` takes {count} samples, and `{path}` holds {len}");
        source.error(message, Some(format!("take {len} at most")), Some(span))
    };
    if let Some(first) = &split.first {
        let count = *first.get_ref();
        return if count <= len {
            Ok((0..count).collect())
        } else {
            Err(too_many("first", count, first.span()))
        };
    }
    let Some(sample) = &split.sample else { return Ok((0..len).collect()) };
    let raw = *sample.get_ref();
    if raw.count > len {
        return Err(too_many("sample", raw.count, sample.span()));
    }
    let Some(labels) = labels()? else {
        let help = "add `labels`, or use `first`".to_owned();
        return Err(source.error(
            "a balanced sample needs labels",
            Some(help),
            Some(sample.span()),
        ));
    };
    Ok(balanced(&labels, raw.count, raw.seed))
}

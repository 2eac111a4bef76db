//! The only library that reads samples: a data spec names the files and the preprocessing, a [`DataSet`] gives batches.
//!
//! Invariant: memory is bounded by the batch, never by the set. What is held for a whole set is its index: names, places
//! and labels. One format needs more: a gzip stream cannot be entered in the middle, so the *encoded* JPEG and PNG files of
//! the samples chosen from a `.tar.gz` are held, about the size of the archive and at most
//! [`MAX_RESIDENT_BYTES`]; decoded pixels never are.
//!
//! It knows no graph, no kernel and no chip: what it hands out are plain vectors with shapes.
//!
//! ```no_run
//! # fn main() -> Result<(), sartor_data::DataError> {
//! let spec = sartor_data::DataSpec::load("cifar10.toml".as_ref())?;
//! let test = spec.open("test")?;
//! for batch in test.batches(64) {
//!     let batch = batch?;
//!     let input = &batch.inputs[0]; // shape [64, 3, 32, 32]
//!     assert_eq!(input.shape[0], batch.indices.len());
//! }
//! # Ok(()) }
//! ```
//!
//! # The data spec
//!
//! A TOML file; paths in it are relative to it, and a key that it does not know is refused.
//!
//! `[input]` describes the network's only input, `[inputs.NAME]` each of several. In the order in which they are applied:
//!
//! | key | meaning |
//! |---|---|
//! | `channels` | `"rgb"`, `"bgr"` or `"gray"`; without it `"rgb"`, and `"gray"` for IDX |
//! | `resize` | `[height, width]`, with `mode = "bilinear"` (default) or `"nearest"` and `fit = "stretch"` (default) or `"shorter-side"` |
//! | `crop` | centre crop to `[height, width]` |
//! | `divide`, `mean`, `std` | `(pixel / divide - mean) / std` in float32; `mean` and `std` per channel, or one for all |
//! | `layout` | `"nchw"` (default) or `"nhwc"` |
//! | `dtype` | `"float32"` (default for images), `"uint8"`, `"int32"`, `"int64"` |
//!
//! `[splits.NAME]` describes one set of samples; `calibration`, `train` and `test` are the names the commands ask for:
//!
//! | key | meaning |
//! |---|---|
//! | `format` | `"cifar"`, `"image-folder"`, `"idx"` or `"npz"` |
//! | `path` | the file; for `image-folder` a folder, `.tar`, `.tar.gz` or `.zip` |
//! | `folder` | `image-folder`: the folder inside `path` that holds the class folders |
//! | `labels` | `idx`: the file of labels; `npz`: the array of labels |
//! | `targets` | `npz`: the array of what a network shall answer, where that is no class |
//! | `arrays` | `npz`: `{ input = "array" }`, where an array is not named as the input it feeds |
//! | `first` | only the first so many samples |
//! | `sample` | `{ count, seed }`: a random sample, balanced over the classes |
//!
//! Arrays of an NPZ are already laid out as the network takes them: `layout` says where their channels are, `divide`,
//! `mean` and `std` apply, and the keys that only make sense for images are refused.

mod archive;
mod array;
mod augment;
mod cifar;
mod dataset;
mod error;
mod folder;
mod idx;
mod image_source;
mod npy;
mod npz;
mod npz_source;
mod preprocess;
mod rows;
mod sample;
mod spec;

pub use archive::MAX_RESIDENT_BYTES;
pub use array::{Dtype, NamedArray, Values};
pub use augment::Augmentation;
pub use cifar::CLASSES as CIFAR10_CLASSES;
pub use dataset::{Batch, DataSet};
pub use error::{DataError, Result, SpecError};
pub use npz::{read_npz, write_npz};
pub use preprocess::{Channels, Fit, InputSpec, Layout, Resize, ResizeMode};
pub use spec::DataSpec;

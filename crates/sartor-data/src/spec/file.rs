//! The spec as it stands in the file.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::Source;
use crate::{
    Result,
    preprocess::{Channels, Fit, Layout, ResizeMode},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpec {
    pub(super) input: Option<Spanned<RawInput>>,
    #[serde(default)]
    pub(super) inputs: BTreeMap<Spanned<String>, RawInput>,
    #[serde(default)]
    pub(super) splits: BTreeMap<Spanned<String>, RawSplit>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInput {
    pub(super) layout: Option<Layout>,
    pub(super) channels: Option<Spanned<Channels>>,
    pub(super) resize: Option<Spanned<[usize; 2]>>,
    pub(super) mode: Option<Spanned<ResizeMode>>,
    pub(super) fit: Option<Spanned<Fit>>,
    pub(super) crop: Option<Spanned<[usize; 2]>>,
    pub(super) divide: Option<Spanned<f64>>,
    pub(super) mean: Option<Spanned<Vec<f64>>>,
    pub(super) std: Option<Spanned<Vec<f64>>>,
    pub(super) dtype: Option<Spanned<RawDtype>>,
}

/// The element types that an input can be asked for in.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawDtype {
    Float32,
    Uint8,
    Int32,
    Int64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    Cifar,
    ImageFolder,
    Idx,
    Npz,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cifar => "cifar",
            Self::ImageFolder => "image-folder",
            Self::Idx => "idx",
            Self::Npz => "npz",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSplit {
    pub(crate) format: Spanned<Format>,
    pub(crate) path: Spanned<String>,
    pub(crate) folder: Option<Spanned<String>>,
    pub(crate) labels: Option<Spanned<String>>,
    pub(crate) targets: Option<Spanned<String>>,
    pub(crate) arrays: Option<Spanned<BTreeMap<String, String>>>,
    pub(crate) first: Option<Spanned<usize>>,
    pub(crate) sample: Option<Spanned<RawSample>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSample {
    pub(crate) count: usize,
    pub(crate) seed: u64,
}

/// Reads the text; what TOML or the keys refuse is shown where it stands.
pub(super) fn parse(source: &Source) -> Result<RawSpec> {
    toml::from_str(&source.text).map_err(|error| {
        let message = error.message().trim().replace('\n', ": ");
        source.error(message, None, error.span())
    })
}

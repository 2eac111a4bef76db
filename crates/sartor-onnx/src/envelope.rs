//! What a file holds around its graph.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::proto;

/// Everything of a file that is not the network itself: it goes from [`crate::import`] to
/// [`crate::export`], past whatever happens to the graph in between. Notes on a node or value are kept
/// by name and dropped with it. The default is the envelope of a model made from nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelope {
    /// Name of the program that wrote the file.
    pub producer_name: String,
    /// Its version.
    pub producer_version: String,
    /// Reverse domain name of the model's publisher.
    pub domain: String,
    /// Version of the model itself.
    pub model_version: i64,
    /// Free text on the model.
    pub doc: String,
    pub(crate) ir_version: i64,
    pub(crate) graph_metadata: Vec<proto::StringString>,
    pub(crate) functions: Vec<proto::Function>,
    pub(crate) training_info: Vec<Bytes>,
    pub(crate) configuration: Vec<Bytes>,
    pub(crate) annotations: Vec<proto::TensorAnnotation>,
    /// By the name of the node's first output.
    pub(crate) nodes: BTreeMap<String, NodeNote>,
    /// By name.
    pub(crate) values: BTreeMap<String, ValueNote>,
}

impl Envelope {
    /// Domain and name of each model-local function.
    pub fn functions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.functions.iter().map(|it| (it.domain.as_str(), it.name.as_str()))
    }
}

/// What a graph's node has no place for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeNote {
    pub(crate) overload: String,
    pub(crate) metadata: Vec<proto::StringString>,
    pub(crate) device_configurations: Vec<Bytes>,
}

/// What a graph's value has no place for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ValueNote {
    pub(crate) doc: String,
    pub(crate) metadata: Vec<proto::StringString>,
    /// The declared type, if it is not a plain tensor type.
    pub(crate) ty: Option<proto::Type>,
}

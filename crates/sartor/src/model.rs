//! Networks in files.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use sartor_compress::simplify;
use sartor_ir::{Dim, Graph, Tensor};
use sartor_onnx::{Diagnostic, Envelope, ExportOptions};

use crate::{
    Error,
    file::{self, Beside, write_atomically},
};

/// A network with what its file holds beside the graph.
#[derive(Clone, Debug)]
pub struct Model {
    /// The graph, as it was read.
    pub graph: Graph,
    /// What the file holds beside the graph.
    pub envelope: Envelope,
    /// What the reader remarked.
    pub diagnostics: Vec<Diagnostic>,
    /// Where it came from, in the user's words.
    pub path: PathBuf,
    /// Bytes on disk, external tensors not counted.
    pub bytes: u64,
}

impl Model {
    /// Reads an ONNX file; external tensors are looked for beside it.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Import`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = file::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::from_bytes(path, bytes, folder)
    }

    /// Reads an ONNX file from memory; `path` is what messages call it.
    ///
    /// # Errors
    /// [`Error::Import`].
    pub fn from_bytes(path: &Path, bytes: Bytes, folder: &Path) -> Result<Self, Error> {
        let length = bytes.len() as u64;
        let imported = sartor_onnx::import(bytes, &Beside(folder))
            .map_err(|source| Error::Import { path: path.to_owned(), source: Box::new(source) })?;
        Ok(Model {
            graph: imported.graph,
            envelope: imported.envelope,
            diagnostics: imported.diagnostics,
            path: path.to_owned(),
            bytes: length,
        })
    }

    /// The same file with another graph.
    #[must_use]
    pub fn with_graph(&self, graph: Graph) -> Self {
        Model { graph, ..self.clone() }
    }

    /// Writes the network to `path` (and, above 2 GB, its tensors beside it), and returns its size.
    ///
    /// # Errors
    /// [`Error::Export`], [`Error::Exists`] and [`Error::Write`].
    pub fn save(&self, path: &Path, force: bool) -> Result<u64, Error> {
        let stem = path
            .file_name()
            .map_or_else(|| "model".to_owned(), |it| it.to_string_lossy().into_owned());
        let options =
            ExportOptions { external_name: format!("{stem}.data"), ..ExportOptions::default() };
        let exported = sartor_onnx::export(&self.graph, &self.envelope, &options)
            .map_err(|source| Error::Export { path: path.to_owned(), source: Box::new(source) })?;
        if path.exists() && !force {
            return Err(Error::Exists(path.to_owned()));
        }
        let model = || write_atomically(path, force, |it| it.write_all(&exported.model));
        let total = exported.model.len() as u64;
        let Some(external) = &exported.external else { return model().map(|()| total) };
        let beside = path.with_file_name(&external.name);
        write_atomically(&beside, force, |it| {
            external.chunks.iter().try_for_each(|chunk| it.write_all(chunk))
        })?;
        // Tensors without their network are of no use.
        model().inspect_err(|_| drop(std::fs::remove_file(&beside)))?;
        Ok(total + external.chunks.iter().map(|it| it.len() as u64).sum::<u64>())
    }

    /// Bytes that [`Model::save`] would write.
    ///
    /// # Errors
    /// [`Error::Export`].
    pub fn encoded(&self) -> Result<Bytes, Error> {
        let exported =
            sartor_onnx::export(&self.graph, &self.envelope, &ExportOptions::default()).map_err(
                |source| Error::Export { path: self.path.clone(), source: Box::new(source) },
            )?;
        Ok(exported.model)
    }

    /// Whether every constant is a number: a network with a NaN in it says nothing about its data.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first tensor that holds a NaN and a node that reads it.
    pub fn check_numbers(&self) -> Result<(), Error> {
        for (id, value) in self.graph.values() {
            let Some(Ok(numbers)) = value.constant.as_ref().map(Tensor::to_f32) else { continue };
            let Some(at) = numbers.iter().position(|it| it.is_nan()) else { continue };
            let reader = self.graph.nodes().find(|(_, node)| node.reads().any(|it| it == id));
            let reader = reader.map_or_else(String::new, |it| format!(" of node `{}`", it.1.name));
            return Err(Error::Invalid(format!(
                "`{}`: tensor `{}`{reader} holds NaN at element {at}, expected numbers; the network was \
                 damaged before it came here, look at its training or export",
                self.path.display(),
                value.name
            )));
        }
        Ok(())
    }

    /// The graph with batch normalization, constants and no-ops folded: what runs.
    ///
    /// # Errors
    /// A pass that broke the graph.
    pub fn simplified(&self) -> Result<Graph, Error> {
        simplify(&self.graph).map_err(|it| Error::Invalid(it.to_string()))
    }

    /// The batch that the network is bound to, if its first input has a number there.
    pub fn fixed_batch(&self) -> Option<usize> {
        fixed_batch(&self.graph)
    }
}

/// The batch that a graph is bound to, if its first input has a number along axis 0.
pub(crate) fn fixed_batch(graph: &Graph) -> Option<usize> {
    let first = graph.inputs().first()?;
    graph.value(*first).ty.as_ref()?.shape.as_ref()?.first().and_then(Dim::known)
}

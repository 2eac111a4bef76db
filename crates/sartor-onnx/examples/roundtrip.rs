//! Reads an ONNX model and writes it again: `roundtrip IN OUT [EXTERNAL_ABOVE]`.

use std::{fs, io, path::PathBuf};

use bytes::Bytes;
use sartor_onnx::{ExportOptions, ExternalData, export, import};

struct Folder(PathBuf);

impl ExternalData for Folder {
    fn open(&self, location: &str) -> io::Result<Bytes> {
        fs::read(self.0.join(location)).map(Bytes::from)
    }
}

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "an example writes its file and prints what it found"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, rest @ ..] = arguments.as_slice() else {
        return Err("usage: roundtrip IN OUT [EXTERNAL_ABOVE]".into());
    };
    let (from, to) = (PathBuf::from(from), PathBuf::from(to));
    let folder = |path: &PathBuf| path.parent().map_or_else(PathBuf::new, PathBuf::from);
    let mut model = import(fs::read(&from)?, &Folder(folder(&from)))?;
    for diagnostic in &model.diagnostics {
        println!("{diagnostic}");
    }
    sartor_ir::infer(&mut model.graph)?;
    let values = model.graph.values().filter(|(_, it)| it.constant.is_none());
    let (known, all) = values.fold((0, 0), |(known, all), (_, it)| {
        (known + usize::from(it.ty.as_ref().is_some_and(|ty| ty.shape.is_some())), all + 1)
    });
    println!("{} nodes, {known} of {all} values have a known rank", model.graph.node_count());
    let external_above = rest.first().map(|it| it.parse()).transpose()?;
    let external_name = format!("{}.data", to.file_name().unwrap_or_default().to_string_lossy());
    let options = ExportOptions { external_above, external_name };
    let file = export(&model.graph, &model.envelope, &options)?;
    fs::write(&to, &file.model)?;
    if let Some(external) = file.external {
        fs::write(folder(&to).join(external.name), external.chunks.concat())?;
    }
    Ok(())
}

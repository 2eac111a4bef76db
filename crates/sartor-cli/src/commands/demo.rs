//! `sartor demo`: the whole way on embedded data.

use std::{io::Write, path::Path};

use bytes::Bytes;
use sartor::{Column, DataSpec, Error, Limits, Model, Precision, Session, Table, format};

use crate::{
    args::Demo,
    commands::compress::{check_folder, code, show},
    output::Output,
};

const NETWORK: &[u8] = include_bytes!("../../assets/digits.onnx");
const IMAGES: &[u8] = include_bytes!("../../assets/digits-images.idx3-ubyte");
const LABELS: &[u8] = include_bytes!("../../assets/digits-labels.idx1-ubyte");
const SPEC: &str = include_str!("../../assets/digits.toml");

pub(super) fn run(
    args: &Demo,
    session: &Session<'_>,
    output: &Output,
    force: bool,
) -> Result<u8, Error> {
    if let Some(folder) = &args.output {
        check_folder(folder, force)?;
    }
    output.say("1,797 handwritten digits (E. Alpaydin and C. Kaynak, UCI, CC BY 4.0) and a small network trained on them");
    let chip = session.chip(&args.chip)?;
    let model =
        Model::from_bytes(Path::new("digits.onnx"), Bytes::from_static(NETWORK), Path::new("."))?;
    let before = session.analyze(&model, &chip, 1, Precision::AsIs)?;
    output.say(&format!(
        "on {} it takes {} by estimate ({}), bound by {}",
        chip.name,
        sartor::format::seconds(before.latency_s),
        before.precision,
        before.bound
    ));
    let (_unpacked, spec) = data()?;
    let result = session.compress(&model, &chip, &spec, &Limits::default())?;
    show(&result, output)?;
    if !output.is_json() {
        output.say(&table(&result, output));
    }
    if let Some(folder) = &args.output {
        session.write(&result, folder, force)?;
        output.say(&format!(
            "wrote {}: model.onnx, recipe.toml, report.json, report.html",
            folder.display()
        ));
    }
    Ok(code(&result))
}

/// The images of each split, by position; the assets' ATTRIBUTION.md says how they were drawn.
const SPLITS: &[(&str, std::ops::Range<usize>)] =
    &[("train", 0..1197), ("calibration", 1197..1397), ("test", 1397..1797)];

/// Bytes of the header, and of one record, in the IDX files of images and of labels.
const IMAGE_FILE: (usize, usize) = (16, 64);
const LABEL_FILE: (usize, usize) = (8, 1);

/// The embedded images as files for as long as the run lasts: a data spec reads files.
fn data() -> Result<(tempfile::TempDir, DataSpec), Error> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    let folder = tempfile::tempdir().map_err(error(Path::new("a temporary folder")))?;
    for (name, range) in SPLITS {
        for (kind, bytes, layout) in
            [("images", IMAGES, IMAGE_FILE), ("labels", LABELS, LABEL_FILE)]
        {
            let path = folder.path().join(format!("{name}-{kind}.idx"));
            let part = records(bytes, layout, range.clone());
            std::fs::File::create(&path)
                .and_then(|mut it| it.write_all(&part))
                .map_err(error(&path))?;
        }
    }
    let spec = DataSpec::parse("digits.toml", SPEC, folder.path())?;
    Ok((folder, spec))
}

/// An IDX file of some records of another: the header's first extent, at byte 4, is their number.
fn records(file: &[u8], (header, size): (usize, usize), range: std::ops::Range<usize>) -> Vec<u8> {
    let mut part = file[..header].to_vec();
    let count = u32::try_from(range.len()).expect("fewer than 2^32 digits are embedded");
    part[4..8].copy_from_slice(&count.to_be_bytes());
    part.extend_from_slice(&file[header + range.start * size..header + range.end * size]);
    part
}

/// What to try next.
fn table(result: &sartor::Compressed, output: &Output) -> String {
    let mut table = Table::new([Column::text(""), Column::text("")]);
    let size = format!(
        "{} to {}",
        format::bytes(result.record.before.bytes),
        format::bytes(result.record.after.bytes)
    );
    table.row(["file".to_owned(), size]);
    table.row([
        "next".to_owned(),
        "sartor compress MODEL.onnx --chip ID --data SPEC.toml -o DIR".to_owned(),
    ]);
    output.render(&table)
}

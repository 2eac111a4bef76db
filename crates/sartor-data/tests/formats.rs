//! Every format end to end: written here, opened through a spec, compared with what was written.

use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

use image::{ImageFormat, Rgb, RgbImage};
use proptest::prelude::*;
use sartor_data::{
    DataError, DataSet, DataSpec, InputSpec, Layout, NamedArray, Values, read_npz, write_npz,
};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

#[expect(clippy::disallowed_methods, reason = "test files need no atomic writes")]
fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn open(folder: &TempDir, text: &str) -> Result<DataSet, DataError> {
    DataSpec::parse("data.toml", text, folder.path())?.open("test")
}

fn error(folder: &TempDir, text: &str) -> String {
    match open(folder, text).and_then(|it| it.batches(4).collect::<Result<Vec<_>, _>>()) {
        Ok(_) => panic!("no error for\n{text}"),
        Err(error) => error.to_string().replace(&folder.path().display().to_string(), "DIR"),
    }
}

fn picture(height: u32, width: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 40 + seed) as u8, (y * 50 + seed) as u8, (x * y + seed) as u8])
    })
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(seed: u32) -> Vec<u8> {
    encoded(&picture(3, 4, seed), ImageFormat::Png)
}

/// Two classes of three images each, as paths and bytes.
fn images() -> Vec<(String, Vec<u8>)> {
    let path = |class: &str, it: u32| format!("train/{class}/{it}.png");
    let of =
        |class: &'static str, from: u32| (0..3).map(move |it| (path(class, it), png(from + it)));
    of("zebra", 100).chain(of("ant", 0)).collect()
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, format!("./{path}"), &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(files: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in files {
        zip.start_file(path.as_str(), SimpleFileOptions::default().compression_method(method))
            .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn folder_spec(path: &str, more: &str) -> String {
    format!(
        "[input]\nlayout = \"nhwc\"\n[splits.test]\nformat = \"image-folder\"\npath = \"{path}\"\n{more}\n"
    )
}

/// All pixels of a data set in one vector, and its labels.
fn everything(data: &DataSet, batch: usize) -> (Vec<f32>, Vec<usize>) {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for batch in data.batches(batch) {
        let batch = batch.unwrap();
        pixels.extend(batch.inputs[0].values.as_f32().unwrap());
        labels.extend(batch.labels.unwrap());
    }
    (pixels, labels)
}

#[test]
fn a_folder_and_its_archives_are_one_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = images();
    for (path, bytes) in &files {
        put(&dir.path().join("disk").join(path), bytes);
    }
    files.push(("train/.hidden/x.txt".to_owned(), vec![1]));
    files.push(("train/ant/.DS_Store".to_owned(), vec![1]));
    files.push(("other/dog/x.txt".to_owned(), vec![1]));
    put(&dir.path().join("disk/train/ant/.DS_Store"), &[1]);
    put(&dir.path().join("a.tar"), &tar_of(&files));
    put(&dir.path().join("a.tar.gz"), &gzip(&tar_of(&files)));
    put(&dir.path().join("stored.zip"), &zip_of(&files, CompressionMethod::Stored));
    put(&dir.path().join("deflated.zip"), &zip_of(&files, CompressionMethod::Deflated));
    let pixels = |it: u32| picture(3, 4, it).into_raw().into_iter().map(f32::from);
    let expected: Vec<_> = [0, 1, 2, 100, 101, 102].into_iter().flat_map(pixels).collect();
    for path in ["disk", "a.tar", "a.tar.gz", "stored.zip", "deflated.zip"] {
        let data = open(&dir, &folder_spec(path, "folder = \"train\"")).unwrap();
        assert_eq!(data.classes().unwrap(), ["ant", "zebra"], "{path}");
        assert_eq!(data.shapes(), [(None, vec![3, 4, 3])]);
        assert_eq!(everything(&data, 4), (expected.clone(), vec![0, 0, 0, 1, 1, 1]), "{path}");
        let sampled =
            open(&dir, &folder_spec(path, "folder = \"train\"\nsample = { count = 4, seed = 1 }"));
        assert_eq!(everything(&sampled.unwrap(), 3).1, [0, 1, 0, 1], "{path}");
    }
}

#[test]
fn a_jpeg_is_read_close_to_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let smooth = RgbImage::from_fn(16, 16, |x, y| Rgb([(x * 8) as u8, (y * 8) as u8, 90]));
    put(&dir.path().join("set/a/0.JPG"), &encoded(&smooth, ImageFormat::Jpeg));
    let data = open(&dir, &folder_spec("set", "")).unwrap();
    let (pixels, labels) = everything(&data, 1);
    assert_eq!(labels, [0]);
    let apart = smooth.into_raw().into_iter().zip(pixels).map(|(a, b)| (f32::from(a) - b).abs());
    assert!(apart.fold(0.0, f32::max) < 24.0);
}

type Files<'a> = &'a [(&'a str, &'a [u8])];

/// Builds each wrong folder and compares the message.
#[test]
fn wrong_folders() {
    let jpeg = encoded(&picture(8, 8, 0), ImageFormat::Jpeg);
    let cases: [(Files, &str); 9] = [
        (
            &[],
            "DIR/set: no class folders, expected CLASS/IMAGE below it; is `path` or `folder` right?",
        ),
        (
            &[("x.png", &png(0))],
            "DIR/set/x.png: an image outside of any class folder, expected CLASS/IMAGE below the folder",
        ),
        (
            &[("a/x.png", &png(0)), ("b/.keep", &[])],
            "DIR/set/b: a class folder without images; remove it or fill it",
        ),
        (
            &[("train/a/x.png", &png(0))],
            "DIR/set/train/a: a folder within a class folder; set `folder` to the folder that holds the classes",
        ),
        (
            &[("a/x.gif", &[])],
            "DIR/set/a/x.gif: no JPEG or PNG (.jpg, .jpeg, .png), but in a class folder; convert or remove it",
        ),
        (&[("a/x.png", b"text")], "DIR/set/a/x.png: not a readable JPEG or PNG: "),
        (
            &[("a/0.png", &png(0)), ("a/x.png", &png(0)[..60])],
            "DIR/set/a/x.png: not a readable JPEG or PNG: ",
        ),
        (
            &[("a/x.jpg", &jpeg[..jpeg.len() - 20])],
            "DIR/set/a/x.jpg: a truncated JPEG; replace or remove it",
        ),
        (
            &[("a/x.png", &png(0)), ("b/y.png", &encoded(&picture(4, 4, 0), ImageFormat::Png))],
            "DIR/set/b/y.png: shape [4, 4, 3], but the first sample has [3, 4, 3]; add `resize` or `crop`",
        ),
    ];
    for (files, message) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("set")).unwrap();
        for (path, bytes) in files {
            put(&dir.path().join("set").join(path), bytes);
        }
        let found = error(&dir, &folder_spec("set", ""));
        assert!(found.starts_with(message), "{found}\nexpected\n{message}");
    }
}

#[test]
fn wrong_archives() {
    let dir = tempfile::tempdir().unwrap();
    let tar = tar_of(&images());
    put(&dir.path().join("a.tar"), &tar);
    put(&dir.path().join("cut.tar.gz"), &gzip(&tar)[..500]);
    put(&dir.path().join("a.zip"), b"no zip");
    put(&dir.path().join("a.7z"), b"7z");
    put(&dir.path().join("empty.tar"), b"");
    let cases = [
        ("missing", "", "cannot read `DIR/missing`: "),
        ("cut.tar.gz", "", "cannot read `DIR/cut.tar.gz`: "),
        ("a.zip", "", "cannot read `DIR/a.zip`: "),
        ("a.7z", "", "DIR/a.7z: neither a folder nor a .tar, .tar.gz or .zip archive"),
        ("a.tar", "folder = \"tset\"", "DIR/a.tar/tset: no class folders"),
        ("empty.tar", "", "DIR/empty.tar: no class folders"),
        (
            "a.tar",
            "folder = \"train\"\nfirst = 7",
            "data.toml: `first` takes 7 samples, and `a.tar` holds 6",
        ),
        (
            "a.tar",
            "folder = \"train\"\nsample = { count = 9, seed = 1 }",
            "data.toml: `sample` takes 9 samples, and `a.tar` holds 6",
        ),
    ];
    for (path, more, message) in cases {
        let found = error(&dir, &folder_spec(path, more));
        assert!(found.starts_with(message), "{found}\nexpected\n{message}");
    }
}

#[test]
fn a_flipped_bit_in_a_zip_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = zip_of(&images(), CompressionMethod::Stored);
    bytes[80] ^= 1;
    put(&dir.path().join("a.zip"), &bytes);
    let found = error(&dir, &folder_spec("a.zip", "folder = \"train\""));
    assert!(found.contains("zebra/0.png`: Invalid checksum"), "{found}");
}

fn cifar(records: usize) -> Vec<u8> {
    (0..records)
        .flat_map(|r| {
            std::iter::once((r % 10) as u8).chain((0..3072).map(move |at| (at / 16 + r) as u8))
        })
        .collect()
}

const CIFAR: &str =
    "[input]\nlayout = \"nchw\"\n[splits.test]\nformat = \"cifar\"\npath = \"c.bin\"\n";

#[test]
fn cifar_planes_stay_planes() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = cifar(12);
    put(&dir.path().join("c.bin"), &bytes);
    let data = open(&dir, &format!("{CIFAR}first = 11")).unwrap();
    let (pixels, labels) = everything(&data, 5);
    assert_eq!(labels, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
    let expected: Vec<_> = bytes
        .chunks(3073)
        .take(11)
        .flat_map(|it| it[1..].iter().map(|&it| f32::from(it)))
        .collect();
    assert_eq!(pixels, expected);
    assert_eq!(data.labels().unwrap().unwrap(), labels);

    let cut = bytes.len() - 1;
    for (bytes, message) in [
        (&bytes[..cut], "DIR/c.bin: 36875 bytes, expected a multiple of 3073"),
        (&[], "DIR/c.bin: 0 bytes, expected a multiple of 3073"),
        (
            &[&bytes[..3073], &[10; 3073]].concat(),
            "record 1 of `DIR/c.bin`: label 10, expected 0 to 9",
        ),
    ] {
        put(&dir.path().join("c.bin"), bytes);
        let found = error(&dir, CIFAR);
        assert!(found.starts_with(message), "{found}");
    }
}

fn idx(axes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let axes_bytes = axes.iter().flat_map(|it| it.to_be_bytes());
    [0, 0, 8, axes.len() as u8].into_iter().chain(axes_bytes).chain(bytes.iter().copied()).collect()
}

#[test]
fn idx_plain_and_gzip() {
    let dir = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..5 * 6).collect();
    let (images, labels) = (idx(&[5, 2, 3], &pixels), idx(&[5], &[3, 1, 4, 1, 5]));
    put(&dir.path().join("i"), &images);
    put(&dir.path().join("l"), &labels);
    put(&dir.path().join("i.gz"), &gzip(&images));
    put(&dir.path().join("l.gz"), &gzip(&labels));
    put(&dir.path().join("four"), &idx(&[4], &[0; 4]));
    put(&dir.path().join("cut"), &images[..20]);
    put(&dir.path().join("cut.gz"), &gzip(&images[..20]));
    let spec = |images: &str, labels: &str| {
        format!("[input]\n[splits.test]\nformat = \"idx\"\npath = \"{images}\"\n{labels}\n")
    };
    for suffix in ["", ".gz"] {
        let data =
            open(&dir, &spec(&format!("i{suffix}"), &format!("labels = \"l{suffix}\""))).unwrap();
        assert_eq!(data.shapes(), [(None, vec![1, 2, 3])]);
        let (found, labels) = everything(&data, 2);
        assert_eq!(labels, [3, 1, 4, 1, 5]);
        assert_eq!(found, pixels.iter().map(|&it| f32::from(it)).collect::<Vec<_>>());
        assert_eq!(
            data.read(&[4, 0]).unwrap().inputs[0].values.as_f32().unwrap()[..7],
            [24.0, 25.0, 26.0, 27.0, 28.0, 29.0, 0.0]
        );
    }
    let cases = [
        (
            spec("l", ""),
            "DIR/l: begins with [00, 00, 08, 01], expected [00, 00, 08, 03] (IDX, unsigned bytes, 3 axes)",
        ),
        (spec("i", "labels = \"four\""), "DIR/four: 4 labels for the 5 images of `DIR/i`"),
        (
            spec("cut", ""),
            "DIR/cut: 20 bytes, but its header promises 5 images of 2 x 3; the file is damaged",
        ),
        (spec("cut.gz", ""), "DIR/cut.gz: ends within record 0; the file is truncated"),
        (
            spec("i", "sample = { count = 2, seed = 0 }"),
            "data.toml: a balanced sample needs labels",
        ),
    ];
    for (text, message) in cases {
        let found = error(&dir, &text);
        assert!(found.starts_with(message), "{found}\nexpected\n{message}");
    }
}

fn array(name: &str, shape: &[usize], values: Values) -> NamedArray {
    NamedArray { name: Some(name.to_owned()), shape: shape.to_vec(), values }
}

fn arrays() -> Vec<NamedArray> {
    let pixels: Vec<u8> = (0..24).collect();
    vec![
        array("ids", &[4, 3], Values::I64((0..12).collect())),
        array("x", &[4, 2, 3], Values::U8(pixels)),
        array("y", &[4], Values::I32(vec![1, 0, 1, 0])),
        array("scalar", &[], Values::F64(vec![2.5])),
    ]
}

/// Packs an NPZ again with deflate, as `savez_compressed` does.
fn deflated(npz: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipArchive::new(Cursor::new(npz)).unwrap();
    let files: Vec<_> = (0..zip.len())
        .map(|it| {
            let mut entry = zip.by_index(it).unwrap();
            let mut bytes = Vec::new();
            std::io::copy(&mut entry, &mut bytes).unwrap();
            (entry.name().unwrap().into_owned(), bytes)
        })
        .collect();
    zip_of(&files, CompressionMethod::Deflated)
}

#[test]
fn npz_arrays_round_trip_and_stream() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Cursor::new(Vec::new());
    write_npz(&mut bytes, &arrays()).unwrap();
    put(&dir.path().join("stored.npz"), bytes.get_ref());
    put(&dir.path().join("deflated.npz"), &deflated(bytes.get_ref()));
    for path in ["stored.npz", "deflated.npz"] {
        assert_eq!(read_npz(&dir.path().join(path)).unwrap(), arrays());
        let text = format!(
            "[inputs.ids]\n[inputs.image]\ndivide = 2\nmean = [1, 2]\n[splits.test]\nformat = \"npz\"\npath = \"{path}\"\n\
             labels = \"y\"\narrays = {{ image = \"x\" }}\n"
        );
        let data = open(&dir, &text).unwrap();
        assert_eq!(
            data.shapes(),
            [(Some("ids".to_owned()), vec![3]), (Some("image".to_owned()), vec![2, 3])]
        );
        let batches: Vec<_> = data.batches(3).map(Result::unwrap).collect();
        assert_eq!(batches[1].indices, [3]);
        assert_eq!(batches[1].labels, Some(vec![0]));
        assert_eq!(batches[1].inputs[0], array("ids", &[1, 3], Values::I64(vec![9, 10, 11])));
        let normalised = vec![8.0, 8.5, 9.0, 8.5, 9.0, 9.5];
        assert_eq!(batches[1].inputs[1], array("image", &[1, 2, 3], Values::F32(normalised)));
        let back = data.read(&[2, 0]).unwrap();
        assert_eq!(back.inputs[0].values, Values::I64(vec![6, 7, 8, 0, 1, 2]));
    }
}

#[test]
fn an_npz_may_hold_what_a_network_shall_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Cursor::new(Vec::new());
    write_npz(&mut bytes, &arrays()).unwrap();
    put(&dir.path().join("a.npz"), bytes.get_ref());
    let spec = |split: &str| {
        format!(
            "[splits.test]\nformat = \"npz\"\npath = \"a.npz\"\narrays = {{ ids = \"ids\" }}\n{split}"
        )
    };
    let targets = |split: &str| open(&dir, &spec(split)).unwrap().read(&[3, 1]).unwrap().targets;
    assert_eq!(targets(""), None);
    let rows = targets("targets = \"x\"").unwrap();
    assert_eq!((&rows.shape[..], rows.values.len()), (&[2, 2, 3][..], 12));
    // A network that gives its input back.
    let same = targets("targets = \"ids\"").unwrap();
    assert_eq!(same.values, Values::I64(vec![9, 10, 11, 3, 4, 5]));
    let error = open(&dir, &spec("targets = \"scalar\"")).unwrap_err().to_string();
    assert!(error.contains("`scalar`") && error.contains("one number"), "{error}");
}

#[test]
fn wrong_npz() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Cursor::new(Vec::new());
    write_npz(&mut bytes, &arrays()).unwrap();
    put(&dir.path().join("a.npz"), bytes.get_ref());
    put(&dir.path().join("text.npz"), b"text");
    let npy = (
        "x.npy".to_owned(),
        b"\x93NUMPY\x01\x00\x3e\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 999,), }"
            .to_vec(),
    );
    put(&dir.path().join("lying.npz"), &zip_of(&[npy], CompressionMethod::Stored));
    let spec = |input: &str, path: &str, more: &str| {
        format!("{input}\n[splits.test]\nformat = \"npz\"\npath = \"{path}\"\n{more}\n")
    };
    let cases = [
        (spec("", "text.npz", ""), "`DIR/text.npz`: not an NPZ archive"),
        (
            spec("", "lying.npz", ""),
            "array `x` of `DIR/lying.npz`: 72 bytes, which are not the float32 [1, 999] of its header",
        ),
        (spec("", "a.npz", ""), "DIR/a.npz: 4 arrays (`ids`, `x`, `y`, `scalar`) for one input"),
        (
            spec("", "a.npz", "labels = \"z\""),
            "DIR/a.npz: no array `z`; there are `ids`, `x`, `y`, `scalar`",
        ),
        (
            spec("", "a.npz", "labels = \"x\""),
            "array `x` of `DIR/a.npz`: labels of shape [4, 2, 3], expected one axis",
        ),
        (
            spec("", "a.npz", "arrays = { a = \"scalar\" }"),
            "array `scalar` of `DIR/a.npz`: one number, expected a row a sample",
        ),
        (
            spec("", "a.npz", "arrays = { a = \"x\", b = \"y\" }"),
            "DIR/a.npz: `arrays` names several inputs",
        ),
        (
            spec("[inputs.ids]", "a.npz", "arrays = { a = \"x\" }"),
            "DIR/a.npz: `arrays` feeds `a`, which `[inputs]` does not describe",
        ),
        (
            spec("[inputs.ids]\nmean = [1, 2]", "a.npz", ""),
            "array `ids` of `DIR/a.npz`: `mean` has 2 values for 3 channels",
        ),
        (spec("[inputs.y]\ndtype = \"uint8\"\n[inputs.z]", "a.npz", ""), "DIR/a.npz: no array `z`"),
    ];
    for (text, message) in cases {
        let found = error(&dir, &text);
        assert!(found.starts_with(message), "{found}\nexpected\n{message}");
    }
    let wrong = [array("x", &[3], Values::U8(vec![1]))];
    let found = write_npz(Cursor::new(Vec::new()), &wrong).unwrap_err().to_string();
    assert_eq!(found, "array `x`: shape [3] for 1 values");
}

#[test]
fn a_shape_that_does_not_fit_the_network_is_named() {
    let data = DataSet::from_memory(vec![0; 24], [2, 4, 3], None, InputSpec::default()).unwrap();
    let free = [None, Some(3), Some(2), Some(4)];
    data.check_input("x", &free).unwrap();
    let swapped = data.check_input("x", &[Some(1), Some(2), Some(4), Some(3)]).unwrap_err();
    assert_eq!(
        swapped.to_string(),
        "image 0 in memory: samples of shape [3, 2, 4], the input `x` takes [2, 4, 3]; change `layout`"
    );
    let larger = data.check_input("x", &[None, Some(3), Some(224), None]).unwrap_err().to_string();
    assert!(
        larger.ends_with("takes [3, 224, ?]; set `resize`, `crop`, `channels` or `layout`"),
        "{larger}"
    );
}

#[test]
fn wrong_images_in_memory() {
    let cases = [
        (
            vec![0; 7],
            [2, 2, 1],
            None,
            "images in memory: 7 bytes are no whole number of images of 4",
        ),
        (
            vec![0; 8],
            [2, 2, 2],
            None,
            "images in memory: size is 2 x 2 x 2, expected pixels of 1 or 3 channels",
        ),
        (vec![0; 8], [2, 2, 1], Some(vec![0]), "images in memory: 1 labels for 2 images"),
    ];
    for (pixels, size, labels, message) in cases {
        let found = DataSet::from_memory(pixels, size, labels, InputSpec::default()).unwrap_err();
        assert_eq!(found.to_string(), message);
    }
}

fn shared() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a test is told where the shared data are")]
    let folder = std::env::var("SARTOR_SHARED").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    folder.join("data").is_dir().then(|| folder.join("data"))
}

fn histogram(labels: &[usize]) -> Vec<usize> {
    let mut counts = vec![0; 10];
    for &label in labels {
        counts[label] += 1;
    }
    counts
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn shared_cifar() {
    let Some(folder) = shared() else {
        eprintln!("skipped: no shared data");
        return;
    };
    let exact = DataSpec::load(&folder.join("cifar10-exact.toml")).unwrap();
    assert_eq!(exact.splits().collect::<Vec<_>>(), ["calibration", "train", "test"]);
    let train = exact.open("train").unwrap();
    let labels = train.labels().unwrap().unwrap();
    assert_eq!(labels.len(), 8068);
    assert_eq!(histogram(&labels).iter().sum::<usize>(), 8068);
    assert!(
        histogram(&labels).iter().all(|it| (700..=900).contains(it)),
        "{:?}",
        histogram(&labels)
    );
    let calibration = exact.open("calibration").unwrap();
    assert_eq!(calibration.labels().unwrap().unwrap(), labels[..512]);
    assert_eq!(calibration.read(&[511]).unwrap().inputs, train.read(&[511]).unwrap().inputs);
    assert_eq!(exact.open("test").unwrap().len(), 1017);

    let jpeg = DataSpec::load(&folder.join("cifar10-jpeg.toml")).unwrap();
    let calibration = jpeg.open("calibration").unwrap();
    let labels = calibration.labels().unwrap().unwrap();
    assert_eq!(histogram(&labels), [52, 52, 51, 51, 51, 51, 51, 51, 51, 51]);
    assert_eq!(calibration.classes().unwrap(), sartor_data::CIFAR10_CLASSES);
    assert_eq!(calibration.read(&[0, 511]).unwrap().inputs[0].shape, [2, 3, 32, 32]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn batches_of_any_size_concatenate_to_the_same(
        count in 0_usize..20,
        batch in 0_usize..25,
        channels in prop::sample::select(vec![1_usize, 3]),
        layout in prop::sample::select(vec![Layout::Nchw, Layout::Nhwc]),
    ) {
        let pixels: Vec<u8> = (0..count * 6 * channels).map(|it| (it * 31 % 251) as u8).collect();
        let labels: Vec<_> = (0..count).collect();
        let input = InputSpec { layout, divide: Some(16.0), ..InputSpec::default() };
        let data = DataSet::from_memory(pixels, [2, 3, channels], Some(labels.clone()), input).unwrap();
        let (found, found_labels) = everything(&data, batch);
        prop_assert_eq!(&found_labels, &labels);
        let whole = data.read(&labels).unwrap();
        prop_assert_eq!(whole.inputs[0].values.as_f32().unwrap(), &found[..]);
        prop_assert_eq!(found.len(), count * 6 * channels);
    }
}

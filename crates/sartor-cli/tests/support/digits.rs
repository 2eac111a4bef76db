//! The embedded digits as files: an ONNX network and a data spec.

use crate::workbench::Workbench;

pub(crate) const NETWORK: &[u8] = include_bytes!("../../assets/digits.onnx");
const IMAGES: &[u8] = include_bytes!("../../assets/digits-images.idx3-ubyte");
const LABELS: &[u8] = include_bytes!("../../assets/digits-labels.idx1-ubyte");
/// The spec that names the files of [`unpack`].
pub(crate) const SPEC: &str = include_str!("../../assets/digits.toml");

/// The first and last image of each split, as the assets' ATTRIBUTION.md says.
const SPLITS: [(&str, usize, usize); 3] =
    [("train", 0, 1197), ("calibration", 1197, 1397), ("test", 1397, 1797)];

/// Writes `digits.toml` and the six files that it names.
pub(crate) fn unpack(bench: &Workbench) {
    bench.write("digits.toml", SPEC);
    for (name, from, to) in SPLITS {
        bench.write(
            &format!("{name}-images.idx"),
            idx(&[to - from, 8, 8], &IMAGES[16 + 64 * from..16 + 64 * to]),
        );
        bench.write(&format!("{name}-labels.idx"), idx(&[to - from], &LABELS[8 + from..8 + to]));
    }
}

/// An IDX file of bytes (<http://yann.lecun.com/exdb/mnist/>, "the IDX file format").
pub(crate) fn idx(shape: &[usize], values: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, u8::try_from(shape.len()).unwrap()];
    file.extend(shape.iter().flat_map(|&it| u32::try_from(it).unwrap().to_be_bytes()));
    file.extend_from_slice(values);
    file
}

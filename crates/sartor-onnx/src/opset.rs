//! Versions of ONNX's operators (<https://github.com/onnx/onnx/blob/main/docs/Changelog.md>).

/// Oldest and newest opset that can be read and written.
pub(crate) const OLDEST: i64 = 7;
/// See [`OLDEST`].
pub(crate) const NEWEST: i64 = 24;

/// Name, first opset (0 where it is 7 or older), and the opsets that changed the meaning of a form that
/// was valid before. Changes that only allow more (element types, optional attributes) are left out.
type Row = (&'static str, i64, &'static [i64]);

const CHANGED: &[Row] = &[
    ("BatchNormalization", 0, &[9, 14]),
    ("Clip", 0, &[11]),
    ("DFT", 17, &[20]),
    ("Dropout", 0, &[10, 12]),
    ("GridSample", 16, &[20]),
    ("GroupNormalization", 18, &[21]),
    ("Hardmax", 0, &[13]),
    ("LogSoftmax", 0, &[13]),
    ("OneHot", 9, &[11]),
    ("Pad", 0, &[11]),
    ("ReduceL1", 0, &[18]),
    ("ReduceL2", 0, &[18]),
    ("ReduceLogSum", 0, &[18]),
    ("ReduceLogSumExp", 0, &[18]),
    ("ReduceMax", 0, &[18]),
    ("ReduceMean", 0, &[18]),
    ("ReduceMin", 0, &[18]),
    ("ReduceProd", 0, &[18]),
    ("ReduceSum", 0, &[13]),
    ("ReduceSumSquare", 0, &[18]),
    ("Resize", 10, &[11, 13, 18, 19]),
    ("RoiAlign", 10, &[16]),
    ("Scan", 8, &[9]),
    ("Scatter", 9, &[11]),
    ("Slice", 0, &[10]),
    ("Softmax", 0, &[13]),
    ("Split", 0, &[13, 18]),
    ("Squeeze", 0, &[13]),
    ("TopK", 0, &[10]),
    ("Unsqueeze", 0, &[13]),
    ("Upsample", 0, &[9, 10]),
];

/// Operators whose old forms all stay valid, with their first opset.
const UNCHANGED: &[(i64, &[&str])] = &[
    (
        0,
        &[
            "Abs",
            "Acos",
            "Add",
            "And",
            "ArgMax",
            "ArgMin",
            "Asin",
            "Atan",
            "AveragePool",
            "Cast",
            "Ceil",
            "Concat",
            "Constant",
            "Conv",
            "ConvTranspose",
            "Cos",
            "DepthToSpace",
            "Div",
            "Elu",
            "Equal",
            "Exp",
            "Flatten",
            "Floor",
            "GRU",
            "Gather",
            "Gemm",
            "GlobalAveragePool",
            "GlobalLpPool",
            "GlobalMaxPool",
            "Greater",
            "HardSigmoid",
            "Identity",
            "If",
            "InstanceNormalization",
            "LRN",
            "LSTM",
            "LeakyRelu",
            "Less",
            "Log",
            "Loop",
            "LpNormalization",
            "LpPool",
            "MatMul",
            "Max",
            "MaxPool",
            "MaxRoiPool",
            "Mean",
            "Min",
            "Mul",
            "Multinomial",
            "Neg",
            "Not",
            "Or",
            "PRelu",
            "Pow",
            "RNN",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Reciprocal",
            "Relu",
            "Reshape",
            "Selu",
            "Shape",
            "Sigmoid",
            "Sin",
            "Size",
            "Softplus",
            "Softsign",
            "SpaceToDepth",
            "Sqrt",
            "Sub",
            "Sum",
            "Tan",
            "Tanh",
            "Tile",
            "Transpose",
            "Xor",
        ],
    ),
    (8, &["Expand"]),
    (
        9,
        &[
            "Acosh",
            "Asinh",
            "Atanh",
            "Compress",
            "ConstantOfShape",
            "Cosh",
            "Erf",
            "EyeLike",
            "IsNaN",
            "MaxUnpool",
            "MeanVarianceNormalization",
            "NonZero",
            "Shrink",
            "Sign",
            "Sinh",
            "TfIdfVectorizer",
            "Where",
        ],
    ),
    (
        10,
        &[
            "ConvInteger",
            "DequantizeLinear",
            "IsInf",
            "MatMulInteger",
            "Mod",
            "NonMaxSuppression",
            "QLinearConv",
            "QLinearMatMul",
            "QuantizeLinear",
            "ReverseSequence",
            "StringNormalizer",
            "ThresholdedRelu",
        ],
    ),
    (
        11,
        &[
            "BitShift",
            "ConcatFromSequence",
            "CumSum",
            "Det",
            "DynamicQuantizeLinear",
            "GatherElements",
            "GatherND",
            "Range",
            "Round",
            "ScatterElements",
            "ScatterND",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SplitToSequence",
            "Unique",
        ],
    ),
    (
        12,
        &[
            "Celu",
            "Einsum",
            "GreaterOrEqual",
            "LessOrEqual",
            "NegativeLogLikelihoodLoss",
            "SoftmaxCrossEntropyLoss",
        ],
    ),
    (14, &["HardSwish", "Trilu"]),
    (15, &["Bernoulli", "CastLike", "Optional", "OptionalGetElement", "OptionalHasElement"]),
    (
        17,
        &[
            "BlackmanWindow",
            "HammingWindow",
            "HannWindow",
            "LayerNormalization",
            "MelWeightMatrix",
            "STFT",
        ],
    ),
    (17, &["SequenceMap"]),
    (
        18,
        &["BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "Mish"],
    ),
    (19, &["DeformConv"]),
    (20, &["AffineGrid", "Gelu", "ImageDecoder", "RegexFullMatch", "StringConcat", "StringSplit"]),
    (23, &["Attention", "RMSNormalization", "RotaryEmbedding"]),
    (24, &["Swish", "TensorScatter"]),
];

/// The first opset (0: seven or older) of an operator and the opsets that changed its meaning.
fn row(name: &str) -> Option<(i64, &'static [i64])> {
    if let Some(row) = CHANGED.iter().find(|row| row.0 == name) {
        return Some((row.1, row.2));
    }
    UNCHANGED.iter().find(|row| row.1.contains(&name)).map(|row| (row.0, &[] as &[i64]))
}

/// The first opset that has an operator of ONNX's own domain; 0 where nothing is known of it.
pub(crate) fn since(name: &str) -> i64 {
    row(name).map_or(0, |it| it.0)
}

/// Whether a node in its form of opset `from` means the same in opset `to`, which is not older.
pub(crate) fn means_the_same(name: &str, from: i64, to: i64) -> bool {
    from == to || row(name).is_some_and(|it| !it.1.iter().any(|&at| from < at && at <= to))
}

/// The IR version that came with an opset
/// (<https://github.com/onnx/onnx/blob/main/docs/Versioning.md>, released versions). Version 4 is the
/// first in which an initializer need not be an input as well.
pub(crate) fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        _ => 12,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising() {
        for (name, from, to, expected) in [
            ("LSTM", 7, 13, true),
            ("Resize", 11, 12, true),
            ("Resize", 11, 13, false),
            ("Resize", 10, 11, false),
            ("If", 11, 21, true),
            ("Softmax", 12, 13, false),
            ("Softmax", 13, 22, true),
            ("NobodyKnows", 13, 14, false),
            ("NobodyKnows", 13, 13, true),
        ] {
            assert_eq!(means_the_same(name, from, to), expected, "{name} from {from} to {to}");
        }
        assert_eq!((since("Gelu"), since("Where"), since("Conv")), (20, 9, 0));
    }

    #[test]
    fn every_operator_is_listed_once() {
        let mut names: Vec<_> = UNCHANGED.iter().flat_map(|row| row.1).copied().collect();
        names.extend(CHANGED.iter().map(|row| row.0));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

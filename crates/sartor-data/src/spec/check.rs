//! What TOML cannot express: which keys go together and which values make sense.

use toml::Spanned;

use super::{
    Source,
    file::{Format, RawDtype, RawInput, RawSpec, RawSplit},
};
use crate::{DataError, Dtype, InputSpec, Resize, Result, preprocess::Channels};

type Inputs = Vec<(Option<String>, InputSpec)>;
type Splits = Vec<(String, RawSplit)>;

pub(super) fn check(source: &Source, raw: RawSpec) -> Result<(Inputs, Splits)> {
    let mut splits: Vec<_> = raw.splits.into_iter().collect();
    splits.sort_by_key(|(name, _)| name.span().start);
    if splits.is_empty() {
        let help = "add `[splits.test]` with `format` and `path`".to_owned();
        return Err(source.error("the spec has no splits", Some(help), None));
    }
    let mut raw_inputs: Vec<_> = raw.inputs.into_iter().collect();
    raw_inputs.sort_by_key(|(name, _)| name.span().start);
    if let (Some(input), false) = (&raw.input, raw_inputs.is_empty()) {
        let help =
            "keep `[input]` where there is one input, `[inputs.NAME]` where there are several"
                .to_owned();
        return Err(source.error(
            "both `[input]` and `[inputs]` are given",
            Some(help),
            Some(input.span()),
        ));
    }
    let named = raw_inputs.into_iter().map(|(name, input)| (Some(name.into_inner()), input));
    let raw_inputs: Vec<_> =
        raw.input.map(|it| (None, it.into_inner())).into_iter().chain(named).collect();
    for (_, split) in &splits {
        check_split(source, split)?;
        check_inputs_of_split(source, &raw_inputs, split)?;
    }
    let mut inputs = Vec::new();
    for (name, input) in raw_inputs {
        inputs.push((name, check_input(source, &input)?));
    }
    if inputs.is_empty() {
        inputs.push((None, InputSpec::default()));
    }
    let splits = splits.into_iter().map(|(name, split)| (name.into_inner(), split)).collect();
    Ok((inputs, splits))
}

/// Keys of a split that its format does not know, counts of nothing.
fn check_split(source: &Source, split: &RawSplit) -> Result<()> {
    let format = *split.format.get_ref();
    let keys = [
        ("folder", split.folder.as_ref().map(Spanned::span), format == Format::ImageFolder),
        (
            "labels",
            split.labels.as_ref().map(Spanned::span),
            matches!(format, Format::Idx | Format::Npz),
        ),
        ("targets", split.targets.as_ref().map(Spanned::span), format == Format::Npz),
        ("arrays", split.arrays.as_ref().map(Spanned::span), format == Format::Npz),
    ];
    for (key, span, known) in keys {
        if span.is_some() && !known {
            return Err(source.error(
                format!("`{key}` has no meaning for format `{}`", format.name()),
                None,
                span,
            ));
        }
    }
    if let (Some(_), Some(sample)) = (&split.first, &split.sample) {
        let help = "`first` takes samples in order, `sample` draws them: keep one".to_owned();
        return Err(source.error(
            "both `first` and `sample` are given",
            Some(help),
            Some(sample.span()),
        ));
    }
    let counts = [
        split.first.as_ref().map(|it| ("first", *it.get_ref(), it.span())),
        split.sample.as_ref().map(|it| ("sample", it.get_ref().count, it.span())),
    ];
    for (key, count, span) in counts.into_iter().flatten() {
        if count == 0 {
            return Err(source.error(
                format!("`{key}` takes 0 samples, expected at least 1"),
                None,
                Some(span),
            ));
        }
    }
    Ok(())
}

/// Whether the inputs can be fed from the split's format.
fn check_inputs_of_split(
    source: &Source,
    inputs: &[(Option<String>, RawInput)],
    split: &RawSplit,
) -> Result<()> {
    let format = *split.format.get_ref();
    let native = match format {
        Format::Cifar | Format::ImageFolder => Channels::Rgb,
        Format::Idx => Channels::Gray,
        Format::Npz => {
            let keys = inputs.iter().find_map(|(_, input)| input.image_only());
            return match keys {
                Some((key, span)) => {
                    let message = format!("`{key}` is for images, and a split has format `npz`");
                    Err(source.error(
                        message,
                        Some("store the arrays as the network takes them".to_owned()),
                        Some(span),
                    ))
                }
                None => Ok(()),
            };
        }
    };
    let [(_, input)] = inputs else {
        let message = format!(
            "format `{}` feeds one input, and the spec describes {}",
            format.name(),
            inputs.len()
        );
        let help = match inputs.len() {
            0 => {
                "add `[input]` with `layout`, and `divide`, `mean` and `std` as the network was trained"
            }
            _ => "keep one, or use format `npz`",
        };
        return Err(source.error(message, Some(help.to_owned()), Some(split.format.span())));
    };
    let channels = input.channels.as_ref().map_or(native, |it| *it.get_ref()).count();
    for (key, values) in [("mean", &input.mean), ("std", &input.std)] {
        if let Some(values) = values
            && ![1, channels].contains(&values.get_ref().len())
        {
            let found = values.get_ref().len();
            let message = format!(
                "`{key}` has {found} values, and format `{}` gives {channels} channels",
                format.name()
            );
            let help = format!("give {channels} or one, or set `channels`");
            return Err(source.error(message, Some(help), Some(values.span())));
        }
    }
    Ok(())
}

impl RawInput {
    /// A key that arrays of an NPZ cannot obey.
    fn image_only(&self) -> Option<(&'static str, std::ops::Range<usize>)> {
        let keys = [
            ("channels", self.channels.as_ref().map(Spanned::span)),
            ("resize", self.resize.as_ref().map(Spanned::span)),
            ("crop", self.crop.as_ref().map(Spanned::span)),
        ];
        keys.into_iter().find_map(|(key, span)| Some((key, span?)))
    }
}

fn check_input(source: &Source, raw: &RawInput) -> Result<InputSpec> {
    let size = |key: &str, size: &Option<Spanned<[usize; 2]>>| match size {
        Some(it) if it.get_ref().iter().any(|side| !(1..=65_535).contains(side)) => {
            let [h, w] = it.get_ref();
            let message = format!("`{key}` is [{h}, {w}], expected sides of 1 to 65535 pixels");
            Err(source.error(message, None, Some(it.span())))
        }
        it => Ok(it.as_ref().map(|it| *it.get_ref())),
    };
    let mode_without = raw.mode.as_ref().map(|it| ("mode", it.span()));
    let fit_without = raw.fit.as_ref().map(|it| ("fit", it.span()));
    if let (None, Some((key, span))) = (&raw.resize, mode_without.or(fit_without)) {
        let help = "add `resize = [height, width]`, or drop the key".to_owned();
        return Err(source.error(
            format!("`{key}` says how to resize, and `resize` is missing"),
            Some(help),
            Some(span),
        ));
    }
    let resize = size("resize", &raw.resize)?.map(|size| Resize {
        size,
        mode: raw.mode.as_ref().map(|it| *it.get_ref()).unwrap_or_default(),
        fit: raw.fit.as_ref().map(|it| *it.get_ref()).unwrap_or_default(),
    });
    let crop = size("crop", &raw.crop)?;
    if let (Some(resize), Some(crop), Some(at)) = (resize, crop, &raw.crop)
        && (crop[0] > resize.size[0] || crop[1] > resize.size[1])
    {
        let ([h, w], [rh, rw]) = (crop, resize.size);
        let message = format!("`crop` is [{h}, {w}], larger than `resize`, [{rh}, {rw}]");
        return Err(source.error(message, None, Some(at.span())));
    }
    let spec = InputSpec {
        layout: raw.layout.unwrap_or_default(),
        channels: raw.channels.as_ref().map(|it| *it.get_ref()),
        resize,
        crop,
        divide: raw
            .divide
            .as_ref()
            .map(|it| divisor(source, "divide", it.span(), *it.get_ref()))
            .transpose()?,
        mean: numbers(source, "mean", raw.mean.as_ref(), finite)?,
        std: numbers(source, "std", raw.std.as_ref(), divisor)?,
        dtype: raw.dtype.as_ref().map(|it| dtype(*it.get_ref())),
    };
    match &raw.dtype {
        Some(it) if spec.normalises() && spec.dtype != Some(Dtype::F32) => {
            let help = "drop `dtype`, or `divide`, `mean` and `std`".to_owned();
            Err(source.error("normalised values are float32", Some(help), Some(it.span())))
        }
        _ => Ok(spec),
    }
}

fn dtype(raw: RawDtype) -> Dtype {
    match raw {
        RawDtype::Float32 => Dtype::F32,
        RawDtype::Uint8 => Dtype::U8,
        RawDtype::Int32 => Dtype::I32,
        RawDtype::Int64 => Dtype::I64,
    }
}

type Number = fn(&Source, &str, std::ops::Range<usize>, f64) -> Result<f32, DataError>;

fn numbers(
    source: &Source,
    key: &str,
    values: Option<&Spanned<Vec<f64>>>,
    number: Number,
) -> Result<Vec<f32>> {
    let Some(values) = values else { return Ok(Vec::new()) };
    if values.get_ref().is_empty() {
        return Err(source.error(
            format!("`{key}` is empty, expected one value a channel"),
            None,
            Some(values.span()),
        ));
    }
    values.get_ref().iter().map(|&value| number(source, key, values.span(), value)).collect()
}

fn finite(source: &Source, key: &str, span: std::ops::Range<usize>, value: f64) -> Result<f32> {
    let narrow = value as f32;
    if narrow.is_finite() {
        return Ok(narrow);
    }
    Err(source.error(format!("`{key}` has {value}, expected a finite float32"), None, Some(span)))
}

fn divisor(source: &Source, key: &str, span: std::ops::Range<usize>, value: f64) -> Result<f32> {
    let narrow = finite(source, key, span.clone(), value)?;
    if narrow > 0.0 {
        return Ok(narrow);
    }
    Err(source.error(format!("`{key}` has {value}, expected a number above 0"), None, Some(span)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::DataSpec;
    use crate::DataError;

    const SPLIT: &str = "[splits.test]\nformat = \"cifar\"\npath = \"x.bin\"\n";
    const NPZ: &str = "[splits.test]\nformat = \"npz\"\npath = \"x.npz\"\n";

    fn input(keys: &str) -> String {
        format!("[input]\n{keys}\n{SPLIT}")
    }

    fn split(keys: &str) -> String {
        format!("[input]\n{SPLIT}{keys}\n")
    }

    /// Compares the message of a wrong spec, and the text underlined.
    fn check(text: &str, message: &str, underlined: &str) {
        let DataError::Spec(error) = DataSpec::parse("data.toml", text, Path::new("")).unwrap_err()
        else {
            panic!("no spec error: {text}");
        };
        assert!(error.message.starts_with(message), "`{}` for\n{text}", error.message);
        let span = error.span.clone().unwrap_or_else(|| panic!("no span: {text}"));
        assert_eq!(&text[span], underlined, "{message}");
        assert!(error.to_string().starts_with("data.toml: "));
    }

    #[test]
    fn wrong_inputs() {
        let cases = [
            ("colour = 1", "unknown field `colour`", "colour"),
            ("layout = \"nhcw\"", "unknown variant `nhcw`", "\"nhcw\""),
            ("divide = 0", "`divide` has 0, expected a number above 0", "0"),
            ("mean = [inf]", "`mean` has inf, expected a finite float32", "[inf]"),
            ("mean = []", "`mean` has 0 values, and format `cifar` gives 3 channels", "[]"),
            ("std = [1.0, 0.0, 1.0]", "`std` has 0, expected a number above 0", "[1.0, 0.0, 1.0]"),
            ("std = [1, 2]", "`std` has 2 values, and format `cifar` gives 3 channels", "[1, 2]"),
            (
                "channels = \"gray\"\nmean = [1, 2, 3]",
                "`mean` has 3 values, and format `cifar` gives 1 channels",
                "[1, 2, 3]",
            ),
            (
                "mode = \"nearest\"",
                "`mode` says how to resize, and `resize` is missing",
                "\"nearest\"",
            ),
            (
                "fit = \"stretch\"",
                "`fit` says how to resize, and `resize` is missing",
                "\"stretch\"",
            ),
            (
                "resize = [0, 3]",
                "`resize` is [0, 3], expected sides of 1 to 65535 pixels",
                "[0, 3]",
            ),
            (
                "resize = [9, 9]\ncrop = [10, 4]",
                "`crop` is [10, 4], larger than `resize`, [9, 9]",
                "[10, 4]",
            ),
            ("divide = 2\ndtype = \"uint8\"", "normalised values are float32", "\"uint8\""),
        ];
        for (keys, message, underlined) in cases {
            check(&input(keys), message, underlined);
        }
        let two = format!("[inputs.a]\n[inputs.b]\n{SPLIT}");
        check(&two, "format `cifar` feeds one input, and the spec describes 2", "\"cifar\"");
        check(SPLIT, "format `cifar` feeds one input, and the spec describes 0", "\"cifar\"");
        check(&format!("[input]\ncrop = [1, 1]\n{NPZ}"), "`crop` is for images", "[1, 1]");
    }

    #[test]
    fn wrong_splits() {
        let cases = [
            ("frist = 3", "unknown field `frist`", "frist"),
            ("first = 0", "`first` takes 0 samples, expected at least 1", "0"),
            ("first = -1", "invalid value", "-1"),
            (
                "sample = { count = 0, seed = 1 }",
                "`sample` takes 0 samples",
                "{ count = 0, seed = 1 }",
            ),
            ("sample = { count = 4 }", "missing field `seed`", "{ count = 4 }"),
            (
                "first = 1\nsample = { count = 1, seed = 1 }",
                "both `first` and `sample`",
                "{ count = 1, seed = 1 }",
            ),
            ("folder = \"x\"", "`folder` has no meaning for format `cifar`", "\"x\""),
            ("labels = \"x\"", "`labels` has no meaning for format `cifar`", "\"x\""),
            (
                "arrays = { a = \"b\" }",
                "`arrays` has no meaning for format `cifar`",
                "{ a = \"b\" }",
            ),
        ];
        for (keys, message, underlined) in cases {
            check(&split(keys), message, underlined);
        }
        let text = "[input]\n[splits.test]\nformat = \"tfds\"\npath = \"\"";
        check(text, "unknown variant `tfds`", "\"tfds\"");
        check(
            "[input]\n[splits.test]\nformat = \"cifar\"",
            "missing field `path`",
            "[splits.test]",
        );
        check("[input]\nlayout =", "string values must be quoted", "");
    }

    #[test]
    fn faults_of_the_whole_spec() {
        let cases = [
            ("[input]".to_owned(), "the spec has no splits"),
            (format!("[input]\n[inputs.a]\n{NPZ}"), "both `[input]` and `[inputs]` are given"),
        ];
        for (text, message) in cases {
            let error = DataSpec::parse("s", &text, Path::new("")).unwrap_err();
            assert_eq!(error.to_string(), format!("s: {message}"));
        }
    }

    #[test]
    fn a_missing_split_lists_those_there_are() {
        let spec = DataSpec::parse(
            "s",
            &format!("[input]\n{SPLIT}\n[splits.a]\nformat = \"cifar\"\npath = \"\""),
            Path::new(""),
        );
        let DataError::Spec(error) = spec.unwrap().open("train").unwrap_err() else {
            panic!("no spec error")
        };
        assert_eq!(error.message, "there is no split `train`");
        assert_eq!(error.help.as_deref(), Some("it has `test`, `a`; add `[splits.train]`"));
    }

    #[test]
    fn inputs_keep_the_order_of_the_file() {
        let spec = DataSpec::parse(
            "s",
            &format!("[inputs.z]\n[inputs.a]\ndivide = 2\n{NPZ}"),
            Path::new(""),
        )
        .unwrap();
        let names: Vec<_> = spec.inputs().iter().map(|(name, _)| name.as_deref()).collect();
        assert_eq!(names, [Some("z"), Some("a")]);
        assert_eq!(spec.inputs()[1].1.divide, Some(2.0));
    }
}

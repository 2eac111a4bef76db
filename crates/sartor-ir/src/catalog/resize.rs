//! Resampling on a regular grid (<https://onnx.ai/onnx/operators/onnx__Resize.html>, opsets 10, 11, 13, 18
//! and 19, and <https://onnx.ai/onnx/operators/onnx__Upsample.html>, opsets 7 and 9).

use super::{Entry, Made, passing, shapeless, typed};
use crate::{
    AxisLink, Dim, Fact, Named, TensorType, normalize_axis,
    op::{required, shape_of},
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Resize", infer, axes },
    Entry { domain: "", name: "Upsample", infer, axes },
];

/// How a sample is made of its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest one.
    Nearest,
    /// On the line between two.
    Linear,
    /// By a cubic convolution of four (Keys 1981, "Cubic convolution interpolation for digital image
    /// processing", equation 4 with a free coefficient).
    Cubic,
}

/// Which index a coordinate between two goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NearestMode {
    /// The nearer, the lower of two equally near.
    RoundPreferFloor,
    /// The nearer, the higher of two equally near.
    RoundPreferCeil,
    /// The lower.
    Floor,
    /// The higher.
    Ceil,
    /// The lower, where the axis shrinks the higher: what opset 10 left open.
    Simple,
}

/// Where in the input an index of the output lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// Centres of pixels, measured from the corner of the image.
    HalfPixel,
    /// As [`Coordinates::HalfPixel`] from the middle of the image, where an extent was rounded.
    HalfPixelSymmetric,
    /// As [`Coordinates::HalfPixel`]; an extent of 1 lies at 0.
    PytorchHalfPixel,
    /// First and last indices lie on one another.
    AlignCorners,
    /// Indices divided by the scale.
    Asymmetric,
    /// Centres of the pixels of the output (opset 11 only).
    TfHalfPixelForNn,
    /// Within a region of interest.
    TfCropAndResize,
}

/// What sizes mean for the proportions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

/// `Resize` or `Upsample`, in any of their versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// How a sample is made.
    pub interpolation: Interpolation,
    /// The rounding of [`Interpolation::Nearest`].
    pub nearest: NearestMode,
    /// Where samples are taken.
    pub coordinates: Coordinates,
    /// Coefficient of [`Interpolation::Cubic`].
    pub cubic_coefficient: f32,
    /// Whether neighbours outside of the input count for nothing, rather than as the edge.
    pub exclude_outside: bool,
    /// The value outside of the input with [`Coordinates::TfCropAndResize`].
    pub extrapolation: f32,
    /// Whether shrinking widens the filter.
    pub antialias: bool,
    aspect: Aspect,
    axes: Option<Vec<i64>>,
    /// Scales as an attribute: `Upsample` of opset 7.
    scales: Option<Vec<f32>>,
    /// Positions of the inputs that hold the region, the scales and the sizes.
    inputs: [Option<usize>; 3],
}

/// One axis and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResizedAxis {
    /// Extent of the input.
    pub input: usize,
    /// Extent of the output.
    pub output: usize,
    /// Output over input, as given.
    pub scale: f32,
    /// Begin and end of the region of interest, in parts of the input.
    pub region: (f32, f32),
}

fn word<T: Copy>(op: &Named, name: &str, default: &str, table: &[(&str, T)]) -> Result<T, String> {
    let word = op.text(name, default)?;
    let row = table.iter().find(|row| row.0 == word);
    row.map(|row| row.1).ok_or_else(|| format!("attribute `{name}`: `{word}` is not known"))
}

impl Resize {
    /// Reads the attributes.
    ///
    /// # Errors
    /// An attribute of another kind, or a word that is not known.
    pub fn read(op: &Named) -> Result<Self, String> {
        let modes = [
            ("nearest", Interpolation::Nearest),
            ("linear", Interpolation::Linear),
            ("bilinear", Interpolation::Linear),
            ("cubic", Interpolation::Cubic),
        ];
        let interpolation = word(op, "mode", "nearest", &modes)?;
        let old = op.name == "Upsample" || op.version < 11;
        let upsample = op.name == "Upsample";
        let mut it = Resize {
            interpolation,
            nearest: NearestMode::Simple,
            coordinates: Coordinates::Asymmetric,
            cubic_coefficient: op.float("cubic_coeff_a", -0.75)?,
            exclude_outside: op.flag("exclude_outside", false)?,
            extrapolation: op.float("extrapolation_value", 0.0)?,
            antialias: op.flag("antialias", false)?,
            aspect: Aspect::Stretch,
            axes: op.ints("axes")?.map(<[i64]>::to_vec),
            scales: op.floats("scales")?.map(<[f32]>::to_vec),
            inputs: if old { [None, Some(1), None] } else { [Some(1), Some(2), Some(3)] },
        };
        if upsample {
            it.nearest = NearestMode::Floor;
        }
        if !old {
            it.read_new(op)?;
        }
        Ok(it)
    }

    /// What opset 11 and later add.
    fn read_new(&mut self, op: &Named) -> Result<(), String> {
        let rounding = [
            ("round_prefer_floor", NearestMode::RoundPreferFloor),
            ("round_prefer_ceil", NearestMode::RoundPreferCeil),
            ("floor", NearestMode::Floor),
            ("ceil", NearestMode::Ceil),
        ];
        self.nearest = word(op, "nearest_mode", "round_prefer_floor", &rounding)?;
        let places = [
            ("half_pixel", Coordinates::HalfPixel),
            ("half_pixel_symmetric", Coordinates::HalfPixelSymmetric),
            ("pytorch_half_pixel", Coordinates::PytorchHalfPixel),
            ("align_corners", Coordinates::AlignCorners),
            ("asymmetric", Coordinates::Asymmetric),
            ("tf_half_pixel_for_nn", Coordinates::TfHalfPixelForNn),
            ("tf_crop_and_resize", Coordinates::TfCropAndResize),
        ];
        self.coordinates = word(op, "coordinate_transformation_mode", "half_pixel", &places)?;
        let aspects = [
            ("stretch", Aspect::Stretch),
            ("not_larger", Aspect::NotLarger),
            ("not_smaller", Aspect::NotSmaller),
        ];
        self.aspect = word(op, "keep_aspect_ratio_policy", "stretch", &aspects)?;
        Ok(())
    }

    /// Positions of the inputs that hold the region, the scales and the sizes, if this form has them.
    pub fn inputs(&self) -> [Option<usize>; 3] {
        self.inputs
    }

    /// The axes that region, scales and sizes speak of.
    fn axes(&self, rank: usize) -> Result<Vec<usize>, String> {
        match &self.axes {
            Some(axes) => axes.iter().map(|&it| normalize_axis(it, rank)).collect(),
            None => Ok((0..rank).collect()),
        }
    }

    /// Every axis of an input of `extents`, from the contents of the inputs (absent ones empty).
    ///
    /// # Errors
    /// Contents of the wrong length, and neither scales nor sizes.
    pub fn resolve(
        &self,
        extents: &[usize],
        region: &[f32],
        scales: &[f32],
        sizes: &[i64],
    ) -> Result<Vec<ResizedAxis>, String> {
        let axes = self.axes(extents.len())?;
        let scales = if scales.is_empty() { self.scales.as_deref().unwrap_or(&[]) } else { scales };
        let mut made: Vec<_> = extents
            .iter()
            .map(|&n| ResizedAxis { input: n, output: n, scale: 1.0, region: (0.0, 1.0) })
            .collect();
        let crop = self.coordinates == Coordinates::TfCropAndResize;
        if crop {
            if region.len() != 2 * axes.len() {
                return Err(format!(
                    "a region of {} numbers for {} axes",
                    region.len(),
                    axes.len()
                ));
            }
            for (i, &axis) in axes.iter().enumerate() {
                made[axis].region = (region[i], region[axes.len() + i]);
            }
        }
        if !sizes.is_empty() {
            self.by_sizes(&axes, sizes, &mut made)?;
        } else if scales.len() == axes.len() {
            for (&axis, &scale) in axes.iter().zip(scales) {
                if scale.is_nan() || scale <= 0.0 {
                    return Err(format!("a scale is {scale}"));
                }
                let it = &mut made[axis];
                it.scale = scale;
                // In single precision and whatever the region is, as ONNX's own inference has it.
                it.output = (it.input as f32 * scale).floor() as usize;
            }
        } else {
            return Err(format!("{} scales for {} axes", scales.len(), axes.len()));
        }
        Ok(made)
    }

    fn by_sizes(
        &self,
        axes: &[usize],
        sizes: &[i64],
        made: &mut [ResizedAxis],
    ) -> Result<(), String> {
        if sizes.len() != axes.len() {
            return Err(format!("{} sizes for {} axes", sizes.len(), axes.len()));
        }
        let ratio = |(&axis, &size): (&usize, &i64)| size as f64 / made[axis].input.max(1) as f64;
        let ratios: Vec<f64> = axes.iter().zip(sizes).map(ratio).collect();
        let common = match self.aspect {
            Aspect::Stretch => None,
            Aspect::NotLarger => ratios.iter().copied().reduce(f64::min),
            Aspect::NotSmaller => ratios.iter().copied().reduce(f64::max),
        };
        for (i, &axis) in axes.iter().enumerate() {
            let it = &mut made[axis];
            it.scale = common.unwrap_or(ratios[i]) as f32;
            it.output = match common {
                Some(scale) => (scale * it.input as f64 + 0.5).floor() as usize,
                None => usize::try_from(sizes[i])
                    .map_err(|_| format!("an extent of {} was asked for", sizes[i]))?,
            };
        }
        Ok(())
    }
}

fn infer(op: &Named, inputs: &[Option<&Fact>], _: usize) -> Made {
    let it = Resize::read(op)?;
    let Some(x) = shape_of(inputs, 0) else { return Ok(vec![shapeless(inputs, 0)]) };
    let [region, scales, sizes] = it.inputs.map(|at| at.and_then(|at| required(inputs, at)));
    let floats = |fact: Option<&Fact>| fact.and_then(|it| it.floats.clone()).unwrap_or_default();
    let given = |fact: Option<&Fact>| fact.is_some_and(|it| it.ty.dims() != Some(vec![0]));
    let unknown = Ok(vec![typed(inputs, 0, vec![Dim::Unknown; x.len()])]);
    let (region, scales) = (floats(region), floats(scales));
    let whole = if given(sizes) { sizes.and_then(Fact::integers) } else { Some(Vec::new()) };
    let Some(sizes) = whole else { return unknown };
    let scaled = !scales.is_empty() || it.scales.is_some();
    let crop = it.coordinates == Coordinates::TfCropAndResize;
    if sizes.is_empty() && (!scaled || crop && region.is_empty()) {
        return unknown;
    }
    // What an unknown extent becomes shows when it stands for different numbers.
    let of = |stand_in: usize| {
        let extents: Vec<usize> = x.iter().map(|it| it.known().unwrap_or(stand_in)).collect();
        let whole = vec![0.0; x.len()].into_iter().chain(vec![1.0; x.len()]).collect::<Vec<_>>();
        let region = if region.is_empty() { whole } else { region.clone() };
        it.resolve(&extents, &region, &scales, &sizes)
    };
    let (one, other) = (of(64)?, of(192)?);
    let axis = |i: usize| match x[i].known() {
        _ if one[i].output == other[i].output => Dim::Known(one[i].output),
        None if one[i].output == 64 && other[i].output == 192 => x[i].clone(),
        _ => Dim::Unknown,
    };
    Ok(vec![typed(inputs, 0, (0..x.len()).map(axis).collect())])
}

/// Batch and channels pass where scales, not sizes, are given: sizes speak of channels too.
fn axes(op: &Named, inputs: &[Option<&Fact>], outputs: &[Option<&TensorType>]) -> Vec<AxisLink> {
    let sized = op.name == "Resize" && inputs.get(3).copied().flatten().is_some();
    let kept = |axis: usize| {
        let out = outputs.first().copied().flatten().and_then(|it| it.shape.as_ref()?.get(axis));
        shape_of(inputs, 0).and_then(|it| it.get(axis)) == out
    };
    if (sized && op.ints("axes").is_ok_and(|it| it.is_none())) || !kept(0) || !kept(1) {
        return Vec::new();
    }
    passing(inputs, 0..2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attr, Attrs, DType, Tensor};

    #[test]
    fn shapes_follow_from_scales_and_sizes() {
        let resize = |version: i64, attributes: Attrs| Named {
            domain: String::new(),
            name: "Resize".into(),
            version,
            attributes,
        };
        let x = Fact::of(TensorType::new(
            DType::F32,
            vec![Dim::symbol("N"), Dim::Known(3), Dim::Known(8), Dim::Known(10)],
        ));
        let scales = Fact::constant(&Tensor::from_f32(&[4], &[1.0, 1.0, 2.0, 0.7]));
        let sizes = Fact::constant(&Tensor::from_i64(&[2], &[12, 12]));
        let policy = |word: &str| {
            Attrs::new()
                .with("axes", Attr::Ints(vec![2, 3]))
                .with("keep_aspect_ratio_policy", Attr::Str(word.into()))
        };
        for (op, inputs, expected) in [
            (resize(10, Attrs::new()), vec![Some(&x), Some(&scales)], "f32[N,3,16,7]"),
            (resize(13, Attrs::new()), vec![Some(&x), None, Some(&scales)], "f32[N,3,16,7]"),
            (
                resize(19, policy("stretch")),
                vec![Some(&x), None, None, Some(&sizes)],
                "f32[N,3,12,12]",
            ),
            (
                resize(19, policy("not_larger")),
                vec![Some(&x), None, None, Some(&sizes)],
                "f32[N,3,10,12]",
            ),
            (
                resize(19, policy("not_smaller")),
                vec![Some(&x), None, None, Some(&sizes)],
                "f32[N,3,12,15]",
            ),
            (resize(13, Attrs::new()), vec![Some(&x)], "f32[?,?,?,?]"),
        ] {
            let made = infer(&op, &inputs, 1).unwrap();
            assert_eq!(made[0].as_ref().unwrap().ty.to_string(), expected, "{op:?}");
        }
    }
}

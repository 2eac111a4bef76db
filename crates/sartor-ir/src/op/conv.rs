//! Convolution (<https://onnx.ai/onnx/operators/onnx__Conv.html>, opsets 1, 11 and 22: same meaning).

use super::{ints, shape_of, unless};
use crate::{Attr, AttrError, Attrs, AxisLink, Dim, Fact, IndexMap, Port, TensorType, shape::list};

/// How padding is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AutoPad {
    /// By the `pads` attribute.
    #[default]
    NotSet,
    /// Output extent `ceil(input / stride)`, an odd pad at the end.
    SameUpper,
    /// Output extent `ceil(input / stride)`, an odd pad at the beginning.
    SameLower,
    /// None.
    Valid,
}

const AUTO_PAD: &[(AutoPad, &str)] = &[
    (AutoPad::NotSet, "NOTSET"),
    (AutoPad::SameUpper, "SAME_UPPER"),
    (AutoPad::SameLower, "SAME_LOWER"),
    (AutoPad::Valid, "VALID"),
];

/// Larger numbers in a window are faults, and their products do not overflow.
const LARGEST: usize = 1 << 24;

/// A window that walks over the spatial axes: what convolution and pooling share.
/// Empty lists mean ONNX's defaults (strides and dilations 1, pads 0).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Spatial {
    /// Window extent of each spatial axis; for convolution it may be empty (the weight says it).
    pub kernel: Vec<usize>,
    /// Step of each spatial axis.
    pub strides: Vec<usize>,
    /// Distance of the taps of each spatial axis.
    pub dilations: Vec<usize>,
    /// Pads at the beginning of every spatial axis, then at the end of every one.
    pub pads: Vec<usize>,
    /// How padding is given.
    pub auto_pad: AutoPad,
}

/// A [`Spatial`] of `n` axes with everything spelt out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) pads: (usize, usize),
}

impl Spatial {
    pub(crate) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        let auto_pad = attrs.text("auto_pad", "NOTSET")?;
        let auto_pad = AUTO_PAD.iter().find(|row| row.1 == auto_pad).map(|row| row.0);
        let spatial = Spatial {
            kernel: attrs.sizes("kernel_shape")?.unwrap_or_default(),
            strides: attrs.sizes("strides")?.unwrap_or_default(),
            dilations: attrs.sizes("dilations")?.unwrap_or_default(),
            pads: attrs.sizes("pads")?.unwrap_or_default(),
            auto_pad: auto_pad
                .ok_or_else(|| AttrError::new("auto_pad", "is none of ONNX's four words"))?,
        };
        for (name, list) in [
            ("kernel_shape", &spatial.kernel),
            ("strides", &spatial.strides),
            ("dilations", &spatial.dilations),
        ] {
            if list.contains(&0) {
                return Err(AttrError::new(name, "must be positive"));
            }
            if list.iter().any(|&it| it > LARGEST) {
                return Err(AttrError::new(name, format!("must be at most {LARGEST}")));
            }
        }
        if spatial.pads.iter().any(|&it| it > LARGEST) {
            return Err(AttrError::new("pads", format!("must be at most {LARGEST}")));
        }
        Ok(spatial)
    }

    pub(super) fn write(&self, attrs: &mut Attrs) {
        for (name, list) in [
            ("kernel_shape", &self.kernel),
            ("strides", &self.strides),
            ("dilations", &self.dilations),
            ("pads", &self.pads),
        ] {
            unless(attrs, name, list, &Vec::new(), |it| ints(it));
        }
        let word = AUTO_PAD.iter().find(|row| row.0 == self.auto_pad).map_or("NOTSET", |row| row.1);
        unless(attrs, "auto_pad", word, "NOTSET", |it| Attr::Str(it.to_owned()));
    }

    /// Window, step, tap distance and pads of every spatial axis of an input of `extents`;
    /// `kernel` stands in where the attribute is empty.
    pub(crate) fn resolve(
        &self,
        kernel: &[usize],
        extents: &[Dim],
    ) -> Result<Vec<Option<Axis>>, String> {
        let n = extents.len();
        let kernel = if self.kernel.is_empty() { kernel } else { &self.kernel };
        let list = |name: &str, list: &[usize], n: usize, default: usize| match list.len() {
            0 => Ok(vec![default; n]),
            len if len == n => Ok(list.to_vec()),
            len => Err(format!("`{name}` has {len} entries, expected {n}")),
        };
        let kernel = list("kernel_shape", kernel, n, 1)?;
        let strides = list("strides", &self.strides, n, 1)?;
        let dilations = list("dilations", &self.dilations, n, 1)?;
        let pads = list("pads", &self.pads, 2 * n, 0)?;
        let axis = |i: usize| {
            let pads = match self.auto_pad {
                AutoPad::NotSet => (pads[i], pads[n + i]),
                AutoPad::Valid => (0, 0),
                AutoPad::SameUpper | AutoPad::SameLower => {
                    let extent = extents[i].known()?;
                    let reach = reach(kernel[i], dilations[i]);
                    let total = ((extent.div_ceil(strides[i]).max(1) - 1) * strides[i])
                        .saturating_add(reach)
                        .saturating_sub(extent);
                    let (small, large) = (total / 2, total - total / 2);
                    if self.auto_pad == AutoPad::SameUpper {
                        (small, large)
                    } else {
                        (large, small)
                    }
                }
            };
            Some(Axis { kernel: kernel[i], stride: strides[i], dilation: dilations[i], pads })
        };
        Ok((0..n).map(axis).collect())
    }

    /// Everything spelt out for known extents: kernel, strides, dilations, and pads (begin, end) by axis.
    ///
    /// # Errors
    /// A list of the wrong length.
    pub fn geometry(&self, kernel: &[usize], extents: &[usize]) -> Result<Vec<[usize; 5]>, String> {
        let dims: Vec<_> = extents.iter().map(|&it| Dim::Known(it)).collect();
        let axes = self.resolve(kernel, &dims)?;
        let row = |it: &Axis| [it.kernel, it.stride, it.dilation, it.pads.0, it.pads.1];
        Ok(axes.iter().flatten().map(row).collect())
    }
}

/// Extent of a window of `kernel` taps; one of no taps (an empty weight) reaches one.
pub(crate) fn reach(kernel: usize, dilation: usize) -> usize {
    kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1)
}

impl Axis {
    /// Number of window positions over `extent`: `floor((extent + pads - reach) / stride) + 1`, or with
    /// `ceil`, leaving out a window that would start in the end pad.
    pub(crate) fn output(&self, extent: &Dim, ceil: bool) -> Result<Dim, String> {
        let Some(extent) = extent.known() else {
            let keeps = self.stride == 1
                && self.pads.0 + self.pads.1 + 1 == reach(self.kernel, self.dilation);
            return Ok(if keeps { extent.clone() } else { Dim::Unknown });
        };
        let reach = reach(self.kernel, self.dilation);
        let padded = extent.saturating_add(self.pads.0 + self.pads.1);
        let Some(room) = padded.checked_sub(reach) else {
            return Err(format!(
                "a window of {reach} does not fit an extent of {extent} with pads {:?}",
                self.pads
            ));
        };
        let mut count = room / self.stride + 1;
        if ceil
            && room % self.stride != 0
            && count * self.stride < extent.saturating_add(self.pads.0)
        {
            count += 1;
        }
        Ok(Dim::Known(count))
    }
}

/// Attributes of `Conv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    /// The window.
    pub spatial: Spatial,
    /// Number of channel groups.
    pub group: usize,
}

impl Conv {
    pub(super) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        let group = usize::try_from(attrs.int("group", 1)?).unwrap_or(0);
        if group == 0 {
            return Err(AttrError::new("group", "must be positive"));
        }
        Ok(Conv { spatial: Spatial::build(attrs)?, group })
    }

    pub(super) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        self.spatial.write(&mut attrs);
        unless(&mut attrs, "group", self.group, 1, |it| Attr::Int(it as i64));
        attrs
    }

    pub(super) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let (Some(x), Some(w)) = (shape_of(inputs, 0), shape_of(inputs, 1)) else {
            return Ok(None);
        };
        let dtype = inputs[0].expect("shape_of found it").ty.dtype;
        if x.len() < 3 || w.len() != x.len() {
            return Err(format!(
                "input {} and weight {} must have the same rank, at least 3 (a batch, channels and space)",
                list(x),
                list(w)
            ));
        }
        let per_group = w[1].times(&Dim::Known(self.group));
        if !x[1].compatible(&per_group) {
            return Err(format!(
                "input {} has {} channels, weight {} with {} group(s) expects {per_group}",
                list(x),
                x[1],
                list(w),
                self.group
            ));
        }
        if w[0].known().is_some_and(|it| it % self.group != 0) {
            return Err(format!(
                "{} output channels do not split into {} groups",
                w[0], self.group
            ));
        }
        if let Some(bias) = shape_of(inputs, 2)
            && (bias.len() != 1 || !bias[0].compatible(&w[0]))
        {
            return Err(format!(
                "bias {} does not fit the {} output channels of weight {}",
                list(bias),
                w[0],
                list(w)
            ));
        }
        let kernel: Option<Vec<usize>> = w[2..].iter().map(Dim::known).collect();
        if let Some(kernel) = &kernel
            && !self.spatial.kernel.is_empty()
            && *kernel != self.spatial.kernel
        {
            return Err(format!(
                "`kernel_shape` {:?} differs from weight {}",
                self.spatial.kernel,
                list(w)
            ));
        }
        let mut shape = vec![x[0].clone(), w[0].clone()];
        for (axis, extent) in
            self.spatial.resolve(&kernel.unwrap_or_default(), &x[2..])?.iter().zip(&x[2..])
        {
            shape.push(axis.as_ref().map_or(Ok(Dim::Unknown), |it| it.output(extent, false))?);
        }
        Ok(Some(Fact::of(TensorType::new(dtype, shape))))
    }

    /// Dense: input channels with the weight's; output channels with weight, bias and output. Grouped:
    /// index `j` of a group lives and dies in every group at once, so that groups stay equal. Depthwise:
    /// input channel `i` carries its filters and output channels along.
    pub(super) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let x_channels = (Port::Input(0), 1);
        let filters = (Port::Input(1), 0);
        let out = (Port::Output(0), 1);
        let mut links = vec![
            AxisLink::same((Port::Input(0), 0), (Port::Output(0), 0)),
            AxisLink::same(filters, out),
        ];
        if inputs.len() > 2 && inputs[2].is_some() {
            links.push(AxisLink::same(filters, (Port::Input(2), 0)));
        }
        if self.group == 1 {
            links.push(AxisLink::same(x_channels, (Port::Input(1), 1)));
            return links;
        }
        let (Some(w), Some(channels)) = (shape_of(inputs, 1), super::extent(inputs, 0, 1)) else {
            return links;
        };
        let (Some(filters_n), Some(depth)) = (w[0].known(), w[1].known()) else { return links };
        if depth == 1 && channels == self.group {
            links.push(AxisLink::Tied {
                a: x_channels,
                b: filters,
                map: IndexMap::Block(filters_n / self.group),
            });
        } else {
            let every = |period, extent| IndexMap::Every { period, extent };
            links.push(AxisLink::Tied {
                a: (Port::Input(1), 1),
                b: x_channels,
                map: every(depth, channels),
            });
            links.push(AxisLink::Tied {
                a: filters,
                b: filters,
                map: every(filters_n / self.group, filters_n),
            });
        }
        links
    }
}

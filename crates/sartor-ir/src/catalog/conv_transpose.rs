//! Transposed convolution (<https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>, opsets 1, 11 and
//! 22: same meaning), and the other operators that go from columns to images.

use super::{Entry, Made, no_axes, typed};
use crate::{
    AutoPad, AxisLink, Dim, Fact, Named, Port, Spatial, TensorType,
    op::{extent, reach, required, shape_of},
    shape::list,
};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "ConvTranspose", infer: infer_conv_transpose, axes },
    Entry { domain: "", name: "Col2Im", infer: infer_col2im, axes: no_axes },
];

/// `ConvTranspose` as the convolution whose adjoint it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTranspose {
    /// Number of channel groups.
    pub group: usize,
    spatial: Spatial,
    output_padding: Vec<usize>,
    output_shape: Option<Vec<usize>>,
}

/// One spatial axis of a transposed convolution: input index `i` under tap `t` adds to output index
/// `i stride + t dilation - pad`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransposedAxis {
    /// Number of taps.
    pub kernel: usize,
    /// Distance of neighbours of the input in the output.
    pub stride: usize,
    /// Distance of taps.
    pub dilation: usize,
    /// Elements that are cut off before the output.
    pub pad: usize,
    /// Extent of the output.
    pub output: usize,
}

impl ConvTranspose {
    /// Reads the attributes.
    ///
    /// # Errors
    /// An attribute of another kind or out of range.
    pub fn read(op: &Named) -> Result<Self, String> {
        let mut attrs = op.attributes.clone();
        let text = |it: crate::AttrError| it.to_string();
        let group = usize::try_from(attrs.int("group", 1).map_err(text)?).unwrap_or(0);
        if group == 0 {
            return Err("attribute `group`: must be positive".to_owned());
        }
        Ok(ConvTranspose {
            group,
            spatial: Spatial::build(&mut attrs).map_err(text)?,
            output_padding: attrs.sizes("output_padding").map_err(text)?.unwrap_or_default(),
            output_shape: attrs.sizes("output_shape").map_err(text)?,
        })
    }

    /// The spatial axes for a weight of `kernel` taps and an input of `extents`.
    ///
    /// # Errors
    /// Lists of the wrong length, a kernel without taps, or an output without elements.
    pub fn resolve(
        &self,
        kernel: &[usize],
        extents: &[usize],
    ) -> Result<Vec<TransposedAxis>, String> {
        let n = extents.len();
        let rows = self.spatial.geometry(kernel, extents)?;
        let more = match self.output_padding.len() {
            0 => vec![0; n],
            len if len == n => self.output_padding.clone(),
            len => return Err(format!("`output_padding` has {len} entries, expected {n}")),
        };
        let wanted = match &self.output_shape {
            None => None,
            // Some writers give batch and channels too.
            Some(it) if it.len() == n || it.len() == n + 2 => Some(&it[it.len() - n..]),
            Some(it) => {
                return Err(format!("`output_shape` has {} entries, expected {n}", it.len()));
            }
        };
        let axis = |i: usize| {
            let [kernel, stride, dilation, ..] = rows[i];
            let full = (extents[i].max(1) - 1)
                .saturating_mul(stride)
                .saturating_add(reach(kernel, dilation))
                .saturating_add(more[i]);
            let same = matches!(self.spatial.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
            let target = match wanted {
                Some(it) => Some(it[i]),
                // A kernel that is shorter than the stride leaves nothing to cut off.
                None if same => Some(extents[i].saturating_mul(stride).min(full)),
                None => None,
            };
            let (pad, output) = if let Some(output) = target {
                let total = full.saturating_sub(output);
                let small = total / 2;
                let upper = self.spatial.auto_pad == AutoPad::SameUpper;
                (if upper { small } else { total - small }, output)
            } else {
                let [.., before, after] = rows[i];
                let left = full.checked_sub(before + after);
                (before, left.ok_or("the pads cut off the whole output")?)
            };
            if kernel == 0 {
                return Err("the weight has no taps".to_owned());
            }
            Ok(TransposedAxis { kernel, stride, dilation, pad, output })
        };
        (0..n).map(axis).collect()
    }
}

fn infer_conv_transpose(op: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Made {
    let it = ConvTranspose::read(op)?;
    let (Some(x), Some(w)) = (shape_of(inputs, 0), shape_of(inputs, 1)) else {
        return Ok(vec![None; n_outputs]);
    };
    if x.len() < 3 || w.len() != x.len() || !x[1].compatible(&w[0]) {
        return Err(format!(
            "input {} does not fit weight {}: both need the same rank, at least 3, and as many input channels",
            list(x),
            list(w)
        ));
    }
    if w[0].known().is_some_and(|n| n % it.group != 0) {
        return Err(format!("{} input channels do not split into {} groups", w[0], it.group));
    }
    let channels = w[1].times(&Dim::Known(it.group));
    if let Some(bias) = shape_of(inputs, 2)
        && (bias.len() != 1 || !bias[0].compatible(&channels))
    {
        return Err(format!("bias {} does not fit {channels} output channels", list(bias)));
    }
    let mut shape = vec![x[0].clone(), channels];
    let known = |dims: &[Dim]| dims.iter().map(Dim::known).collect::<Option<Vec<usize>>>();
    match (known(&w[2..]), known(&x[2..])) {
        (Some(kernel), Some(extents)) => {
            let axes = it.resolve(&kernel, &extents)?;
            shape.extend(axes.iter().map(|it| Dim::Known(it.output)));
        }
        _ => shape.resize(x.len(), Dim::Unknown),
    }
    Ok(vec![typed(inputs, 0, shape)])
}

/// Dense: input channels with the weight's, output channels with weight, bias and output. Grouped weights
/// are laid out so that no index of one group goes alone.
fn axes(op: &Named, inputs: &[Option<&Fact>], _: &[Option<&TensorType>]) -> Vec<AxisLink> {
    let mut links = vec![AxisLink::same((Port::Input(0), 0), (Port::Output(0), 0))];
    if op.int("group", 1) == Ok(1) {
        links.push(AxisLink::same((Port::Input(0), 1), (Port::Input(1), 0)));
        links.push(AxisLink::same((Port::Input(1), 1), (Port::Output(0), 1)));
        if inputs.get(2).copied().flatten().is_some() {
            links.push(AxisLink::same((Port::Input(1), 1), (Port::Input(2), 0)));
        }
    }
    links
}

/// `X [n, c taps, blocks], image_shape, block_shape`: adds up the blocks of an image.
fn infer_col2im(_: &Named, inputs: &[Option<&Fact>], n_outputs: usize) -> Made {
    let (Some(x), Some(image)) = (shape_of(inputs, 0), required(inputs, 1)) else {
        return Ok(vec![None; n_outputs]);
    };
    if x.len() != 3 {
        return Err(format!("input {} is not of rank 3", list(x)));
    }
    let Some(image) = image.value.as_ref() else { return Ok(vec![None; n_outputs]) };
    let block = required(inputs, 2).and_then(Fact::integers);
    let taps = block.map(|it| it.iter().map(|&it| it.max(0) as usize).product::<usize>());
    let channels = match (extent(inputs, 0, 1), taps) {
        (Some(n), Some(taps)) if taps > 0 && n % taps == 0 => Dim::Known(n / taps),
        (Some(n), Some(taps)) => return Err(format!("{n} rows are not blocks of {taps}")),
        _ => Dim::Unknown,
    };
    let mut shape = vec![x[0].clone(), channels];
    shape.extend(image.elements().iter().map(crate::Scalar::to_dim));
    Ok(vec![typed(inputs, 0, shape)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attr, Attrs};

    #[test]
    fn output_extents() {
        let attrs = |list: &[(&str, &[i64])]| {
            list.iter().fold(Attrs::new(), |it, row| it.with(row.0, Attr::Ints(row.1.to_vec())))
        };
        let cases: &[(Attrs, usize, (usize, usize))] = &[
            (attrs(&[]), 3, (0, 5)),
            (attrs(&[("strides", &[3])]), 3, (0, 9)),
            (attrs(&[("strides", &[3]), ("output_padding", &[1])]), 3, (0, 10)),
            (attrs(&[("strides", &[3]), ("output_shape", &[10])]), 3, (0, 10)),
            (attrs(&[("strides", &[3]), ("pads", &[1, 2])]), 3, (1, 6)),
            (attrs(&[("dilations", &[2])]), 3, (0, 7)),
            (
                attrs(&[("strides", &[2])]).with("auto_pad", Attr::Str("SAME_UPPER".into())),
                3,
                (0, 6),
            ),
            (
                attrs(&[("strides", &[2])]).with("auto_pad", Attr::Str("SAME_LOWER".into())),
                3,
                (1, 6),
            ),
        ];
        for (attributes, extent, expected) in cases {
            let op = Named {
                domain: String::new(),
                name: "ConvTranspose".into(),
                version: 11,
                attributes: attributes.clone(),
            };
            let axes = ConvTranspose::read(&op).unwrap().resolve(&[3], &[*extent]).unwrap();
            assert_eq!((axes[0].pad, axes[0].output), *expected, "{attributes:?}");
        }
    }
}

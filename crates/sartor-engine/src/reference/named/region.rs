//! Regions of interest and boxes (<https://onnx.ai/onnx/operators/onnx__RoiAlign.html>,
//! <https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>).

use std::ops::Range;

use sartor_ir::{DType, Named};

use super::{Rule, output_shape};
use crate::{
    Array, Data,
    reference::evaluate::{array, integers, optional},
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "RoiAlign", evaluate: align },
    Rule { domain: "", name: "MaxRoiPool", evaluate: max_pool },
    Rule { domain: "", name: "NonMaxSuppression", evaluate: suppress },
];

type Made = Result<Vec<Array>, String>;

/// Up to four neighbours of a place in a plane, with their bilinear weights; none far outside.
fn bilinear(y: f64, x: f64, height: usize, width: usize) -> Vec<(usize, f64)> {
    let axis = |at: f64, n: usize| {
        let last = n.saturating_sub(1);
        let at = at.max(0.0);
        let low = (at as usize).min(last);
        let (high, t) = if low == last { (last, 0.0) } else { (low + 1, at - low as f64) };
        [(low, 1.0 - t), (high, t)]
    };
    let outside = |at: f64, n: usize| at < -1.0 || at > n as f64 || at.is_nan();
    if outside(y, height) || outside(x, width) {
        return Vec::new();
    }
    let (rows, columns) = (axis(y, height), axis(x, width));
    let products =
        |(row, a): (usize, f64)| columns.map(|(column, b)| (row * width + column, a * b));
    rows.into_iter().flat_map(products).collect()
}

/// The attributes of `RoiAlign`.
pub(crate) struct Align {
    pub(crate) largest: bool,
    /// Whether pixels are counted from their middles.
    half_pixel: bool,
    samples: usize,
    scale: f64,
}

impl Align {
    pub(crate) fn read(op: &Named) -> Result<Self, String> {
        // Opset 10 has no choice.
        let default = if op.version < 16 { "output_half_pixel" } else { "half_pixel" };
        let half_pixel = match op.text("coordinate_transformation_mode", default)? {
            "half_pixel" => true,
            "output_half_pixel" => false,
            other => {
                return Err(format!("`coordinate_transformation_mode`: `{other}` is not known"));
            }
        };
        let largest = match op.text("mode", "avg")? {
            "avg" => false,
            "max" => true,
            other => return Err(format!("attribute `mode`: `{other}` is not known")),
        };
        Ok(Align {
            largest,
            half_pixel,
            samples: usize::try_from(op.int("sampling_ratio", 0)?).unwrap_or(0),
            scale: op.float("spatial_scale", 1.0)?.into(),
        })
    }

    /// The sampled neighbours of each cell of a region, `cells` rows and columns.
    pub(crate) fn cells(
        &self,
        region: &[f64],
        cells: [usize; 2],
        plane: [usize; 2],
    ) -> Vec<Vec<Vec<(usize, f64)>>> {
        let offset = if self.half_pixel { 0.5 } else { 0.0 };
        let at = |i: usize| region[i] * self.scale - offset;
        let least = if self.half_pixel { f64::NEG_INFINITY } else { 1.0 };
        let (left, top) = (at(0), at(1));
        let (width, height) = ((at(2) - left).max(least), (at(3) - top).max(least));
        let steps = [height / cells[0] as f64, width / cells[1] as f64];
        let count = |step: f64| {
            if self.samples > 0 {
                self.samples
            } else {
                (step.ceil().max(0.0) as usize).min(1 << 12)
            }
        };
        let counts = steps.map(count);
        let mut made = Vec::with_capacity(cells[0] * cells[1]);
        for cell in 0..cells[0] * cells[1] {
            let (row, column) = ((cell / cells[1]) as f64, (cell % cells[1]) as f64);
            let mut own = Vec::with_capacity(counts[0] * counts[1]);
            for i in 0..counts[0] * counts[1] {
                let part = |k: usize, n: usize| (k as f64 + 0.5) / n as f64;
                let y = top + (row + part(i / counts[1], counts[0])) * steps[0];
                let x = left + (column + part(i % counts[1], counts[1])) * steps[1];
                own.push(bilinear(y, x, plane[0], plane[1]));
            }
            made.push(own);
        }
        made
    }

    /// What a plane has in a cell: the mean of its samples, or the largest weighted neighbour.
    fn value(&self, samples: &[Vec<(usize, f64)>], x: &[f64]) -> f64 {
        let terms =
            |near: &Vec<(usize, f64)>| near.iter().map(|it| x[it.0] * it.1).collect::<Vec<_>>();
        if self.largest {
            let most = |near: &Vec<(usize, f64)>| {
                terms(near).into_iter().fold(f64::NEG_INFINITY, f64::max)
            };
            let outside = |it: f64| if it == f64::NEG_INFINITY { 0.0 } else { it };
            return samples.iter().map(most).map(outside).reduce(f64::max).unwrap_or(0.0);
        }
        let sum: f64 = samples.iter().flat_map(terms).sum();
        sum / samples.len().max(1) as f64
    }
}

/// He et al. 2017, "Mask R-CNN", section 3.
fn align(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let it = Align::read(op)?;
    let (x, regions) = (array(inputs, 0)?, array(inputs, 1)?);
    let images = integers(inputs, 2).ok_or("the images of the regions are missing")?;
    if regions.shape != [shape[0], 4] || images.len() != shape[0] {
        return Err(format!("{} images for regions {:?}", images.len(), regions.shape));
    }
    let (channels, plane) = (x.shape[1], x.shape[2] * x.shape[3]);
    if plane == 0 {
        return Err(format!("input {:?} has no pixels", x.shape));
    }
    let values = x.to_f64();
    let mut y = Vec::with_capacity(shape.iter().product());
    for (region, &image) in regions.to_f64().chunks_exact(4).zip(&images) {
        let n = usize::try_from(image).ok().filter(|it| *it < x.shape[0]);
        let n = n.ok_or_else(|| format!("there is no image {image}"))?;
        let cells = it.cells(region, [shape[2], shape[3]], [x.shape[2], x.shape[3]]);
        for c in n * channels..(n + 1) * channels {
            let x = &values[c * plane..][..plane];
            y.extend(cells.iter().map(|samples| it.value(samples, x)));
        }
    }
    let made = Array { shape, data: Data::F64(y) }.cast(x.dtype());
    Ok(vec![made.ok_or("text cannot be pooled")?])
}

/// Girshick 2015, "Fast R-CNN", section 2.1: regions `[image, x1, y1, x2, y2]` in whole pixels.
fn max_pool(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let scale = f64::from(op.float("spatial_scale", 1.0)?);
    let (x, regions) = (array(inputs, 0)?, array(inputs, 1)?);
    if regions.shape != [shape[0], 5] {
        return Err(format!("regions {:?} are not of 5 numbers each", regions.shape));
    }
    let (channels, height, width) = (x.shape[1], x.shape[2], x.shape[3]);
    let values = x.to_f64();
    let mut y = Vec::with_capacity(shape.iter().product());
    for region in regions.to_f64().chunks_exact(5) {
        let n = region[0] as usize;
        if region[0] < 0.0 || n >= x.shape[0] {
            return Err(format!("there is no image {}", region[0]));
        }
        let span = |low: f64, high: f64, cell: usize, cells: usize, n: usize| -> Range<usize> {
            let (low, high) = ((low * scale).round(), (high * scale).round());
            let step = (high - low + 1.0).max(1.0) / cells as f64;
            let bound = |it: f64| (it + low).clamp(0.0, n as f64) as usize;
            bound((cell as f64 * step).floor())..bound(((cell + 1) as f64 * step).ceil())
        };
        for c in n * channels..(n + 1) * channels {
            let plane = &values[c * height * width..][..height * width];
            for cell in 0..shape[2] * shape[3] {
                let rows = span(region[2], region[4], cell / shape[3], shape[2], height);
                let columns = span(region[1], region[3], cell % shape[3], shape[3], width);
                let under = rows.flat_map(|row| plane[row * width..][columns.clone()].iter());
                y.push(under.copied().reduce(f64::max).unwrap_or(0.0));
            }
        }
    }
    let made = Array { shape, data: Data::F64(y) }.cast(x.dtype());
    Ok(vec![made.ok_or("text cannot be pooled")?])
}

/// A box as its lower and upper corner.
fn corners(it: &[f32], centred: bool) -> [f32; 4] {
    if centred {
        let (x, y, half_w, half_h) = (it[0], it[1], it[2] / 2.0, it[3] / 2.0);
        return [y - half_h, x - half_w, y + half_h, x + half_w];
    }
    [it[0].min(it[2]), it[1].min(it[3]), it[0].max(it[2]), it[1].max(it[3])]
}

/// Intersection over union.
fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |it: [f32; 4]| (it[2] - it[0]) * (it[3] - it[1]);
    let common = side(0) * side(1);
    let union = area(a) + area(b) - common;
    if area(a) <= 0.0 || area(b) <= 0.0 || union <= 0.0 { 0.0 } else { common / union }
}

/// The boxes of one class that stay, best first.
fn kept(
    boxes: &[[f32; 4]],
    scores: &[f32],
    most: usize,
    limit: f32,
    least: Option<f32>,
) -> Vec<usize> {
    let above = |&i: &usize| least.is_none_or(|it| scores[i] > it);
    let mut order: Vec<usize> = (0..scores.len()).filter(above).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.len() == most {
            break;
        }
        if kept.iter().all(|&it| overlap(boxes[it], boxes[i]) <= limit) {
            kept.push(i);
        }
    }
    kept
}

/// `boxes [n, s, 4], scores [n, c, s], most?, overlap?, least score?`: rows of image, class and box.
fn suppress(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (boxes, scores) = (array(inputs, 0)?, array(inputs, 1)?);
    let (&[images, count, 4], &[n, classes, s]) = (boxes.shape.as_slice(), scores.shape.as_slice())
    else {
        return Err(format!("boxes {:?} do not fit scores {:?}", boxes.shape, scores.shape));
    };
    if n != images || s != count {
        return Err(format!("boxes {:?} do not fit scores {:?}", boxes.shape, scores.shape));
    }
    let most = integers(inputs, 2).and_then(|it| it.first().copied()).unwrap_or(0);
    let most = usize::try_from(most).unwrap_or(0);
    let number = |i: usize| optional(inputs, i).and_then(|it| it.to_f32().first().copied());
    let centred = op.flag("center_point_box", false)?;
    let (limit, least) = (number(3).unwrap_or(0.0), number(4));
    let (values, scores) = (boxes.to_f32(), scores.to_f32());
    let mut rows = Vec::new();
    for image in 0..images {
        let own = values[image * count * 4..][..count * 4].chunks_exact(4);
        let own: Vec<_> = own.map(|it| corners(it, centred)).collect();
        for class in 0..classes {
            let scores = &scores[(image * classes + class) * count..][..count];
            for i in kept(&own, scores, most, limit, least) {
                rows.extend([image as i64, class as i64, i as i64]);
            }
        }
    }
    Ok(vec![Array { shape: vec![rows.len() / 3, 3], data: Data::I64(rows) }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{named, run};
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn overlapping_boxes_go() {
        let boxes =
            Array::f32(&[1, 3, 4], vec![0., 0., 1., 1., 0., 0.1, 1., 1.1, 0., 10., 1., 11.]);
        let scores = Array::f32(&[1, 1, 3], vec![0.9, 0.75, 0.6]);
        let most = Array { shape: vec![1], data: Data::I64(vec![3]) };
        let half = Array::f32(&[1], vec![0.5]);
        let op = named("NonMaxSuppression", Attrs::new());
        let rows = run(&op, &[&boxes, &scores, &most, &half]);
        assert_eq!(rows[0].data, Data::I64(vec![0, 0, 0, 0, 0, 2]));
        let least = Array::f32(&[1], vec![0.8]);
        let rows = run(&op, &[&boxes, &scores, &most, &half, &least]);
        assert_eq!(rows[0].shape, [1, 3]);
    }

    #[test]
    fn regions() {
        let x = Array::f32(&[1, 1, 4, 4], (0..16u8).map(f32::from).collect());
        let whole = Array::f32(&[1, 4], vec![0.0, 0.0, 4.0, 4.0]);
        let image = Array { shape: vec![1], data: Data::I64(vec![0]) };
        let attrs = Attrs::new()
            .with("output_height", Attr::Int(2))
            .with("output_width", Attr::Int(2))
            .with("sampling_ratio", Attr::Int(2));
        let y = run(&named("RoiAlign", attrs), &[&x, &whole, &image]);
        assert_eq!(y[0], Array::f32(&[1, 1, 2, 2], vec![2.5, 4.5, 10.5, 12.5]));
        let region = Array::f32(&[1, 5], vec![0.0, 0.0, 0.0, 3.0, 3.0]);
        let op = named("MaxRoiPool", Attrs::new().with("pooled_shape", Attr::Ints(vec![2, 2])));
        let y = run(&op, &[&x, &region]);
        assert_eq!(y[0], Array::f32(&[1, 1, 2, 2], vec![5.0, 7.0, 13.0, 15.0]));
    }
}

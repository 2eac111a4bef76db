//! From columns to images (<https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>,
//! <https://onnx.ai/onnx/operators/onnx__Col2Im.html>).

use sartor_ir::{Binary, ConvTranspose, DType, Named};

use super::{Rule, output_shape};
use crate::{
    Array, Data, gradient,
    reference::{
        conv::{Window, tap_table},
        elementwise::Number,
        evaluate::{array, by_number, integers, optional, values},
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "ConvTranspose", evaluate: conv_transpose },
    Rule { domain: "", name: "Col2Im", evaluate: col2im },
];

type Made = Result<Vec<Array>, String>;

/// The windows of the convolution whose adjoint this is: its input is our output.
pub(crate) fn windows(op: &Named, x: &Array, w: &Array) -> Result<Vec<Window>, String> {
    let axes = ConvTranspose::read(op)?.resolve(&w.shape[2..], &x.shape[2..])?;
    let window = |(it, &n): (&sartor_ir::TransposedAxis, &usize)| Window {
        input: it.output,
        output: n,
        kernel: it.kernel,
        stride: it.stride,
        dilation: it.dilation,
        pad: it.pad,
    };
    Ok(axes.iter().zip(&x.shape[2..]).map(window).collect())
}

/// Floats go through matrix products, other numbers through the plain loop.
fn conv_transpose(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let shape = output_shape(op, inputs)?;
    let (x, w) = (array(inputs, 0)?, array(inputs, 1)?);
    let axes = windows(op, x, w)?;
    let group = ConvTranspose::read(op)?.group;
    if let (Some(_), Some(_)) = (x.as_f32(), w.as_f32()) {
        let bias = optional(inputs, 2).map(gradient::floats);
        return Ok(vec![gradient::conv_transposed(&axes, group, &shape, x, w, bias.as_deref())?]);
    }
    let data = by_number!(x, plain(&axes, group, &shape, inputs))?;
    Ok(vec![Array { shape, data }])
}

/// `y[n, g m + m', at] = bias + sum over c, i, t with at = index(i, t) of x[n, c, i] w[c, m', t]`.
fn plain<T: Number>(
    axes: &[Window],
    group: usize,
    shape: &[usize],
    inputs: &[Option<&Array>],
) -> Result<Data, String> {
    let (x, w) = (values::<T>(inputs, 0)?, values::<T>(inputs, 1)?);
    let wide = array(inputs, 0)?.shape[1];
    let product = |of: fn(&Window) -> usize| axes.iter().map(of).product::<usize>();
    let (inside, outside, taps) =
        (product(|it| it.output), product(|it| it.input), product(|it| it.kernel));
    let (table, per_group) = (tap_table(axes), shape[1] / group);
    let mut y = vec![T::default(); shape.iter().product()];
    if optional(inputs, 2).is_some() {
        let bias = values::<T>(inputs, 2)?;
        for (plane, y) in y.chunks_exact_mut(outside.max(1)).enumerate() {
            y.fill(bias[plane % shape[1]]);
        }
    }
    for (plane, x) in x.chunks_exact(inside.max(1)).enumerate() {
        let (n, c) = (plane / wide, plane % wide);
        let first = n * shape[1] + c / (wide / group) * per_group;
        for m in 0..per_group {
            let y = &mut y[(first + m) * outside..][..outside];
            let w = &w[(c * per_group + m) * taps..][..taps];
            for (i, &x) in x.iter().enumerate() {
                for (&index, &w) in table[i * taps..].iter().zip(w) {
                    if let Some(sum) = y.get_mut(index) {
                        *sum = T::dot(*sum, std::iter::once((x, w)));
                    }
                }
            }
        }
    }
    Ok(T::wrap(y))
}

/// The windows of an image of extents `image` under blocks of extents `block`.
fn blocks(op: &Named, image: &[i64], block: &[i64]) -> Result<Vec<Window>, String> {
    let n = image.len();
    let list = |name: &str, count: usize, default: i64| match op.ints(name)? {
        None => Ok(vec![default; count]),
        Some(it) if it.len() == count => Ok(it.to_vec()),
        Some(it) => Err(format!("`{name}` has {} entries, expected {count}", it.len())),
    };
    let (strides, dilations) = (list("strides", n, 1)?, list("dilations", n, 1)?);
    let pads = list("pads", 2 * n, 0)?;
    let size = |it: i64| usize::try_from(it).map_err(|_| format!("an extent is {it}"));
    let axis = |i: usize| {
        let (input, kernel) =
            (size(image[i])?, size(*block.get(i).ok_or("a block is too short")?)?);
        let (stride, dilation) = (size(strides[i])?.max(1), size(dilations[i])?);
        let (before, after) = (size(pads[i])?, size(pads[n + i])?);
        let reach = kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1);
        let padded = input.saturating_add(before).saturating_add(after);
        let room = padded.checked_sub(reach).ok_or("a block exceeds the image")?;
        Ok(Window { input, output: room / stride + 1, kernel, stride, dilation, pad: before })
    };
    (0..n).map(axis).collect::<Result<_, String>>()
}

/// The windows of `Col2Im` over its image.
///
/// # Errors
/// Blocks that do not make up the image.
pub(crate) fn block_windows(op: &Named, inputs: &[Option<&Array>]) -> Result<Vec<Window>, String> {
    let list = |i: usize| integers(inputs, i).ok_or_else(|| format!("input {i} is missing"));
    let axes = blocks(op, &list(1)?, &list(2)?)?;
    let places: usize = axes.iter().map(|it| it.output).product();
    let given = array(inputs, 0)?.shape.last().copied().unwrap_or(0);
    if given != places {
        return Err(format!("{given} blocks do not make up an image of {places}"));
    }
    Ok(axes)
}

fn col2im(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    fn added<T: Number>(x: &[T], planes: usize, axes: &[Window]) -> Vec<T> {
        let product = |of: fn(&Window) -> usize| axes.iter().map(of).product::<usize>();
        let (places, taps, size) =
            (product(|it| it.output), product(|it| it.kernel), product(|it| it.input));
        let table = tap_table(axes);
        let mut y = vec![T::default(); planes * size];
        for (i, &x) in x.iter().enumerate() {
            let (at, row) = (i % places, i / places);
            let plane = &mut y[row / taps * size..][..size];
            if let Some(sum) = plane.get_mut(table[at * taps + row % taps]) {
                *sum = T::arithmetic(Binary::Add, *sum, x);
            }
        }
        y
    }
    fn of<T: Number>(
        inputs: &[Option<&Array>],
        planes: usize,
        axes: &[Window],
    ) -> Result<Data, String> {
        Ok(T::wrap(added(values::<T>(inputs, 0)?, planes, axes)))
    }
    let shape = output_shape(op, inputs)?;
    let (x, axes) = (array(inputs, 0)?, block_windows(op, inputs)?);
    let data = by_number!(x, of(inputs, shape[0] * shape[1], &axes))?;
    Ok(vec![Array { shape, data }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{Numbers, named, run};
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn matrices_and_the_plain_loop_agree() {
        let mut numbers = Numbers::new(3);
        for round in 0..60 {
            let rank = 1 + round % 3;
            let list = |numbers: &mut Numbers, low: usize, n: usize, count: usize| {
                (0..count).map(|_| (low + numbers.below(n)) as i64).collect::<Vec<_>>()
            };
            let group = [1, 1, 2, 3][numbers.below(4)];
            let (fans_in, fans_out) = (1 + numbers.below(3), 1 + numbers.below(3));
            let kernel = list(&mut numbers, 1, 3, rank);
            let strides = list(&mut numbers, 1, 3, rank);
            let extents = list(&mut numbers, 1, 4, rank);
            let mut attrs = Attrs::new()
                .with("group", Attr::Int(group as i64))
                .with("dilations", Attr::Ints(list(&mut numbers, 1, 2, rank)))
                .with("strides", Attr::Ints(strides.clone()));
            match round % 4 {
                0 => attrs.set("auto_pad", Attr::Str("SAME_LOWER".into())),
                1 => attrs.set("output_shape", Attr::Ints(list(&mut numbers, 3, 9, rank))),
                2 => attrs.set("output_padding", Attr::Ints(list(&mut numbers, 0, 2, rank))),
                _ => {}
            }
            let usize_of = |it: &[i64]| it.iter().map(|&it| it as usize).collect::<Vec<_>>();
            let x = numbers.array(&[&[2, group * fans_in], usize_of(&extents).as_slice()].concat());
            let w = numbers
                .array(&[&[group * fans_in, fans_out], usize_of(&kernel).as_slice()].concat());
            let bias = numbers.array(&[group * fans_out]);
            let op = named("ConvTranspose", attrs);
            let fast = run(&op, &[&x, &w, &bias]).remove(0);
            let wide = [&x, &w, &bias].map(|it| it.cast(DType::F64).unwrap());
            let exact = run(&op, &[&wide[0], &wide[1], &wide[2]]).remove(0);
            assert_eq!(fast.shape, exact.shape);
            for (a, b) in fast.to_f64().iter().zip(exact.to_f64()) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{op:?}: {a}, not {b}");
            }
        }
    }

    #[test]
    fn blocks_add_up() {
        let x = Array::f32(&[1, 2, 3], vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
        let one = |it: i64| Array { shape: vec![1], data: Data::I64(vec![it]) };
        let y = run(&named("Col2Im", Attrs::new()), &[&x, &one(4), &one(2)]);
        assert_eq!(y[0], Array::f32(&[1, 1, 4], vec![1.0, 12.0, 23.0, 30.0]));
    }
}

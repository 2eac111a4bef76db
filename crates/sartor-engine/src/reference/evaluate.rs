//! Operators of a graph, fitted to the mathematics.

mod arithmetic;
mod layout;

use sartor_ir::{
    BatchNormalization, Binary, Conv, DType, Fact, Gemm, GlobalPool, Op, Pool, PoolKind,
    QuantizeLinear, Reduce, ReduceKind, Spatial, Tensor, broadcast, normalize_axis,
};

use super::{
    cast, conv,
    elementwise::{Float, Number},
    gemm,
    layout::View,
    named, norm, pool, quantize, reduce,
};
use crate::{Array, Data, array::Element};

pub(crate) use layout::{pad_tables, slice_windows};

/// The outputs of `op`, of the element types `dtypes` (which also say how many outputs are wanted).
///
/// # Errors
/// A sentence about operands that do not fit or types without a kernel.
pub fn evaluate(
    op: &Op,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    let mut made = evaluate_wide(op, inputs, dtypes)?;
    for (array, &dtype) in made.iter_mut().zip(dtypes) {
        if let (Data::F32(values), true) = (&mut array.data, dtype.is_narrow_float()) {
            *values = cast::rounded(std::mem::take(values), dtype, true);
        }
    }
    Ok(made)
}

/// The outputs before narrow floats are rounded to their type.
fn evaluate_wide(
    op: &Op,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Vec<Array>, String> {
    let one = match op {
        Op::Conv(it) => conv_op(it, inputs),
        Op::Gemm(it) => gemm_op(it, inputs),
        Op::MatMul => matmul_op(inputs),
        Op::BatchNormalization(it) => batch_norm_op(it, inputs),
        Op::Softmax(it) => softmax_op(it.axis, inputs, false),
        Op::LogSoftmax(it) => softmax_op(it.axis, inputs, true),
        Op::Pool(it) => return pool_op(it, inputs, dtypes.len()),
        Op::GlobalPool(it) => global_pool_op(*it, inputs),
        Op::Reduce(it) => reduce_op(it, inputs),
        Op::QuantizeLinear(it) => quantize_op(it, inputs, dtypes),
        Op::DequantizeLinear(it) => dequantize_op(it, inputs, dtypes),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Variadic(_)
        | Op::Clip
        | Op::PRelu
        | Op::Where
        | Op::Cast(_) => arithmetic::evaluate(op, inputs),
        Op::Named(it) => return named::evaluate(it, inputs, dtypes),
        _ => return layout::evaluate(op, inputs, dtypes.len()),
    };
    one.map(|it| vec![it])
}

/// Input `i`.
pub(super) fn array<'a>(inputs: &[Option<&'a Array>], i: usize) -> Result<&'a Array, String> {
    inputs.get(i).copied().flatten().ok_or_else(|| format!("input {i} is missing"))
}

/// Input `i`, if given.
pub(super) fn optional<'a>(inputs: &[Option<&'a Array>], i: usize) -> Option<&'a Array> {
    inputs.get(i).copied().flatten()
}

/// The elements of input `i`, which must be of type `T`.
pub(super) fn values<'a, T: Element>(
    inputs: &[Option<&'a Array>],
    i: usize,
) -> Result<&'a [T], String> {
    let array = array(inputs, i)?;
    let expected = T::wrap(Vec::new()).dtype();
    array.values().ok_or_else(|| format!("input {i} is {}, expected {expected}", array.dtype()))
}

/// The call for the float type of an array: `by_float!(x, function(arguments))` calls `function::<T>`.
macro_rules! by_float {
    ($x:expr, $function:ident($($argument:expr),*)) => {
        match &$x.data {
            Data::F32(_) => $function::<f32>($($argument),*),
            Data::F64(_) => $function::<f64>($($argument),*),
            _ => Err(format!("elements of type {} are not floats", $x.dtype())),
        }
    };
}
pub(super) use by_float;

/// As [`by_float`], for every type of numbers.
macro_rules! by_number {
    ($x:expr, $function:ident($($argument:expr),*)) => {
        match &$x.data {
            Data::I64(_) => $function::<i64>($($argument),*),
            Data::I32(_) => $function::<i32>($($argument),*),
            Data::I16(_) => $function::<i16>($($argument),*),
            Data::I8(_) => $function::<i8>($($argument),*),
            Data::U64(_) => $function::<u64>($($argument),*),
            Data::U32(_) => $function::<u32>($($argument),*),
            Data::U16(_) => $function::<u16>($($argument),*),
            Data::U8(_) => $function::<u8>($($argument),*),
            _ => $crate::reference::evaluate::by_float!($x, $function($($argument),*)),
        }
    };
}
pub(super) use by_number;

/// The integers of optional input `i`.
pub(crate) fn integers(inputs: &[Option<&Array>], i: usize) -> Option<Vec<i64>> {
    optional(inputs, i).map(Array::to_i64)
}

/// What inference knows of a constant.
pub(super) fn constant_fact(tensor: &Tensor) -> Fact {
    Fact::constant(tensor)
}

/// The shape of the first output by the operator's own rule.
pub(crate) fn output_shape(op: &Op, inputs: &[Option<&Array>]) -> Result<Vec<usize>, String> {
    // Only small tensors can matter as contents; large ones are read for their type alone.
    let fact = |it: &Array| {
        if it.len() <= if it.dtype().is_float() { 64 } else { 1024 } {
            constant_fact(&it.to_tensor())
        } else {
            Fact::of(sartor_ir::TensorType::fixed(it.dtype(), &it.shape))
        }
    };
    let facts: Vec<_> = inputs.iter().map(|it| it.map(fact)).collect();
    let given: Vec<_> = facts.iter().map(Option::as_ref).collect();
    let made = op.infer(&given, 1)?;
    let dims = made.first().and_then(|it| it.as_ref()?.ty.dims());
    let dims = dims.ok_or("the output shape does not follow from the inputs")?;
    let count = dims.iter().try_fold(1usize, |count, &n| count.checked_mul(n));
    match count {
        Some(it) if it <= MOST_ELEMENTS => Ok(dims),
        _ => Err(format!("an output of shape {dims:?} is too large")),
    }
}

/// No memory holds a tensor of more elements.
const MOST_ELEMENTS: usize = 1 << 40;

/// Joint shape of operands that broadcast.
pub(super) fn joint_shape(shapes: &[&[usize]]) -> Result<Vec<usize>, String> {
    let mut joint: Vec<sartor_ir::Dim> = Vec::new();
    for shape in shapes {
        let dims: Vec<_> = shape.iter().map(|&it| sartor_ir::Dim::Known(it)).collect();
        joint = broadcast(&joint, &dims)?;
    }
    Ok(joint.iter().filter_map(sartor_ir::Dim::known).collect())
}

/// The windows of a convolution or pooling over `extents` that has `outputs` positions.
pub(crate) fn windows(
    spatial: &Spatial,
    kernel: &[usize],
    extents: &[usize],
    outputs: &[usize],
) -> Result<Vec<conv::Window>, String> {
    let rows = spatial.geometry(kernel, extents)?;
    let mut axes = Vec::with_capacity(rows.len());
    for (i, &[kernel, stride, dilation, pad, _]) in rows.iter().enumerate() {
        axes.push(conv::Window {
            input: extents[i],
            output: outputs[i],
            kernel,
            stride,
            dilation,
            pad,
        });
    }
    Ok(axes)
}

fn conv_op(it: &Conv, inputs: &[Option<&Array>]) -> Result<Array, String> {
    let shape = output_shape(&Op::Conv(it.clone()), inputs)?;
    let (x, w) = (array(inputs, 0)?, array(inputs, 1)?);
    let sizes = conv::ConvShape {
        batch: x.shape[0],
        groups: it.group,
        channels: w.shape[1],
        filters: w.shape[0] / it.group,
        axes: windows(&it.spatial, &w.shape[2..], &x.shape[2..], &shape[2..])?,
    };
    let made = by_number!(x, convolved(&sizes, inputs))?;
    Ok(Array { shape, data: made })
}

fn convolved<T: Number>(
    sizes: &conv::ConvShape,
    inputs: &[Option<&Array>],
) -> Result<Data, String> {
    let bias = if optional(inputs, 2).is_some() { Some(values::<T>(inputs, 2)?) } else { None };
    Ok(T::wrap(conv::conv(sizes, values(inputs, 0)?, values(inputs, 1)?, bias)))
}

fn gemm_op(it: &Gemm, inputs: &[Option<&Array>]) -> Result<Array, String> {
    let shape = output_shape(&Op::Gemm(it.clone()), inputs)?;
    let data = by_number!(array(inputs, 0)?, multiplied(it, inputs, &shape))?;
    Ok(Array { shape, data })
}

/// The factors of integers are truncated to integers.
fn multiplied<T: Number>(
    it: &Gemm,
    inputs: &[Option<&Array>],
    shape: &[usize],
) -> Result<Data, String> {
    let factor = |factor: f32| {
        let made = cast::cast(&Array::f32(&[1], vec![factor]), T::wrap(Vec::new()).dtype(), true);
        made.values().and_then(|it| it.first().copied()).unwrap_or_default()
    };
    let (alpha, beta): (T, T) = (factor(it.alpha), factor(it.beta));
    let times = |a: T, b: T| T::arithmetic(Binary::Mul, a, b);
    let (a, b) = (array(inputs, 0)?, array(inputs, 1)?);
    let mut y = vec![T::default(); shape.iter().product()];
    let a_shape = gemm::Matrix::stored(a.shape[0], a.shape[1], it.trans_a);
    let b_shape = gemm::Matrix::stored(b.shape[0], b.shape[1], it.trans_b);
    gemm::matmul(values(inputs, 0)?, a_shape, values(inputs, 1)?, b_shape, &mut y);
    for y in &mut y {
        *y = times(alpha, *y);
    }
    if let Some(c) = optional(inputs, 2) {
        let view =
            View::expand(&c.shape, shape).ok_or("the addend does not broadcast to the product")?;
        let addend = view.read(values::<T>(inputs, 2)?);
        y.iter_mut()
            .zip(addend)
            .for_each(|(y, c)| *y = T::arithmetic(Binary::Add, *y, times(beta, c)));
    }
    Ok(T::wrap(y))
}

fn matmul_op(inputs: &[Option<&Array>]) -> Result<Array, String> {
    let shape = output_shape(&Op::MatMul, inputs)?;
    let (a, b) = (array(inputs, 0)?, array(inputs, 1)?);
    let batches = MatMulBatches::new(&a.shape, &b.shape)?;
    let data = by_number!(a, batched(&batches, inputs))?;
    Ok(Array { shape, data })
}

fn batched<T: Number>(batches: &MatMulBatches, inputs: &[Option<&Array>]) -> Result<Data, String> {
    let (x, w) = (values::<T>(inputs, 0)?, values::<T>(inputs, 1)?);
    let size = batches.a.rows * batches.b.columns;
    let mut y = vec![T::default(); batches.offsets.len() * size];
    for (i, &(at_a, at_b)) in batches.offsets.iter().enumerate() {
        gemm::matmul(&x[at_a..], batches.a, &w[at_b..], batches.b, &mut y[i * size..]);
    }
    Ok(T::wrap(y))
}

/// The matrices of a batched product.
#[derive(Clone, Debug)]
pub(crate) struct MatMulBatches {
    /// A matrix on the left.
    pub(crate) a: gemm::Matrix,
    /// A matrix on the right.
    pub(crate) b: gemm::Matrix,
    /// Where the operands of each product begin.
    pub(crate) offsets: Vec<(usize, usize)>,
}

impl MatMulBatches {
    /// For operands of these shapes, vectors lifted and leading axes broadcast.
    pub(crate) fn new(a: &[usize], b: &[usize]) -> Result<Self, String> {
        let wide_a = if a.len() == 1 { vec![1, a[0]] } else { a.to_vec() };
        let wide_b = if b.len() == 1 { vec![b[0], 1] } else { b.to_vec() };
        let (lead_a, mat_a) = wide_a.split_at(wide_a.len() - 2);
        let (lead_b, mat_b) = wide_b.split_at(wide_b.len() - 2);
        let joint = joint_shape(&[lead_a, lead_b])?;
        let starts = |lead: &[usize], size: usize| {
            let index: Vec<usize> =
                (0..lead.iter().product::<usize>()).map(|it| it * size).collect();
            View::expand(lead, &joint)
                .map(|it| it.read(&index))
                .ok_or("leading axes do not broadcast")
        };
        let at_a = starts(lead_a, mat_a[0] * mat_a[1])?;
        let at_b = starts(lead_b, mat_b[0] * mat_b[1])?;
        Ok(MatMulBatches {
            a: gemm::Matrix::stored(mat_a[0], mat_a[1], false),
            b: gemm::Matrix::stored(mat_b[0], mat_b[1], false),
            offsets: at_a.into_iter().zip(at_b).collect(),
        })
    }
}

fn batch_norm_op(it: &BatchNormalization, inputs: &[Option<&Array>]) -> Result<Array, String> {
    fn normalized<T: Float>(
        it: &BatchNormalization,
        x: &Array,
        inputs: &[Option<&Array>],
    ) -> Result<Data, String> {
        // Scale and statistics may be wider or narrower than the input.
        let list = |i: usize| -> Result<Vec<T>, String> {
            Ok(array(inputs, i)?.to_f64().into_iter().map(T::narrow).collect())
        };
        let (factor, addend) =
            norm::batch_norm_affine(it, &list(1)?, &list(2)?, &list(3)?, &list(4)?);
        let inner: usize = x.shape[2..].iter().product();
        let one = |(i, &x): (usize, &T)| {
            let c = i / inner % factor.len();
            T::arithmetic(Binary::Add, T::arithmetic(Binary::Mul, x, factor[c]), addend[c])
        };
        Ok(T::wrap(values::<T>(inputs, 0)?.iter().enumerate().map(one).collect()))
    }
    let x = array(inputs, 0)?;
    let data = by_float!(x, normalized(it, x, inputs))?;
    Ok(Array { shape: x.shape.clone(), data })
}

fn softmax_op(axis: i64, inputs: &[Option<&Array>], logarithm: bool) -> Result<Array, String> {
    fn along<T: Float>(
        inputs: &[Option<&Array>],
        (extent, inner): (usize, usize),
        logarithm: bool,
    ) -> Result<Data, String> {
        let x = values::<T>(inputs, 0)?;
        let mut y = vec![T::default(); x.len()];
        norm::softmax(x, extent, inner, logarithm, &mut y);
        Ok(T::wrap(y))
    }
    let x = array(inputs, 0)?;
    let axis = normalize_axis(axis, x.shape.len())?;
    let sizes = (x.shape[axis], x.shape[axis + 1..].iter().product());
    let data = by_float!(x, along(inputs, sizes, logarithm))?;
    Ok(Array { shape: x.shape.clone(), data })
}

fn pool_op(it: &Pool, inputs: &[Option<&Array>], wanted: usize) -> Result<Vec<Array>, String> {
    fn largest<T: Number>(
        inputs: &[Option<&Array>],
        planes: usize,
        axes: &[conv::Window],
    ) -> Result<(Data, Vec<i64>), String> {
        let (values, indices) = pool::max_pool(values::<T>(inputs, 0)?, planes, axes);
        Ok((T::wrap(values), indices))
    }
    fn mean<T: Float>(
        inputs: &[Option<&Array>],
        planes: usize,
        axes: &[conv::Window],
        padded: Option<&[usize]>,
    ) -> Result<Data, String> {
        Ok(T::wrap(pool::average_pool(values::<T>(inputs, 0)?, planes, axes, padded)))
    }
    let shape = output_shape(&Op::Pool(it.clone()), inputs)?;
    let x = array(inputs, 0)?;
    let axes = windows(&it.spatial, &[], &x.shape[2..], &shape[2..])?;
    let planes = x.shape[0] * x.shape[1];
    if it.kind == PoolKind::Average {
        let rows = it.spatial.geometry(&[], &x.shape[2..])?;
        let padded: Vec<_> =
            rows.iter().zip(&x.shape[2..]).map(|(row, &n)| row[3] + n + row[4]).collect();
        let padded = it.count_include_pad.then_some(padded.as_slice());
        let data = by_float!(x, mean(inputs, planes, &axes, padded))?;
        return Ok(vec![Array { shape, data }]);
    }
    let (data, mut indices) = by_number!(x, largest(inputs, planes, &axes))?;
    if it.column_major {
        for it in &mut indices {
            *it = by_columns(*it as usize, &x.shape) as i64;
        }
    }
    let indices = Array { shape: shape.clone(), data: Data::I64(indices) };
    Ok([Array { shape, data }, indices].into_iter().take(wanted).collect())
}

/// The number of element `at` if the first spatial axis runs fastest within each plane.
fn by_columns(at: usize, shape: &[usize]) -> usize {
    let size: usize = shape[2..].iter().product();
    let (mut rest, mut index, mut stride) = (at % size, 0, size);
    for &extent in shape[2..].iter().rev() {
        stride /= extent;
        index += rest % extent * stride;
        rest /= extent;
    }
    at / size * size + index
}

fn global_pool_op(it: GlobalPool, inputs: &[Option<&Array>]) -> Result<Array, String> {
    fn pooled<T: Float>(
        kind: ReduceKind,
        inputs: &[Option<&Array>],
        planes: usize,
    ) -> Result<Data, String> {
        let x = values::<T>(inputs, 0)?;
        let size = x.len().checked_div(planes).unwrap_or(0);
        let plane = |p: usize| reduce::reduce(kind, x[p * size..][..size].iter().copied(), size);
        Ok(T::wrap((0..planes).map(plane).collect()))
    }
    let shape = output_shape(&Op::GlobalPool(it), inputs)?;
    let kind = match it {
        GlobalPool::Average => ReduceKind::Mean,
        GlobalPool::Max => ReduceKind::Max,
    };
    let data = by_float!(array(inputs, 0)?, pooled(kind, inputs, shape[0] * shape[1]))?;
    Ok(Array { shape, data })
}

fn reduce_op(it: &Reduce, inputs: &[Option<&Array>]) -> Result<Array, String> {
    fn floats<T: Float>(
        kind: ReduceKind,
        inputs: &[Option<&Array>],
        view: &reduce::ReduceView,
    ) -> Result<Data, String> {
        let (x, count) = (values::<T>(inputs, 0)?, view.reduced.len());
        let lane =
            |&at: &usize| reduce::reduce(kind, view.reduced.iter().map(|&by| x[at + by]), count);
        Ok(T::wrap(view.kept.iter().map(lane).collect()))
    }
    let shape = output_shape(&Op::Reduce(it.clone()), inputs)?;
    let x = array(inputs, 0)?;
    let axes = it.resolve(integers(inputs, 1).as_deref(), x.shape.len())?;
    let view = reduce::ReduceView::new(&x.shape, &axes);
    if x.dtype().is_float() {
        let data = by_float!(x, floats(it.kind, inputs, &view))?;
        return Ok(Array { shape, data });
    }
    let (mut numbers, count) = (x.to_i64(), view.reduced.len());
    // The order of unsigned numbers that are held as signed ones: their first bit turned.
    let ordered = matches!(it.kind, ReduceKind::Max | ReduceKind::Min);
    let turn = if ordered && x.dtype() == DType::U64 { i64::MIN } else { 0 };
    for it in &mut numbers {
        *it ^= turn;
    }
    let lane = |&at: &usize| {
        let lane = view.reduced.iter().map(|&by| numbers[at + by]);
        Some(reduce::reduce_integers(it.kind, lane, count)? ^ turn)
    };
    let reduced: Option<Vec<i64>> = view.kept.iter().map(lane).collect();
    let Some(reduced) = reduced else {
        // Roots and logarithms of integers are truncated.
        let wide = Array { shape: x.shape.clone(), data: Data::F64(x.to_f64()) };
        let made = floats::<f64>(it.kind, &[Some(&wide)], &view)?;
        return Ok(cast::cast(&Array { shape, data: made }, x.dtype(), true));
    };
    Ok(Array { shape, data: Data::from_integers(reduced, x.dtype()) })
}

/// Which scale of a scale tensor of shape `scale` belongs to which element of `shape`.
pub(crate) fn quantize_granularity(
    it: &QuantizeLinear,
    shape: &[usize],
    scale: &[usize],
) -> Result<quantize::Granularity, String> {
    if scale.iter().product::<usize>() == 1 {
        return Ok(quantize::Granularity::Tensor);
    }
    let axis = normalize_axis(it.axis, shape.len())?;
    let (extent, inner) = (shape[axis], shape[axis + 1..].iter().product());
    let expected = match it.block_size {
        0 => vec![extent],
        block => [&shape[..axis], &[extent.div_ceil(block)], &shape[axis + 1..]].concat(),
    };
    if scale != expected {
        return Err(format!("scale {scale:?} does not fit, expected {expected:?} or a scalar"));
    }
    Ok(match it.block_size {
        0 => quantize::Granularity::Channel { extent, inner },
        block => quantize::Granularity::Block { extent, inner, block },
    })
}

fn zero_points(inputs: &[Option<&Array>], count: usize) -> Result<Vec<i64>, String> {
    let zeros = integers(inputs, 2).unwrap_or_else(|| vec![0; count]);
    if zeros.len() == count {
        Ok(zeros)
    } else {
        Err(format!("{} zero points for {count} scales", zeros.len()))
    }
}

fn quantize_op(
    it: &QuantizeLinear,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Array, String> {
    let (x, scale) = (array(inputs, 0)?, array(inputs, 1)?);
    let (numbers, scales) = (x.to_f32(), scale.to_f32());
    let by = quantize_granularity(it, &x.shape, &scale.shape)?;
    let dtype = dtypes.first().copied().unwrap_or(DType::U8);
    let one = |(i, &x): (usize, &f32)| x / scales[by.scale_of(i)];
    if dtype.is_narrow_float() {
        let scaled = numbers.iter().enumerate().map(one).collect();
        let data = Data::F32(cast::rounded(scaled, dtype, it.saturate));
        return Ok(Array { shape: x.shape.clone(), data });
    }
    let zeros = zero_points(inputs, scales.len())?;
    let limits =
        quantize::limits(dtype).ok_or_else(|| format!("quantizing to {dtype} is not supported"))?;
    let one = |(i, &x): (usize, &f32)| {
        let s = by.scale_of(i);
        i64::from(quantize::quantize(x, scales[s], zeros[s] as i32, limits))
    };
    let numbers = numbers.iter().enumerate().map(one).collect();
    Ok(Array { shape: x.shape.clone(), data: Data::from_integers(numbers, dtype) })
}

fn dequantize_op(
    it: &QuantizeLinear,
    inputs: &[Option<&Array>],
    dtypes: &[DType],
) -> Result<Array, String> {
    let (x, scale) = (array(inputs, 0)?, array(inputs, 1)?);
    let scales = scale.to_f32();
    let by = quantize_granularity(it, &x.shape, &scale.shape)?;
    let floats: Vec<f32> = if x.dtype().is_float() {
        let one = |(i, x): (usize, f32)| x * scales[by.scale_of(i)];
        x.to_f32().into_iter().enumerate().map(one).collect()
    } else {
        let zeros = zero_points(inputs, scales.len())?;
        let one = |(i, &q): (usize, &i64)| {
            let s = by.scale_of(i);
            quantize::dequantize(q, scales[s], zeros[s])
        };
        x.to_i64().iter().enumerate().map(one).collect()
    };
    let dtype = dtypes.first().copied().unwrap_or(DType::F32);
    Ok(cast::cast(&Array::f32(&x.shape, floats), dtype, true))
}

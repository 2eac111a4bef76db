//! Products of integers (<https://onnx.ai/onnx/operators/onnx__MatMulInteger.html> and its kin) and of
//! floats with weights of few bits.

use sartor_ir::{
    DType, Named, Op,
    catalog::{MatMulNBits, conv_of},
};

use super::Rule;
use crate::{
    Array, Data,
    reference::{
        MatMulBatches, conv,
        evaluate::{array, optional, values},
        gemm, integer,
        layout::View,
        output_shape, quantize, windows,
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "ConvInteger", evaluate: conv_integer },
    Rule { domain: "", name: "DynamicQuantizeLinear", evaluate: dynamic_quantize },
    Rule { domain: "", name: "MatMulInteger", evaluate: matmul_integer },
    Rule { domain: "com.microsoft", name: "MatMulNBits", evaluate: matmul_n_bits },
];

type Made = Result<Vec<Array>, String>;

/// The elements of `x` less the zero points, which broadcast to it (see `aligned`).
fn centred(x: &Array, zero: Option<&Array>, aligned: &[usize]) -> Result<Vec<i32>, String> {
    let narrow = |it: &Array| -> Result<Vec<i32>, String> {
        match &it.data {
            Data::U8(values) => Ok(values.iter().map(|&it| i32::from(it)).collect()),
            Data::I8(values) => Ok(values.iter().map(|&it| i32::from(it)).collect()),
            _ => Err(format!(
                "elements of type {} are not multiplied, expected i8 or u8",
                it.dtype()
            )),
        }
    };
    let mut numbers = narrow(x)?;
    let Some(zero) = zero else { return Ok(numbers) };
    let zeros = narrow(zero)?;
    if let [zero] = zeros[..] {
        for it in &mut numbers {
            *it -= zero;
        }
        return Ok(numbers);
    }
    let fits = aligned.iter().product::<usize>() == zeros.len();
    let view = View::expand(aligned, &x.shape).filter(|_| fits);
    let view = view
        .ok_or_else(|| format!("zero points {:?} do not fit operand {:?}", zero.shape, x.shape))?;
    numbers.iter_mut().zip(view.read(&zeros)).for_each(|(it, zero)| *it -= zero);
    Ok(numbers)
}

/// The shape of zero points as it aligns with their operand: a list with one entry for each index of
/// `axis` (counted from the end) stands along it.
fn aligned(zero: Option<&Array>, behind: usize) -> Vec<usize> {
    let mut shape = zero.map(|it| it.shape.clone()).unwrap_or_default();
    if shape.len() == 1 {
        shape.resize(1 + behind, 1);
    }
    shape
}

/// `A, B, a zero?, b zero?`: zero points of rows of `A` and of columns of `B`.
fn matmul_integer(_: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let (a, b) = (array(inputs, 0)?, array(inputs, 1)?);
    let shape = output_shape(&Op::MatMul, &[Some(a), Some(b)])?;
    let batches = MatMulBatches::new(&a.shape, &b.shape)?;
    let (zero_a, zero_b) = (optional(inputs, 2), optional(inputs, 3));
    let x = centred(a, zero_a, &aligned(zero_a, 1))?;
    let w = centred(b, zero_b, &aligned(zero_b, 0))?;
    let size = batches.a.rows * batches.b.columns;
    let mut y = vec![0i32; batches.offsets.len() * size];
    for (i, &(at_a, at_b)) in batches.offsets.iter().enumerate() {
        gemm::matmul(&x[at_a..], batches.a, &w[at_b..], batches.b, &mut y[i * size..]);
    }
    Ok(vec![Array { shape, data: Data::I32(y) }])
}

/// `x, w, x zero?, w zero?`: one zero point of `x`, one of `w` or one of each filter. Pads count as zero
/// points.
fn conv_integer(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let it = conv_of(op)?;
    let (x, w) = (array(inputs, 0)?, array(inputs, 1)?);
    let shape = output_shape(&Op::Conv(it.clone()), &[Some(x), Some(w)])?;
    let sizes = conv::ConvShape {
        batch: x.shape[0],
        groups: it.group,
        channels: w.shape[1],
        filters: w.shape[0] / it.group,
        axes: windows(&it.spatial, &w.shape[2..], &x.shape[2..], &shape[2..])?,
    };
    let zero = optional(inputs, 3);
    let numbers = centred(x, optional(inputs, 2), &[])?;
    let weights = centred(w, zero, &aligned(zero, w.shape.len() - 1))?;
    Ok(vec![Array { shape, data: Data::I32(integer::conv(&sizes, &numbers, &weights)) }])
}

fn dynamic_quantize(_: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let x = values::<f32>(inputs, 0)?;
    let (scale, zero) = integer::dynamic_parameters(x);
    let one = |&x: &f32| quantize::quantize(x, scale, i32::from(zero), (0, 255)) as u8;
    let q = Data::U8(x.iter().map(one).collect());
    Ok(vec![
        Array { shape: array(inputs, 0)?.shape.clone(), data: q },
        Array::scalar(Data::F32(vec![scale])),
        Array::scalar(Data::U8(vec![zero])),
    ])
}

/// `A, B, scales, zero points?, group index?, bias?`.
fn matmul_n_bits(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let sizes = MatMulNBits::of(op)?;
    if optional(inputs, 4).is_some() {
        return Err("its group index, which was given up, is not supported".to_owned());
    }
    let a = array(inputs, 0)?;
    let shape = output_shape(&Op::Named(op.clone()), &[Some(a)])?;
    let weights = dequantized(&sizes, inputs)?;
    let x = values::<f32>(inputs, 0)?;
    let rows = x.len() / sizes.k;
    let mut y = vec![0f32; rows * sizes.n];
    let left = gemm::Matrix::stored(rows, sizes.k, false);
    gemm::matmul(x, left, &weights, gemm::Matrix::stored(sizes.n, sizes.k, true), &mut y);
    if optional(inputs, 5).is_some() {
        let bias = values::<f32>(inputs, 5)?;
        if bias.len() != sizes.n {
            return Err(format!("{} biases for {} columns", bias.len(), sizes.n));
        }
        y.iter_mut().zip(bias.iter().cycle()).for_each(|(y, bias)| *y += bias);
    }
    Ok(vec![Array { shape, data: Data::F32(y) }])
}

/// The weights `[n, k]`: `(q - zero) scale` with a scale and a zero point for each block. Without zero
/// points the zero is in the middle of the range.
fn dequantized(sizes: &MatMulNBits, inputs: &[Option<&Array>]) -> Result<Vec<f32>, String> {
    let (bits, blocks) = (sizes.bits, sizes.blocks());
    let (packed, scales) = (values::<u8>(inputs, 1)?, values::<f32>(inputs, 2)?);
    let (blob, row) = (sizes.block * bits / 8, (blocks * bits).div_ceil(8));
    let short = |what: &str, found: usize, expected: usize| {
        Err(format!("{found} {what}, expected {expected} for {sizes:?}"))
    };
    if packed.len() != sizes.n * blocks * blob {
        return short("bytes of weights", packed.len(), sizes.n * blocks * blob);
    }
    if scales.len() != sizes.n * blocks {
        return short("scales", scales.len(), sizes.n * blocks);
    }
    let middle = (1u32 << (bits - 1)) as f32;
    let zeros = match optional(inputs, 3).map(|it| &it.data) {
        None => vec![middle; scales.len()],
        Some(Data::F32(zeros)) if zeros.len() == scales.len() => zeros.clone(),
        Some(Data::U8(bytes)) if bytes.len() == sizes.n * row => {
            let one = |i: usize| integer::unpacked(&bytes[i / blocks * row..], bits, i % blocks);
            (0..scales.len()).map(|i| f32::from(one(i).unwrap_or(0))).collect()
        }
        Some(other) => return short("zero points", other.len(), scales.len()),
    };
    let weight = |at: usize| {
        let (n, k) = (at / sizes.k, at % sizes.k);
        let block = n * blocks + k / sizes.block;
        let q = integer::unpacked(&packed[block * blob..], bits, k % sizes.block).unwrap_or(0);
        (f32::from(q) - zeros[block]) * scales[block]
    };
    Ok((0..sizes.n * sizes.k).map(weight).collect())
}

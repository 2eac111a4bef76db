//! Linear quantization by its definition
//! (<https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>).

use sartor_ir::DType;

/// Which scale belongs to which element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// One scale for all.
    Tensor,
    /// One scale for each index of an axis.
    Channel {
        /// Extent of the axis.
        extent: usize,
        /// Elements behind one index of the axis.
        inner: usize,
    },
    /// One scale for each run of indices of an axis, at each position of the other axes.
    Block {
        /// Extent of the axis.
        extent: usize,
        /// Elements behind one index of the axis.
        inner: usize,
        /// Indices that share a scale.
        block: usize,
    },
}

impl Granularity {
    /// Position of the scale of element `i`.
    pub fn scale_of(self, i: usize) -> usize {
        match self {
            Granularity::Tensor => 0,
            Granularity::Channel { extent, inner } => i / inner % extent,
            Granularity::Block { extent, inner, block } => {
                let (outer, along) = (i / (inner * extent), i / inner % extent / block);
                (outer * extent.div_ceil(block) + along) * inner + i % inner
            }
        }
    }
}

/// Smallest and largest value of an integer type of at most 16 bits.
pub fn limits(dtype: DType) -> Option<(i32, i32)> {
    Some(match dtype {
        DType::I4 => (-8, 7),
        DType::U4 => (0, 15),
        DType::I8 => (-128, 127),
        DType::U8 => (0, 255),
        DType::I16 => (-32768, 32767),
        DType::U16 => (0, 65535),
        _ => return None,
    })
}

/// `saturate(round_half_even(x / scale) + zero)`; a NaN goes to the smallest value.
pub fn quantize(x: f32, scale: f32, zero: i32, (low, high): (i32, i32)) -> i32 {
    let (low, high) = ((low - zero) as f32, (high - zero) as f32);
    (x / scale).max(low).min(high).round_ties_even() as i32 + zero
}

/// `(q - zero) scale`.
pub fn dequantize(q: i64, scale: f32, zero: i64) -> f32 {
    (q - zero) as f32 * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of ONNX's page on `QuantizeLinear`, and ties to even.
    #[test]
    fn onnx_example() {
        let u8s = limits(DType::U8).unwrap();
        let x = [0.0, 2.0, 3.0, 1000.0, -254.0, -1000.0];
        assert_eq!(x.map(|it| quantize(it, 2.0, 128, u8s)), [128, 129, 130, 255, 1, 0]);
        assert_eq!([0.5, 1.5, 2.5, -0.5].map(|it| quantize(it, 1.0, 0, (-128, 127))), [0, 2, 2, 0]);
        assert_eq!(
            [f32::NAN, f32::INFINITY].map(|it| quantize(it, 1.0, 3, (-128, 127))),
            [-128, 127]
        );
    }

    #[test]
    fn scales_by_channel_and_by_block() {
        let channel = Granularity::Channel { extent: 3, inner: 2 };
        assert_eq!(
            (0..12).map(|i| channel.scale_of(i)).collect::<Vec<_>>(),
            [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]
        );
        let tensor = Granularity::Tensor;
        assert!((0..12).all(|i| tensor.scale_of(i) == 0));
        // Blocks of 2 along axis 1 of [2, 4, 1]: scales [2, 2, 1].
        let block = Granularity::Block { extent: 4, inner: 1, block: 2 };
        assert_eq!((0..8).map(|i| block.scale_of(i)).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 3, 3]);
    }
}

//! Work of known size, to measure what a machine can do at best.

use std::fmt;

use crate::simd::{ByteConv, ConvShape, Requant, Sink, Strided, Tail, gemm};

/// Extent of the matrices: large enough that their product is bound by arithmetic, small enough for a few hundredths of
/// a second.
const N: usize = 1024;

/// A product of two square matrices, on all threads.
pub struct Probe(Work);

enum Work {
    Floats { left: Vec<f32>, right: Vec<f32>, product: Vec<f32> },
    Bytes { left: Vec<u8>, right: Box<ByteConv>, product: Vec<u8> },
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Work::Floats { .. } => "f32",
            Work::Bytes { .. } => "u8",
        };
        write!(f, "Probe({kind})")
    }
}

impl Probe {
    /// Of 32-bit floats, by the `gemm` crate.
    pub fn f32() -> Self {
        let wave = |phase: f32| (0..N * N).map(|i| (i as f32 * 0.37 + phase).sin()).collect();
        Probe(Work::Floats { left: wave(0.0), right: wave(1.0), product: vec![0.0; N * N] })
    }

    /// Of bytes with exact sums, by the engine's own kernel: a convolution of one tap.
    pub fn u8() -> Self {
        let geometry = ConvShape {
            batch: 1,
            in_channels: N,
            in_h: 1,
            in_w: N,
            out_channels: N,
            out_h: 1,
            out_w: N,
            kernel: (1, 1),
            strides: (1, 1),
            dilations: (1, 1),
            pads_begin: (0, 0),
            groups: 1,
        };
        let requant = Requant {
            bounds: (0.0, 255.0),
            bias: vec![0; N],
            factor: vec![1e-4; N],
            addend: vec![0.0; N],
            ..Requant::default()
        };
        let weights: Vec<i8> = (0..N * N).map(|i| (i * 7 % 15) as i8).collect();
        let right = Box::new(ByteConv::new(&geometry, &weights, 0, &requant));
        let left = (0..N * N).map(|i| (i * 5 % 256) as u8).collect();
        Probe(Work::Bytes { left, right, product: vec![0; N * N] })
    }

    /// Multiplies once.
    pub fn run(&mut self) {
        match &mut self.0 {
            Work::Floats { left, right, product } => {
                let of = |data| Strided { data, row: N, col: 1 };
                gemm((N, N, N), of(left), of(right), product, None, Tail::None);
            }
            Work::Bytes { left, right, product } => right.run(left, Sink::Bytes(product)),
        }
    }

    /// Operations of one product, two for each multiply-accumulate.
    pub fn operations(&self) -> f64 {
        2.0 * (N as f64).powi(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "bytes are exact")]
    fn they_multiply() {
        let mut probe = Probe::f32();
        probe.run();
        let Work::Floats { left, right, product } = &probe.0 else { panic!("floats") };
        let (row, col) = (3, 700);
        let sum: f64 =
            (0..N).map(|k| f64::from(left[row * N + k]) * f64::from(right[k * N + col])).sum();
        assert!((f64::from(product[row * N + col]) - sum).abs() < 1e-2);

        let mut probe = Probe::u8();
        probe.run();
        let Work::Bytes { left, product, .. } = &probe.0 else { panic!("bytes") };
        let weight = |i: usize| i * 7 % 15;
        let sum: usize = (0..N).map(|k| usize::from(left[row * N + k]) * weight(col * N + k)).sum();
        assert_eq!(f64::from(product[row * N + col]), (sum as f64 * 1e-4).round().min(255.0));
    }
}

//! Byte kernels at every level of this processor against plain integer loops.

use proptest::prelude::*;

use super::*;
use crate::{
    reference::quantize,
    simd::{Grid, available, conv::ConvShape, tests::geometry},
};

/// Deterministic bytes.
fn bytes(count: usize, mut seed: u64) -> Vec<u8> {
    (0..count)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect()
}

fn signed(count: usize, seed: u64) -> Vec<i8> {
    bytes(count, seed).into_iter().map(u8::cast_signed).collect()
}

/// The byte levels that this processor has.
fn byte_levels() -> Vec<ByteLevel> {
    let levels = [Level::Portable, Level::Avx2, Level::Avx512];
    levels.into_iter().filter(|&it| available(it)).map(ByteLevel::of).collect()
}

/// The sums of a convolution by definition: x [n, h, w, c], y [n, h, w, o]; `pad` is what lies around the input.
fn plain_conv(s: &ConvShape, x: &[u8], weights: &[i8], pad: u8) -> Vec<i32> {
    let (inputs, outputs) = (s.in_channels / s.groups, s.out_channels / s.groups);
    let mut y = Vec::new();
    for n in 0..s.batch {
        for (oy, ox) in (0..s.out_h * s.out_w).map(|i| (i / s.out_w, i % s.out_w)) {
            for o in 0..s.out_channels {
                let mut sum = 0;
                for (ky, kx) in
                    (0..s.kernel.0 * s.kernel.1).map(|i| (i / s.kernel.1, i % s.kernel.1))
                {
                    let iy = (oy * s.strides.0 + ky * s.dilations.0).wrapping_sub(s.pads_begin.0);
                    let ix = (ox * s.strides.1 + kx * s.dilations.1).wrapping_sub(s.pads_begin.1);
                    for c in 0..inputs {
                        let channel = o / outputs * inputs + c;
                        let x = if iy < s.in_h && ix < s.in_w {
                            x[((n * s.in_h + iy) * s.in_w + ix) * s.in_channels + channel]
                        } else {
                            pad
                        };
                        let w = weights[((o * inputs + c) * s.kernel.0 + ky) * s.kernel.1 + kx];
                        sum += i32::from(x) * i32::from(w);
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn check_conv(s: &ConvShape, seed: u64) -> Result<(), TestCaseError> {
    let terms = s.in_channels / s.groups * s.kernel.0 * s.kernel.1;
    let x = bytes(s.batch * s.in_channels * s.in_h * s.in_w, seed);
    let weights = signed(s.out_channels * terms, seed + 1);
    let pad = bytes(1, seed + 2)[0];
    let bias: Vec<i32> =
        signed(s.out_channels, seed + 3).iter().map(|&it| i32::from(it) * 99).collect();
    let sums = plain_conv(s, &x, &weights, pad);
    let biased: Vec<i32> =
        sums.iter().enumerate().map(|(i, it)| it + bias[i % s.out_channels]).collect();
    let exact = Requant {
        bias: bias.clone(),
        factor: vec![1.0; s.out_channels],
        addend: vec![0.0; s.out_channels],
        bounds: (f32::NEG_INFINITY, f32::INFINITY),
        zero: 0,
    };
    let factor: Vec<f32> = bytes(s.out_channels, seed + 4)
        .iter()
        .map(|&it| (f32::from(it) + 1.0) * 1e-4 / terms as f32)
        .collect();
    let requant =
        Requant { factor: factor.clone(), bounds: (-100.0, 150.0), zero: 100, ..exact.clone() };
    for level in byte_levels() {
        let mut floats = vec![f32::NAN; sums.len()];
        ByteConv::at(level, s, &weights, pad, &exact).run(&x, Sink::Floats(&mut floats));
        prop_assert!(
            floats.iter().zip(&biased).all(|(y, sum)| *y as i32 == *sum),
            "{level:?} {s:?}: sums differ"
        );
        let mut planes = vec![f32::NAN; sums.len()];
        ByteConv::at(level, s, &weights, pad, &exact).run(&x, Sink::Planes(&mut planes));
        let (plane, channels) = (s.out_h * s.out_w, s.out_channels);
        for (at, &sum) in biased.iter().enumerate() {
            let (n, p, c) = (at / (plane * channels), at / channels % plane, at % channels);
            prop_assert_eq!(planes[(n * channels + c) * plane + p] as i32, sum, "planes {:?}", s);
        }
        let mut made = vec![0; sums.len()];
        ByteConv::at(level, s, &weights, pad, &requant).run(&x, Sink::Bytes(&mut made));
        for (at, (&y, &sum)) in made.iter().zip(&biased).enumerate() {
            let steps = (sum as f32 * factor[at % s.out_channels]).clamp(-100.0, 150.0);
            let expected = (steps.round_ties_even() + 100.0) as u8;
            prop_assert_eq!(y, expected, "{:?} {:?} element {}", level, s, at);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution_is_its_definition(shape in geometry(), seed in any::<u32>()) {
        check_conv(&shape, u64::from(seed))?;
    }
}

#[test]
fn wide_convolutions_are_their_definition() {
    let plain = ConvShape {
        batch: 1,
        in_channels: 1,
        in_h: 1,
        in_w: 1,
        out_channels: 1,
        out_h: 1,
        out_w: 1,
        kernel: (1, 1),
        strides: (1, 1),
        dilations: (1, 1),
        pads_begin: (0, 0),
        groups: 1,
    };
    let square =
        |side: usize| ConvShape { in_h: side, in_w: side, out_h: side, out_w: side, ..plain };
    let cases = [
        ConvShape { batch: 3, in_channels: 24, out_channels: 144, ..square(5) },
        ConvShape { batch: 37, in_channels: 130, out_channels: 10, ..plain },
        ConvShape {
            in_channels: 96,
            out_channels: 100,
            kernel: (3, 3),
            pads_begin: (1, 1),
            ..square(7)
        },
        ConvShape {
            in_channels: 64,
            out_channels: 96,
            in_h: 8,
            in_w: 8,
            out_h: 4,
            out_w: 4,
            strides: (2, 2),
            ..plain
        },
        ConvShape {
            in_channels: 100,
            out_channels: 100,
            groups: 100,
            kernel: (3, 5),
            pads_begin: (1, 2),
            ..square(40)
        },
        ConvShape {
            batch: 9,
            in_channels: 16,
            out_channels: 16,
            kernel: (3, 3),
            pads_begin: (1, 1),
            ..square(32)
        },
        // Two images and more tasks wanted than there are.
        ConvShape {
            batch: 16,
            in_channels: 16,
            out_channels: 16,
            kernel: (3, 3),
            pads_begin: (1, 1),
            ..square(32)
        },
    ];
    for shape in &cases {
        check_conv(shape, 5).unwrap();
    }
}

#[test]
fn extreme_products_do_not_saturate() {
    let s = ConvShape {
        batch: 1,
        in_channels: 512,
        in_h: 1,
        in_w: 2,
        out_channels: 3,
        out_h: 1,
        out_w: 2,
        kernel: (1, 1),
        strides: (1, 1),
        dilations: (1, 1),
        pads_begin: (0, 0),
        groups: 1,
    };
    let requant = Requant {
        bias: vec![7; 3],
        factor: vec![1.0; 3],
        addend: vec![0.0; 3],
        bounds: (f32::NEG_INFINITY, f32::INFINITY),
        zero: 0,
    };
    for level in byte_levels() {
        let mut y = [0.0; 6];
        ByteConv::at(level, &s, &[-128; 1536], 0, &requant).run(&[255; 1024], Sink::Floats(&mut y));
        assert_eq!(y.map(|it| it as i32), [-128 * 255 * 512 + 7; 6], "{level:?}");
    }
}

#[test]
fn elementwise_is_its_definition() {
    let (a, b) = (bytes(70_001, 1), bytes(70_001, 2));
    let by = Affine { zeros: (3.0, 128.0), factors: (0.25, 0.5), bounds: (-7.0, 200.0), zero: 7 };
    let mut y = vec![0; a.len()];
    add_bytes(by, &a, &b, &mut y);
    for ((&y, &a), &b) in y.iter().zip(&a).zip(&b) {
        let sum = (f32::from(a) - 3.0) * 0.25 + (f32::from(b) - 128.0) * 0.5;
        assert_eq!(y, (sum.round_ties_even().clamp(-7.0, 200.0) + 7.0) as u8);
    }
    mul_bytes(by, &a, &b, &mut y);
    for ((&y, &a), &b) in y.iter().zip(&a).zip(&b) {
        let product = (f32::from(a) - 3.0) * (f32::from(b) - 128.0) * 0.25;
        assert_eq!(y, (product.round_ties_even().clamp(-7.0, 200.0) + 7.0) as u8);
    }
    let mut sums = vec![5; 300];
    sum_rows(&a[..300], &mut sums);
    assert!(sums.iter().zip(&a).all(|(sum, &a)| *sum == 5 + i32::from(a)));
    let mut largest = b[..300].to_vec();
    max_rows(&a[..300], &mut largest);
    assert!(largest.iter().zip(a.iter().zip(&b)).all(|(y, (a, b))| y == a.max(b)));
    let mut scaled = vec![0; 300];
    scale_sums((100, 1.0, 2.0), (0.0, 60.0), 9, &sums, &mut scaled);
    for (&y, &sum) in scaled.iter().zip(&sums) {
        assert_eq!(y, (((sum - 100) as f32 * 0.5).round_ties_even().clamp(0.0, 60.0) + 9.0) as u8);
    }
}

#[test]
fn doors_turn_and_quantize() {
    let (n, channels, positions) = (2, 5, 130);
    let x: Vec<f32> =
        bytes(n * channels * positions, 3).iter().map(|&it| f32::from(it) * 0.07 - 6.0).collect();
    let grid = Grid { scale: 0.05, zero_point: 100.0, low: 0.0, high: 255.0 };
    let (mut bytes, mut back) = (vec![0; x.len()], vec![0.0; x.len()]);
    quantize_planes(grid, (channels, positions), &x, &mut bytes);
    dequantize_planes(grid, (channels, positions), &bytes, &mut back);
    for (i, (&x, &back)) in x.iter().zip(&back).enumerate() {
        let (image, c, p) = (i / (channels * positions), i / positions % channels, i % positions);
        let q = quantize::quantize(x, 0.05, 100, (0, 255));
        assert_eq!(i32::from(bytes[(image * positions + p) * channels + c]), q);
        assert_eq!(back.to_bits(), quantize::dequantize(i64::from(q), 0.05, 100).to_bits());
    }
}

#[test]
fn results_do_not_depend_on_threads() {
    for (batch, channels, side, outputs, groups) in
        [(9, 16, 32, 16, 1), (1, 64, 56, 64, 64), (3, 256, 14, 512, 1)]
    {
        let s = ConvShape {
            batch,
            in_channels: channels,
            in_h: side,
            in_w: side,
            out_channels: outputs,
            out_h: side,
            out_w: side,
            kernel: (3, 3),
            strides: (1, 1),
            dilations: (1, 1),
            pads_begin: (1, 1),
            groups,
        };
        let x = bytes(batch * channels * side * side, 1);
        let requant = Requant {
            bias: vec![0; outputs],
            factor: vec![0.001; outputs],
            addend: vec![0.5; outputs],
            bounds: (0.0, 255.0),
            zero: 0,
        };
        let conv = ByteConv::new(&s, &signed(outputs * channels / groups * 9, 2), 9, &requant);
        crate::simd::tests::same_for_all_pools(|| {
            let mut y = vec![0; batch * outputs * side * side];
            conv.run(&x, Sink::Bytes(&mut y));
            y
        });
    }
}

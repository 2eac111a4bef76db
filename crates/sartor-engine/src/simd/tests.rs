//! Every kernel at every level of this processor against plain loops in double precision.

use proptest::prelude::*;

use super::*;

/// Deterministic values in −1..1.
fn values(count: usize, mut seed: u64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 40) as f32 / (1_u32 << 23) as f32) - 1.0
        })
        .collect()
}

/// The levels that this processor has.
fn levels() -> impl Iterator<Item = Level> {
    [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|&level| available(level))
}

fn geometry() -> impl Strategy<Value = ConvShape> {
    let channels = prop_oneof![Just(1_usize), Just(2), Just(3), Just(5), Just(8), Just(17)];
    let pair = |range: std::ops::Range<usize>| (range.clone(), range);
    (
        (1_usize..4, channels.clone(), channels, prop_oneof![Just(1_usize), Just(2), Just(3)]),
        (pair(1..24), pair(1..6), pair(1..4), pair(1..3), pair(0..3), pair(0..3)),
        any::<bool>(),
    )
        .prop_map(
            |((batch, c, o, groups), (size, kernel, strides, dilations, begin, end), depthwise)| {
                let groups = if depthwise { c * groups } else { groups };
                let (in_channels, out_channels) = if depthwise {
                    (groups, groups * (o % 2 + 1))
                } else {
                    (c * groups, o * groups)
                };
                let out = |size: usize, k: usize, s: usize, d: usize, b: usize, e: usize| {
                    (size + b + e).checked_sub((k - 1) * d + 1).map_or(0, |room| room / s + 1)
                };
                ConvShape {
                    batch,
                    in_channels,
                    in_h: size.0,
                    in_w: size.1,
                    out_channels,
                    out_h: out(size.0, kernel.0, strides.0, dilations.0, begin.0, end.0),
                    out_w: out(size.1, kernel.1, strides.1, dilations.1, begin.1, end.1),
                    kernel,
                    strides,
                    dilations,
                    pads_begin: begin,
                    groups,
                }
            },
        )
}

/// The convolution by its definition, in double precision, and the sum of the magnitudes of its terms.
fn plain_conv(
    s: &ConvShape,
    x: &[f32],
    weights: &[f32],
    bias: &[f32],
    residual: &[f32],
) -> Vec<(f64, f64)> {
    let (inputs, outputs) = (s.in_channels / s.groups, s.out_channels / s.groups);
    let mut y = Vec::new();
    for n in 0..s.batch {
        for o in 0..s.out_channels {
            for oy in 0..s.out_h {
                for ox in 0..s.out_w {
                    let start = f64::from(bias[o]) + f64::from(residual[y.len()]);
                    let (mut sum, mut size) = (start, start.abs());
                    for c in 0..inputs {
                        for ky in 0..s.kernel.0 {
                            for kx in 0..s.kernel.1 {
                                let iy = (oy * s.strides.0 + ky * s.dilations.0)
                                    .wrapping_sub(s.pads_begin.0);
                                let ix = (ox * s.strides.1 + kx * s.dilations.1)
                                    .wrapping_sub(s.pads_begin.1);
                                if iy < s.in_h && ix < s.in_w {
                                    let plane = n * s.in_channels + o / outputs * inputs + c;
                                    let x = x[(plane * s.in_h + iy) * s.in_w + ix];
                                    let w = weights
                                        [((o * inputs + c) * s.kernel.0 + ky) * s.kernel.1 + kx];
                                    sum += f64::from(x) * f64::from(w);
                                    size += (f64::from(x) * f64::from(w)).abs();
                                }
                            }
                        }
                    }
                    y.push((sum, size));
                }
            }
        }
    }
    y
}

/// Runs a convolution at a level and compares all elements.
fn check_conv(shape: &ConvShape, seed: u64) -> Result<(), TestCaseError> {
    let terms = shape.in_channels / shape.groups * shape.kernel.0 * shape.kernel.1;
    let x = values(shape.batch * shape.in_channels * shape.in_h * shape.in_w, seed);
    let weights = values(shape.out_channels * terms, seed + 1);
    let bias = values(shape.out_channels, seed + 2);
    let count = shape.batch * shape.out_channels * shape.out_h * shape.out_w;
    let residual = values(count, seed + 3);
    let expected = plain_conv(shape, &x, &weights, &bias, &residual);
    for level in levels() {
        let packed = PackedConv::at(level, shape, &weights, Some(&bias));
        for (tail, low, high) in [
            (Tail::None, f64::NEG_INFINITY, f64::INFINITY),
            (Tail::Relu, 0.0, f64::INFINITY),
            (Tail::Clip(-0.25, 0.5), -0.25, 0.5),
        ] {
            let mut y = vec![f32::NAN; count];
            packed.run(&x, Some(&residual), tail, &mut y);
            for (at, (&y, &(sum, size))) in y.iter().zip(&expected).enumerate() {
                let error = (f64::from(y) - sum.clamp(low, high)).abs();
                prop_assert!(
                    error <= 1e-5 * size.max(1e-3),
                    "{level:?} {tail:?} {shape:?} element {at}: {y} for {sum}"
                );
            }
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

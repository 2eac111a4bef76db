//! Every kernel at every level of this processor against plain loops in double precision.
#![expect(clippy::float_cmp, reason = "exact operations have exact results")]

use proptest::prelude::*;

use super::*;

/// Deterministic values in −1..1.
pub(super) fn values(count: usize, mut seed: u64) -> Vec<f32> {
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
pub(super) fn levels() -> impl Iterator<Item = Level> {
    [Level::Portable, Level::Avx2, Level::Avx512].into_iter().filter(|&level| available(level))
}

pub(super) fn geometry() -> impl Strategy<Value = ConvShape> {
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
pub(super) fn plain_conv(
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
                    let (bias, residual) = (f64::from(bias[o]), f64::from(residual[y.len()]));
                    let (mut sum, mut size) = (bias + residual, bias.abs() + residual.abs());
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

/// Everything that one run computes, for pools of 1, 2 and 3 threads.
pub(super) fn same_for_all_pools<T: PartialEq + Send>(work: impl Fn() -> T + Sync) {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("small pools start");
        pool.install(&work)
    };
    let one = run(1);
    assert!(run(2) == one, "two threads");
    assert!(run(3) == one, "three threads");
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn results_do_not_depend_on_threads() {
    for (batch, c, size, o, groups) in
        [(1, 16, 32, 16, 1), (9, 33, 9, 40, 1), (4, 64, 20, 64, 64), (1, 256, 7, 256, 1)]
    {
        let shape = ConvShape {
            batch,
            in_channels: c,
            in_h: size,
            in_w: size,
            out_channels: o,
            out_h: size,
            out_w: size,
            kernel: (3, 3),
            strides: (1, 1),
            dilations: (1, 1),
            pads_begin: (1, 1),
            groups,
        };
        let x = values(batch * c * size * size, 1);
        let packed = PackedConv::new(&shape, &values(o * c / groups * 9, 2), None);
        same_for_all_pools(|| {
            let mut y = vec![0.0; batch * o * size * size];
            packed.run(&x, None, Tail::Relu, &mut y);
            bits(&y)
        });
    }
    let (a, b) = (values(300 * 700, 3), values(700 * 500, 4));
    same_for_all_pools(|| {
        let mut c = vec![0.0; 300 * 500];
        let a = Strided { data: &a, row: 700, col: 1 };
        gemm((300, 500, 700), a, Strided { data: &b, row: 500, col: 1 }, &mut c, None, Tail::None);
        (bits(&c), min_max(&b))
    });
}

#[test]
fn product_is_its_definition() {
    let sizes = [
        (1, 1, 1),
        (1, 1000, 512),
        (64, 10, 64),
        (37, 53, 19),
        (3, 4, 0),
        (200, 300, 100),
        (1000, 8, 300),
    ];
    for (m, n, k) in sizes {
        for transposed in [false, true] {
            let (a, b) = (values(m * k, 5), values(k * n, 6));
            let bias = values(n, 7);
            let left = Strided {
                data: &a,
                row: if transposed { 1 } else { k },
                col: if transposed { m } else { 1 },
            };
            let right = Strided {
                data: &b,
                row: if transposed { 1 } else { n },
                col: if transposed { k } else { 1 },
            };
            for (kind, which) in [(None, 0), (Some(&bias[..n]), 1)] {
                let mut c = vec![f32::NAN; m * n];
                gemm((m, n, k), left, right, &mut c, kind, Tail::Relu);
                for (at, &c) in c.iter().enumerate() {
                    let (row, column) = (at / n, at % n);
                    let start = [0.0, bias[column]][which];
                    let sum: f64 = (0..k)
                        .map(|t| {
                            f64::from(a[row * left.row + t * left.col])
                                * f64::from(b[t * right.row + column * right.col])
                        })
                        .sum();
                    let error = f64::from(c) - (sum + f64::from(start)).max(0.0);
                    assert!(
                        error.abs() <= 1e-6 * (k as f64 + 1.0),
                        "{m} × {n} × {k}, {which}: element {at}"
                    );
                }
            }
        }
    }
}

#[test]
fn elementwise_is_its_definition() {
    let x: Vec<f32> = values(40_000, 8)
        .iter()
        .map(|x| x * 20.0)
        .chain([f32::INFINITY, -1e30, 2.5, -0.5])
        .collect();
    let b = values(x.len(), 9);
    let mut y = vec![0.0; x.len()];
    activate(Tail::Clip(-1.0, 6.0), &x, &mut y);
    assert!(y.iter().zip(&x).all(|(y, x)| *y == x.clamp(-1.0, 6.0)));
    activate_in_place(Tail::Relu, &mut y);
    assert!(y.iter().zip(&x).all(|(y, x)| *y == x.clamp(0.0, 6.0)));
    add(Tail::None, &x, &b, &mut y);
    assert!(y.iter().zip(x.iter().zip(&b)).all(|(y, (x, b))| *y == x + b));
    add_in_place(Tail::Relu, &b, &mut y);
    assert!(y.iter().zip(x.iter().zip(&b)).all(|(y, (x, b))| *y == (x + b + b).max(0.0)));
    let mut kept = [f32::NAN];
    activate_in_place(Tail::Relu, &mut kept);
    assert!(kept[0].is_nan());
    let grid = Grid { scale: 0.1, zero_point: 3.0, low: -128.0, high: 127.0 };
    let steps = |x: &f32| ((x / 0.1).round_ties_even() + 3.0).clamp(-128.0, 127.0);
    fake_quantize(grid, &x, &mut y);
    assert!(y.iter().zip(&x).all(|(y, x)| *y == (steps(x) - 3.0) * 0.1));
    let mut q = vec![0_i8; x.len()];
    quantize_i8(grid, &x, &mut q);
    assert!(q.iter().zip(&x).all(|(q, x)| f32::from(*q) == steps(x)));
    let mut q = vec![0_u8; x.len()];
    quantize_u8(Grid { zero_point: 128.0, low: 0.0, high: 255.0, ..grid }, &x, &mut q);
    let steps = |x: &f32| ((x / 0.1).round_ties_even() + 128.0).clamp(0.0, 255.0);
    assert!(q.iter().zip(&x).all(|(q, x)| f32::from(*q) == steps(x)));
}

#[test]
fn rounding_by_chance_and_its_gradients_are_their_definition() {
    let x: Vec<f32> = values(40_007, 11).iter().map(|x| x * 3.0).collect();
    let g = values(x.len(), 12);
    let random: Vec<u8> = values(x.len(), 13).iter().map(|x| ((x + 1.0) * 127.9) as u8).collect();
    let grid = Grid { scale: 0.3, zero_point: 4.0, low: 0.0, high: 15.0 };
    for passes in [0, 100, 256] {
        let (mut y, mut dx) = (vec![0.0; x.len()], g.clone());
        partly_quantize(grid, passes, &random, &x, &mut y);
        let of_scale = learned_step(grid, passes, &random, &x, &mut dx);
        let mut expected = 0.0f64;
        for i in 0..x.len() {
            let (steps, stays) = (x[i] / 0.3, u32::from(random[i]) < passes);
            let rounded = steps.round_ties_even().clamp(-4.0, 11.0);
            let inside = (-4.0..=11.0).contains(&steps);
            assert_eq!(y[i], if stays { x[i] } else { rounded * 0.3 }, "{passes}: {i}");
            assert_eq!(dx[i], if stays || inside { g[i] } else { 0.0 }, "{passes}: {i}");
            let slope = if inside { rounded - steps } else { rounded };
            expected += if stays { 0.0 } else { f64::from(slope * g[i]) };
        }
        assert!((f64::from(of_scale) - expected).abs() < 1e-2, "{passes}: {of_scale} {expected}");
    }
}

#[test]
fn extremes_pass_over_nan() {
    assert_eq!(min_max(&[]), (f32::INFINITY, f32::NEG_INFINITY));
    let mut x = values(50_001, 10);
    x[17] = f32::NAN;
    x[50_000] = -7.0;
    x[33_333] = 5.0;
    assert_eq!(min_max(&x), (-7.0, 5.0));
    assert_eq!((abs_max(&x), abs_max(&[f32::NAN])), (7.0, 0.0));
}

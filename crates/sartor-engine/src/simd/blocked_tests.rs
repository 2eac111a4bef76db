//! Kernels over blocked channels at every level of this processor against plain loops in double precision.

use proptest::prelude::*;

use super::blocked::{
    BlockedConv, BlockedDepthwise, BlockedSelect, BlockedWinograd, from_blocked, lanes,
    plane_means, to_blocked,
};
use super::conv::ConvShape;
use super::tests::{bits, geometry, levels, plain_conv, same_for_all_pools, values};
use super::{Level, Tail};

/// `x` [n, channels, plane] in blocks, with other numbers in the lanes behind the last channel.
fn blocked(level: Level, channels: usize, plane: usize, x: &[f32]) -> Vec<f32> {
    let (lanes, images) = (lanes(level), x.len() / (channels * plane).max(1));
    let mut y = vec![f32::NAN; images * channels.next_multiple_of(lanes) * plane];
    to_blocked(lanes, channels, plane, x, &mut y);
    for (at, y) in y.iter_mut().enumerate() {
        if at / (lanes * plane) % channels.div_ceil(lanes) * lanes + at % lanes >= channels {
            *y = 1e9;
        }
    }
    y
}

fn plain(level: Level, channels: usize, plane: usize, x: &[f32]) -> Vec<f32> {
    let lanes = lanes(level);
    let images = x.len() / (channels.next_multiple_of(lanes) * plane).max(1);
    let mut y = vec![f32::NAN; images * channels * plane];
    from_blocked(lanes, channels, plane, x, &mut y);
    y
}

/// Which kernel computes a dense convolution.
#[derive(Clone, Copy, Debug)]
enum By {
    Taps,
    Winograd,
}

/// One convolution over plain operands, by way of blocks.
fn run(
    (level, by): (Level, By),
    s: &ConvShape,
    (x, weights, bias): (&[f32], &[f32], &[f32]),
    residual: Option<&[f32]>,
    tail: Tail,
) -> Vec<f32> {
    let (x_plane, y_plane) = (s.in_h * s.in_w, s.out_h * s.out_w);
    let inside = |c: usize, plane: usize, x: &[f32]| blocked(level, c, plane, x);
    let residual = residual.map(|r| inside(s.out_channels, y_plane, r));
    let lanes = lanes(level);
    let mut y = vec![f32::NAN; s.batch * s.out_channels.next_multiple_of(lanes) * y_plane];
    // The factors go into the weights and out again.
    let (factor, addend) = (vec![2.0; s.out_channels], bias);
    let half: Vec<f32> = weights.iter().map(|w| 0.5 * w).collect();
    if matches!(by, By::Winograd) {
        let mut conv = BlockedWinograd::new(level, s, &half, None);
        conv.scale(&factor, addend);
        conv.run(&inside(s.in_channels, x_plane, x), residual.as_deref(), tail, &mut y);
    } else if s.groups == 1 {
        let mut conv = BlockedConv::new(level, s, &half, None);
        conv.scale(&factor, addend);
        if conv.reads_plain() {
            conv.run(x, residual.as_deref(), tail, &mut y);
        } else {
            conv.run(&inside(s.in_channels, x_plane, x), residual.as_deref(), tail, &mut y);
        }
    } else {
        let mut conv = BlockedDepthwise::new(level, s, &half, None);
        conv.scale(&factor, addend);
        conv.run(&inside(s.in_channels, x_plane, x), residual.as_deref(), tail, &mut y);
    }
    plain(level, s.out_channels, y_plane, &y)
}

fn check(by: By, shape: &ConvShape, seed: u64) -> Result<(), TestCaseError> {
    let x = values(shape.batch * shape.in_channels * shape.in_h * shape.in_w, seed);
    let weights = values(shape.out_channels * shape.terms(), seed + 1);
    let bias = values(shape.out_channels, seed + 2);
    let count = shape.batch * shape.out_channels * shape.out_h * shape.out_w;
    let residual = values(count, seed + 3);
    let expected = plain_conv(shape, &x, &weights, &bias, &residual);
    for level in levels() {
        for (tail, low, high) in
            [(Tail::None, f64::NEG_INFINITY, f64::INFINITY), (Tail::Clip(-0.25, 0.5), -0.25, 0.5)]
        {
            let y = run((level, by), shape, (&x, &weights, &bias), Some(&residual), tail);
            prop_assert_eq!(y.len(), expected.len());
            for (at, (&y, &(sum, size))) in y.iter().zip(&expected).enumerate() {
                let error = (f64::from(y) - sum.clamp(low, high)).abs();
                prop_assert!(
                    error <= 1e-5 * size.max(1e-3),
                    "{level:?} {by:?} {tail:?} {shape:?} element {at}: {y} for {sum}"
                );
            }
        }
    }
    Ok(())
}

/// Dense geometries of few and many channels, and those by depth.
fn blocked_geometry() -> impl Strategy<Value = ConvShape> {
    let channels = prop_oneof![Just(1_usize), Just(3), Just(5), Just(16), Just(24), Just(40)];
    (geometry(), channels.clone(), channels, any::<bool>()).prop_map(|(shape, c, o, dense)| {
        let (groups, in_channels, out_channels) = if dense { (1, c, o) } else { (c, c, c) };
        ConvShape { in_channels, out_channels, groups, ..shape }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocked_convolution_is_its_definition(shape in blocked_geometry(), seed in any::<u32>()) {
        check(By::Taps, &shape, u64::from(seed))?;
    }

    #[test]
    fn winograd_is_its_definition(shape in geometry(), seed in any::<u32>()) {
        let (kernel, one) = ((3, 3), (1, 1));
        let out = |size: usize, pad: usize| (size + 2 * pad).saturating_sub(2);
        let shape = ConvShape {
            kernel,
            strides: one,
            dilations: one,
            groups: 1,
            out_h: out(shape.in_h, shape.pads_begin.0),
            out_w: out(shape.in_w, shape.pads_begin.1),
            ..shape
        };
        check(By::Winograd, &shape, u64::from(seed))?;
    }
}

/// (batch, in channels, size, out channels, kernel, stride, groups)
const LARGE: &[(usize, usize, usize, usize, usize, usize, usize)] = &[
    (1, 16, 32, 16, 3, 1, 1),
    (9, 33, 9, 40, 3, 2, 1),
    (2, 96, 16, 100, 1, 1, 1),
    (1, 256, 4, 256, 3, 1, 1),
    (1, 3, 40, 64, 7, 2, 1),
    (4, 64, 20, 64, 3, 1, 64),
    (1, 96, 17, 96, 5, 2, 96),
];

fn large(
    &(batch, c, size, o, kernel, stride, groups): &(
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
    ),
) -> ConvShape {
    let (pad, out) = (kernel / 2, (size + kernel / 2 * 2 - kernel) / stride + 1);
    ConvShape {
        batch,
        in_channels: c,
        in_h: size,
        in_w: size,
        out_channels: o,
        out_h: out,
        out_w: out,
        kernel: (kernel, kernel),
        strides: (stride, stride),
        dilations: (1, 1),
        pads_begin: (pad, pad),
        groups,
    }
}

#[test]
fn large_blocked_convolutions_are_their_definition() {
    for (seed, it) in LARGE.iter().enumerate() {
        check(By::Taps, &large(it), seed as u64 * 10).unwrap();
        if large(it).kernel == (3, 3) && large(it).strides == (1, 1) && large(it).groups == 1 {
            check(By::Winograd, &large(it), seed as u64 * 10).unwrap();
        }
    }
}

#[test]
fn blocked_convolutions_do_not_depend_on_threads() {
    for it in LARGE {
        let s = large(it);
        let x = values(s.batch * s.in_channels * s.in_h * s.in_w, 1);
        let weights = values(s.out_channels * s.terms(), 2);
        let bias = values(s.out_channels, 3);
        same_for_all_pools(|| {
            bits(&run((super::level(), By::Taps), &s, (&x, &weights, &bias), None, Tail::Relu))
        });
        if s.kernel == (3, 3) && s.strides == (1, 1) && s.groups == 1 {
            same_for_all_pools(|| {
                let by = (super::level(), By::Winograd);
                bits(&run(by, &s, (&x, &weights, &bias), None, Tail::Relu))
            });
        }
    }
}

#[test]
fn layouts_there_and_back() {
    for level in levels() {
        for (images, channels, plane) in
            [(1, 1, 1), (3, 5, 49), (2, 16, 6), (1, 33, 1000), (40, 70, 20)]
        {
            let x = values(images * channels * plane, 4);
            let y = blocked(level, channels, plane, &x);
            assert_eq!(plain(level, channels, plane, &y), x, "{level:?}");
            let mut means = vec![f32::NAN; images * channels];
            plane_means(lanes(level), channels, plane, &y, &mut means);
            for (mean, x) in means.iter().zip(x.chunks(plane)) {
                let expected = x.iter().map(|&x| f64::from(x)).sum::<f64>() / plane as f64;
                assert!(
                    (f64::from(*mean) - expected).abs() < 1e-5,
                    "{level:?}: {mean} for {expected}"
                );
            }
        }
    }
}

#[test]
fn selections_are_their_tables() {
    let (images, [c, h, w]) = (2, [20, 5, 4]);
    let x = values(images * c * h * w, 5);
    let channels: Vec<_> = (0..37).map(|i: usize| i.checked_sub(9).filter(|&it| it < c)).collect();
    let (rows, columns) = ([Some(4), None, Some(0)], [Some(1), Some(3), Some(2), None, Some(0)]);
    for level in levels() {
        let lanes = lanes(level);
        let select = BlockedSelect::new(lanes, [c, h, w], [&channels, &rows, &columns], -7.0);
        let mut y = vec![f32::NAN; images * 37_usize.next_multiple_of(lanes) * 15];
        select.run(&blocked(level, c, h * w, &x), &mut y);
        let y = plain(level, 37, 15, &y);
        for (at, y) in y.iter().enumerate() {
            let (n, i, row, column) = (at / (37 * 15), at / 15 % 37, at / 5 % 3, at % 5);
            let expected = match (channels[i], rows[row], columns[column]) {
                (Some(i), Some(row), Some(column)) => x[((n * c + i) * h + row) * w + column],
                _ => -7.0,
            };
            assert_eq!(y.to_bits(), expected.to_bits(), "{level:?}: element {at}");
        }
    }
}

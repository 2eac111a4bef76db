//! The kernels of training at every level of this processor against plain loops in double precision.

use proptest::prelude::*;

use super::conv_train::TrainConv;
use super::tests::{bits, geometry, levels, same_for_all_pools, values};
use super::*;

/// Gradients of the input and the weights by definition: for each the sum and the sum of the magnitudes of its terms.
#[expect(clippy::type_complexity, reason = "two lists of pairs")]
fn plain_gradients(
    s: &ConvShape,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
) -> (Vec<(f64, f64)>, Vec<(f64, f64)>) {
    let (inputs, outputs) = (s.in_channels / s.groups, s.out_channels / s.groups);
    let (mut dx, mut dw) = (vec![(0.0, 0.0); x.len()], vec![(0.0, 0.0); w.len()]);
    for (at, &g) in dy.iter().enumerate() {
        let (ox, rest) = (at % s.out_w, at / s.out_w);
        let (oy, rest) = (rest % s.out_h, rest / s.out_h);
        let (o, n) = (rest % s.out_channels, rest / s.out_channels);
        for term in 0..inputs * s.kernel.0 * s.kernel.1 {
            let (kx, rest) = (term % s.kernel.1, term / s.kernel.1);
            let (ky, c) = (rest % s.kernel.0, rest / s.kernel.0);
            let iy = (oy * s.strides.0 + ky * s.dilations.0).wrapping_sub(s.pads_begin.0);
            let ix = (ox * s.strides.1 + kx * s.dilations.1).wrapping_sub(s.pads_begin.1);
            if iy < s.in_h && ix < s.in_w {
                let plane = n * s.in_channels + o / outputs * inputs + c;
                let x_at = (plane * s.in_h + iy) * s.in_w + ix;
                let w_at = o * inputs * s.kernel.0 * s.kernel.1 + term;
                let by_x = f64::from(g) * f64::from(w[w_at]);
                let by_w = f64::from(g) * f64::from(x[x_at]);
                dx[x_at] = (dx[x_at].0 + by_x, dx[x_at].1 + by_x.abs());
                dw[w_at] = (dw[w_at].0 + by_w, dw[w_at].1 + by_w.abs());
            }
        }
    }
    (dx, dw)
}

/// Compares `found`, which may have begun at `start`, with what is expected.
fn compare(
    found: &[f32],
    start: &[f32],
    expected: &[(f64, f64)],
    what: &str,
) -> Result<(), TestCaseError> {
    for (at, ((&found, &start), &(sum, size))) in found.iter().zip(start).zip(expected).enumerate()
    {
        let (sum, size) = (sum + f64::from(start), size + f64::from(start).abs());
        let error = (f64::from(found) - sum).abs();
        prop_assert!(error <= 1e-5 * size.max(1e-3), "{what} element {at}: {found} for {sum}");
    }
    Ok(())
}

fn check(s: &ConvShape, seed: u64) -> Result<(), TestCaseError> {
    let terms = s.in_channels / s.groups * s.kernel.0 * s.kernel.1;
    let x = values(s.batch * s.in_channels * s.in_h * s.in_w, seed);
    let w = values(s.out_channels * terms, seed + 1);
    let dy = values(s.batch * s.out_channels * s.out_h * s.out_w, seed + 2);
    let (dx_start, dw_start) = (values(x.len(), seed + 3), values(w.len(), seed + 4));
    let (dx_expected, dw_expected) = plain_gradients(s, &x, &w, &dy);
    for level in levels() {
        let mut conv = TrainConv::at(level, s);
        let mut dx = vec![f32::NAN; x.len()];
        conv.backward_input(&w, &dy, false, &mut dx);
        compare(&dx, &vec![0.0; x.len()], &dx_expected, &format!("{level:?} dx {s:?}"))?;
        dx.copy_from_slice(&dx_start);
        conv.backward_input(&w, &dy, true, &mut dx);
        compare(&dx, &dx_start, &dx_expected, &format!("{level:?} dx += {s:?}"))?;
        let mut dw = dw_start.clone();
        conv.backward_weight(&x, &dy, &mut dw);
        compare(&dw, &dw_start, &dw_expected, &format!("{level:?} dw {s:?}"))?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gradients_of_a_convolution_are_their_definition(shape in geometry(), seed in any::<u32>()) {
        check(&shape, u64::from(seed))?;
    }
}

/// A square convolution that keeps its size at stride 1.
fn square(batch: usize, c: usize, size: usize, o: usize, k: usize, stride: usize) -> ConvShape {
    ConvShape {
        batch,
        in_channels: c,
        in_h: size,
        in_w: size,
        out_channels: o,
        out_h: size.div_ceil(stride),
        out_w: size.div_ceil(stride),
        kernel: (k, k),
        strides: (stride, stride),
        dilations: (1, 1),
        pads_begin: (k / 2, k / 2),
        groups: 1,
    }
}

#[test]
fn gradients_of_large_convolutions_are_their_definition() {
    let shapes = [
        square(5, 16, 32, 16, 3, 1),
        square(9, 64, 8, 64, 3, 1),
        square(3, 80, 12, 96, 1, 1),
        square(4, 160, 4, 72, 3, 2),
        square(2, 3, 96, 8, 7, 2),
        ConvShape { groups: 48, ..square(6, 48, 16, 48, 3, 1) },
        ConvShape { groups: 48, ..square(6, 48, 17, 48, 3, 2) },
    ];
    for shape in shapes {
        check(&shape, 7).unwrap_or_else(|it| panic!("{it}"));
    }
}

#[test]
fn gradients_do_not_depend_on_threads() {
    for shape in [
        square(9, 16, 32, 16, 3, 1),
        square(9, 33, 9, 40, 3, 2),
        square(5, 128, 8, 160, 1, 1),
        ConvShape { groups: 64, ..square(4, 64, 20, 64, 3, 1) },
    ] {
        let x = values(shape.batch * shape.in_channels * shape.in_h * shape.in_w, 1);
        let w = values(
            shape.out_channels * shape.in_channels / shape.groups * shape.kernel.0.pow(2),
            2,
        );
        let dy = values(shape.batch * shape.out_channels * shape.out_h * shape.out_w, 3);
        same_for_all_pools(|| {
            let mut conv = TrainConv::new(&shape);
            let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
            conv.backward_input(&w, &dy, false, &mut dx);
            conv.backward_weight(&x, &dy, &mut dw);
            (bits(&dx), bits(&dw))
        });
    }
}

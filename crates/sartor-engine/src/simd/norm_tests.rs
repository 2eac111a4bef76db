//! Normalization, activations, pools and optimizers of training against plain loops in double precision.
#![expect(clippy::float_cmp, reason = "what is copied or zeroed is exact")]

use super::batch_norm::{
    Activated, BatchNorm, BatchStatistics, Into, Target, activate_backward, bias_gradient,
};
use super::optimizer::{AdamW, Sgd, adamw_step, sgd_step};
use super::pool_train::{global_average_backward, max_pool_backward};
use super::tests::{bits, same_for_all_pools, values};
use super::*;

const SHAPES: [(usize, usize, usize); 5] =
    [(1, 1, 1), (3, 5, 49), (7, 40, 16), (2, 3, 5000), (16, 33, 256)];

fn close(found: f32, expected: f64, size: f64) {
    assert!((f64::from(found) - expected).abs() <= 2e-5 * size.max(1e-2), "{found} for {expected}");
}

/// Indices of channel `c` in [n, c, len].
fn places((n, channels, len): (usize, usize, usize), c: usize) -> impl Iterator<Item = usize> {
    (0..n).flat_map(move |n| (0..len).map(move |p| (n * channels + c) * len + p))
}

#[test]
fn statistics_hold_far_from_zero() {
    for shape in SHAPES {
        let x: Vec<f32> =
            values(shape.0 * shape.1 * shape.2, 1).iter().map(|x| x + 1000.0).collect();
        let (scale, mut found, mut y) = (vec![1.0; shape.1], BatchStatistics::default(), x.clone());
        let norm = BatchNorm { shape, scale: &scale, epsilon: 0.01, tail: Tail::None };
        norm.forward(&x, &vec![0.0; shape.1], (&mut found, false), None, &mut y);
        for c in 0..shape.1 {
            let count = (shape.0 * shape.2) as f64;
            let mean = places(shape, c).map(|i| f64::from(x[i])).sum::<f64>() / count;
            let variance =
                places(shape, c).map(|i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / count;
            assert!((f64::from(found.mean[c]) - mean).abs() < 1e-4);
            assert!((f64::from(found.variance[c]) - variance).abs() < 1e-5);
        }
    }
}

#[test]
fn normalization_and_its_gradients_are_their_definition() {
    for (shape, tail, frozen, accumulate) in SHAPES.into_iter().flat_map(|shape| {
        [
            (shape, Tail::None, false, false),
            (shape, Tail::Relu, false, true),
            (shape, Tail::Clip(-0.25, 0.5), true, true),
            (shape, Tail::Relu, false, false),
        ]
    }) {
        let count = shape.0 * shape.1 * shape.2;
        let (x, r, dy) = (values(count, 1), values(count, 2), values(count, 3));
        let (scale, shift) = (values(shape.1, 4), values(shape.1, 5));
        let start = values(count, 6);
        let norm = BatchNorm { shape, scale: &scale, epsilon: 0.01, tail };
        let mut statistics = BatchStatistics::default();
        if frozen {
            statistics.mean = values(shape.1, 7);
            statistics.variance = values(shape.1, 8).iter().map(|it| it.abs()).collect();
        }
        let mut y = vec![f32::NAN; count];
        norm.forward(&x, &shift, (&mut statistics, frozen), Some(&r), &mut y);
        let (mut dx, mut dr, mut place) = (start.clone(), dy.clone(), dy.clone());
        let (mut dscale, mut dshift) = (vec![1.0; shape.1], vec![-1.0; shape.1]);
        norm.backward(
            (&x, &mut dr),
            (&statistics, frozen),
            Activated::Seen(&y),
            Target::Other(Into { values: &mut dx, accumulate }),
            (Some(&mut dscale), Some(&mut dshift)),
        );
        let run = (&x[..], &mut place[..]);
        let seen = Activated::Seen(&y);
        norm.backward(run, (&statistics, frozen), seen, Target::Place, (None, None));
        let (low, high) = tail.bounds();
        for c in 0..shape.1 {
            let inverse = 1.0 / (f64::from(statistics.variance[c]) + 0.01).sqrt();
            let hat = |i: usize| (f64::from(x[i]) - f64::from(statistics.mean[c])) * inverse;
            let g = |i: usize| if y[i] <= low || y[i] >= high { 0.0 } else { f64::from(dy[i]) };
            let (a, all) = (f64::from(scale[c]), (shape.0 * shape.2) as f64);
            let sum: f64 = places(shape, c).map(g).sum();
            let dot: f64 = places(shape, c).map(|i| g(i) * hat(i)).sum();
            close(dscale[c], 1.0 + dot, all.sqrt());
            close(dshift[c], sum - 1.0, all.sqrt());
            for i in places(shape, c) {
                let expected = hat(i) * a + f64::from(shift[c]) + f64::from(r[i]);
                close(y[i], expected.clamp(low.into(), high.into()), 4.0);
                let before = if accumulate { f64::from(start[i]) } else { 0.0 };
                close(dr[i], g(i), 1.0);
                let common = if frozen { 0.0 } else { (sum + hat(i) * dot) / all };
                close(dx[i], before + a * inverse * (g(i) - common), 10.0);
                close(place[i], a * inverse * (g(i) - common), 10.0);
            }
        }
    }
}

/// What the activation did is the same whether seen or derived, to the bit.
#[test]
fn activations_follow_from_the_input() {
    for (shape, tail) in
        SHAPES.into_iter().flat_map(|it| [(it, Tail::Relu), (it, Tail::Clip(-0.25, 0.5))])
    {
        let count = shape.0 * shape.1 * shape.2;
        let (x, dy) = (values(count, 1), values(count, 2));
        let (scale, shift) = (values(shape.1, 3), values(shape.1, 4));
        let norm = BatchNorm { shape, scale: &scale, epsilon: 0.01, tail };
        let (mut statistics, mut y) = (BatchStatistics::default(), vec![0.0; count]);
        norm.forward(&x, &shift, (&mut statistics, false), None, &mut y);
        let gradients = |activated| {
            let (mut dx, mut dscale) = (dy.clone(), vec![0.0; shape.1]);
            let sums = (Some(&mut dscale[..]), None);
            norm.backward((&x, &mut dx), (&statistics, false), activated, Target::Place, sums);
            (bits(&dx), bits(&dscale))
        };
        assert_eq!(gradients(Activated::Seen(&y)), gradients(Activated::Follows(&shift)));
    }
}

#[test]
fn gradients_pass_activations_and_reach_biases() {
    let shape = (3, 7, 50);
    let (y, dy) = (values(1050, 1), values(1050, 2));
    let mut dx = dy.clone();
    activate_backward(Tail::Relu, &y, &mut dx);
    assert!((0..1050).all(|i| dx[i] == if y[i] > 0.0 { dy[i] } else { 0.0 }));
    let mut dx = dy.clone();
    activate_backward(Tail::Clip(-0.5, 0.5), &y, &mut dx);
    assert!((0..1050).all(|i| dx[i] == if y[i].abs() < 0.5 { dy[i] } else { 0.0 }));
    let mut db = vec![2.0; 7];
    bias_gradient(shape, &dy, &mut db);
    for (c, &db) in db.iter().enumerate() {
        close(db, 2.0 + places(shape, c).map(|i| f64::from(dy[i])).sum::<f64>(), 10.0);
    }
}

#[test]
fn gradients_of_pools_go_where_values_came_from() {
    let mut dx = vec![1.0; 8];
    global_average_backward(4, &[4.0, 8.0], true, &mut dx);
    assert_eq!(dx, [2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]);
    let shape = ConvShape {
        batch: 1,
        in_channels: 1,
        in_h: 3,
        in_w: 3,
        out_channels: 1,
        out_h: 2,
        out_w: 2,
        kernel: (2, 2),
        strides: (2, 2),
        dilations: (1, 1),
        pads_begin: (1, 1),
        groups: 1,
    };
    let x = [-3.0, 1.0, 5.0, 2.0, 7.0, 7.0, 0.0, 4.0, f32::NAN];
    let mut dx = [0.5; 9];
    max_pool_backward(&shape, &x, &[1.0, 2.0, 3.0, 4.0], false, &mut dx);
    assert_eq!(dx, [1.0, 0.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 4.0]);
}

/// Three steps of each optimizer on one weight, by hand.
#[test]
fn optimizers_step_as_published() {
    for nesterov in [false, true] {
        let it = Sgd { rate: 0.1, momentum: 0.9, nesterov, weight_decay: 0.01 };
        let (mut w, mut m) = ([1.0_f32; 3], [0.0_f32; 3]);
        let (mut expected, mut moment) = (1.0_f64, 0.0);
        for g in [0.5_f32, -0.25, 2.0] {
            sgd_step(it, &mut w, &[g; 3], &mut m);
            let g = f64::from(g) + 0.01 * expected;
            moment = 0.9 * moment + g;
            expected -= 0.1 * if nesterov { g + 0.9 * moment } else { moment };
        }
        for w in w {
            close(w, expected, 1.0);
        }
    }
    let it = AdamW { rate: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1 };
    let (mut w, mut m, mut v) = ([1.0_f32], [0.0_f32], [0.0_f32]);
    let (mut expected, mut first, mut second) = (1.0_f64, 0.0, 0.0);
    for (step, g) in [(1, 0.5_f32), (2, -0.25), (3, 2.0)] {
        adamw_step(it, step as u32, &mut w, &[g], &mut m, &mut v);
        let g = f64::from(g);
        first = 0.9 * first + 0.1 * g;
        second = 0.99 * second + 0.01 * g * g;
        let (a, b) = (first / (1.0 - 0.9_f64.powi(step)), second / (1.0 - 0.99_f64.powi(step)));
        expected = expected * (1.0 - 0.01) - 0.1 * a / (b.sqrt() + 1e-8);
    }
    close(w[0], expected, 1.0);
}

#[test]
fn normalization_does_not_depend_on_threads() {
    let shape = (9, 40, 300);
    let (x, dy) = (values(108_000, 1), values(108_000, 2));
    let (scale, shift) = (values(40, 3), values(40, 4));
    same_for_all_pools(|| {
        let norm = BatchNorm { shape, scale: &scale, epsilon: 0.01, tail: Tail::Relu };
        let mut statistics = BatchStatistics::default();
        let (mut y, mut dx) = (vec![0.0; x.len()], dy.clone());
        let (mut dscale, mut dshift) = (vec![0.0; 40], vec![0.0; 40]);
        norm.forward(&x, &shift, (&mut statistics, false), None, &mut y);
        let sums = (Some(&mut dscale[..]), Some(&mut dshift[..]));
        let seen = Activated::Follows(&shift);
        norm.backward((&x, &mut dx), (&statistics, false), seen, Target::Place, sums);
        (bits(&y), bits(&dx), bits(&dscale), bits(&dshift))
    });
}

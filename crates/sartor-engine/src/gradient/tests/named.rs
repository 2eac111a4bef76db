//! Normalizations, attention and rotary positions.

use sartor_ir::{Attr, Attrs, Named};

use super::{Numbers, check_named};
use crate::{Array, Data};

fn named(name: &str, version: i64, attributes: Attrs) -> Named {
    Named { domain: String::new(), name: name.to_owned(), version, attributes }
}

fn int(name: &str, value: i64) -> Attrs {
    Attrs::new().with(name, Attr::Int(value))
}

#[test]
fn layers_groups_and_instances() {
    let mut numbers = Numbers(31);
    let mut all = |op: &Named, shapes: &[&[usize]], outputs: usize| {
        let inputs: Vec<_> = shapes.iter().map(|it| Some(numbers.apart(it))).collect();
        let wanted: Vec<usize> = (0..shapes.len()).collect();
        check_named(op, &inputs, &wanted, outputs);
    };
    let layer = |axis| named("LayerNormalization", 17, int("axis", axis));
    all(&layer(-1), &[&[2, 3, 4], &[4], &[4]], 3);
    all(&layer(1), &[&[2, 3, 4], &[3, 4], &[1, 4]], 3);
    all(&layer(-1), &[&[2, 3, 4], &[2, 1, 4]], 1);
    let root = |axis| named("RMSNormalization", 23, int("axis", axis));
    all(&root(-1), &[&[2, 3, 4], &[4]], 1);
    all(&root(0), &[&[3, 4], &[4]], 1);
    let instance = named("InstanceNormalization", 22, Attrs::new());
    all(&instance, &[&[2, 3, 2, 4], &[3], &[3]], 1);
    for (version, count) in [(18, 2), (21, 6)] {
        let op = named("GroupNormalization", version, int("num_groups", 2));
        all(&op, &[&[2, 6, 5], &[count], &[count]], 1);
    }
}

#[test]
fn batches_as_they_train() {
    let mut numbers = Numbers(32);
    for (version, attributes) in [(9, Attrs::new()), (14, int("training_mode", 1))] {
        let op =
            named("BatchNormalization", version, attributes.with("epsilon", Attr::Float(0.01)));
        let inputs = [&[4, 3, 2][..], &[3], &[3], &[3], &[3]].map(|it| Some(numbers.apart(it)));
        // The sums that `check` takes of running statistics depend on `X` too, which no rule follows.
        check_named(&op, &inputs, &[1, 2], 3);
    }
}

#[test]
fn by_neighbours_lengths_and_moments() {
    let mut numbers = Numbers(33);
    let mut one = |op: &Named, shape: &[usize]| {
        check_named(op, &[Some(numbers.apart(shape))], &[0], 1);
    };
    for size in [1, 2, 3, 4] {
        let attributes = int("size", size)
            .with("alpha", Attr::Float(0.7))
            .with("beta", Attr::Float(0.6))
            .with("bias", Attr::Float(1.3));
        one(&named("LRN", 13, attributes), &[2, 5, 3]);
    }
    for (p, axis) in [(1, -1), (2, -1), (1, 0), (2, 1)] {
        one(&named("LpNormalization", 22, int("axis", axis).with("p", Attr::Int(p))), &[4, 5, 6]);
    }
    one(&named("MeanVarianceNormalization", 13, Attrs::new()), &[2, 3, 2, 3]);
    let axes = Attrs::new().with("axes", Attr::Ints(vec![-1, 0]));
    one(&named("MeanVarianceNormalization", 13, axes), &[3, 2, 4]);
    for name in ["Softmax", "LogSoftmax"] {
        one(&named(name, 11, Attrs::new()), &[2, 3, 2]);
        one(&named(name, 11, int("axis", 0)), &[2, 3]);
    }
}

#[test]
fn attention_of_every_form() {
    let mut numbers = Numbers(34);
    let mut draw = |shape: &[usize]| Some(numbers.apart(shape));
    let heads = || int("q_num_heads", 4).with("kv_num_heads", Attr::Int(2));
    let op = |attributes| named("Attention", 24, attributes);
    let by_head = [draw(&[2, 4, 3, 2]), draw(&[2, 2, 5, 2]), draw(&[2, 2, 5, 3])];
    let flat = [draw(&[2, 3, 8]), draw(&[2, 5, 4]), draw(&[2, 5, 6])];
    check_named(&op(Attrs::new()), &by_head, &[0, 1, 2], 1);
    check_named(&op(heads().with("scale", Attr::Float(0.9))), &flat, &[0, 1, 2], 3);
    check_named(&op(heads().with("is_causal", Attr::Int(1))), &flat, &[0, 1, 2], 1);
    for mode in 0..4 {
        let attributes = heads()
            .with("qk_matmul_output_mode", Attr::Int(mode))
            .with("softcap", Attr::Float(0.8));
        let [q, k, v] = flat.clone();
        let (past_k, past_v) = (draw(&[2, 2, 2, 2]), draw(&[2, 2, 2, 3]));
        let inputs = [q, k, v, draw(&[4, 1, 7]), past_k, past_v];
        check_named(&op(attributes), &inputs, &[0, 1, 2, 3, 4, 5], 4);
    }
    let allowed = (0..15).map(|i| i % 4 != 1).collect();
    let [q, k, v] = by_head.clone();
    let mask = Some(Array { shape: vec![3, 5], data: Data::Bool(allowed) });
    check_named(&op(Attrs::new()), &[q.clone(), k.clone(), v.clone(), mask], &[0, 1, 2], 1);
    let lengths = Some(super::integers(&[2, 5]));
    check_named(&op(Attrs::new()), &[q, k, v, None, None, None, lengths], &[0, 1, 2], 1);
}

#[test]
fn turning() {
    let mut numbers = Numbers(35);
    for interleaved in [0, 1] {
        let attributes = int("interleaved", interleaved);
        let op = named("RotaryEmbedding", 23, attributes.clone());
        let inputs = [&[2, 3, 2, 4][..], &[2, 2, 2], &[2, 2, 2]].map(|it| Some(numbers.apart(it)));
        check_named(&op, &inputs, &[0, 1, 2], 1);
        let attributes =
            attributes.with("num_heads", Attr::Int(3)).with("rotary_embedding_dim", Attr::Int(2));
        let op = named("RotaryEmbedding", 23, attributes);
        let ids = Array { shape: vec![2, 2], data: Data::I64(vec![3, 0, 1, 1]) };
        let [x, cos, sin] = [&[2, 2, 12][..], &[4, 1], &[4, 1]].map(|it| Some(numbers.apart(it)));
        check_named(&op, &[x, cos, sin, Some(ids)], &[0, 1, 2], 1);
    }
}

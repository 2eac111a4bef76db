//! Gradients of whole networks against `PyTorch`'s in double precision; `fixtures/gradients.py` made them and
//! says how.

#[path = "pytorch_gradients/networks.rs"]
mod networks;

use std::{collections::BTreeMap, str::SplitWhitespace};

use networks::{Net, lstm, mobilenet, resnet20, transformer};
use sartor_engine::{
    Array,
    train::{Gradients, Parameters, Tape, TapeOptions},
};
use sartor_ir::ValueId;

const EXPECTED: &str = include_str!("fixtures/gradients.txt");

/// The gradient of one parameter, as far as it is stored.
struct Stored {
    largest: f64,
    norm: f64,
    entries: Vec<(usize, f64)>,
}

fn number(words: &mut SplitWhitespace<'_>) -> f64 {
    words.next().unwrap().parse().unwrap()
}

/// First outputs, and gradients by name, of a network.
fn expected(network: &str) -> (Vec<f64>, BTreeMap<&'static str, Stored>) {
    let lines = EXPECTED.lines().skip_while(|it| *it != format!("network {network}"));
    let mut lines = lines.skip(1).take_while(|it| !it.starts_with("network"));
    let outputs = lines.next().unwrap().split_whitespace().skip(1);
    let outputs = outputs.map(|it| it.parse().unwrap()).collect();
    let stored = |line: &'static str| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let (largest, norm) = (number(&mut words), number(&mut words));
        let entries = words.map(|it| {
            let (index, value) = it.split_once(':').unwrap();
            (index.parse().unwrap(), value.parse().unwrap())
        });
        (name, Stored { largest, norm, entries: entries.collect() })
    };
    (outputs, lines.map(stored).collect())
}

/// Most that a gradient may be off, as a share of the largest of its parameter and 1e-4 of the largest of all.
const LIMIT: f64 = 2e-5;

/// Compares the gradients of a network. Those that are 0 by its structure (of a key's bias, of a shift before a
/// normalization) are compared with the largest of all.
fn check(name: &str, mut net: Net, output: ValueId) {
    let (outputs, stored) = expected(name);
    net.graph.set_outputs(vec![output]);
    assert_eq!(net.parameters.len(), stored.len(), "{name}: number of parameters");
    let options = TapeOptions { parameters: net.parameters.clone(), ..TapeOptions::default() };
    let shapes: Vec<_> = net.inputs.iter().map(|it| it.shape.clone()).collect();
    let mut tape = Tape::prepare(&net.graph, &shapes, &options).unwrap();
    let mut parameters = Parameters::from_graph(&net.graph, &options.parameters).unwrap();
    let mut gradients = Gradients::new(&parameters);
    let y = tape.forward(&mut parameters, &net.inputs).unwrap().remove(0);
    for (found, expected) in y.to_f64().iter().zip(&outputs) {
        assert!((found - expected).abs() <= 1e-5 * expected.abs().max(0.1), "{name}: {outputs:?}");
    }
    let weights = Array::f32(&y.shape, net.noise(y.len()));
    tape.backward(&parameters, &[Some(weights)], &mut gradients).unwrap();
    let all = stored.values().fold(0.0f64, |a, b| a.max(b.largest));
    for (i, id) in net.parameters.iter().enumerate() {
        let key = net.graph.value(*id).name.as_str();
        let (own, stored) = (gradients.get(i), &stored[key]);
        let norm = own.iter().map(|&it| f64::from(it).powi(2)).sum::<f64>().sqrt();
        let entries = stored.entries.iter().map(|it| (f64::from(own[it.0]) - it.1).abs());
        let worst =
            entries.fold((norm - stored.norm).abs() * stored.largest / stored.norm, f64::max);
        let zero = stored.largest < 1e-9 * all;
        let size = if zero { 0.1 * all } else { stored.largest + 1e-4 * all };
        assert!(
            worst <= LIMIT * size,
            "{name}: the gradient of `{key}` is off by {}",
            worst / size
        );
    }
}

#[test]
fn resnet20_in_training_mode() {
    let mut net = Net::new(0);
    let y = resnet20(&mut net);
    check("resnet20", net, y);
}

#[test]
fn mobilenet_in_training_mode() {
    let mut net = Net::new(1000);
    let y = mobilenet(&mut net);
    check("mobilenet", net, y);
}

#[test]
fn a_transformer_block() {
    let mut net = Net::new(2000);
    let y = transformer(&mut net);
    check("transformer", net, y);
}

#[test]
fn two_bidirectional_lstms() {
    let mut net = Net::new(3000);
    let y = lstm(&mut net);
    check("lstm", net, y);
}

//! Recurrent operators through time.

use sartor_ir::{Attr, Attrs, Named};

use super::{Numbers, check_named, integers};
use crate::Array;

/// A recurrent operator with operands of `steps` by `batch`.
struct Draw {
    name: &'static str,
    gates: usize,
    directions: usize,
    attributes: Attrs,
}

const STEPS: usize = 3;
const BATCH: usize = 2;
const INPUT: usize = 3;
const HIDDEN: usize = 2;

impl Draw {
    fn new(name: &'static str, gates: usize) -> Self {
        Draw { name, gates, directions: 1, attributes: Attrs::new() }
    }

    fn with(mut self, name: &str, value: Attr) -> Self {
        self.attributes.set(name, value);
        self
    }

    fn direction(mut self, direction: &str) -> Self {
        self.directions = if direction == "bidirectional" { 2 } else { 1 };
        self.with("direction", Attr::Str(direction.to_owned()))
    }

    fn functions(self, names: &[&str]) -> Self {
        let names = names.repeat(self.directions).iter().map(|&it| it.to_owned()).collect();
        self.with("activations", Attr::Strs(names))
    }

    /// Checks the gradients of all operands, or of the required ones alone.
    fn check(self, all: bool, lengths: Option<&[i64]>) {
        let mut numbers = Numbers(21);
        let first = self.attributes.get("layout").is_some();
        let (d, rows) = (self.directions, self.gates * HIDDEN);
        let pair = |steps, batch| if first { [batch, steps] } else { [steps, batch] };
        let x = [&pair(STEPS, BATCH)[..], &[INPUT]].concat();
        let state = [&pair(d, BATCH)[..], &[HIDDEN]].concat();
        let mut draw = |shape: &[usize]| {
            let count = shape.iter().product();
            Some(Array::f32(shape, (0..count).map(|_| 0.8 * numbers.next()).collect()))
        };
        let mut inputs = vec![draw(&x), draw(&[d, rows, INPUT]), draw(&[d, rows, HIDDEN])];
        let mut wanted = vec![0, 1, 2];
        if all {
            inputs.push(draw(&[d, 2 * rows]));
            inputs.push(lengths.map(integers));
            inputs.push(draw(&state));
            wanted.extend([3, 5]);
        }
        if all && self.name == "LSTM" {
            inputs.extend([draw(&state), draw(&[d, 3 * HIDDEN])]);
            wanted.extend([6, 7]);
        }
        let name = self.name.to_owned();
        let op = Named { domain: String::new(), name, version: 14, attributes: self.attributes };
        check_named(&op, &inputs, &wanted, if self.name == "LSTM" { 3 } else { 2 });
    }
}

const CELLS: [(&str, usize); 3] = [("RNN", 1), ("GRU", 3), ("LSTM", 4)];

#[test]
fn every_cell_in_every_direction() {
    for (name, gates) in CELLS {
        for direction in ["forward", "reverse", "bidirectional"] {
            for lengths in [None, Some([3, 1].as_slice()), Some(&[2, 3]), Some(&[0, 3])] {
                Draw::new(name, gates).direction(direction).check(true, lengths);
            }
            Draw::new(name, gates).direction(direction).check(false, None);
        }
        Draw::new(name, gates)
            .direction("bidirectional")
            .with("layout", Attr::Int(1))
            .check(true, Some(&[2, 3]));
    }
}

#[test]
fn forms_of_gates() {
    for direction in ["forward", "bidirectional"] {
        let late =
            || Draw::new("GRU", 3).direction(direction).with("linear_before_reset", Attr::Int(1));
        late().check(true, Some(&[1, 3]));
        late().check(false, None);
        Draw::new("LSTM", 4)
            .direction(direction)
            .with("input_forget", Attr::Int(1))
            .check(true, None);
    }
}

#[test]
fn functions_and_limits() {
    Draw::new("LSTM", 4)
        .direction("bidirectional")
        .functions(&["HardSigmoid", "ScaledTanh", "Affine"])
        .with("activation_alpha", Attr::Floats(vec![0.3, 0.9, 1.1, 0.25, 0.8, 1.2]))
        .with("activation_beta", Attr::Floats(vec![0.4, 0.7, 0.1, 0.5, 0.6, 0.2]))
        .check(true, None);
    Draw::new("GRU", 3).functions(&["Sigmoid", "Softsign"]).check(true, None);
    Draw::new("RNN", 1).functions(&["Elu"]).check(true, None);
    // No number of these draws lies within a step of the limit.
    for (name, gates) in CELLS {
        Draw::new(name, gates).with("clip", Attr::Float(0.4)).check(true, None);
    }
}

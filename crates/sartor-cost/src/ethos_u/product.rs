//! Convolutions and matrix products, and their weights as they are quantized.

use std::sync::Arc;

use sartor_ir::{DType, Node, NodeId, Spatial, Tensor, ValueId};

use super::{
    lower::{Draft, Lowering, Place, kernel, plain},
    machine::Volume,
    task::{Kernel, Map, Weights, Work},
};

/// Weights before they are quantized.
#[derive(Clone, Debug)]
pub(super) struct Floats {
    outputs: usize,
    inputs: usize,
    h: usize,
    w: usize,
    /// In the order outputs, height, width, inputs; `None`: not known.
    values: Option<Vec<f32>>,
    scales: Scales,
    ratio: f64,
    sparse: Option<bool>,
    /// As they were quantized before.
    ready: Option<Weights>,
}

/// How weights are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scales {
    /// They are, already.
    Done,
    /// One scale for all.
    One,
    /// A scale for each output channel.
    Each,
}

impl Floats {
    /// Multiplies the weights of each output channel.
    pub(super) fn scale(&mut self, factors: &[f32]) {
        let (Some(values), Scales::One) = (&mut self.values, self.scales) else { return };
        let each = values.len() / self.outputs.max(1);
        for (o, weights) in values.chunks_mut(each.max(1)).enumerate() {
            let factor = factors.get(o).or(factors.first()).copied().unwrap_or(1.0);
            for weight in weights {
                *weight *= factor;
            }
        }
    }

    /// Symmetric 8-bit weights: the largest magnitude is 127. Dead channels, of magnitudes below the float's epsilon, become zeros, as
    /// they do in TensorFlow's converter.
    pub(super) fn quantized(&self) -> Weights {
        if let Some(ready) = &self.ready {
            return ready.clone();
        }
        let rounded = |weights: &[f32]| -> Vec<i16> {
            let largest = weights.iter().fold(0f32, |most, it| most.max(it.abs()));
            let step = if largest > f32::EPSILON { largest / 127.0 } else { 1.0 };
            weights.iter().map(|it| (it / step).round() as i16).collect()
        };
        let values = self.values.as_ref().map(|values| -> Arc<[i16]> {
            match self.scales {
                Scales::Done => values.iter().map(|&it| it as i16).collect(),
                Scales::One => rounded(values).into(),
                Scales::Each => {
                    let each = (values.len() / self.outputs.max(1)).max(1);
                    values.chunks(each).flat_map(rounded).collect()
                }
            }
        });
        Weights {
            outputs: self.outputs as u64,
            inputs: self.inputs as u64,
            h: self.h as u64,
            w: self.w as u64,
            values,
            ratio: self.ratio,
            sparse: self.sparse,
        }
    }
}

impl Lowering<'_> {
    /// The constant behind `value` with its zero point, if it was dequantized.
    fn constant(&self, value: ValueId) -> Option<(&Tensor, i64)> {
        let points = self
            .folding
            .dequantizer(self.graph, value)
            .and_then(|it| self.graph.constant_input(it, 2));
        let zero = points.and_then(|it| it.to_i64().ok()?.first().copied()).unwrap_or(0);
        let mut at = value;
        while self.graph.constant(at).is_none() {
            at = self.graph.node(self.graph.producer(at)?).input(0)?;
        }
        Some((self.graph.constant(at)?, zero))
    }

    /// Weights of `extents` (outputs, inputs, height, width), read at the places that `at` tells of (output, input, tap).
    fn weights(
        &self,
        (id, part): (NodeId, usize),
        value: ValueId,
        extents: [usize; 4],
        each: bool,
        at: impl Fn(usize, usize, usize) -> usize,
    ) -> Floats {
        let [outputs, inputs, h, w] = extents;
        let assumed = self.assumed;
        let before = assumed.before.and_then(|it| it.get(&id));
        let ratio = assumed.ratios.get(&id).or(before).copied().unwrap_or(assumed.ratio);
        let sparse = assumed.patterns.get(&id).copied();
        let mut floats = Floats {
            outputs,
            inputs,
            h,
            w,
            values: None,
            scales: Scales::Done,
            ratio,
            sparse,
            ready: None,
        };
        let told = assumed.ratios.contains_key(&id);
        if let Some(known) = assumed.known {
            let same =
                |it: &&Weights| [it.outputs, it.inputs, it.h, it.w] == extents.map(|it| it as u64);
            let kept = known.get(&id).and_then(|all| all.get(part).filter(same)).filter(|_| !told);
            floats.ready = kept.map(|it| Weights { sparse, ..it.clone() });
            return floats;
        }
        let count = outputs * inputs * h * w;
        let Some((tensor, zero)) = self.constant(value).filter(|it| it.0.len() >= count && !told)
        else {
            return floats;
        };
        let integer = matches!(tensor.dtype(), DType::I8 | DType::U8);
        floats.scales = match integer {
            true => Scales::Done,
            false if each => Scales::Each,
            false => Scales::One,
        };
        let all: Option<Vec<f32>> = if integer {
            tensor.to_i64().ok().map(|all| all.into_iter().map(|it| (it - zero) as f32).collect())
        } else {
            tensor.to_f32().ok()
        };
        floats.values = all.map(|all| {
            let mut values = Vec::with_capacity(count);
            for o in 0..outputs {
                for tap in 0..h * w {
                    values.extend((0..inputs).map(|i| all[at(o, i, tap)]));
                }
            }
            values
        });
        floats
    }

    /// A convolution; with groups, one of each.
    pub(super) fn conv(
        &mut self,
        id: NodeId,
        node: &Node,
        spatial: &Spatial,
        group: usize,
    ) -> Option<()> {
        let weight = node.input(1)?;
        let dims = self.shapes.dims(weight)?;
        let (&filters, &inputs) = (dims.first()?, dims.get(1)?);
        let sides = dims.get(2..)?;
        let kernel = kernel(spatial, Some(sides));
        let (input, output) = (self.place(node.input(0)?, true)?, self.place(node.output(), true)?);
        let (h, w) = (kernel.h as usize, kernel.w as usize);
        let taps = h * w;
        let depthwise = group > 1 && inputs == 1;
        let groups = if depthwise { 1 } else { group.max(1) };
        let outputs = filters / groups;
        for part in 0..groups {
            let from = part * outputs;
            let weights =
                self.weights((id, part), weight, [outputs, inputs, h, w], true, |o, i, tap| {
                    ((from + o) * inputs + i) * taps + tap
                });
            let depth = |place: Place, d: usize| Place {
                map: Map { size: place.map.size.with_depth(d as u64), ..place.map },
                ..place
            };
            let (input, output) = if groups == 1 {
                (input, output)
            } else {
                (depth(input, inputs), depth(output, outputs))
            };
            let work = if depthwise { Work::Depthwise } else { Work::Conv };
            let draft = plain(id, work, input, output);
            self.push(Draft { kernel, weights: Some(weights), ..draft });
        }
        Some(())
    }

    /// A product with a matrix: a convolution with a kernel of one point.
    pub(super) fn matrix(
        &mut self,
        id: NodeId,
        node: &Node,
        stored_transposed: bool,
    ) -> Option<()> {
        let (input, weight) = (node.input(0)?, node.input(1)?);
        let (mut from, mut to) = (self.place(input, false)?, self.place(node.output(), false)?);
        let dims = self.shapes.dims(weight)?;
        let (rows, columns) = match dims {
            [.., rows, columns] => (*rows, *columns),
            [rows] => (*rows, 1),
            [] => return None,
        };
        let (inputs, outputs) = if stored_transposed { (columns, rows) } else { (rows, columns) };
        // Positions are dealt out to height and width as evenly as they factor, up to 16.
        let positions = self.shapes.elements(node.output())? / (outputs as u64).max(1);
        let (h, w) = match positions {
            4 => (2, 2),
            8 => (2, 4),
            16 => (4, 4),
            n => (1, n),
        };
        from.map.size = Volume::new(h, w, inputs as u64);
        to.map.size = Volume::new(h, w, outputs as u64);
        let mut draft = plain(id, Work::Conv, from, to);
        if self.folding.is_fixed(weight) && dims.len() <= 2 {
            let at = |o: usize, i: usize, _: usize| {
                if stored_transposed { o * inputs + i } else { i * outputs + o }
            };
            draft.weights = Some(self.weights((id, 0), weight, [outputs, inputs, 1, 1], false, at));
        } else {
            draft.operand = Some(self.place(weight, false)?);
        }
        self.push(draft);
        Some(())
    }

    /// A transposed convolution: the input is spread by its strides, then the kernel goes over it point by point.
    pub(super) fn transposed(&mut self, id: NodeId, node: &Node) -> Option<()> {
        let weight = node.input(1)?;
        let dims = self.shapes.dims(weight)?;
        let (mut input, output) =
            (self.place(node.input(0)?, true)?, self.place(node.output(), true)?);
        let (&inputs, &outputs) = (dims.first()?, dims.get(1)?);
        let side = |from_end: usize| {
            dims.len().checked_sub(from_end).filter(|&at| at >= 2).map_or(1, |at| dims[at])
        };
        let (h, w) = (side(2), side(1));
        let taps = h * w;
        let weights = self.weights((id, 0), weight, [outputs, inputs, h, w], true, |o, i, tap| {
            (i * outputs + o) * taps + tap
        });
        input.map.size = output.map.size.with_depth(inputs as u64);
        let kernel = Kernel { h: h as u64, w: w as u64, ..Kernel::POINT };
        let draft = plain(id, Work::Conv, input, output);
        self.push(Draft { kernel, weights: Some(weights), ..draft });
        Some(())
    }
}

//! Large batches in parts that stay in the cache: each part of the images goes through the whole network on one thread.
//!
//! The program is prepared for the images of one part. That is right where no node mixes images: axis 0 of everything
//! that is computed is the batch, and all else is the same for any batch.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use sartor_ir::{AxisLink, DType, Fact, Graph, IndexMap, Node, NodeId, Op, Port, ValueId};

use super::{Place, Program, lower::Lowering};
use crate::{Array, Data, EngineError, simd::tasks};

/// Bytes of feature maps that should stay in a core's own cache.
const CACHE: usize = 1 << 20;
/// Images of a part, least and most.
const LEAST: usize = 4;
const MOST: usize = 32;

/// How a batch is cut: by shapes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Images of the whole batch.
    batch: usize,
    /// Images of one part.
    images: usize,
}

/// One part of the inputs.
#[derive(Clone, Copy)]
pub(super) struct Feed<'a> {
    pub(super) arrays: &'a [Array],
    /// (first image, images of the batch) where this is a part.
    part: Option<(usize, usize)>,
}

impl<'a> Feed<'a> {
    /// The whole of the inputs.
    pub(super) fn whole(arrays: &'a [Array]) -> Self {
        Self { arrays, part: None }
    }

    /// The floats of input `i`, of which there are `len`.
    pub(super) fn floats(&self, i: usize, len: usize) -> &'a [f32] {
        let all = self.arrays[i].as_f32().unwrap_or_default();
        match self.part {
            None => all,
            Some((first, batch)) => &all[first * (all.len() / batch)..][..len],
        }
    }

    /// Whether the inputs are there as arrays.
    pub(super) fn is_whole(&self) -> bool {
        self.part.is_none()
    }
}

impl Parts {
    /// The parts in which `graph` may be run on inputs of these shapes, if it gains.
    pub(super) fn plan(
        graph: &Graph,
        facts: &[Option<Fact>],
        shapes: &[Vec<usize>],
    ) -> Option<Self> {
        let batch = *shapes.first()?.first()?;
        let batched = |id: &ValueId| {
            let fact = facts[id.index()].as_ref();
            fact.is_some_and(|it| {
                it.ty.dtype == DType::F32
                    && it.ty.dims().is_some_and(|it| it.first() == Some(&batch))
            })
        };
        let (inputs, outputs) = (graph.inputs(), graph.outputs());
        if !inputs.iter().chain(outputs).all(batched) {
            return None;
        }
        let mut parameters = 0;
        let mut map = 0;
        for (_, value) in graph.values() {
            parameters += value.constant.as_ref().map_or(0, sartor_ir::Tensor::len);
        }
        for (_, node) in graph.nodes() {
            let count = |id: ValueId| {
                let dims = facts[id.index()].as_ref().and_then(|it| it.ty.dims());
                dims.filter(|it| it.first() == Some(&batch))
                    .map_or(0, |it| it[1..].iter().product())
            };
            map = map
                .max(node.reads().chain(node.outputs.iter().flatten().copied()).map(count).sum());
        }
        let bytes = size_of::<f32>() * map.max(1);
        // Weights are read once a part: where there are many, many images should share them.
        let wanted = (CACHE / bytes).max(parameters * size_of::<f32>() / 4 / bytes);
        let images = wanted.next_power_of_two().clamp(LEAST, MOST);
        (batch >= 2 * images).then_some(Self { batch, images })
    }

    /// Number of parts.
    pub(super) fn count(self) -> usize {
        self.batch.div_ceil(self.images)
    }

    /// The shapes of one part of inputs.
    pub(super) fn shapes(self, shapes: &[Vec<usize>]) -> Vec<Vec<usize>> {
        let cut = |it: &Vec<usize>| {
            let mut it = it.clone();
            it[0] = self.images;
            it
        };
        shapes.iter().map(cut).collect()
    }

    /// Whether the nodes of the whole batch treat each image by itself and as those of a part do.
    pub(super) fn separate(
        self,
        live: &[NodeId],
        whole: &Lowering<'_>,
        part: &Lowering<'_>,
    ) -> bool {
        live.iter().all(|&id| self.separates(whole.graph.node(id), whole, part))
    }

    fn separates(self, node: &Node, whole: &Lowering<'_>, part: &Lowering<'_>) -> bool {
        let facts = |it: &Option<ValueId>| it.and_then(|it| whole.facts[it.index()].as_ref());
        let inputs: Vec<_> = node.inputs.iter().map(facts).collect();
        let outputs: Vec<_> = node.outputs.iter().map(|it| facts(it).map(|it| &it.ty)).collect();
        let links = node.op.axes(&inputs, &outputs);
        let sized = |it: &Lowering<'_>, id: ValueId, batch: usize| {
            let mut shape = it.shape(id)?;
            (shape.first() == Some(&batch)).then(|| {
                shape[0] = 0;
                shape
            })
        };
        let cut = |id: ValueId| {
            let shape = sized(whole, id, self.batch);
            shape.is_some() && shape == sized(part, id, self.images)
        };
        let tied = |input: usize, output: usize| {
            let (a, b) = ((Port::Input(input), 0), (Port::Output(output), 0));
            let joined = |link: &AxisLink| {
                matches!(link, AxisLink::Tied { a: x, b: y, map }
                    if is_identity(*map) && ((*x, *y) == (a, b) || (*x, *y) == (b, a)))
            };
            links.iter().any(joined)
        };
        let steady = |input: usize, id: ValueId| {
            let shape_only = matches!(node.op, Op::Reshape(_) | Op::Expand) && input == 1;
            shape_only || whole.same_constant(part, id)
        };
        let made: Vec<_> =
            node.outputs.iter().enumerate().filter_map(|(i, it)| Some((i, (*it)?))).collect();
        let read = |(input, id): (usize, &Option<ValueId>)| match *id {
            None => true,
            Some(id) if whole.constants[id.index()].is_some() => steady(input, id),
            Some(id) => cut(id) && made.iter().all(|&(output, _)| tied(input, output)),
        };
        node.captures.is_empty()
            && made.iter().all(|&(_, id)| cut(id))
            && node.inputs.iter().enumerate().all(read)
    }
}

/// Whether the indices of both axes are the same.
fn is_identity(map: IndexMap) -> bool {
    matches!(
        map,
        IndexMap::Same
            | IndexMap::Offset(0)
            | IndexMap::Strided { start: 0, step: 1 }
            | IndexMap::Block(1)
    )
}

impl Program {
    /// Runs all parts of a batch and puts their outputs together.
    pub(super) fn run_parts(
        &self,
        parts: Parts,
        inputs: &[Array],
        after: Option<&mut dyn FnMut(usize)>,
    ) -> Result<Vec<Array>, EngineError> {
        let Parts { batch, images } = parts;
        let whole = |it: &super::Operand| {
            let mut shape = it.shape.clone().unwrap_or_default();
            shape[0] = batch;
            Array::f32(&shape, vec![0.0; shape.iter().product()])
        };
        let outputs = Mutex::new(self.outputs.iter().map(whole).collect::<Vec<_>>());
        let count = parts.count();
        let run = |at: usize, after: &mut dyn FnMut(usize)| {
            // The last part may begin within the last but one: all have the same size.
            let first = (at * images).min(batch - images);
            let feed = Feed { arrays: inputs, part: Some((first, batch)) };
            let again = at * images - first;
            self.with_frame(|frame| {
                self.execute(frame, feed, &mut |_, _| {}, after)?;
                let mut outputs = outputs.lock().unwrap_or_else(PoisonError::into_inner);
                for (whole, it) in outputs.iter_mut().zip(&self.outputs) {
                    let part = self.floats(it, frame, feed);
                    let image = part.len() / images;
                    if let Data::F32(whole) = &mut whole.data {
                        whole[at * images * image..][..(images - again) * image]
                            .copy_from_slice(&part[again * image..]);
                    }
                }
                Ok::<_, EngineError>(())
            })
        };
        match after {
            Some(after) => (0..count).try_for_each(|at| run(at, after))?,
            None if count >= rayon::current_num_threads() => (0..count)
                .into_par_iter()
                .with_max_len(1)
                .try_for_each(|at| tasks::alone(|| run(at, &mut |_| {})))?,
            None => (0..count).into_par_iter().try_for_each(|at| run(at, &mut |_| {}))?,
        }
        Ok(outputs.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The program for a whole batch, given that for its parts; `None` if the outputs cannot be put together.
    pub(super) fn of_parts(mut self, parts: Parts) -> Option<Self> {
        for input in &mut self.inputs {
            input.shape[0] = parts.batch;
        }
        self.parts = Some(parts);
        let in_slots = self.outputs.iter().all(|it| matches!(it.place, Place::Slot(_)));
        in_slots.then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use sartor_ir::{
        Conv, Dim, Flatten, Gemm, GlobalPool, Spatial, Tensor, TensorType, Transpose, Unary,
    };

    use super::*;
    use crate::Options;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 % 1009) as f32) / 504.5 - 1.0).collect()
    }

    /// A graph under way.
    struct Net(Graph, usize);

    impl Net {
        fn new() -> (Self, ValueId) {
            let mut graph = Graph::new("net");
            let shape = vec![Dim::symbol("N"), Dim::Known(3), Dim::Known(9), Dim::Known(9)];
            let x = graph.add_input("x", TensorType::new(DType::F32, shape)).unwrap();
            (Self(graph, 0), x)
        }

        fn constant(&mut self, shape: &[usize]) -> ValueId {
            self.1 += 1;
            let values = numbers(shape.iter().product());
            let tensor = Tensor::from_f32(shape, &values);
            self.0.add_constant(&format!("w{}", self.1), tensor).unwrap()
        }

        fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
            self.1 += 1;
            let name = format!("n{}", self.1);
            self.0.add_node(&name, op, inputs, &[&format!("{name}_y")]).unwrap()[0]
        }

        fn conv(&mut self, x: ValueId, shape: &[usize], group: usize) -> ValueId {
            let w = self.constant(shape);
            let spatial = Spatial { pads: vec![1, 1, 1, 1], ..Spatial::default() };
            self.node(Op::Conv(Conv { spatial, group }), &[x, w])
        }

        fn prepare(&self, batch: usize) -> Program {
            Program::prepare(&self.0, &[vec![batch, 3, 9, 9]], &Options::default()).unwrap()
        }
    }

    #[test]
    fn parts_are_the_images_by_themselves() {
        let (mut net, x) = Net::new();
        let a = net.conv(x, &[24, 3, 3, 3], 1);
        let b = net.node(Op::Unary(Unary::Relu), &[a]);
        let c = net.conv(b, &[24, 1, 3, 3], 24);
        let sum = net.node(Op::Binary(sartor_ir::Binary::Add), &[c, b]);
        let mean = net.node(Op::GlobalPool(GlobalPool::Average), &[sum]);
        let flat = net.node(Op::Flatten(Flatten { axis: 1 }), &[mean]);
        let w = net.constant(&[24, 10]);
        let y = net.node(
            Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }),
            &[flat, w],
        );
        net.0.set_outputs(vec![y, sum]);
        for batch in [64, 83] {
            let whole = net.prepare(batch);
            assert!(whole.parts.is_some(), "{batch} images are cut");
            let image = 3 * 81;
            let x = numbers(batch * image);
            let outputs = whole.run(&[Array::f32(&[batch, 3, 9, 9], x.clone())]).unwrap();
            let single = net.prepare(1);
            assert!(single.parts.is_none(), "one image is not cut");
            for n in 0..batch {
                let x = x[n * image..][..image].to_vec();
                let expected = single.run(&[Array::f32(&[1, 3, 9, 9], x)]).unwrap();
                for (whole, expected) in outputs.iter().zip(&expected) {
                    let expected = expected.as_f32().unwrap();
                    let found = &whole.as_f32().unwrap()[n * expected.len()..][..expected.len()];
                    for (a, b) in found.iter().zip(expected) {
                        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "image {n}: {a} for {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn batches_whose_images_mix_stay_whole() {
        let (mut net, x) = Net::new();
        let y = net.node(Op::Softmax(sartor_ir::Softmax { axis: 0 }), &[x]);
        net.0.set_outputs(vec![y]);
        assert!(net.prepare(128).parts.is_none(), "softmax over the batch");
        let (mut net, x) = Net::new();
        let turned = net.node(Op::Transpose(Transpose { perm: vec![1, 0, 2, 3] }), &[x]);
        let back = net.node(Op::Transpose(Transpose { perm: vec![1, 0, 2, 3] }), &[turned]);
        net.0.set_outputs(vec![back]);
        assert!(net.prepare(128).parts.is_none(), "an axis that moves");
        let (mut net, x) = Net::new();
        let constant = net.constant(&[128, 1, 1, 1]);
        let y = net.node(Op::Binary(sartor_ir::Binary::Mul), &[x, constant]);
        net.0.set_outputs(vec![y]);
        assert!(net.prepare(128).parts.is_none(), "numbers for each image");
    }
}

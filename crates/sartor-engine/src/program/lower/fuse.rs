//! Elementwise nodes as stages of the step before them.

use std::sync::Arc;

use sartor_ir::{BatchNormalization, Binary, Node, NodeId, Op, QuantizeLinear, ValueId, Variadic};

use super::{Action, Lowering};
use crate::{
    Array,
    reference::{self, norm, quantize},
    simd::Grid,
    stage::Stage,
};

/// An elementwise node: the input that it changes, how, and another input that it reads.
pub(super) struct Elementwise {
    pub(super) main: ValueId,
    pub(super) stage: Stage,
    pub(super) with: Option<ValueId>,
}

impl Lowering<'_> {
    /// Fuses `node` into the step that makes its input, or makes it a step of its own; `false` if it is not
    /// elementwise.
    pub(super) fn add_stage(&mut self, node: &Node) -> bool {
        let output = node.output();
        let single = node.outputs.len() == 1 && self.is_float(output);
        let Some(choices) = single.then(|| self.elementwise(node)).flatten() else { return false };
        node.reads().for_each(|it| self.need_plain(it));
        self.add_choices(node, choices, output)
    }

    /// Fuses the first of `choices` that can be, or makes a step of the first; `false` if there is none.
    pub(super) fn add_choices(
        &mut self,
        node: &Node,
        choices: Vec<Elementwise>,
        output: ValueId,
    ) -> bool {
        for it in &choices {
            if let Some(at) = self.fusible(it) {
                let Elementwise { stage, with, .. } = self.with_operand(it, at);
                let draft = &mut self.drafts[at];
                draft.inputs.extend(with.map(Some));
                if !draft.absorb(&stage) {
                    draft.stages.push(stage);
                }
                draft.outputs = vec![Some(output)];
                self.maker.insert(output, at);
                return true;
            }
        }
        let Some(first) = choices.into_iter().next() else { return false };
        self.push(node, Action::Copy, vec![Some(first.main)], vec![Some(output)]);
        let at = self.drafts.len() - 1;
        let Elementwise { stage, with, .. } = self.with_operand(&first, at);
        self.drafts[at].inputs.extend(with.map(Some));
        self.drafts[at].stages.push(stage);
        true
    }

    /// The step into which `it` can be fused: it makes the main input, which nobody else reads, and all
    /// else is there when it runs.
    pub(super) fn fusible(&self, it: &Elementwise) -> Option<usize> {
        let root = self.root[it.main.index()];
        let at = *self.maker.get(&root)?;
        let ready =
            |with: ValueId| self.maker.get(&self.root[with.index()]).is_none_or(|&made| made < at);
        let alone = self.reads.get(&root) == Some(&1) && !self.pinned.contains(&root);
        let fast = !matches!(self.drafts[at].action, Action::Reference { .. });
        (alone && fast && it.with.is_none_or(ready)).then_some(at)
    }

    /// The stage with its second operand numbered as the next input of draft `at`.
    fn with_operand(&self, it: &Elementwise, at: usize) -> Elementwise {
        let stage = match &it.stage {
            Stage::Tensor { op, swapped, .. } => {
                Stage::Tensor { op: *op, swapped: *swapped, with: self.drafts[at].inputs.len() }
            }
            other => other.clone(),
        };
        Elementwise { main: it.main, stage, with: it.with }
    }

    /// The ways to see `node` as elementwise work on one of its inputs.
    pub(super) fn elementwise(&self, node: &Node) -> Option<Vec<Elementwise>> {
        let shape = self.shape(node.output())?;
        let binary = match node.op {
            Op::Binary(op) if !op.is_predicate() => Some(op),
            Op::Variadic(Variadic::Sum) if node.inputs.len() == 2 => Some(Binary::Add),
            _ => None,
        };
        let choices = if let Some(op) = binary {
            [(0, 1), (1, 0)]
                .iter()
                .filter_map(|&(main, with)| self.binary(op, node, main, with, &shape))
                .collect()
        } else {
            let main = node.input(0)?;
            vec![Elementwise { main, stage: self.unary(node, &shape)?, with: None }]
        };
        let fits = |it: &Elementwise| {
            self.is_float(it.main) && self.shape(it.main).is_some_and(|it| it == shape)
        };
        Some(choices.into_iter().filter(fits).collect())
    }

    fn unary(&self, node: &Node, shape: &[usize]) -> Option<Stage> {
        match &node.op {
            Op::Unary(op) => Some(Stage::Unary(*op)),
            Op::Clip => {
                let bound = |i: usize, open: f32| match node.input(i) {
                    None => Some(open),
                    Some(_) => self.constant(node, i)?.to_f32().first().copied(),
                };
                Some(Stage::Clip(bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?))
            }
            Op::PRelu => {
                let (slope, inner) = spread(self.constant(node, 1)?, shape)?;
                Some(Stage::Slope { slope, inner })
            }
            Op::BatchNormalization(it) => self.batch_norm(it, node, shape),
            Op::QuantizeLinear(it) if self.fake.contains(&node.output()) => {
                let (grids, inner) = self.grids(it, node, shape)?;
                Some(Stage::FakeQuantize { grids, inner })
            }
            _ => None,
        }
    }

    fn batch_norm(&self, it: &BatchNormalization, node: &Node, shape: &[usize]) -> Option<Stage> {
        let list = |i: usize| self.constant(node, i).and_then(|it| it.as_f32());
        let (factor, addend) = norm::batch_norm_affine(it, list(1)?, list(2)?, list(3)?, list(4)?);
        Some(Stage::Affine { factor, addend, inner: shape[2..].iter().product() })
    }

    fn binary(
        &self,
        op: Binary,
        node: &Node,
        main: usize,
        with: usize,
        shape: &[usize],
    ) -> Option<Elementwise> {
        let (id, other) = (node.input(main)?, node.input(with)?);
        if self.constants[id.index()].is_some() {
            return None;
        }
        let swapped = main == 1;
        if let Some(constant) = self.constant(node, with)
            && constant.as_f32().is_some()
            && let Some((values, inner)) = spread(constant, shape)
        {
            return Some(Elementwise {
                main: id,
                stage: Stage::Along { op, swapped, values, inner },
                with: None,
            });
        }
        let fits = self.is_float(other) && self.shape(other)? == shape;
        fits.then_some(Elementwise {
            main: id,
            stage: Stage::Tensor { op, swapped, with: 0 },
            with: Some(other),
        })
    }

    /// The grids of a quantization with constant parameters, and the elements behind one index of their axis.
    fn grids(
        &self,
        it: &QuantizeLinear,
        node: &Node,
        shape: &[usize],
    ) -> Option<(Vec<Grid>, usize)> {
        let scale = self.constant(node, 1)?;
        let (scales, zeros) = (scale.as_f32()?, self.zeros(node, scale.len())?);
        let dtype = self.facts[node.output().index()].as_ref()?.ty.dtype;
        let (low, high) = quantize::limits(dtype)?;
        let inner = match reference::quantize_granularity(it, shape, &scale.shape).ok()? {
            quantize::Granularity::Tensor => 1,
            quantize::Granularity::Channel { inner, .. } => inner,
            quantize::Granularity::Block { .. } => return None,
        };
        let grid = |(&scale, zero): (&f32, i64)| Grid {
            scale,
            zero_point: zero as f32,
            low: low as f32,
            high: high as f32,
        };
        Some((scales.iter().zip(zeros).map(grid).collect(), inner))
    }

    pub(super) fn zeros(&self, node: &Node, count: usize) -> Option<Vec<i64>> {
        match node.input(2) {
            None => Some(vec![0; count]),
            Some(_) => Some(self.constant(node, 2)?.to_i64()),
        }
    }

    /// Finds quantizations that only dequantizations with the same parameters read: together they round.
    pub(super) fn find_fake_quantization(&mut self, live: &[NodeId]) {
        let consumers = self.graph.consumers();
        for &id in live {
            let node = self.graph.node(id);
            let Op::QuantizeLinear(it) = &node.op else { continue };
            let output = node.output();
            if self.is_held(output) {
                continue;
            }
            let readers: Vec<_> =
                consumers.of(output).iter().filter(|it| live.contains(&it.0)).collect();
            let undone =
                readers.iter().all(|it| it.1 == 0 && self.undoes(self.graph.node(it.0), node));
            let shape = self.shape(output);
            let known = shape.is_some_and(|shape| self.grids(it, node, &shape).is_some());
            if known && undone && !readers.is_empty() && !self.wanted.contains(&output) {
                self.fake.insert(output);
            }
        }
    }

    pub(super) fn undoes(&self, reader: &Node, node: &Node) -> bool {
        let (Op::DequantizeLinear(back), Op::QuantizeLinear(it)) = (&reader.op, &node.op) else {
            return false;
        };
        let scales = [node, reader].map(|it| self.constant(it, 1));
        let [Some(a), Some(b)] = scales else { return false };
        let same_zeros = self.zeros(node, a.len()) == self.zeros(reader, b.len());
        let same_axis = a.len() == 1 || back.axis == it.axis;
        a.data == b.data && same_zeros && same_axis && back.block_size == 0 && it.block_size == 0
    }
}

/// A constant that varies along at most one axis of `shape`: its numbers, and the elements behind one index.
fn spread(constant: &Arc<Array>, shape: &[usize]) -> Option<(Vec<f32>, usize)> {
    let values = constant.as_f32()?;
    let lead = shape.len().checked_sub(constant.shape.len())?;
    let wide: Vec<_> = constant.shape.iter().enumerate().filter(|it| *it.1 != 1).collect();
    match wide.as_slice() {
        [] => Some((values.to_vec(), 1)),
        [(axis, extent)] if shape[lead + axis] == **extent => {
            Some((values.to_vec(), shape[lead + axis + 1..].iter().product()))
        }
        _ => None,
    }
}

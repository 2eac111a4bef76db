//! What lies before a quantization, as one integer kernel.

use sartor_ir::{Binary, Conv, Gemm, Node, NodeId, Op, Unary, ValueId, Variadic};

use super::{super::Lowering, Readers, Unit};
use crate::{
    Array,
    kernel::{
        self,
        integer::{
            Held, IntegerKernel, PairSite, ProductSite, Weights, has_layout, planes, prepare_move,
            prepare_pair, prepare_pool, prepare_product, prepare_table,
        },
    },
    reference::{self, layout::View, quantize},
    simd::ConvShape,
};

/// No limits.
const ALL: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

/// Nodes between held values and a quantization.
struct Chain<'g> {
    id: NodeId,
    core: &'g Node,
    /// Elementwise nodes behind the core, in order.
    after: Vec<NodeId>,
}

/// A kernel with what it reads, and whether its result has channels last.
type Made = (Box<dyn IntegerKernel>, Vec<ValueId>, bool);

/// A product as a convolution.
struct Product {
    geometry: ConvShape,
    weights: Weights,
    bias: Vec<f32>,
    channels_last: bool,
}

impl<'g> Lowering<'g> {
    /// The kernel that makes the output of quantization `id`, and whether its channels lie last.
    pub(super) fn unit_before(
        &self,
        id: NodeId,
        y: Held,
        graph: &Readers<'_>,
    ) -> Option<(Unit, bool)> {
        let node = self.graph.node(id);
        let chain = self.chain(node, graph)?;
        let limits = self.limits(&chain.after);
        let made = match &chain.core.op {
            Op::DequantizeLinear(_) => self.table(&chain, y),
            Op::Conv(_) | Op::Gemm(_) | Op::MatMul => self.product(&chain, Some(y)),
            Op::Binary(_) | Op::Variadic(_) => self.pair(chain.core, y, limits?),
            Op::Pool(_) | Op::GlobalPool(_) | Op::Reduce(_) => self.pool(chain.core, y, limits?),
            _ if chain.after.is_empty() => self.movement(chain.core, node.output(), y, graph),
            _ => None,
        };
        let (kernel, inputs, channels_last) = made?;
        let mut covered = chain.after;
        if !matches!(chain.core.op, Op::DequantizeLinear(_)) {
            covered.push(chain.id);
        }
        Some((Unit { core: chain.id, kernel, inputs, covered }, channels_last))
    }

    /// The integer kernel of a product whose result stays in floats.
    pub(super) fn float_product(&self, id: NodeId, graph: &Readers<'_>) -> Option<Unit> {
        let core = self.graph.node(id);
        if !matches!(core.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul) {
            return None;
        }
        let output = core.output();
        if graph.of(output).is_empty() && !self.wanted.contains(&output) {
            return None;
        }
        let (kernel, inputs, _) = self.product(&Chain { id, core, after: Vec::new() }, None)?;
        Some(Unit { core: id, kernel, inputs, covered: Vec::new() })
    }

    fn chain(&self, end: &Node, graph: &Readers<'_>) -> Option<Chain<'g>> {
        let mut value = end.input(0)?;
        let mut after = Vec::new();
        loop {
            let id = self.graph.producer(value)?;
            let core = self.graph.node(id);
            let source = self.bytes_behind(value).is_some();
            let alone = graph.of(value).len() == 1 && !self.wanted.contains(&value);
            let single = core.outputs.iter().flatten().count() == 1;
            let fixed = self.constants[value.index()].is_some();
            if !source && (!alone || !single || fixed) {
                return None;
            }
            match self.changed(core) {
                Some(main) if !source => {
                    after.insert(0, id);
                    value = main;
                }
                _ => return Some(Chain { id, core, after }),
            }
        }
    }

    /// The input that an elementwise function of one tensor changes.
    fn changed(&self, node: &Node) -> Option<ValueId> {
        let known = |i: usize| node.input(i).is_none() || self.constant(node, i).is_some();
        let main = match &node.op {
            Op::Unary(it) if *it != Unary::Not => 0,
            Op::Clip if known(1) && known(2) => 0,
            Op::Binary(it) if !it.is_predicate() => match (known(0), known(1)) {
                (false, true) => 0,
                (true, false) => 1,
                _ => return None,
            },
            _ => return None,
        };
        let input = node.input(main)?;
        let same = self.shape(input).is_some() && self.shape(input) == self.shape(node.output());
        same.then_some(input)
    }

    /// The limits that a row of activations puts to its input; `None` if there are others than such.
    fn limits(&self, after: &[NodeId]) -> Option<(f32, f32)> {
        let mut limits = ALL;
        for &id in after {
            let node = self.graph.node(id);
            let (low, high) = match &node.op {
                Op::Unary(Unary::Relu) => (0.0, f32::INFINITY),
                Op::Clip => {
                    let bound = |i: usize, open: f32| match node.input(i) {
                        None => Some(open),
                        Some(_) => self.constant(node, i)?.to_f32().first().copied(),
                    };
                    (bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?)
                }
                _ => return None,
            };
            limits = (limits.0.max(low).min(high), limits.1.max(low).min(high));
        }
        Some(limits)
    }

    /// Any function of one element, as a table of all bytes.
    fn table(&self, chain: &Chain<'_>, y: Held) -> Option<Made> {
        let (source, x) = self.bytes_behind(chain.core.output())?;
        let steps = (0..=255u8).map(|it| (f32::from(it) - f32::from(x.zero)) * x.scale);
        let mut values = Array::f32(&[256], steps.collect());
        for &id in &chain.after {
            let node = self.graph.node(id);
            let main = self.changed(node)?;
            let mut inputs = Vec::new();
            for (i, input) in node.inputs.iter().enumerate() {
                inputs.push(match input {
                    Some(it) if *it == main => Some(&values),
                    Some(_) => Some(&**self.constant(node, i)?),
                    None => None,
                });
            }
            if inputs.iter().flatten().any(|it| it.len() != 1 && it.len() != 256) {
                return None;
            }
            let made = reference::evaluate(&node.op, &inputs, &[sartor_ir::DType::F32]).ok()?;
            values = made.into_iter().next().filter(|it| it.len() == 256)?;
        }
        let byte = |&it: &f32| quantize::quantize(it, y.scale, i32::from(y.zero), (0, 255)) as u8;
        let table = values.as_f32()?.iter().map(byte).collect();
        Some((prepare_table(table), vec![source], x.channels_last))
    }

    fn product(&self, chain: &Chain<'_>, y: Option<Held>) -> Option<Made> {
        let core = chain.core;
        let (source, x) = self.bytes_behind(core.input(0)?)?;
        let (shape, made) = (self.shape(core.input(0)?)?, self.shape(core.output())?);
        let mut product = match &core.op {
            Op::Conv(it) => self.conv(it, core, &shape, &made)?,
            Op::Gemm(it) => self.gemm(it, core, &shape)?,
            _ => self.matmul(core, &shape)?,
        };
        // A constant that is added first is a bias.
        let mut after = chain.after.as_slice();
        if let [first, rest @ ..] = after
            && let Some(added) = self.added(*first, product.geometry.out_channels, &made, core)
        {
            product.bias.resize(product.geometry.out_channels, 0.0);
            product.bias.iter_mut().zip(added).for_each(|(to, it)| *to += it);
            after = rest;
        }
        let site = ProductSite {
            geometry: product.geometry,
            shape,
            x,
            channels_last: product.channels_last,
            weights: product.weights,
            bias: product.bias,
            limits: self.limits(after)?,
            y,
        };
        let kernel = prepare_product(&site)?;
        Some((kernel, vec![source], site.channels_last && has_layout(&made)))
    }

    /// What an addition of a constant adds to each output.
    fn added(&self, id: NodeId, outputs: usize, made: &[usize], core: &Node) -> Option<Vec<f32>> {
        let node = self.graph.node(id);
        let Op::Binary(Binary::Add) = node.op else { return None };
        let constant = (0..2).find_map(|i| self.constant(node, i))?;
        let mut shape = vec![1; made.len()];
        let axis = if matches!(core.op, Op::Conv(_)) { 1 } else { made.len().checked_sub(1)? };
        shape[axis] = outputs;
        Some(View::expand(&constant.shape, &shape)?.read(constant.as_f32()?))
    }

    fn conv(&self, it: &Conv, node: &Node, x: &[usize], y: &[usize]) -> Option<Product> {
        let w = self.constant(node, 1)?.shape.clone();
        Some(Product {
            geometry: kernel::plane_shape(it, x, &w, y)?,
            weights: self.weights(node, 1, 0)?,
            bias: self.bias(node, 1.0, y[1])?,
            channels_last: true,
        })
    }

    fn gemm(&self, it: &Gemm, node: &Node, x: &[usize]) -> Option<Product> {
        if it.alpha.to_bits() != 1f32.to_bits() || it.trans_a {
            return None;
        }
        let weights = self.weights(node, 1, usize::from(!it.trans_b))?;
        let outputs = weights.scales.len();
        Some(Product {
            geometry: matrix(*x.first()?, *x.get(1)?, outputs),
            bias: self.bias(node, it.beta, outputs)?,
            weights,
            channels_last: false,
        })
    }

    fn matmul(&self, node: &Node, x: &[usize]) -> Option<Product> {
        let (inner, rows) = x.split_last()?;
        if self.constant(node, 1)?.shape.len() != 2 {
            return None;
        }
        let weights = self.weights(node, 1, 1)?;
        let geometry = matrix(rows.iter().product(), *inner, weights.scales.len());
        Some(Product { geometry, weights, bias: Vec::new(), channels_last: false })
    }

    /// Optional input 2, one number for each output.
    fn bias(&self, node: &Node, factor: f32, outputs: usize) -> Option<Vec<f32>> {
        if node.input(2).is_none() {
            return Some(Vec::new());
        }
        let bias = self.constant(node, 2)?;
        let row = View::expand(&bias.shape, &[1, outputs])?.read(bias.as_f32()?);
        Some(row.iter().map(|it| it * factor).collect())
    }

    fn pair(&self, node: &Node, y: Held, limits: (f32, f32)) -> Option<Made> {
        let op = match node.op {
            Op::Binary(op) => op,
            Op::Variadic(Variadic::Sum) if node.inputs.len() == 2 => Binary::Add,
            _ => return None,
        };
        let shape = self.shape(node.output())?;
        // What has the shape of the result comes first.
        let whole = |i: usize| node.input(i).and_then(|it| self.shape(it)).as_ref() == Some(&shape);
        let (first, second) = if whole(0) { (0, 1) } else { (1, 0) };
        if !whole(first) || first == 1 && op == Binary::Sub {
            return None;
        }
        let by_channel = !whole(second);
        let fits =
            |it: &[usize]| it.len() == shape.len() && it[..2] == shape[..2] && planes(it).1 == 1;
        if by_channel && (shape.len() < 3 || !fits(&self.shape(node.input(second)?)?)) {
            return None;
        }
        let behind = |i: usize| self.bytes_behind(node.input(i)?);
        let ((a, held_a), (b, held_b)) = (behind(first)?, behind(second)?);
        let site = PairSite { op, operands: (held_a, held_b), shape, by_channel, limits, y };
        Some((prepare_pair(&site)?, vec![a, b], held_a.channels_last))
    }

    fn pool(&self, node: &Node, y: Held, limits: (f32, f32)) -> Option<Made> {
        let (source, x) = self.bytes_behind(node.input(0)?)?;
        let (shape, made) = (self.shape(node.input(0)?)?, self.shape(node.output())?);
        if matches!(node.op, Op::Reduce(_)) && node.input(1).is_some() {
            self.constant(node, 1)?;
        }
        let axes = self.constant(node, 1).map(|it| it.to_i64());
        let kernel = prepare_pool(node, &shape, &made, axes.as_deref(), (x, y), limits)?;
        Some((kernel, vec![source], has_layout(&made)))
    }

    fn movement(
        &self,
        node: &Node,
        output: ValueId,
        mut y: Held,
        graph: &Readers<'_>,
    ) -> Option<Made> {
        let count = if matches!(node.op, Op::Concat(_)) { node.inputs.len() } else { 1 };
        let behind = |i: usize| self.bytes_behind(node.input(i)?);
        let sources: Vec<_> = (0..count).map(behind).collect::<Option<_>>()?;
        let (ids, xs): (Vec<ValueId>, Vec<Held>) = sources.into_iter().unzip();
        let made = self.shape(node.output())?;
        y.channels_last = match node.op {
            Op::Slice | Op::Pad(_) | Op::Concat(_) => xs.first()?.channels_last,
            _ => self.wants_channels_last(output, graph),
        } && has_layout(&made);
        let kernel = prepare_move(&self.site(node, 0)?, &xs, y)?;
        Some((kernel, ids, y.channels_last))
    }
}

/// A matrix product as a convolution of one tap.
fn matrix(rows: usize, inner: usize, outputs: usize) -> ConvShape {
    ConvShape {
        batch: rows,
        in_channels: inner,
        in_h: 1,
        in_w: 1,
        out_channels: outputs,
        out_h: 1,
        out_w: 1,
        kernel: (1, 1),
        strides: (1, 1),
        dilations: (1, 1),
        pads_begin: (0, 0),
        groups: 1,
    }
}

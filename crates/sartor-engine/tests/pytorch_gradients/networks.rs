//! The networks, layer by layer as `fixtures/gradients.py` has them.

use sartor_engine::{Array, Data};
use sartor_ir::{
    Attr, Attrs, BatchNormalization, Binary, Conv, DType, Gather, GlobalPool, Graph, Named, Op,
    Pad, Reshape, Softmax, Spatial, Tensor, TensorType, Transpose, Unary, ValueId,
};

/// A graph under construction. Tensors have numbers by their order, as in the script.
pub(crate) struct Net {
    pub(crate) graph: Graph,
    pub(crate) parameters: Vec<ValueId>,
    pub(crate) inputs: Vec<Array>,
    next: u32,
    names: usize,
}

/// Numbers in -1..1 for element `i` of tensor `k`.
fn noise(k: u32, i: u32) -> f64 {
    let mut h =
        (i + 1).wrapping_mul(2_654_435_761).wrapping_add((k + 1).wrapping_mul(2_246_822_519));
    h = (h ^ (h >> 15)).wrapping_mul(2_246_822_519);
    h = (h ^ (h >> 13)).wrapping_mul(3_266_489_917);
    f64::from(h ^ (h >> 16)) / 2f64.powi(31) - 1.0
}

const ADD: Op = Op::Binary(Binary::Add);

impl Net {
    pub(crate) fn new(seed: u32) -> Self {
        Net {
            graph: Graph::new("net"),
            parameters: Vec::new(),
            inputs: Vec::new(),
            next: seed,
            names: 0,
        }
    }

    /// The elements of the next tensor.
    pub(crate) fn noise(&mut self, count: usize) -> Vec<f32> {
        self.tensor(count, 1.0, 0.0)
    }

    fn tensor(&mut self, count: usize, scale: f64, offset: f64) -> Vec<f32> {
        let k = self.next;
        self.next += 1;
        let count = u32::try_from(count).unwrap();
        (0..count).map(|i| (noise(k, i) * scale + offset) as f32).collect()
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        let values = self.noise(shape.iter().product());
        self.inputs.push(Array::f32(shape, values));
        self.graph.add_input("x", TensorType::fixed(DType::F32, shape)).unwrap()
    }

    fn parameter(&mut self, name: &str, shape: &[usize], scale: f64, offset: f64) -> ValueId {
        let values = self.tensor(shape.iter().product(), scale, offset);
        let id = self.graph.add_constant(name, Tensor::from_f32(shape, &values)).unwrap();
        self.parameters.push(id);
        id
    }

    fn floats(&mut self, shape: &[usize], value: f32) -> ValueId {
        let values = vec![value; shape.iter().product()];
        self.graph.add_fresh_constant("fixed", Tensor::from_f32(shape, &values))
    }

    fn integers(&mut self, values: &[i64]) -> ValueId {
        self.graph.add_fresh_constant("list", Tensor::from_i64(&[values.len()], values))
    }

    fn apply(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.names += 1;
        self.graph.add_node("", op, inputs, &[&format!("value {}", self.names)]).unwrap()[0]
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        self.apply(Op::Unary(Unary::Relu), &[x])
    }

    fn relu6(&mut self, x: ValueId) -> ValueId {
        let (low, high) = (self.floats(&[], 0.0), self.floats(&[], 6.0));
        self.apply(Op::Clip, &[x, low, high])
    }

    /// A convolution from `channels` without bias, as wide on each side as its kernel reaches, and batch
    /// normalization.
    fn conv(
        &mut self,
        name: &str,
        x: ValueId,
        channels: usize,
        filters: usize,
        form: Form,
    ) -> ValueId {
        let Form { kernel, stride, group } = form;
        let channels = channels / group;
        let scale = (6.0 / (channels * kernel * kernel) as f64).sqrt();
        let shape = [filters, channels, kernel, kernel];
        let w = self.parameter(&format!("{name}.w"), &shape, scale, 0.0);
        let spatial =
            Spatial { strides: vec![stride; 2], pads: vec![kernel / 2; 4], ..Spatial::default() };
        let y = self.apply(Op::Conv(Conv { spatial, group }), &[x, w]);
        let scale = self.parameter(&format!("{name}.scale"), &[filters], 0.3, 1.0);
        let shift = self.parameter(&format!("{name}.shift"), &[filters], 0.3, 0.0);
        let (mean, var) = (self.floats(&[filters], 0.0), self.floats(&[filters], 1.0));
        let it = BatchNormalization { epsilon: 1e-5, momentum: 0.9 };
        self.apply(Op::BatchNormalization(it), &[y, scale, shift, mean, var])
    }

    fn linear(&mut self, name: &str, x: ValueId, width: usize, to: usize) -> ValueId {
        let scale = (3.0 / width as f64).sqrt();
        let w = self.parameter(&format!("{name}.w"), &[width, to], scale, 0.0);
        let b = self.parameter(&format!("{name}.b"), &[to], 0.1, 0.0);
        let product = self.apply(Op::MatMul, &[x, w]);
        self.apply(ADD, &[product, b])
    }

    fn layer_norm(&mut self, name: &str, x: ValueId, width: usize) -> ValueId {
        let scale = self.parameter(&format!("{name}.scale"), &[width], 0.3, 1.0);
        let shift = self.parameter(&format!("{name}.shift"), &[width], 0.3, 0.0);
        self.apply(named("LayerNormalization", 17, Attrs::new()), &[x, scale, shift])
    }

    fn pooled(&mut self, x: ValueId) -> ValueId {
        let pooled = self.apply(Op::GlobalPool(GlobalPool::Average), &[x]);
        self.apply(Op::Flatten(sartor_ir::Flatten { axis: 1 }), &[pooled])
    }

    fn reshape(&mut self, x: ValueId, shape: &[i64]) -> ValueId {
        let shape = self.integers(shape);
        self.apply(Op::Reshape(Reshape::default()), &[x, shape])
    }

    fn transpose(&mut self, x: ValueId, perm: &[usize]) -> ValueId {
        self.apply(Op::Transpose(Transpose { perm: perm.to_vec() }), &[x])
    }
}

fn named(name: &str, version: i64, attributes: Attrs) -> Op {
    Op::Named(Named { domain: String::new(), name: name.to_owned(), version, attributes })
}

/// The form of a convolution.
#[derive(Clone, Copy)]
struct Form {
    kernel: usize,
    stride: usize,
    group: usize,
}

fn form(kernel: usize, stride: usize) -> Form {
    Form { kernel, stride, group: 1 }
}

pub(crate) fn resnet20(net: &mut Net) -> ValueId {
    let input = net.input(&[2, 3, 32, 32]);
    let stem = net.conv("stem", input, 3, 16, form(3, 1));
    let (mut x, mut channels) = (net.relu(stem), 16);
    for (stage, width) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("{stage}.{block}");
            let y = net.conv(&format!("{name}.a"), x, channels, width, form(3, stride));
            let y = net.relu(y);
            let y = net.conv(&format!("{name}.b"), y, width, width, form(3, 1));
            if stride == 2 {
                x = shortcut(net, x, width);
            }
            let sum = net.apply(ADD, &[x, y]);
            x = net.relu(sum);
            channels = width;
        }
    }
    let pooled = net.pooled(x);
    net.linear("head", pooled, 64, 10)
}

/// Every other position, and zeros for the channels that are new.
fn shortcut(net: &mut Net, x: ValueId, width: usize) -> ValueId {
    let bounds = [[0, 0], [i64::MAX, i64::MAX], [2, 3], [2, 2]];
    let [starts, ends, axes, steps] = bounds.map(|it| net.integers(&it));
    let thin = net.apply(Op::Slice, &[x, starts, ends, axes, steps]);
    let more = (width / 4) as i64;
    let pads = net.integers(&[0, more, 0, 0, 0, more, 0, 0]);
    net.apply(Op::Pad(Pad { mode: sartor_ir::PadMode::Constant }), &[thin, pads])
}

pub(crate) fn mobilenet(net: &mut Net) -> ValueId {
    let input = net.input(&[4, 3, 16, 16]);
    let stem = net.conv("stem", input, 3, 8, form(3, 1));
    let (mut x, mut channels) = (net.relu6(stem), 8);
    let blocks = [(1, 8, 1), (4, 12, 2), (4, 12, 1), (4, 16, 2), (4, 16, 1)];
    for (block, (factor, width, stride)) in blocks.into_iter().enumerate() {
        let (mut y, inner) = (x, channels * factor);
        if factor > 1 {
            y = net.conv(&format!("{block}.a"), y, channels, inner, form(1, 1));
            y = net.relu6(y);
        }
        let depthwise = Form { kernel: 3, stride, group: inner };
        y = net.conv(&format!("{block}.b"), y, inner, inner, depthwise);
        y = net.relu6(y);
        y = net.conv(&format!("{block}.c"), y, inner, width, form(1, 1));
        let joins = stride == 1 && width == channels;
        x = if joins { net.apply(ADD, &[x, y]) } else { y };
        channels = width;
    }
    let pooled = net.pooled(x);
    net.linear("head", pooled, 16, 10)
}

pub(crate) fn transformer(net: &mut Net) -> ValueId {
    let (length, width, heads) = (6, 16, 4);
    let x = net.input(&[2, length, width]);
    let y = net.layer_norm("first", x, width);
    let [q, k, v] = ["q", "k", "v"].map(|it| {
        let y = net.linear(it, y, width, width);
        let apart = net.reshape(y, &[2, length as i64, heads, -1]);
        net.transpose(apart, if it == "k" { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] })
    });
    let products = net.apply(Op::MatMul, &[q, k]);
    let factor = net.floats(&[], 0.5);
    let scores = net.apply(Op::Binary(Binary::Mul), &[products, factor]);
    let weights = net.apply(Op::Softmax(Softmax { axis: -1 }), &[scores]);
    let mixed = net.apply(Op::MatMul, &[weights, v]);
    let mixed = net.transpose(mixed, &[0, 2, 1, 3]);
    let joined = net.reshape(mixed, &[2, length as i64, -1]);
    let out = net.linear("out", joined, width, width);
    let x = net.apply(ADD, &[x, out]);
    let y = net.layer_norm("second", x, width);
    let y = net.linear("up", y, width, 4 * width);
    let y = net.apply(Op::Unary(Unary::Gelu { tanh: false }), &[y]);
    let y = net.linear("down", y, 4 * width, width);
    net.apply(ADD, &[x, y])
}

pub(crate) fn lstm(net: &mut Net) -> ValueId {
    let (length, batch, hidden) = (7usize, 3, 5);
    let tokens: Vec<i64> = (0..(length * batch) as i64).map(|it| it * 5 % 11).collect();
    let shape = [length, batch];
    let ids = net.graph.add_input("tokens", TensorType::fixed(DType::I64, &shape)).unwrap();
    net.inputs.push(Array { shape: shape.to_vec(), data: Data::I64(tokens) });
    let table = net.parameter("embedding", &[11, 6], 1.0, 0.0);
    let (mut x, mut width) = (net.apply(Op::Gather(Gather { axis: 0 }), &[table, ids]), 6);
    for layer in 0..2 {
        let rows = 4 * hidden;
        let mut own = |name: &str, shape: &[usize], scale| {
            net.parameter(&format!("{layer}.{name}"), shape, scale, 0.0)
        };
        let w = own("w", &[2, rows, width], 0.5);
        let r = own("r", &[2, rows, hidden], 0.5);
        let b = own("b", &[2, 2 * rows], 0.2);
        let (h, c) = (own("h", &[2, batch, hidden], 0.5), own("c", &[2, batch, hidden], 0.5));
        let lengths = vec![length as i64; batch];
        let lengths = net.graph.add_fresh_constant("lengths", Tensor::from_i64(&[batch], &lengths));
        let attributes = Attrs::new()
            .with("direction", Attr::Str("bidirectional".to_owned()))
            .with("hidden_size", Attr::Int(hidden as i64));
        let y = net.apply(named("LSTM", 22, attributes), &[x, w, r, b, lengths, h, c]);
        // Directions side by side: `[length, 2, batch, hidden]` to `[length, batch, 2 hidden]`.
        let y = net.transpose(y, &[0, 2, 1, 3]);
        x = net.reshape(y, &[length as i64, batch as i64, -1]);
        width = 2 * hidden;
    }
    net.linear("head", x, width, 4)
}

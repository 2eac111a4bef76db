//! A chain of operators under construction, in floats or in quantized form.

use sartor_ir::{Attr, Attrs, DType, Graph, Named, Op, Tensor, TensorType, ValueId};

/// The scale of all quantized activations: they span −4 to 4.
const SCALE: f32 = 1.0 / 32.0;

/// A network that grows by one operator at a time.
pub(super) struct Net {
    graph: Graph,
    input: ValueId,
    at: ValueId,
    /// Extents of what was made last.
    pub(super) shape: Vec<usize>,
    integer: bool,
    /// The zero point of what was made last.
    zero: u8,
    made: usize,
}

/// An operator by its ONNX name.
fn operator(name: &str, attributes: &[(&str, Attr)]) -> Op {
    let all = attributes.iter().fold(Attrs::new(), |all, (key, it)| all.with(key, it.clone()));
    match Op::from_attributes(name, all.clone()) {
        Some(op) => op.expect("the attributes are those of the operator"),
        None => Op::Named(Named {
            domain: String::new(),
            name: name.to_owned(),
            version: 17,
            attributes: all,
        }),
    }
}

/// Numbers between −1 and 1 without a visible pattern: the time of a network does not depend on them.
fn numbers(count: usize) -> impl Iterator<Item = i8> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 as i8)
}

impl Net {
    /// A network with one input.
    pub(super) fn new(shape: &[usize], integer: bool) -> Self {
        let mut graph = Graph::new("micro");
        let ty = TensorType::fixed(DType::F32, shape);
        let input = graph.add_input("x", ty).expect("the first name");
        let mut net =
            Net { graph, input, at: input, shape: shape.to_vec(), integer, zero: 128, made: 0 };
        net.settle();
        net
    }

    /// The input itself, as operators read it.
    pub(super) fn head(&self) -> ValueId {
        self.at
    }

    /// A constant.
    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_fresh_constant("c", tensor)
    }

    /// A constant of whole numbers, such as axes.
    pub(super) fn integers(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::from_i64(&[values.len()], values))
    }

    /// Constant floats.
    pub(super) fn floats(&mut self, shape: &[usize]) -> ValueId {
        let values: Vec<f32> =
            numbers(shape.iter().product()).map(|it| f32::from(it) / 128.0).collect();
        self.constant(Tensor::from_f32(shape, &values))
    }

    /// Appends an operator with any inputs; returns its outputs.
    pub(super) fn outputs(
        &mut self,
        name: &str,
        attributes: &[(&str, Attr)],
        inputs: &[ValueId],
        count: usize,
    ) -> Vec<ValueId> {
        self.made += 1;
        let names: Vec<_> = (0..count).map(|i| format!("v{}_{i}", self.made)).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let node = format!("{name}_{}", self.made);
        let op = operator(name, attributes);
        self.graph.add_node(&node, op, inputs, &names).expect("names are counted")
    }

    /// Appends an operator that reads what was made last, then `more`.
    pub(super) fn op(
        &mut self,
        name: &str,
        attributes: &[(&str, Attr)],
        more: &[ValueId],
    ) -> ValueId {
        let inputs: Vec<_> = std::iter::once(self.at).chain(more.iter().copied()).collect();
        self.at = self.outputs(name, attributes, &inputs, 1)[0];
        self.at
    }

    /// Goes on from another value.
    pub(super) fn go(&mut self, from: ValueId) {
        self.at = from;
    }

    /// Quantizes and dequantizes what was made last, in a quantized network.
    pub(super) fn settle(&mut self) -> ValueId {
        self.quantize(128)
    }

    /// [`Net::settle`] after an operator that only moves numbers: with the scale that they have.
    pub(super) fn keep(&mut self) -> ValueId {
        self.quantize(self.zero)
    }

    fn quantize(&mut self, zero: u8) -> ValueId {
        self.zero = zero;
        if self.integer {
            let scale = self.constant(Tensor::from_f32(&[], &[SCALE]));
            let zero = self.constant(Tensor::from_u8(&[], &[zero]));
            self.op("QuantizeLinear", &[], &[scale, zero]);
            self.op("DequantizeLinear", &[], &[scale, zero]);
        }
        self.at
    }

    /// Weights of this shape with `outputs` along `axis`, and a bias.
    fn weights(&mut self, shape: &[usize], axis: usize) -> [ValueId; 2] {
        let outputs = shape[axis];
        let count: usize = shape.iter().product();
        // The sums stay in the range of the activations.
        let size = 1.0 / ((count / outputs.max(1)) as f32).sqrt();
        if !self.integer {
            let values: Vec<f32> = numbers(count).map(|it| f32::from(it) / 128.0 * size).collect();
            let weights = self.constant(Tensor::from_f32(shape, &values));
            return [weights, self.floats(&[outputs])];
        }
        let scale = size / 128.0;
        let values: Vec<i8> = numbers(count).map(|it| it.max(-127)).collect();
        let weights = self.constant(Tensor::from_i8(shape, &values));
        let scales = self.constant(Tensor::from_f32(&[outputs], &vec![scale; outputs]));
        let zeros = self.constant(Tensor::from_i8(&[outputs], &vec![0; outputs]));
        let along = [("axis", Attr::Int(axis as i64))];
        let weights = self.outputs("DequantizeLinear", &along, &[weights, scales, zeros], 1)[0];
        let values: Vec<i32> = numbers(outputs).map(i32::from).collect();
        let bias = self.constant(Tensor::from_i32(&[outputs], &values));
        let scales = vec![scale * SCALE; outputs];
        let scales = self.constant(Tensor::from_f32(&[outputs], &scales));
        let along = [("axis", Attr::Int(0))];
        let bias = self.outputs("DequantizeLinear", &along, &[bias, scales], 1)[0];
        [weights, bias]
    }

    /// A convolution of as many spatial axes as there are, padded to keep their extents at stride 1.
    pub(super) fn conv(&mut self, outputs: usize, kernel: usize, stride: usize, group: usize) {
        let axes = self.shape.len() - 2;
        let mut shape = vec![outputs, self.shape[1] / group];
        shape.extend(vec![kernel; axes]);
        let inputs = self.weights(&shape, 0);
        let pad = kernel / 2;
        let list = |it: usize, times: usize| Attr::Ints(vec![it as i64; times]);
        let attributes = [
            ("kernel_shape", list(kernel, axes)),
            ("strides", list(stride, axes)),
            ("pads", list(pad, 2 * axes)),
            ("group", Attr::Int(group as i64)),
        ];
        self.op("Conv", &attributes, &inputs);
        self.shape[1] = outputs;
        for extent in &mut self.shape[2..] {
            *extent = (*extent + 2 * pad - kernel) / stride + 1;
        }
    }

    /// [`Net::conv`] with a rectifier.
    pub(super) fn conv_relu(&mut self, outputs: usize, kernel: usize, stride: usize, group: usize) {
        self.conv(outputs, kernel, stride, group);
        self.relu();
    }

    /// A rectifier, after which activations are quantized from zero upwards: then it needs no work of its own.
    pub(super) fn relu(&mut self) {
        self.op("Relu", &[], &[]);
        self.quantize(0);
    }

    /// A matrix product with constant weights and a bias.
    pub(super) fn gemm(&mut self, outputs: usize) {
        let inputs = self.weights(&[self.shape[1], outputs], 1);
        self.op("Gemm", &[], &inputs);
        self.shape[1] = outputs;
    }

    /// A matrix product with constant weights along the last axis.
    pub(super) fn matmul(&mut self, outputs: usize) {
        let last = self.shape.len() - 1;
        let [weights, _] = self.weights(&[self.shape[last], outputs], 1);
        self.op("MatMul", &[], &[weights]);
        self.shape[last] = outputs;
        self.settle();
    }

    /// What image networks end in: the mean over all positions and a small product.
    pub(super) fn classify(&mut self) {
        self.op("GlobalAveragePool", &[], &[]);
        self.settle();
        self.op("Flatten", &[], &[]);
        self.shape.truncate(2);
        self.gemm(10);
    }

    /// The finished network.
    pub(super) fn finish(mut self) -> Graph {
        debug_assert_ne!(self.at, self.input, "a network has an operator");
        self.graph.set_outputs(vec![self.at]);
        self.graph.compacted()
    }
}

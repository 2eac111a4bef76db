//! Small graphs for the tests.

use sartor_ir::{
    Conv, DType, Dim, Graph, Op, QuantizeLinear, Spatial, Tensor, TensorType, ValueId,
};

/// `side × side` images of `channels`, batch `N`.
pub(crate) fn image(graph: &mut Graph, channels: usize, side: usize) -> ValueId {
    let shape = vec![Dim::symbol("N"), channels.into(), side.into(), side.into()];
    graph.add_input("x", TensorType::new(DType::F32, shape)).unwrap()
}

/// A padded convolution with a square kernel and weights `w`.
pub(crate) fn conv(
    graph: &mut Graph,
    x: ValueId,
    w: ValueId,
    kernel: usize,
    group: usize,
    name: &str,
) -> ValueId {
    let spatial = Spatial { pads: vec![kernel / 2; 4], ..Spatial::default() };
    graph
        .add_node(name, Op::Conv(Conv { spatial, group }), &[x, w], &[&format!("{name}.y")])
        .unwrap()[0]
}

/// One convolution of 16 × 16 positions from `channels` to `filters`, all weights 0.5.
pub(crate) fn one_conv(channels: usize, filters: usize, kernel: usize, group: usize) -> Graph {
    let mut graph = Graph::new("conv");
    let x = image(&mut graph, channels, 16);
    let shape = [filters, channels / group, kernel, kernel];
    let w = Tensor::from_f32(&shape, &vec![0.5; shape.iter().product()]);
    let w = graph.add_constant("w", w).unwrap();
    let y = conv(&mut graph, x, w, kernel, group, "conv");
    graph.set_outputs(vec![y]);
    graph
}

/// `QuantizeLinear` and `DequantizeLinear` of `x` with the zero point `zero`.
pub(crate) fn quantized(graph: &mut Graph, x: ValueId, zero: Tensor, name: &str) -> ValueId {
    let scale = graph.add_fresh_constant("scale", Tensor::from_f32(&[], &[0.1]));
    let zero = graph.add_fresh_constant("zero", zero);
    let (q, dq) = (format!("{name}.q"), format!("{name}.dq"));
    let op = QuantizeLinear::along(1);
    let y =
        graph.add_node(&q, Op::QuantizeLinear(op.clone()), &[x, scale, zero], &[&q]).unwrap()[0];
    graph.add_node(&dq, Op::DequantizeLinear(op), &[y, scale, zero], &[&dq]).unwrap()[0]
}

/// Int8 weights through `DequantizeLinear`.
pub(crate) fn int8_weights(graph: &mut Graph, shape: &[usize], name: &str) -> ValueId {
    let values: Vec<i8> = (0..shape.iter().product::<usize>()).map(|i| i as i8 | 1).collect();
    let w = graph.add_constant(name, Tensor::from_i8(shape, &values)).unwrap();
    let scale = graph.add_fresh_constant("scale", Tensor::from_f32(&[], &[0.1]));
    let name = format!("{name}.dq");
    graph
        .add_node(&name, Op::DequantizeLinear(QuantizeLinear::along(0)), &[w, scale], &[&name])
        .unwrap()[0]
}

//! Before quantization: constant factors and addends of a matrix product move into its weights and bias.

use sartor_ir::{Binary, Gemm, Graph, GraphError, Node, NodeId, Op, Tensor, ValueId, infer};

use crate::CompressError;

/// `alpha A B + beta C` with constant `B` and `C` becomes `A (alpha B) + (beta C)`, and a `MatMul` of
/// matrices followed by sums and products with one constant per column becomes one `Gemm`:
/// `(x W + b) g + a = x (W g) + (b g + a)`, as batch normalization folds (Jacob et al. 2018, section 3.2).
pub(crate) fn lower(graph: &Graph) -> Result<Graph, CompressError> {
    let mut graph = graph.clone();
    let products = graph.nodes().filter(|it| matches!(it.1.op, Op::Gemm(_) | Op::MatMul));
    let products: Vec<NodeId> = products.map(|it| it.0).collect();
    for id in products {
        match &graph.node(id).op {
            Op::Gemm(gemm) if gemm.alpha.to_bits() != ONE || gemm.beta.to_bits() != ONE => {
                fold_factors(&mut graph, id);
            }
            Op::MatMul => fold_tail(&mut graph, id)?,
            _ => {}
        }
    }
    graph.sort()?;
    infer(&mut graph)?;
    Ok(graph)
}

const ONE: u32 = 1f32.to_bits();

fn floats(graph: &Graph, id: Option<ValueId>) -> Option<(Vec<f32>, Vec<usize>)> {
    let tensor = graph.constant(id?).filter(|it| it.dtype() == sartor_ir::DType::F32)?;
    Some((tensor.to_f32().ok()?, tensor.shape().to_vec()))
}

fn fold_factors(graph: &mut Graph, id: NodeId) {
    let node = graph.node(id);
    let Op::Gemm(gemm) = node.op.clone() else { return };
    let (weight, bias) = (floats(graph, node.input(1)), floats(graph, node.input(2)));
    let Some((values, shape)) = weight else { return };
    if node.input(2).is_some() && bias.is_none() {
        return;
    }
    let (old_weight, old_bias) = (node.input(1), node.input(2));
    for (i, old, factor, values, shape) in
        [(1, old_weight, gemm.alpha, Some(values), Some(shape))].into_iter().chain([(
            2,
            old_bias,
            gemm.beta,
            bias.as_ref().map(|it| it.0.clone()),
            bias.as_ref().map(|it| it.1.clone()),
        )])
    {
        let (Some(old), Some(values), Some(shape)) = (old, values, shape) else { continue };
        if factor.to_bits() != ONE {
            let scaled: Vec<f32> = values.iter().map(|it| it * factor).collect();
            let name = format!("{}_scaled", graph.value(old).name);
            let new = graph.add_fresh_constant(&name, Tensor::from_f32(&shape, &scaled));
            graph.set_input(id, i, Some(new));
        }
    }
    graph.node_mut(id).op = Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, ..gemm });
}

/// One link of a tail: factor and addend by column.
fn link(
    graph: &Graph,
    node: &Node,
    input: ValueId,
    columns: usize,
) -> Option<(Vec<f32>, Vec<f32>)> {
    let other = usize::from(node.input(0) == Some(input));
    let (values, shape) = floats(graph, node.input(other))?;
    let row = shape.iter().rev().skip(1).all(|it| *it == 1) && shape.len() <= 2;
    if !row || (values.len() != columns && values.len() != 1) {
        return None;
    }
    let values: Vec<f32> = values.iter().copied().cycle().take(columns).collect();
    match (&node.op, other) {
        (Op::Binary(Binary::Add), _) => Some((vec![1.0; columns], values)),
        (Op::Binary(Binary::Mul), _) => Some((values, vec![0.0; columns])),
        (Op::Binary(Binary::Sub), 1) => {
            Some((vec![1.0; columns], values.iter().map(|it| -it).collect()))
        }
        _ => None,
    }
}

fn fold_tail(graph: &mut Graph, id: NodeId) -> Result<(), GraphError> {
    let node = graph.node(id);
    let rank =
        node.input(0).and_then(|it| graph.value(it).ty.as_ref()?.shape.as_ref().map(Vec::len));
    let Some((weight, shape)) = floats(graph, node.input(1)) else { return Ok(()) };
    let (Some(2), [_, columns]) = (rank, shape.as_slice()) else { return Ok(()) };
    let (columns, consumers) = (*columns, graph.consumers());
    let (mut factor, mut addend) = (vec![1.0f32; columns], vec![0.0f32; columns]);
    let (mut last, mut swallowed) = (node.output(), Vec::new());
    while let ([(next, _)], false) = (consumers.of(last), graph.outputs().contains(&last)) {
        let Some((f, a)) = link(graph, graph.node(*next), last, columns) else { break };
        for c in 0..columns {
            factor[c] *= f[c];
            addend[c] = addend[c] * f[c] + a[c];
        }
        last = graph.node(*next).output();
        swallowed.push(*next);
    }
    if swallowed.is_empty() {
        return Ok(());
    }
    let mut node = graph.remove_node(id);
    for next in swallowed {
        graph.remove_node(next);
    }
    let old = node.input(1).map(|it| graph.value(it).name.clone()).unwrap_or_default();
    if factor.iter().any(|it| it.to_bits() != ONE) {
        let scaled: Vec<f32> =
            weight.iter().enumerate().map(|(i, w)| w * factor[i % columns]).collect();
        node.inputs[1] = Some(
            graph.add_fresh_constant(&format!("{old}_scaled"), Tensor::from_f32(&shape, &scaled)),
        );
    }
    node.inputs.push(Some(
        graph.add_fresh_constant(&format!("{old}_bias"), Tensor::from_f32(&[columns], &addend)),
    ));
    node.op = Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false });
    node.outputs = vec![Some(last)];
    graph.push_node(node)?;
    graph.sort()
}

#[cfg(test)]
mod tests {
    use sartor_ir::{DType, Dim, TensorType, verify};

    use super::*;

    #[test]
    fn a_matmul_takes_in_its_bias_and_batch_normalization() {
        let mut graph = Graph::new("dense");
        let x = graph
            .add_input("x", TensorType::new(DType::F32, vec![Dim::symbol("N"), Dim::Known(1)]))
            .unwrap();
        let w = graph.add_constant("w", Tensor::from_f32(&[1, 2], &[1.0, 2.0])).unwrap();
        let b = graph.add_constant("b", Tensor::from_f32(&[2], &[3.0, 4.0])).unwrap();
        let g = graph.add_constant("g", Tensor::from_f32(&[1, 2], &[5.0, 6.0])).unwrap();
        let s = graph.add_constant("s", Tensor::from_f32(&[], &[7.0])).unwrap();
        let y = graph.add_node("mm", Op::MatMul, &[x, w], &["y"]).unwrap()[0];
        let y = graph.add_node("add", Op::Binary(Binary::Add), &[b, y], &["y1"]).unwrap()[0];
        let y = graph.add_node("mul", Op::Binary(Binary::Mul), &[y, g], &["y2"]).unwrap()[0];
        let y = graph.add_node("sub", Op::Binary(Binary::Sub), &[y, s], &["out"]).unwrap()[0];
        graph.set_outputs(vec![y]);
        infer(&mut graph).unwrap();
        let lowered = lower(&graph).unwrap();
        verify(&lowered).unwrap();
        let nodes: Vec<_> = lowered.nodes().map(|it| it.1.clone()).collect();
        assert_eq!(nodes.len(), 1);
        assert_eq!((nodes[0].op.name(), nodes[0].name.as_str()), ("Gemm", "mm"));
        assert_eq!(lowered.constant_input(&nodes[0], 1).unwrap().to_f32().unwrap(), [5.0, 12.0]);
        assert_eq!(lowered.constant_input(&nodes[0], 2).unwrap().to_f32().unwrap(), [8.0, 17.0]);
        assert_eq!(lowered.value(lowered.outputs()[0]).name, "out");
    }

    #[test]
    fn factors_of_a_gemm_move_into_its_constants() {
        let mut graph = Graph::new("gemm");
        let x = graph.add_input("x", TensorType::fixed(DType::F32, &[1, 1])).unwrap();
        let w = graph.add_constant("w", Tensor::from_f32(&[1, 1], &[3.0])).unwrap();
        let c = graph.add_constant("c", Tensor::from_f32(&[1], &[5.0])).unwrap();
        let op = Op::Gemm(Gemm { alpha: 2.0, beta: 0.5, trans_a: false, trans_b: true });
        let y = graph.add_node("fc", op, &[x, w, c], &["y"]).unwrap()[0];
        graph.set_outputs(vec![y]);
        let lowered = lower(&graph).unwrap();
        let (_, node) = lowered.nodes().next().unwrap();
        assert_eq!(
            node.op,
            Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true })
        );
        assert_eq!(lowered.constant_input(node, 1).unwrap().to_f32().unwrap(), [6.0]);
        assert_eq!(lowered.constant_input(node, 2).unwrap().to_f32().unwrap(), [2.5]);
    }
}

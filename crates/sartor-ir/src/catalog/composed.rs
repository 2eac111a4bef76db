//! Operators that are made of others: a fused operator is defined by the graph that it stands for.
//!
//! Shapes, values and whatever else is asked of it follow from that graph.

use std::collections::BTreeMap;

use super::{fused, integer, key, qlinear, transformer};
use crate::{
    Attrs, Cast, DType, Dim, Fact, Graph, Named, Node, Op, Tensor, TensorType, Transpose, ValueId,
    infer_facts,
};

/// Builds the graph of an operator; returns its outputs in order.
pub(super) type Compose = fn(&Named, &mut Body<'_>) -> Result<Vec<ValueId>, String>;

/// One operator that is made of others.
pub(super) struct Composition {
    /// Operator set domain; empty for ONNX's own.
    pub(super) domain: &'static str,
    /// Name of the operator.
    pub(super) name: &'static str,
    /// What it is made of.
    pub(super) compose: Compose,
}

/// The rows of all families.
const FAMILIES: &[&[Composition]] =
    &[fused::COMPOSED, integer::COMPOSED, qlinear::COMPOSED, transformer::COMPOSED];

/// The graph that an operator stands for.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The graph; its outputs are those of the operator.
    pub graph: Graph,
    /// Which input of the operator each input of the graph is: absent ones are left out.
    pub inputs: Vec<usize>,
}

fn find(op: &Named) -> Option<&'static Composition> {
    let mut rows = FAMILIES.iter().copied().flatten();
    rows.find(|it| (it.domain, it.name) == key(op))
}

/// Whether `op` is made of others.
pub fn is_composed(op: &Named) -> bool {
    find(op).is_some()
}

/// The names of all operators that are made of others, with their domains.
pub fn composed_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    FAMILIES.iter().copied().flatten().map(|it| (it.domain, it.name))
}

/// The graph that `op` stands for on inputs of these types (`None` for one that is not given); `None` if it
/// has rules of its own or is not known.
///
/// # Errors
/// A sentence about attributes or inputs that do not fit.
pub fn composed(
    op: &Named,
    inputs: &[Option<&TensorType>],
    n_outputs: usize,
) -> Result<Option<Composed>, String> {
    find(op).map(|row| build(row, op, inputs, n_outputs)).transpose()
}

/// As [`composed`], with every operator on quantized tensors through floats. The results of those that round
/// in an order of their own may differ where a number lies halfway between two integers.
///
/// # Errors
/// As [`composed`].
pub fn through_floats(
    op: &Named,
    inputs: &[Option<&TensorType>],
    n_outputs: usize,
) -> Result<Option<Composed>, String> {
    let row = qlinear::THROUGH_FLOATS.iter().find(|it| (it.domain, it.name) == key(op));
    let row = row.or_else(|| find(op));
    row.map(|row| build(row, op, inputs, n_outputs)).transpose()
}

fn build(
    row: &Composition,
    op: &Named,
    inputs: &[Option<&TensorType>],
    n_outputs: usize,
) -> Result<Composed, String> {
    let mut body = Body::new(&op.name, inputs, n_outputs)?;
    let mut outputs = (row.compose)(op, &mut body)?;
    if outputs.len() < n_outputs {
        return Err(format!("it has {} outputs, {n_outputs} are asked for", outputs.len()));
    }
    outputs.truncate(n_outputs);
    body.graph.set_outputs(outputs);
    let given = (0..inputs.len()).filter(|&i| inputs[i].is_some()).collect();
    Ok(Composed { graph: body.graph, inputs: given })
}

pub(super) fn infer(
    op: &Named,
    inputs: &[Option<&Fact>],
    n_outputs: usize,
) -> Result<Vec<Option<Fact>>, String> {
    let unknown = vec![None; n_outputs];
    let types: Vec<_> = inputs.iter().map(|it| it.map(|it| &it.ty)).collect();
    let made = match composed(op, &types, n_outputs) {
        Ok(Some(it)) => it,
        Ok(None) => return Ok(unknown),
        // An input of which nothing is known looks as if it were absent.
        Err(_) if inputs.contains(&None) => return Ok(unknown),
        Err(error) => return Err(error),
    };
    let facts = infer_facts(&made.graph, &BTreeMap::new()).map_err(|it| it.problem)?;
    Ok(made.graph.outputs().iter().map(|it| facts[it.index()].clone()).collect())
}

/// A graph under construction.
pub(super) struct Body<'a> {
    graph: Graph,
    types: Vec<Option<&'a TensorType>>,
    inputs: Vec<Option<ValueId>>,
    /// How many outputs are asked for.
    pub(super) n_outputs: usize,
}

impl<'a> Body<'a> {
    fn new(name: &str, given: &[Option<&'a TensorType>], n_outputs: usize) -> Result<Self, String> {
        let mut graph = Graph::new(name);
        let mut inputs = Vec::with_capacity(given.len());
        for (i, ty) in given.iter().enumerate() {
            let Some(ty) = ty else {
                inputs.push(None);
                continue;
            };
            let id = graph.add_input(&format!("input {i}"), (*ty).clone());
            inputs.push(Some(id.map_err(|it| it.to_string())?));
        }
        Ok(Body { graph, types: given.to_vec(), inputs, n_outputs })
    }

    /// Input `i`, which must be given.
    pub(super) fn input(&self, i: usize) -> Result<ValueId, String> {
        self.optional(i).ok_or_else(|| format!("input {i} is missing"))
    }

    /// Input `i`, if it is given.
    pub(super) fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// Number of inputs, absent ones counted.
    pub(super) fn n_inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The element type of input `i`.
    pub(super) fn dtype(&self, i: usize) -> Option<DType> {
        self.types.get(i).copied().flatten().map(|it| it.dtype)
    }

    /// The extents of input `i`, as far as they are known.
    pub(super) fn shape(&self, i: usize) -> Option<&'a [Dim]> {
        self.types.get(i).copied().flatten()?.shape.as_deref()
    }

    /// The rank of input `i`.
    pub(super) fn rank(&self, i: usize) -> Result<usize, String> {
        self.shape(i).map(<[Dim]>::len).ok_or_else(|| format!("the rank of input {i} is not known"))
    }

    /// The only output of `op`.
    pub(super) fn apply(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, String> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Ok(self.outputs(op, &inputs, 1)?[0])
    }

    /// The only output of `op`, some inputs of which may be absent.
    pub(super) fn apply_some(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
    ) -> Result<ValueId, String> {
        Ok(self.outputs(op, inputs, 1)?[0])
    }

    /// The first `count` outputs of `op`.
    pub(super) fn outputs(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        count: usize,
    ) -> Result<Vec<ValueId>, String> {
        let problem = |it: crate::GraphError| it.to_string();
        let mut inputs = inputs.to_vec();
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let mut made = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.graph.fresh_name(op.name());
            made.push(self.graph.add_value(&name, None).map_err(problem)?);
        }
        let outputs = made.iter().copied().map(Some).collect();
        let (name, doc, captures) = (String::new(), String::new(), Vec::new());
        let node = Node { name, doc, op, inputs, outputs, captures };
        self.graph.push_node(node).map_err(problem)?;
        Ok(made)
    }

    /// A constant.
    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_fresh_constant("constant", tensor)
    }

    /// A float constant without axes.
    pub(super) fn float(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::from_f32(&[], &[value]))
    }

    /// An integer list.
    pub(super) fn integers(&mut self, list: &[i64]) -> ValueId {
        self.constant(Tensor::from_i64(&[list.len()], list))
    }

    /// Input `i`, which has one element, without axes.
    pub(super) fn scalar(&mut self, i: usize) -> Result<ValueId, String> {
        let value = self.input(i)?;
        if self.shape(i).is_some_and(<[Dim]>::is_empty) {
            return Ok(value);
        }
        let none = self.integers(&[]);
        self.apply(known("Reshape", Attrs::new())?, &[value, none])
    }

    /// `value` with `count` axes of extent 1 behind its own ones.
    pub(super) fn widened(
        &mut self,
        value: ValueId,
        rank: usize,
        count: usize,
    ) -> Result<ValueId, String> {
        if count == 0 {
            return Ok(value);
        }
        let axes: Vec<i64> = (rank..rank + count).map(|it| it as i64).collect();
        let axes = self.integers(&axes);
        self.apply(Op::Unsqueeze, &[value, axes])
    }

    /// `value` in another element type.
    pub(super) fn cast(&mut self, value: ValueId, to: DType) -> Result<ValueId, String> {
        self.apply(Op::Cast(Cast::to(to)), &[value])
    }

    /// Axis `i` of the result is axis `perm[i]` of `value`.
    pub(super) fn transpose(&mut self, value: ValueId, perm: &[usize]) -> Result<ValueId, String> {
        self.apply(Op::Transpose(Transpose { perm: perm.to_vec() }), &[value])
    }

    /// Axes of `rank` with the channels, which are last, moved to the second place.
    pub(super) fn channels_first(
        &mut self,
        value: ValueId,
        rank: usize,
    ) -> Result<ValueId, String> {
        let perm: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        self.transpose(value, &perm)
    }

    /// The way back from [`Body::channels_first`].
    pub(super) fn channels_last(&mut self, value: ValueId, rank: usize) -> Result<ValueId, String> {
        let perm: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
        self.transpose(value, &perm)
    }
}

/// An operator of ONNX's own domain that has rules by name, in the form of `version`.
pub(super) fn named(name: &str, version: i64, attributes: Attrs) -> Op {
    Op::Named(Named { domain: String::new(), name: name.to_owned(), version, attributes })
}

/// An operator of ONNX Runtime's domain.
pub(super) fn microsoft(name: &str, attributes: Attrs) -> Op {
    let domain = super::MICROSOFT.to_owned();
    Op::Named(Named { domain, name: name.to_owned(), version: 1, attributes })
}

/// A known operator by its name in ONNX.
pub(super) fn known(name: &str, attributes: Attrs) -> Result<Op, String> {
    let op = Op::from_attributes(name, attributes);
    Ok(op.ok_or_else(|| format!("`{name}` is not known"))??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;

    /// `u8[N,3]`; a dash for an input that is absent.
    fn fact(text: &str) -> Option<Fact> {
        let (dtype, dims) = text.strip_suffix(']')?.split_once('[')?;
        let dim = |it: &str| it.parse().map_or_else(|_| Dim::symbol(it), Dim::Known);
        let dims = dims.split(',').filter(|it| !it.is_empty()).map(dim).collect();
        Some(Fact::of(TensorType::new(dtype.parse().ok()?, dims)))
    }

    fn check(name: &str, attributes: Attrs, inputs: &str, expected: &str) {
        let facts: Vec<_> = inputs.split_whitespace().map(fact).collect();
        let given: Vec<_> = facts.iter().map(Option::as_ref).collect();
        let domain = crate::catalog::MICROSOFT.to_owned();
        let op = Named { domain, name: name.to_owned(), version: 1, attributes };
        let count = expected.split_whitespace().count();
        let made = Op::Named(op).infer(&given, count).unwrap_or_else(|it| panic!("{name}: {it}"));
        let one = |it: &Option<Fact>| it.as_ref().map_or("?".to_owned(), |it| it.ty.to_string());
        let found: Vec<_> = made.iter().map(one).collect();
        assert_eq!(found.join(" "), expected, "{name}");
    }

    fn with(name: &str, value: i64) -> Attrs {
        Attrs::new().with(name, Attr::Int(value))
    }

    #[test]
    fn types_follow_from_the_parts() {
        let none = Attrs::new;
        check("FusedConv", none(), "f32[N,2,8,8] f32[4,2,3,3]", "f32[N,4,6,6]");
        check("FusedMatMul", with("transBatchA", 1), "f32[5,N,3,7] f32[N,3,7,2]", "f32[N,3,5,2]");
        check("BiasSplitGelu", none(), "f32[N,4,6] f32[6]", "f32[N,4,3]");
        check("QLinearAdd", none(), "u8[N,4] f32[] u8[] u8[4] f32[] u8[] f32[] u8[]", "u8[N,4]");
        check(
            "QLinearConv",
            with("channels_last", 1),
            "u8[N,8,8,2] f32[] u8[] i8[4,2,3,3] f32[4] i8[4] f32[1] i8[1] i32[4]",
            "i8[N,6,6,4]",
        );
        let last = with("channels_last", 1);
        let pooled = "i8[N,8,9,2] f32[] i8[] f32[] i8[]";
        check("QLinearGlobalAveragePool", last.clone(), pooled, "i8[N,1,1,2]");
        let window = last.with("kernel_shape", Attr::Ints(vec![2, 2]));
        check("QLinearAveragePool", window, pooled, "i8[N,7,8,2]");
        let gemm = "u8[N,5] f32[] u8[] u8[4,5] f32[4] u8[4]";
        check("QGemm", with("transB", 1), gemm, "f32[N,4]");
        check("QGemm", with("transB", 1), &format!("{gemm} - f32[] i8[]"), "i8[N,4]");
        check("DynamicQuantizeMatMul", none(), "f32[N,3,5] u8[5,4] f32[]", "f32[N,3,4]");
        let sizes = with("N", 6).with("K", Attr::Int(5)).with("block_size", Attr::Int(16));
        check("MatMulNBits", sizes, "f16[N,3,5] u8[6,1,8] f16[6,1]", "f16[N,3,6]");
    }

    #[test]
    fn types_of_transformers() {
        let heads = || with("num_heads", 2);
        let attention = "f32[N,3,8] f32[8,24] f32[24] - f32[2,N,2,5,4]";
        check("Attention", heads(), attention, "f32[N,3,8] f32[2,N,2,8,4]");
        let joint = "f32[N,3,2,3,4]";
        check("MultiHeadAttention", heads(), joint, "f32[N,3,8] f32[N,2,3,4] f32[N,2,3,4]");
        let apart = "f32[N,3,8] f32[N,5,8] f32[N,5,12]";
        check("MultiHeadAttention", heads(), apart, "f32[N,3,12]");
        let norm = "f32[N,3,8] f32[N,3,8] f32[8]";
        let made = "f32[N,3,8] f32[N,3,1] f32[N,3,1] f32[N,3,8]";
        check("SkipSimplifiedLayerNormalization", Attrs::new(), norm, made);
    }

    #[test]
    fn faults_are_told() {
        let op = |name: &str, attributes: Attrs| {
            let domain = crate::catalog::MICROSOFT.to_owned();
            Op::Named(Named { domain, name: name.to_owned(), version: 1, attributes })
        };
        let x = fact("f32[2,2,8,8]");
        let given = [x.as_ref(), x.as_ref()];
        let text = |it: &str| Attrs::new().with("activation", Attr::Str(it.to_owned()));
        for (op, expected) in [
            (op("FusedConv", text("Conv")), "activation `Conv`"),
            (op("FusedConv", text("Nobody")), "`Nobody` is not known"),
            (op("FusedConv", with("group", 0)), "attribute `group`"),
            (op("QLinearMul", Attrs::new()), "input 3 is missing"),
            (op("MatMulNBits", with("bits", 3)), "attribute `block_size`: is required"),
            (op("Attention", with("do_rotary", 1)), "attribute `do_rotary`"),
        ] {
            let error = op.infer(&given, 1).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}

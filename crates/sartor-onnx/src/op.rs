//! Operators between their older forms and the newest one, which is the graph's.
//!
//! [`newest`] brings a node of a file up to date, [`older`] is its mirror image. An operator that is not
//! named in either has had one form since opset 7.

mod elementwise;
mod layout;
mod norm;
mod quantize;
mod reduce;

use std::collections::BTreeMap;

use sartor_ir::{Attr, Attrs, Fact, Graph, Node, Op, ReduceKind, Tensor, ValueId};

use crate::opset;

/// A node on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) attrs: Attrs,
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) n_outputs: usize,
    /// Inputs that an older form had as attributes: by position, with a word for their name.
    pub(crate) constants: BTreeMap<usize, (&'static str, Tensor)>,
}

impl Draft {
    /// Makes integer list attribute `name`, if given, the constant input `at`.
    fn ints_to_input(&mut self, name: &'static str, at: usize) -> Result<(), String> {
        if let Some(list) = self.attrs.ints(name).map_err(|it| it.to_string())? {
            self.constants.insert(at, (name, Tensor::from_i64(&[list.len()], &list)));
        }
        Ok(())
    }
}

/// What is known while a file is read.
pub(crate) struct Source<'a> {
    pub(crate) opset: i64,
    pub(crate) graph: &'a Graph,
    pub(crate) facts: &'a [Option<Fact>],
}

impl Source<'_> {
    fn fact(&self, draft: &Draft, input: usize) -> Option<&Fact> {
        let id = draft.inputs.get(input).copied().flatten()?;
        self.facts.get(id.index())?.as_ref()
    }

    fn constant(&self, draft: &Draft, input: usize) -> Option<&Tensor> {
        self.graph.constant(draft.inputs.get(input).copied().flatten()?)
    }
}

/// Translates a node of ONNX's own domain into the newest form.
///
/// # Errors
/// Why it must stay as it is; `draft` is then spoilt.
pub(crate) fn newest(draft: &mut Draft, source: &Source) -> Result<Op, String> {
    let opset = source.opset;
    match draft.name.as_str() {
        "Clip" if opset < 11 => elementwise::newest_clip(draft, source)?,
        "Cast" => elementwise::newest_cast(draft)?,
        "Gelu" => elementwise::newest_gelu(draft)?,
        "Slice" if opset < 10 => layout::newest_slice(draft)?,
        "Pad" if opset < 11 => layout::newest_pad(draft, source)?,
        "Squeeze" | "Unsqueeze" if opset < 13 => draft.ints_to_input("axes", 1)?,
        "Split" => layout::newest_split(draft, opset)?,
        "ReduceSum" if opset < 13 => reduce::newest(draft)?,
        name if name.starts_with("Reduce") && name != "ReduceSum" && opset < 18 => {
            reduce::newest(draft)?;
        }
        "BatchNormalization" => norm::newest_batch_norm(draft, opset)?,
        "Dropout" => norm::newest_dropout(draft, source)?,
        "Softmax" | "LogSoftmax" if opset < 13 => norm::newest_softmax(draft, source)?,
        "QuantizeLinear" | "DequantizeLinear" => quantize::newest(draft)?,
        _ => {}
    }
    while draft.inputs.last() == Some(&None) {
        draft.inputs.pop();
    }
    let op = Op::from_attributes(&draft.name, std::mem::take(&mut draft.attrs))
        .ok_or("the operator is not known")?
        .map_err(|it| it.to_string())?;
    let most = op.arity().outputs.1;
    if draft.n_outputs > most {
        return Err(format!("its form with {} outputs is not known", draft.n_outputs));
    }
    Ok(op)
}

/// A node on its way out, in the form of some opset.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Form {
    pub(crate) attrs: Attrs,
    pub(crate) inputs: Vec<Option<ValueId>>,
}

/// Why a node cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It takes this opset at least.
    Opset(i64),
    /// No supported opset has it.
    Never(String),
}

/// The form of `node` in `opset`.
///
/// # Errors
/// The opset that it needs.
pub(crate) fn older(graph: &Graph, node: &Node, opset: i64) -> Result<Form, Need> {
    let mut form = Form { attrs: node.op.attributes(), inputs: node.inputs.clone() };
    if let Op::Named(_) = node.op {
        return Ok(form);
    }
    at_least(opset, opset::since(node.op.name()))?;
    let ctx = Context { graph, node, opset };
    match &node.op {
        Op::Clip => elementwise::older_clip(&ctx, &mut form)?,
        Op::Cast(it) => {
            if !it.saturate {
                at_least(opset, 19)?;
            }
            form.attrs.set("to", Attr::Int(it.to.code().into()));
        }
        Op::Slice => layout::older_slice(&ctx, &mut form)?,
        Op::Pad(it) => layout::older_pad(&ctx, it.mode, &mut form)?,
        Op::Squeeze | Op::Unsqueeze if opset < 13 => {
            ctx.ints_to_attribute(&mut form, 1, "axes", 13)?;
        }
        Op::Split(_) => layout::older_split(&ctx, &mut form)?,
        Op::Reduce(it) => {
            let since = if it.kind == ReduceKind::Sum { 13 } else { 18 };
            if it.noop_with_empty_axes {
                at_least(opset, since)?;
            }
            if opset < since {
                ctx.ints_to_attribute(&mut form, 1, "axes", since)?;
            }
        }
        Op::Dropout => norm::older_dropout(&ctx, &mut form)?,
        Op::Softmax(it) | Op::LogSoftmax(it) if opset < 13 => {
            norm::older_softmax(&ctx, it.axis, &mut form)?;
        }
        Op::Gemm(_) if form.inputs.get(2).copied().flatten().is_none() => at_least(opset, 11)?,
        Op::Reshape(it) if it.allow_zero => at_least(opset, 14)?,
        Op::Shape(it) if it.start != 0 || it.end.is_some() => at_least(opset, 15)?,
        Op::QuantizeLinear(it) | Op::DequantizeLinear(it) => quantize::older(&ctx, it, &mut form)?,
        Op::Concat(_) | Op::Gather(_) | Op::Flatten(_) if opset < 11 => {
            layout::count_axis_from_front(&ctx, &mut form);
        }
        _ => {}
    }
    Ok(form)
}

fn at_least(opset: i64, needed: i64) -> Result<(), Need> {
    if opset < needed { Err(Need::Opset(needed)) } else { Ok(()) }
}

/// A node in its graph, to be written in an opset.
struct Context<'a> {
    graph: &'a Graph,
    node: &'a Node,
    opset: i64,
}

impl Context<'_> {
    fn rank(&self, input: usize) -> Option<usize> {
        let value = self.graph.value(self.node.input(input)?);
        Some(value.ty.as_ref()?.shape.as_ref()?.len())
    }

    /// Makes the constant integer input `at` (and the end of the list) attribute `name`; an input that is
    /// computed needs opset `since`.
    fn ints_to_attribute(
        &self,
        form: &mut Form,
        at: usize,
        name: &str,
        since: i64,
    ) -> Result<(), Need> {
        if self.node.input(at).is_some() {
            let list = self.integers(at).ok_or(Need::Opset(since))?;
            form.attrs.set(name, Attr::Ints(list));
        }
        form.inputs.truncate(at.min(form.inputs.len()));
        Ok(())
    }

    fn integers(&self, input: usize) -> Option<Vec<i64>> {
        self.graph.constant_input(self.node, input)?.to_i64().ok()
    }

    /// The one element of a constant float input, if single precision holds it exactly.
    fn exact_float(&self, input: usize) -> Option<f32> {
        let tensor = self.graph.constant_input(self.node, input)?;
        let value = *tensor.to_f32().ok()?.first()?;
        let widened = f64::from(value).to_le_bytes();
        let exact = tensor.dtype() != sartor_ir::DType::F64 || tensor.data()[..] == widened;
        (exact && tensor.len() == 1 && tensor.dtype() != sartor_ir::DType::BF16).then_some(value)
    }
}

//! The text form of a graph: for reading, for test fixtures, for bug reports. `parse(print(g))` is `g`.
//!
//! ```text
//! graph "tiny" {
//!   opset "" 17
//!   input %x: f32[N,4]
//!   const %w: f32[2,4] = [1, 2, 3, 4, 5, 6, 7, 8]
//!   node "fc" %y: f32[N,2] = Gemm(%x, %w) {transB=1}
//!   output %y
//! }
//! ```
//!
//! A name with unusual characters stands in quotes (`%"a b"`), a left-out input or output is `_`, a dimension
//! of no name is `?`, an unknown rank `[*]`. Floats end in `f`; large or odd constants are hexadecimal bytes.

mod parse;

use std::fmt::Write as _;

pub use parse::{ParseError, parse};

use crate::{Attr, Attrs, DType, Dim, Graph, Node, Op, Tensor, TensorType, ValueId};

/// Constants of more elements are written as bytes.
const MOST_LISTED: usize = 64;

/// Writes `graph` in the text form.
pub fn print(graph: &Graph) -> String {
    let mut text = format!("graph {} {{\n", quoted(&graph.name));
    let mut line = |it: String| {
        text.push_str("  ");
        text.push_str(&it);
        text.push('\n');
    };
    if !graph.doc.is_empty() {
        line(format!("doc {}", quoted(&graph.doc)));
    }
    for (domain, version) in &graph.opsets {
        line(format!("opset {} {version}", quoted(domain)));
    }
    for (key, value) in &graph.metadata {
        line(format!("meta {} {}", quoted(key), quoted(value)));
    }
    for &id in graph.inputs() {
        line(format!("input {}", typed(graph, id)));
    }
    for (id, value) in graph.values() {
        if let Some(tensor) = &value.constant {
            line(format!("const {} = {}", typed(graph, id), elements(tensor)));
        }
    }
    for (_, node) in graph.nodes() {
        line(node_line(graph, node));
    }
    for &id in graph.outputs() {
        line(format!("output {}", name(graph, id)));
    }
    text.push_str("}\n");
    text
}

fn node_line(graph: &Graph, node: &Node) -> String {
    let list = |ids: &[Option<ValueId>], one: &dyn Fn(ValueId) -> String| {
        let parts: Vec<_> = ids.iter().map(|it| it.map_or_else(|| "_".to_owned(), one)).collect();
        parts.join(", ")
    };
    let op = match &node.op {
        Op::Named(it) => {
            format!("named {} {} {}", quoted(&it.domain), quoted(&it.name), it.version)
        }
        op => op.name().to_owned(),
    };
    let outputs = list(&node.outputs, &|id| typed(graph, id));
    let inputs = list(&node.inputs, &|id| name(graph, id));
    let mut line = format!("node {} {outputs} = {op}({inputs})", quoted(&node.name));
    let attributes = node.op.attributes();
    if !attributes.is_empty() {
        let _ = write!(line, " {{{}}}", attribute_list(&attributes));
    }
    if !node.captures.is_empty() {
        let names: Vec<_> = node.captures.iter().map(|&id| name(graph, id)).collect();
        let _ = write!(line, " captures {}", names.join(", "));
    }
    if !node.doc.is_empty() {
        let _ = write!(line, " doc {}", quoted(&node.doc));
    }
    line
}

fn attribute_list(attributes: &Attrs) -> String {
    let parts: Vec<_> = attributes
        .iter()
        .map(|(name, value)| format!("{}={}", bare(name), attribute(value)))
        .collect();
    parts.join(", ")
}

fn attribute(value: &Attr) -> String {
    fn list<T>(word: &str, items: &[T], one: impl Fn(&T) -> String) -> String {
        format!("{word}[{}]", items.iter().map(one).collect::<Vec<_>>().join(", "))
    }
    match value {
        Attr::Int(it) => it.to_string(),
        Attr::Float(it) => float(*it),
        Attr::Str(it) => quoted(it),
        Attr::Ints(it) => list("ints", it, ToString::to_string),
        Attr::Floats(it) => list("floats", it, |it| float(*it)),
        Attr::Strs(it) => list("strs", it, |it| quoted(it)),
        Attr::Tensor(it) => format!("tensor {} = {}", it.ty(), elements(it)),
        Attr::Graph(it) => format!("foreign {}", hex(&it.source)),
        Attr::Foreign(it) => format!("foreign {}", hex(it)),
    }
}

/// The shortest decimal that reads back as the same float, or the bits of one that is not a number.
fn float(it: f32) -> String {
    if it.is_finite() { format!("{it:?}f") } else { format!("bits {}", it.to_bits()) }
}

fn elements(tensor: &Tensor) -> String {
    let plain = tensor.len() <= MOST_LISTED;
    let list: Option<Vec<String>> = match tensor.dtype() {
        DType::F32 if plain => {
            let values = tensor.to_f32().unwrap_or_default();
            values
                .iter()
                .all(|it| it.is_finite())
                .then(|| values.iter().map(|it| format!("{it:?}")).collect())
        }
        DType::I64 | DType::I32 | DType::I8 | DType::U8 if plain => {
            tensor.to_i64().ok().map(|it| it.iter().map(ToString::to_string).collect())
        }
        _ => None,
    };
    list.map_or_else(|| hex(tensor.data()), |list| format!("[{}]", list.join(", ")))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len() + 6);
    text.push_str("hex \"");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    text
}

fn name(graph: &Graph, id: ValueId) -> String {
    format!("%{}", bare(&graph.value(id).name))
}

fn typed(graph: &Graph, id: ValueId) -> String {
    match &graph.value(id).ty {
        None => name(graph, id),
        Some(ty) => format!("{}: {}", name(graph, id), type_text(ty)),
    }
}

fn type_text(ty: &TensorType) -> String {
    let Some(shape) = &ty.shape else { return ty.to_string() };
    let dim = |it: &Dim| match it {
        Dim::Symbol(name) => bare(name),
        Dim::Known(_) | Dim::Unknown => it.to_string(),
    };
    format!("{}[{}]", ty.dtype, shape.iter().map(dim).collect::<Vec<_>>().join(","))
}

/// A word as it is if it can stand without quotes.
fn bare(text: &str) -> String {
    let starts = text.chars().next().is_some_and(|it| it.is_ascii_alphabetic() || it == '_');
    if starts && text != "_" && text.chars().all(is_word) { text.to_owned() } else { quoted(text) }
}

fn is_word(it: char) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '/' | ':' | '-')
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for it in text.chars() {
        match it {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            it if it.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(it));
            }
            it => out.push(it),
        }
    }
    out.push('"');
    out
}

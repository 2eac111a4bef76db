//! The parser of the text form.

use bytes::Bytes;
use thiserror::Error;

use super::is_word;
use crate::{Attr, Attrs, DType, Dim, Graph, Named, Node, Op, Tensor, TensorType, ValueId};

/// Text that is not a graph.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

type Result<T> = std::result::Result<T, ParseError>;

/// Reads a graph in the text form.
///
/// # Errors
/// The first line that is not understood, and why. The result is not verified.
pub fn parse(text: &str) -> Result<Graph> {
    let mut parser = Parser { text, at: 0 };
    let graph = parser.graph()?;
    match parser.peek() {
        None => Ok(graph),
        Some(_) => Err(parser.error("text after the graph")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, problem: impl Into<String>) -> ParseError {
        let line = 1 + self.text[..self.at].matches('\n').count();
        ParseError { line, problem: problem.into() }
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, it: char) -> bool {
        let found = self.peek() == Some(it);
        if found {
            self.at += it.len_utf8();
        }
        found
    }

    fn expect(&mut self, it: char) -> Result<()> {
        if self.eat(it) { Ok(()) } else { Err(self.error(format!("expected `{it}`"))) }
    }

    /// The next word, which may be empty.
    fn word(&mut self) -> &str {
        self.skip_space();
        let rest = &self.text[self.at..];
        let len = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let before = self.at;
        let found = self.word() == word;
        if !found {
            self.at = before;
        }
        found
    }

    fn quoted(&mut self) -> Result<String> {
        self.expect('"')?;
        let mut out = String::new();
        loop {
            let Some(it) = self.text[self.at..].chars().next() else {
                return Err(self.error("unclosed quotes"));
            };
            self.at += it.len_utf8();
            match it {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                it => out.push(it),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let Some(it) = self.text[self.at..].chars().next() else {
            return Err(self.error("unclosed quotes"));
        };
        self.at += it.len_utf8();
        match it {
            'n' => Ok('\n'),
            '"' | '\\' => Ok(it),
            'u' => {
                self.expect('{')?;
                let code = u32::from_str_radix(self.word(), 16).ok().and_then(char::from_u32);
                self.expect('}')?;
                code.ok_or_else(|| self.error("not a character code"))
            }
            it => Err(self.error(format!("unknown escape `\\{it}`"))),
        }
    }

    /// A word or quoted text.
    fn name(&mut self) -> Result<String> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let word = self.word().to_owned();
        if word.is_empty() { Err(self.error("expected a name")) } else { Ok(word) }
    }

    /// `%name`; a colon that ends an unquoted name belongs to the type.
    fn value_name(&mut self) -> Result<String> {
        self.expect('%')?;
        let unquoted = self.peek() != Some('"');
        let mut name = self.name()?;
        if unquoted && name.ends_with(':') {
            name.pop();
            self.at -= 1;
        }
        Ok(name)
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T> {
        let sign = if self.eat('-') { "-" } else { "" };
        let text = format!("{sign}{}", self.word());
        text.parse().map_err(|_| self.error(format!("`{text}` is not a number that fits here")))
    }

    fn list<T>(
        &mut self,
        open: char,
        close: char,
        mut one: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.expect(open)?;
        let mut items = Vec::new();
        while !self.eat(close) {
            if !items.is_empty() {
                self.expect(',')?;
            }
            items.push(one(self)?);
        }
        Ok(items)
    }

    fn tensor_type(&mut self) -> Result<TensorType> {
        let word = self.word().to_owned();
        let dtype: DType = word.parse().map_err(|it: String| self.error(it))?;
        let before = self.at;
        if self.eat('[') && self.eat('*') {
            self.expect(']')?;
            return Ok(TensorType { dtype, shape: None });
        }
        self.at = before;
        let shape = self.list('[', ']', |it| match it.peek() {
            Some('?') => {
                it.eat('?');
                Ok(Dim::Unknown)
            }
            Some('0'..='9') => it.number().map(Dim::Known),
            _ => it.name().map(|it| Dim::symbol(&it)),
        })?;
        Ok(TensorType::new(dtype, shape))
    }

    fn optional_type(&mut self) -> Result<Option<TensorType>> {
        if self.eat(':') { self.tensor_type().map(Some) } else { Ok(None) }
    }

    fn bytes(&mut self) -> Result<Bytes> {
        let text = self.quoted()?;
        let pair = |i: usize| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..text.len().div_ceil(2)).map(pair).collect();
        bytes.map(Bytes::from).ok_or_else(|| self.error("not hexadecimal bytes"))
    }

    fn tensor(&mut self, ty: &TensorType) -> Result<Tensor> {
        let shape = ty.dims().ok_or_else(|| self.error("a constant needs a shape of numbers"))?;
        let data = if self.eat_word("hex") { self.bytes()? } else { self.listed(ty.dtype)?.into() };
        Tensor::new(ty.dtype, shape, data).map_err(|it| self.error(it.to_string()))
    }

    /// A list of numbers as little-endian bytes.
    fn listed(&mut self, dtype: DType) -> Result<Vec<u8>> {
        let rows = self.list('[', ']', |it| {
            Ok(match dtype {
                DType::F32 => it.number::<f32>()?.to_le_bytes().to_vec(),
                DType::I64 => it.number::<i64>()?.to_le_bytes().to_vec(),
                DType::I32 => it.number::<i32>()?.to_le_bytes().to_vec(),
                DType::I8 => it.number::<i8>()?.to_le_bytes().to_vec(),
                DType::U8 => it.number::<u8>()?.to_le_bytes().to_vec(),
                other => return Err(it.error(format!("{other} elements are written as hex"))),
            })
        })?;
        Ok(rows.concat())
    }

    fn float(&mut self) -> Result<f32> {
        if self.eat_word("bits") {
            return self.number().map(f32::from_bits);
        }
        let sign = if self.eat('-') { "-" } else { "" };
        let word = self.word().to_owned();
        let text = word.strip_suffix('f').map(|it| format!("{sign}{it}"));
        text.and_then(|it| it.parse().ok())
            .ok_or_else(|| self.error(format!("`{word}` is not a float such as 0.5f")))
    }

    fn attribute(&mut self) -> Result<Attr> {
        if self.peek() == Some('"') {
            return self.quoted().map(Attr::Str);
        }
        let before = self.at;
        match self.word() {
            "ints" => self.list('[', ']', Self::number).map(Attr::Ints),
            "floats" => self.list('[', ']', Self::float).map(Attr::Floats),
            "strs" => self.list('[', ']', Self::quoted).map(Attr::Strs),
            "tensor" => {
                let ty = self.tensor_type()?;
                self.expect('=')?;
                self.tensor(&ty).map(Attr::Tensor)
            }
            "foreign" => {
                if self.eat_word("hex") {
                    self.bytes().map(Attr::Foreign)
                } else {
                    Err(self.error("expected `hex`"))
                }
            }
            _ => {
                self.at = before;
                let start = self.at;
                if let Ok(it) = self.float() {
                    return Ok(Attr::Float(it));
                }
                self.at = start;
                self.number().map(Attr::Int)
            }
        }
    }

    fn graph(&mut self) -> Result<Graph> {
        if !self.eat_word("graph") {
            return Err(self.error("expected `graph`"));
        }
        let mut graph = Graph::new(&self.quoted()?);
        graph.opsets.clear();
        self.expect('{')?;
        let mut outputs = Vec::new();
        while !self.eat('}') {
            match self.word().to_owned().as_str() {
                "doc" => graph.doc = self.quoted()?,
                "opset" => {
                    let (domain, version) = (self.quoted()?, self.number()?);
                    graph.opsets.insert(domain, version);
                }
                "meta" => {
                    let pair = (self.quoted()?, self.quoted()?);
                    graph.metadata.push(pair);
                }
                "input" => {
                    let name = self.value_name()?;
                    let ty = self.optional_type()?;
                    let id = graph.add_value(&name, ty).map_err(|it| self.error(it.to_string()))?;
                    graph.set_inputs([graph.inputs(), &[id]].concat());
                }
                "const" => self.constant(&mut graph)?,
                "node" => self.node(&mut graph)?,
                "output" => {
                    let name = self.value_name()?;
                    outputs.push(self.find(&mut graph, &name)?);
                }
                other => {
                    return Err(self.error(format!("`{other}` does not begin a line of a graph")));
                }
            }
        }
        graph.set_outputs(outputs);
        graph.sort().map_err(|it| self.error(it.to_string()))?;
        Ok(graph)
    }

    fn constant(&mut self, graph: &mut Graph) -> Result<()> {
        let name = self.value_name()?;
        let ty = self.optional_type()?.ok_or_else(|| self.error("a constant needs a type"))?;
        self.expect('=')?;
        let tensor = self.tensor(&ty)?;
        graph.add_constant(&name, tensor).map_err(|it| self.error(it.to_string()))?;
        Ok(())
    }

    /// The value of this name, which a later line may make.
    fn find(&self, graph: &mut Graph, name: &str) -> Result<ValueId> {
        match graph.find_value(name) {
            Some(id) => Ok(id),
            None => graph.add_value(name, None).map_err(|it| self.error(it.to_string())),
        }
    }

    fn node(&mut self, graph: &mut Graph) -> Result<()> {
        let name = self.quoted()?;
        let mut outputs = Vec::new();
        while !self.eat('=') {
            if !outputs.is_empty() {
                self.expect(',')?;
            }
            outputs.push(self.output(graph)?);
        }
        let op_word = self.word().to_owned();
        let named = if op_word == "named" {
            Some((self.quoted()?, self.quoted()?, self.number()?))
        } else {
            None
        };
        let inputs = self.list('(', ')', |it| it.optional_value(graph))?;
        let mut attributes = Attrs::new();
        if self.peek() == Some('{') {
            let pairs = self.list('{', '}', |it| {
                let name = it.name()?;
                it.expect('=')?;
                Ok((name, it.attribute()?))
            })?;
            attributes = pairs.into_iter().collect();
        }
        let op = match named {
            Some((domain, name, version)) => Op::Named(Named { domain, name, version, attributes }),
            None => Op::from_attributes(&op_word, attributes)
                .ok_or_else(|| self.error(format!("unknown operator `{op_word}`")))?
                .map_err(|it| self.error(format!("{op_word}: {it}")))?,
        };
        let mut captures = Vec::new();
        if self.eat_word("captures") {
            loop {
                let name = self.value_name()?;
                captures.push(self.find(graph, &name)?);
                if !self.eat(',') {
                    break;
                }
            }
        }
        let doc = if self.eat_word("doc") { self.quoted()? } else { String::new() };
        let node = Node { name, doc, op, inputs, outputs, captures };
        graph.push_node(node).map_err(|it| self.error(it.to_string()))?;
        Ok(())
    }

    fn output(&mut self, graph: &mut Graph) -> Result<Option<ValueId>> {
        let Some(id) = self.optional_value(graph)? else { return Ok(None) };
        if let Some(ty) = self.optional_type()? {
            graph.set_type(id, Some(ty));
        }
        Ok(Some(id))
    }

    fn optional_value(&mut self, graph: &mut Graph) -> Result<Option<ValueId>> {
        if self.eat_word("_") {
            return Ok(None);
        }
        let name = self.value_name()?;
        self.find(graph, &name).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{infer, print, verify};

    const NET: &str = r#"graph "net" {
  doc "two\nlines"
  opset "" 17
  meta "producer" "us \"here\""
  input %x: f32[N,4,8,8]
  const %w: f32[2,4,1,1] = [1.0, 2.0, -3.5, 4.0, 5e-7, 6.0, 7.0, 8.0]
  const %shape: i64[2] = [0, -1]
  const %"odd name": f16[1] = hex "003c"
  node "conv" %y: f32[N,2,8,8] = Conv(%x, %w, _) {pads=ints[0, 0, 0, 0]}
  node "" %z: f32[N,2,8,8] = LeakyRelu(%y) {alpha=0.2f} doc "slope"
  node "flat" %out: f32[N,128] = Reshape(%z, %shape)
  node "odd" %"a b", _, %c.1/d:0: f32[*] = named "com.acme" "Magic" 1(%y, _, %"odd name") {body=foreign hex "00ff", inf=bits 2139095040} captures %z
  output %out
  output %c.1/d:0
}
"#;

    #[test]
    fn round_trip() {
        let mut graph = parse(NET).unwrap();
        assert_eq!(print(&graph), NET);
        infer(&mut graph).unwrap();
        verify(&graph).unwrap();
        assert_eq!(parse(&print(&graph)).unwrap(), graph);
    }

    #[test]
    fn errors_name_the_line() {
        for (from, to, expected) in [
            ("Conv(%x", "Konv(%x", "line 9: unknown operator `Konv`"),
            ("[0, -1]", "[0]", "line 7: i64 tensor of shape [2] needs 16 bytes, found 8"),
            (
                "pads=",
                "bads=",
                "line 9: Conv: attribute `bads`: is not an attribute of this operator",
            ),
            ("output %out", "export %out", "line 13: `export` does not begin a line of a graph"),
            ("hex \"003c\"", "hex \"003\"", "line 8: not hexadecimal bytes"),
        ] {
            let error = parse(&NET.replacen(from, to, 1)).unwrap_err();
            assert_eq!(error.to_string(), expected, "{to}");
        }
    }

    #[test]
    fn truncated_text_is_an_error() {
        for end in 0..NET.len() - 2 {
            assert!(parse(&NET[..end]).is_err(), "cut at {end}");
        }
    }
}

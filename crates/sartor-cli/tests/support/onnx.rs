//! ONNX files byte by byte, so that they can be wrong in every way: protobuf's wire format and the field
//! numbers of the standard's `onnx.proto`, and nothing of Sartor's own writer.

/// A protobuf message under construction.
#[derive(Clone, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer field.
    pub(crate) fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value.cast_unsigned());
        self
    }

    /// A field of bytes, text or another message.
    pub(crate) fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A network in ONNX's order: parts are added, removed and replaced by the tests.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) opset: i64,
    pub(crate) nodes: Vec<Message>,
    pub(crate) constants: Vec<Message>,
    pub(crate) inputs: Vec<Message>,
    pub(crate) output: &'static str,
}

impl Network {
    /// Two convolutions of 16 channels and a layer to ten classes, for 8 × 8 pixels of one channel.
    pub(crate) fn small() -> Self {
        Network {
            opset: 17,
            nodes: vec![
                conv("first", &["image", "w1"], "a"),
                node("Relu", "relu1", &["a"], "b"),
                conv("second", &["b", "w2"], "c"),
                node("Relu", "relu2", &["c"], "d"),
                node("GlobalAveragePool", "pool", &["d"], "e"),
                node("Flatten", "flat", &["e"], "f"),
                node("Gemm", "last", &["f", "w3"], "scores"),
            ],
            constants: vec![
                tensor("w1", &[16, 1, 3, 3], &weights(144)),
                tensor("w2", &[16, 16, 3, 3], &weights(2304)),
                tensor("w3", &[16, 10], &weights(160)),
            ],
            inputs: vec![value("image", &[1, 8, 8])],
            output: "scores",
        }
    }

    pub(crate) fn file(&self) -> Vec<u8> {
        let mut graph = Message::default().bytes(2, "small");
        for (field, parts) in [(1, &self.nodes), (5, &self.constants), (11, &self.inputs)] {
            graph = parts.iter().fold(graph, |it, part| it.bytes(field, part));
        }
        let graph = graph.bytes(12, Message::default().bytes(1, self.output));
        let opset = Message::default().int(2, self.opset);
        Message::default().int(1, 8).bytes(7, graph).bytes(8, opset).0
    }

    /// The same with something changed.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut changed = self.clone();
        change(&mut changed);
        changed.file()
    }
}

/// Numbers between -0.5 and 0.5 without a pattern that pruning could see.
pub(crate) fn weights(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1009) as f32 / 1009.0) - 0.5).collect()
}

pub(crate) fn node(op: &str, name: &str, inputs: &[&str], output: &str) -> Message {
    let message = inputs.iter().fold(Message::default(), |it, input| it.bytes(1, input));
    message.bytes(2, output).bytes(3, name).bytes(4, op)
}

/// A convolution with one pixel of padding.
pub(crate) fn conv(name: &str, inputs: &[&str], output: &str) -> Message {
    let pads =
        [1; 4].into_iter().fold(Message::default().bytes(1, "pads"), |it, pad| it.int(8, pad));
    node("Conv", name, inputs, output).bytes(5, pads.int(20, 7))
}

/// A float32 constant; `values` need not fit `shape`.
pub(crate) fn tensor(name: &str, shape: &[i64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
    shape
        .iter()
        .fold(Message::default(), |it, &extent| it.int(1, extent))
        .int(2, 1)
        .bytes(8, name)
        .bytes(9, raw)
}

/// A float32 constant whose values lie in another file.
pub(crate) fn external(name: &str, shape: &[i64], location: &str) -> Message {
    let entry = Message::default().bytes(1, "location").bytes(2, location);
    let head = shape.iter().fold(Message::default(), |it, &extent| it.int(1, extent));
    head.int(2, 1).bytes(8, name).bytes(13, entry).int(14, 1)
}

/// A float32 input or declared value of any batch.
pub(crate) fn value(name: &str, shape: &[i64]) -> Message {
    let batch = Message::default().bytes(1, Message::default().bytes(2, "N"));
    let shape =
        shape.iter().fold(batch, |it, &extent| it.bytes(1, Message::default().int(1, extent)));
    let ty = Message::default().bytes(1, Message::default().int(1, 1).bytes(2, shape));
    Message::default().bytes(1, name).bytes(2, ty)
}

//! Attributes in and out (`AttributeProto`).

use bytes::Bytes;
use prost::Message;
use sartor_ir::{Attr, Subgraph};

use crate::{
    proto::{self, kind},
    tensor::{self, ExternalData},
};

/// Reads an attribute. What the graph has no word for (subgraphs, sparse tensors, types, text that is
/// not UTF-8) stays in ONNX's encoding.
pub(crate) fn read(
    attribute: &proto::Attribute,
    external: &dyn ExternalData,
) -> Result<Attr, String> {
    let foreign = || Ok(Attr::Foreign(Bytes::from(attribute.encode_to_vec())));
    if !attribute.ref_attr_name.is_empty() || !attribute.doc_string.is_empty() {
        return foreign();
    }
    let text = |it: &Bytes| String::from_utf8(it.to_vec()).ok();
    let missing = || "its type names a field that is not set".to_owned();
    Ok(match kind_of(attribute) {
        kind::FLOAT => Attr::Float(attribute.f.ok_or_else(missing)?),
        kind::INT => Attr::Int(attribute.i.ok_or_else(missing)?),
        kind::FLOATS => Attr::Floats(attribute.floats.clone()),
        kind::INTS => Attr::Ints(attribute.ints.clone()),
        kind::STRING => match text(attribute.s.as_ref().unwrap_or(&Bytes::new())) {
            Some(it) => Attr::Str(it),
            None => return foreign(),
        },
        kind::STRINGS => match attribute.strings.iter().map(text).collect() {
            Some(list) => Attr::Strs(list),
            None => return foreign(),
        },
        kind::TENSOR => {
            let tensor = attribute.t.as_ref().ok_or_else(missing)?;
            if sartor_ir::DType::from_code(tensor.data_type.into()).is_none() {
                return foreign();
            }
            Attr::Tensor(tensor::read(tensor, external)?)
        }
        _ => return foreign(),
    })
}

/// The type of an attribute; before IR version 2 it is told by the field that is set.
fn kind_of(attribute: &proto::Attribute) -> i32 {
    let set = [
        (attribute.f.is_some(), kind::FLOAT),
        (attribute.i.is_some(), kind::INT),
        (attribute.s.is_some(), kind::STRING),
        (attribute.t.is_some(), kind::TENSOR),
        (attribute.g.is_some(), kind::GRAPH),
        (!attribute.floats.is_empty(), kind::FLOATS),
        (!attribute.ints.is_empty(), kind::INTS),
        (!attribute.strings.is_empty(), kind::STRINGS),
    ];
    match attribute.kind {
        0 => set.iter().find(|row| row.0).map_or(0, |row| row.1),
        kind => kind,
    }
}

/// Writes an attribute; `None` if it is of another format's encoding or holds broken text.
pub(crate) fn write(name: &str, value: &Attr) -> Option<proto::Attribute> {
    let mut attribute = proto::Attribute { name: name.to_owned(), ..Default::default() };
    let bytes = |it: &String| Bytes::from(it.clone().into_bytes());
    attribute.kind = match value {
        Attr::Int(it) => {
            attribute.i = Some(*it);
            kind::INT
        }
        Attr::Float(it) => {
            attribute.f = Some(*it);
            kind::FLOAT
        }
        Attr::Str(it) => {
            attribute.s = Some(bytes(it));
            kind::STRING
        }
        Attr::Ints(it) => {
            attribute.ints.clone_from(it);
            kind::INTS
        }
        Attr::Floats(it) => {
            attribute.floats.clone_from(it);
            kind::FLOATS
        }
        Attr::Strs(it) => {
            attribute.strings = it.iter().map(bytes).collect();
            kind::STRINGS
        }
        Attr::Tensor(it) => {
            attribute.t = Some(tensor::write("", it)?);
            kind::TENSOR
        }
        Attr::Graph(Subgraph { source: it, .. }) | Attr::Foreign(it) => {
            let carried = proto::Attribute::decode(it.clone()).ok()?;
            return (carried.name == name).then_some(carried);
        }
    };
    Some(attribute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoExternalData;
    use sartor_ir::Tensor;

    #[test]
    fn attributes_survive() {
        for value in [
            Attr::Int(0),
            Attr::Float(-0.0),
            Attr::Str(String::new()),
            Attr::Ints(vec![]),
            Attr::Ints(vec![-1, 1 << 40]),
            Attr::Floats(vec![0.1]),
            Attr::Strs(vec!["a".into(), "é".into()]),
            Attr::Tensor(Tensor::from_i8(&[2], &[1, -1])),
        ] {
            let written = write("a", &value).unwrap();
            assert_eq!(read(&written, &NoExternalData).unwrap(), value);
            let foreign = Attr::Foreign(Bytes::from(written.encode_to_vec()));
            assert_eq!(write("a", &foreign).unwrap(), written);
        }
        assert!(write("a", &Attr::Foreign(Bytes::from_static(b"\xff"))).is_none());
    }

    #[test]
    fn untyped_attributes_are_told_by_their_field() {
        let old = proto::Attribute { name: "axis".into(), i: Some(2), ..Default::default() };
        assert_eq!(read(&old, &NoExternalData).unwrap(), Attr::Int(2));
        let hollow = proto::Attribute { kind: kind::INT, ..Default::default() };
        assert!(read(&hollow, &NoExternalData).is_err());
        let bytes = proto::Attribute { s: Some(Bytes::from_static(b"\xff")), ..Default::default() };
        assert!(matches!(read(&bytes, &NoExternalData).unwrap(), Attr::Foreign(_)));
    }
}

//! Tensors in and out (`TensorProto`, `SparseTensorProto`).

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use sartor_ir::{DType, Tensor};

use crate::{ImportError, proto};

/// Gives the files in which a model keeps its large tensors; the caller owns the file access, and a
/// memory map costs nothing here.
pub trait ExternalData {
    /// The contents of the file at `location`, a relative path with `/` that does not leave the
    /// model's folder.
    ///
    /// # Errors
    /// Whatever kept the file from being read.
    fn open(&self, location: &str) -> io::Result<Bytes>;
}

/// For models that lie in one file: refuses every external location.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoExternalData;

impl ExternalData for NoExternalData {
    fn open(&self, _: &str) -> io::Result<Bytes> {
        Err(io::Error::new(io::ErrorKind::NotFound, "no external data was given"))
    }
}

/// A dense form of a sparse tensor may not be larger than this: the file itself may be tiny.
const LARGEST_DENSE: usize = 1 << 28;

/// Reads a tensor that is a file of its own (a serialized `TensorProto`), with its name: so ONNX's tests keep
/// their inputs and outputs.
///
/// # Errors
/// Bytes that are no tensor, and tensors that cannot be read.
pub fn read_tensor(
    bytes: impl Into<Bytes>,
    external: &dyn ExternalData,
) -> Result<(String, Tensor), ImportError> {
    let message = proto::Tensor::decode(bytes.into())?;
    let tensor = read(&message, external)
        .map_err(|problem| ImportError::Tensor { tensor: message.name.clone(), problem })?;
    Ok((message.name, tensor))
}

/// Reads a tensor; `raw_data` and external data are shared, not copied.
pub(crate) fn read(tensor: &proto::Tensor, external: &dyn ExternalData) -> Result<Tensor, String> {
    let dtype = DType::from_code(tensor.data_type.into())
        .ok_or_else(|| format!("element type {} is not supported", tensor.data_type))?;
    if tensor.segment.is_some() {
        return Err("segmented tensors are not supported".to_owned());
    }
    let shape = dims(&tensor.dims)?;
    let data = if tensor.data_location == proto::EXTERNAL {
        if dtype == DType::Str {
            return Err("text cannot lie in an external file".to_owned());
        }
        read_external(tensor, dtype, &shape, external)?
    } else if dtype == DType::Str {
        text(&tensor.string_data, &shape)?
    } else {
        match &tensor.raw_data {
            Some(raw) => raw.clone(),
            None => typed_data(tensor, dtype),
        }
    };
    Tensor::new(dtype, shape, data).map_err(|it| it.to_string())
}

fn dims(dims: &[i64]) -> Result<Vec<usize>, String> {
    let one = |&it: &i64| usize::try_from(it).map_err(|_| format!("extent {it} is negative"));
    dims.iter().map(one).collect()
}

/// Lengths and bytes, one element after another, as the graph keeps text.
fn text(elements: &[Bytes], shape: &[usize]) -> Result<Bytes, String> {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if count != Some(elements.len()) {
        return Err(format!("shape {shape:?} does not fit {} texts", elements.len()));
    }
    let mut data = BytesMut::new();
    for element in elements {
        let length =
            u32::try_from(element.len()).map_err(|_| "a text is above 4 GiB".to_owned())?;
        data.put_u32_le(length);
        data.extend_from_slice(element);
    }
    Ok(data.freeze())
}

/// The typed data fields as little-endian bytes.
#[expect(
    clippy::cast_sign_loss,
    reason = "narrow types lie in the low bits of the wide field, whatever their sign"
)]
fn typed_data(tensor: &proto::Tensor, dtype: DType) -> Bytes {
    let mut data = BytesMut::new();
    match dtype {
        DType::F32 => tensor.float_data.iter().for_each(|&it| data.put_f32_le(it)),
        DType::F64 => tensor.double_data.iter().for_each(|&it| data.put_f64_le(it)),
        DType::I64 => tensor.int64_data.iter().for_each(|&it| data.put_i64_le(it)),
        DType::U64 => tensor.uint64_data.iter().for_each(|&it| data.put_u64_le(it)),
        DType::U32 => tensor.uint64_data.iter().for_each(|&it| data.put_u32_le(it as u32)),
        DType::I32 => tensor.int32_data.iter().for_each(|&it| data.put_i32_le(it)),
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => {
            tensor.int32_data.iter().for_each(|&it| data.put_u16_le(it as u16));
        }
        DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I2
        | DType::U2
        | DType::I4
        | DType::U4
        | DType::I8
        | DType::U8
        | DType::Bool => tensor.int32_data.iter().for_each(|&it| data.put_u8(it as u8)),
        DType::Str => {}
    }
    data.freeze()
}

fn read_external(
    tensor: &proto::Tensor,
    dtype: DType,
    shape: &[usize],
    external: &dyn ExternalData,
) -> Result<Bytes, String> {
    let entry = |key: &str| {
        tensor.external_data.iter().find(|it| it.key == key).map(|it| it.value.as_str())
    };
    let number = |key: &str| {
        let parse = |it: &str| it.parse::<usize>();
        entry(key).map(parse).transpose().map_err(|_| format!("external `{key}` is not a number"))
    };
    let location = entry("location").ok_or("its external data has no `location`")?;
    if escapes(location) {
        return Err(format!(
            "external location `{location}` leaves the model's folder; only files beside the model are read"
        ));
    }
    let file = external.open(location).map_err(|it| format!("external file `{location}`: {it}"))?;
    let offset = number("offset")?.unwrap_or(0);
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let needed = count.and_then(|it| dtype.bytes_for(it)).ok_or("its shape is too large")?;
    let length = number("length")?.unwrap_or(needed);
    let end = offset.checked_add(length).filter(|&it| it <= file.len());
    let end = end.ok_or_else(|| {
        format!(
            "external file `{location}` has {} bytes, the tensor asks for {length} at offset {offset}",
            file.len()
        )
    })?;
    Ok(file.slice(offset..end))
}

/// Whether a path may point out of the folder, by the rules of any system.
fn escapes(location: &str) -> bool {
    let mut parts = location.split(['/', '\\']);
    location.is_empty()
        || location.starts_with(['/', '\\'])
        || location.contains(':')
        || location.contains('\0')
        || parts.any(|it| it == "..")
}

/// Puts external data into the tensor itself.
pub(crate) fn internalize(
    tensor: &mut proto::Tensor,
    external: &dyn ExternalData,
) -> Result<(), String> {
    if tensor.data_location == proto::EXTERNAL {
        tensor.raw_data = Some(read(tensor, external)?.data().clone());
        tensor.external_data.clear();
        tensor.data_location = 0;
    }
    Ok(())
}

/// Fills in the zeros of a sparse tensor.
pub(crate) fn densify(
    sparse: &proto::SparseTensor,
    external: &dyn ExternalData,
) -> Result<Tensor, String> {
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        return Err("a sparse tensor lacks its values or indices".to_owned());
    };
    let (values, indices) = (read(values, external)?, read(indices, external)?);
    let shape = dims(&sparse.dims)?;
    let places = flat_indices(&indices, &shape, values.len())?;
    let width = match values.dtype().bits() {
        bits if bits >= 8 => bits / 8,
        _ => return Err(format!("a sparse {} tensor is not supported", values.dtype())),
    };
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let bytes = count.and_then(|it| it.checked_mul(width)).filter(|&it| it <= LARGEST_DENSE);
    let bytes = bytes.ok_or_else(|| {
        format!("a sparse tensor of shape {shape:?} is above {LARGEST_DENSE} bytes when dense")
    })?;
    let mut dense = vec![0; bytes];
    for (place, value) in places.iter().zip(values.data().chunks_exact(width)) {
        let at = place.checked_mul(width).filter(|&it| it + width <= bytes);
        let at = at.ok_or_else(|| format!("index {place} lies outside of shape {shape:?}"))?;
        dense[at..at + width].copy_from_slice(value);
    }
    Tensor::new(values.dtype(), shape, dense).map_err(|it| it.to_string())
}

/// Places of the elements in row-major order, from flat indices or one coordinate row each.
fn flat_indices(indices: &Tensor, shape: &[usize], count: usize) -> Result<Vec<usize>, String> {
    let list = indices.to_i64().map_err(|it| it.to_string())?;
    let outside = || format!("an index lies outside of shape {shape:?}");
    match indices.shape() {
        [n] if *n == count => {
            list.iter().map(|&it| usize::try_from(it).map_err(|_| outside())).collect()
        }
        [n, rank] if *n == count && *rank == shape.len() && *rank > 0 => {
            let place = |row: &[i64]| {
                row.iter().zip(shape).try_fold(0usize, |flat, (&i, &extent)| {
                    let i = usize::try_from(i).ok().filter(|&it| it < extent)?;
                    flat.checked_mul(extent)?.checked_add(i)
                })
            };
            list.chunks_exact(*rank).map(|row| place(row).ok_or_else(outside)).collect()
        }
        other => Err(format!("indices of shape {other:?} do not fit {count} values")),
    }
}

/// Writes a tensor with its bytes inside; `None` if its text is not encoded as prescribed.
pub(crate) fn write(name: &str, tensor: &Tensor) -> Option<proto::Tensor> {
    let mut message = proto::Tensor {
        name: name.to_owned(),
        data_type: tensor.dtype().code(),
        dims: tensor.shape().iter().map(|&it| i64::try_from(it).unwrap_or(i64::MAX)).collect(),
        ..Default::default()
    };
    if tensor.dtype() == DType::Str {
        message.string_data = split_text(tensor.data().clone())?;
        (message.string_data.len() == tensor.len()).then_some(message)
    } else {
        message.raw_data = Some(tensor.data().clone());
        Some(message)
    }
}

fn split_text(mut data: Bytes) -> Option<Vec<Bytes>> {
    let mut elements = Vec::new();
    while !data.is_empty() {
        let length = u32::from_le_bytes(data.get(..4)?.try_into().ok()?);
        let end = usize::try_from(length).ok()?.checked_add(4).filter(|&it| it <= data.len())?;
        elements.push(data.slice(4..end));
        data = data.slice(end..);
    }
    Some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::StringString;

    struct File(&'static [u8]);

    impl ExternalData for File {
        fn open(&self, location: &str) -> io::Result<Bytes> {
            if location == "w.bin" {
                Ok(Bytes::from_static(self.0))
            } else {
                NoExternalData.open(location)
            }
        }
    }

    fn external(entries: &[(&str, &str)]) -> proto::Tensor {
        let entry = |(key, value): &(&str, &str)| StringString {
            key: (*key).into(),
            value: (*value).into(),
        };
        proto::Tensor {
            dims: vec![2],
            data_type: 2,
            data_location: proto::EXTERNAL,
            external_data: entries.iter().map(entry).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn external_data_is_checked() {
        let file = File(&[1, 2, 3, 4]);
        let good = external(&[("location", "w.bin"), ("offset", "1"), ("length", "2")]);
        assert_eq!(read(&good, &file).unwrap(), Tensor::from_u8(&[2], &[2, 3]));
        for (entries, expected) in [
            (vec![("offset", "1")], "no `location`"),
            (vec![("location", "../w.bin")], "leaves the model's folder"),
            (vec![("location", "a/../../w.bin")], "leaves the model's folder"),
            (vec![("location", "/w.bin")], "leaves the model's folder"),
            (vec![("location", "c:\\w.bin")], "leaves the model's folder"),
            (vec![("location", "v.bin")], "external file `v.bin`"),
            (
                vec![("location", "w.bin"), ("offset", "3")],
                "has 4 bytes, the tensor asks for 2 at offset 3",
            ),
            (vec![("location", "w.bin"), ("offset", "x")], "`offset` is not a number"),
            (vec![("location", "w.bin"), ("offset", "18446744073709551615")], "has 4 bytes"),
            (vec![("location", "w.bin"), ("length", "3")], "needs 2 bytes, found 3"),
        ] {
            let error = read(&external(&entries), &file).unwrap_err();
            assert!(error.contains(expected), "{entries:?}: {error}");
        }
    }

    #[test]
    fn typed_fields_become_bytes() {
        let four = proto::Tensor {
            dims: vec![3],
            data_type: 22,
            int32_data: vec![0x7f, 0x08],
            ..Default::default()
        };
        assert_eq!(read(&four, &NoExternalData).unwrap().to_i64().unwrap(), [-1, 7, -8]);
        let half = proto::Tensor {
            dims: vec![1],
            data_type: 10,
            int32_data: vec![0x3e00],
            ..Default::default()
        };
        assert_eq!(read(&half, &NoExternalData).unwrap().to_f32().unwrap(), [1.5]);
        let wide = proto::Tensor {
            dims: vec![],
            data_type: 12,
            uint64_data: vec![7],
            ..Default::default()
        };
        assert_eq!(read(&wide, &NoExternalData).unwrap().to_i64().unwrap(), [7]);
    }

    #[test]
    fn text_survives() {
        let words = proto::Tensor {
            dims: vec![2],
            data_type: 8,
            name: "words".into(),
            string_data: vec![Bytes::from_static(b"ab"), Bytes::new()],
            ..Default::default()
        };
        let tensor = read(&words, &NoExternalData).unwrap();
        assert_eq!(write("words", &tensor).unwrap(), words);
        let broken = Tensor::new(DType::Str, vec![1], vec![9, 0, 0, 0, 1]).unwrap();
        assert!(write("broken", &broken).is_none());
    }

    #[test]
    fn sparse_becomes_dense() {
        let ints = |dims: &[i64], values: &[i64]| proto::Tensor {
            dims: dims.to_vec(),
            data_type: 7,
            int64_data: values.to_vec(),
            ..Default::default()
        };
        let mut sparse = proto::SparseTensor {
            values: Some(ints(&[2], &[5, 6])),
            indices: Some(ints(&[2, 2], &[0, 1, 1, 2])),
            dims: vec![2, 3],
        };
        let dense = Tensor::from_i64(&[2, 3], &[0, 5, 0, 0, 0, 6]);
        assert_eq!(densify(&sparse, &NoExternalData).unwrap(), dense);
        sparse.indices = Some(ints(&[2], &[1, 5]));
        assert_eq!(densify(&sparse, &NoExternalData).unwrap(), dense);
        for bad in [
            ints(&[2], &[1, 6]),
            ints(&[2], &[1, -1]),
            ints(&[1], &[1]),
            ints(&[2, 2], &[0, 3, 1, 2]),
        ] {
            sparse.indices = Some(bad);
            assert!(densify(&sparse, &NoExternalData).is_err());
        }
        sparse.dims = vec![1 << 40, 1 << 20];
        assert!(densify(&sparse, &NoExternalData).is_err());
    }
}

//! Types of values in and out (`TypeProto`).

use sartor_ir::{DType, Dim, TensorType};

use crate::proto;

/// The tensor type of a declaration; `None` for sequences, maps and element types that are not known.
pub(crate) fn read(ty: &proto::Type) -> Option<TensorType> {
    let tensor = ty.tensor.as_ref()?;
    let dtype = DType::from_code(tensor.elem_type.into())?;
    let shape = tensor.shape.as_ref().map(|it| it.dim.iter().map(read_dim).collect());
    Some(TensorType { dtype, shape })
}

/// Exporters write -1, or an empty name, for an extent that they do not know.
fn read_dim(dim: &proto::Dimension) -> Dim {
    match (dim.dim_value, &dim.dim_param) {
        (Some(n), _) => usize::try_from(n).map_or(Dim::Unknown, Dim::Known),
        (None, Some(name)) if !name.is_empty() => Dim::symbol(name),
        (None, _) => Dim::Unknown,
    }
}

/// The declaration of a tensor type.
pub(crate) fn write(ty: &TensorType) -> proto::Type {
    let shape =
        ty.shape.as_ref().map(|dims| proto::Shape { dim: dims.iter().map(write_dim).collect() });
    let tensor = proto::TensorType { elem_type: ty.dtype.code(), shape };
    proto::Type { tensor: Some(tensor), ..Default::default() }
}

fn write_dim(dim: &Dim) -> proto::Dimension {
    let (dim_value, dim_param) = match dim {
        Dim::Known(n) => (i64::try_from(*n).ok(), None),
        Dim::Symbol(name) => (None, Some(name.to_string())),
        Dim::Unknown => (None, None),
    };
    proto::Dimension { dim_value, dim_param, denotation: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_survive() {
        let unranked = TensorType { dtype: DType::I4, shape: None };
        let ranked =
            TensorType::new(DType::F32, vec![Dim::symbol("N"), Dim::Unknown, Dim::Known(0)]);
        for ty in [unranked, ranked] {
            assert_eq!(read(&write(&ty)), Some(ty));
        }
        let minus = proto::Dimension { dim_value: Some(-1), ..Default::default() };
        assert_eq!(read_dim(&minus), Dim::Unknown);
        assert_eq!(read(&proto::Type::default()), None);
    }
}

//! Blocks of channels and space (<https://onnx.ai/onnx/operators/onnx__DepthToSpace.html>,
//! <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>,
//! <https://onnx.ai/onnx/operators/onnx__CenterCropPad.html>).

use sartor_ir::{DType, Named, normalize_axis};

use super::{Rule, output_shape};
use crate::{
    Array,
    array::each,
    reference::{
        evaluate::{array, integers},
        layout::{self, View},
    },
};

pub(super) const RULES: &[Rule] = &[
    Rule { domain: "", name: "DepthToSpace", evaluate: move_blocks },
    Rule { domain: "", name: "SpaceToDepth", evaluate: move_blocks },
    Rule { domain: "", name: "CenterCropPad", evaluate: center },
];

type Made = Result<Vec<Array>, String>;

/// `DepthToSpace` and `SpaceToDepth` as a transposition: the input's axes split in six, and their order in
/// the output.
pub(crate) fn as_transposition(
    op: &Named,
    shape: &[usize],
) -> Result<([usize; 6], [usize; 6]), String> {
    let block = usize::try_from(op.int("blocksize", 0)?).unwrap_or(0);
    let &[n, c, h, w] = shape else { return Err(format!("input {shape:?} is not of rank 4")) };
    if block == 0 {
        return Err("a block has no extent".to_owned());
    }
    let columns_first = match op.text("mode", "DCR")? {
        "DCR" => false,
        "CRD" => true,
        other => return Err(format!("attribute `mode`: `{other}` is neither DCR nor CRD")),
    };
    let depth = c / (block * block);
    Ok(match (op.name.as_str(), columns_first) {
        ("DepthToSpace", false) => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
        ("DepthToSpace", true) => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        (_, false) => ([n, c, h / block, block, w / block, block], [0, 3, 5, 1, 2, 4]),
        (_, true) => ([n, c, h / block, block, w / block, block], [0, 1, 3, 5, 2, 4]),
    })
}

fn move_blocks(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    let shape = output_shape(op, inputs)?;
    let (split, perm) = as_transposition(op, &x.shape)?;
    let view = View::transpose(&split, &perm);
    Ok(vec![Array { shape, data: each!(&x.data, values => view.read(values)) }])
}

/// For each axis of the output the index of the input, `None` in the padding.
pub(crate) fn center_tables(
    op: &Named,
    inputs: &[Option<&Array>],
) -> Result<Vec<Vec<Option<usize>>>, String> {
    let x = array(inputs, 0)?;
    let all: Vec<i64> = (0..x.shape.len() as i64).collect();
    let axes = op.ints("axes")?.unwrap_or(&all);
    let wanted = integers(inputs, 1).ok_or("the shape is missing")?;
    if wanted.len() != axes.len() {
        return Err(format!("{} extents for {} axes", wanted.len(), axes.len()));
    }
    let mut tables: Vec<Vec<_>> = x.shape.iter().map(|&n| (0..n).map(Some).collect()).collect();
    for (&axis, &to) in axes.iter().zip(&wanted) {
        let at = normalize_axis(axis, x.shape.len())?;
        let (from, to) = (x.shape[at], usize::try_from(to).map_err(|_| "an extent is negative")?);
        let (cut, pad) = (from.saturating_sub(to) / 2, to.saturating_sub(from) / 2);
        let index = |i: usize| (i + cut).checked_sub(pad).filter(|it| *it < from);
        tables[at] = (0..to).map(index).collect();
    }
    Ok(tables)
}

fn center(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Made {
    let x = array(inputs, 0)?;
    let tables = center_tables(op, inputs)?;
    Ok(vec![tabled(x, &tables)])
}

/// The elements that `tables` name for each axis, zeros where they name none.
pub(super) fn tabled(x: &Array, tables: &[Vec<Option<usize>>]) -> Array {
    fn all<T: crate::array::Element>(
        x: &[T],
        shape: &[usize],
        tables: &[Vec<Option<usize>>],
    ) -> Vec<T> {
        let mut y = vec![T::default(); tables.iter().map(Vec::len).product()];
        layout::pad(x, shape, tables, T::default(), &mut y);
        y
    }
    let shape = tables.iter().map(Vec::len).collect();
    Array { shape, data: each!(&x.data, values => all(values, &x.shape, tables)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Data,
        reference::named::tests::{named, run},
    };
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn space_and_depth_are_inverse() {
        let x = Array { shape: vec![1, 8, 2, 3], data: Data::I32((0..48).collect()) };
        for mode in ["DCR", "CRD"] {
            let attrs =
                Attrs::new().with("blocksize", Attr::Int(2)).with("mode", Attr::Str(mode.into()));
            let y = run(&named("DepthToSpace", attrs.clone()), &[&x]).remove(0);
            assert_eq!(y.shape, [1, 2, 4, 6]);
            assert_eq!(run(&named("SpaceToDepth", attrs), &[&y])[0], x, "{mode}");
        }
    }

    #[test]
    fn centres() {
        let x = Array { shape: vec![5], data: Data::I64(vec![1, 2, 3, 4, 5]) };
        for (to, expected) in [(2, vec![2, 3]), (8, vec![0, 1, 2, 3, 4, 5, 0, 0])] {
            let to = Array { shape: vec![1], data: Data::I64(vec![to]) };
            let y = run(&named("CenterCropPad", Attrs::new()), &[&x, &to]);
            assert_eq!(y[0].data, Data::I64(expected));
        }
    }
}

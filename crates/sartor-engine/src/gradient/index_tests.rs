//! Gradients of spatial and index operators by name against central differences.

use sartor_ir::{Attr, Attrs, Named, Op};

use super::tests::{Numbers, check_op, integers};
use crate::{Array, Data};

fn named(name: &str, attributes: Attrs) -> Op {
    Op::Named(Named { domain: String::new(), name: name.into(), version: 20, attributes })
}

fn word(attrs: Attrs, name: &str, word: &str) -> Attrs {
    attrs.with(name, Attr::Str(word.into()))
}

fn shaped(shape: &[usize], list: &[i64]) -> Array {
    Array { shape: shape.to_vec(), data: Data::I64(list.to_vec()) }
}

#[test]
fn transposed_convolution() {
    let mut numbers = Numbers(21);
    for round in 0..24 {
        let rank = 1 + round % 3;
        let mut draw = |low: usize, n: usize| -> Vec<i64> {
            (0..rank).map(|_| (low + numbers.below(n)) as i64).collect()
        };
        let (kernel, extents) = (draw(1, 3), draw(2, 3));
        let attrs = Attrs::new()
            .with("strides", Attr::Ints(draw(1, 2)))
            .with("dilations", Attr::Ints(draw(1, 2)))
            .with("output_padding", Attr::Ints(draw(0, 2)))
            .with("group", Attr::Int(1 + round as i64 % 2));
        let group = 1 + round % 2;
        let of = |it: &[i64]| it.iter().map(|&it| it as usize).collect::<Vec<_>>();
        let x = numbers.apart(&[&[2, 2 * group], of(&extents).as_slice()].concat());
        let w = numbers.apart(&[&[2 * group, 3], of(&kernel).as_slice()].concat());
        let bias = numbers.apart(&[3 * group]);
        check_op(&named("ConvTranspose", attrs), &[x, w, bias], &[0, 1, 2], 1);
    }
}

#[test]
fn resizing() {
    let mut numbers = Numbers(22);
    let places = [
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
    ];
    for (i, place) in places.into_iter().enumerate() {
        for mode in ["nearest", "linear", "cubic"] {
            for scale in [0.6, 1.7] {
                let attrs =
                    word(word(Attrs::new(), "mode", mode), "coordinate_transformation_mode", place)
                        .with("antialias", Attr::Int(i64::from(mode != "nearest" && i % 2 == 0)))
                        .with("exclude_outside", Attr::Int(i64::from(mode == "cubic" && i == 1)));
                let region = Array::f32(&[8], vec![0., 0., -0.1, 0.2, 1., 1., 0.9, 1.2]);
                let scales = Array::f32(&[4], vec![1.0, 1.0, scale, 1.3]);
                let inputs = [numbers.apart(&[1, 2, 5, 4]), region, scales];
                check_op(&named("Resize", attrs), &inputs, &[0], 1);
            }
        }
    }
    let old = Named {
        domain: String::new(),
        name: "Upsample".into(),
        version: 9,
        attributes: word(Attrs::new(), "mode", "linear"),
    };
    let inputs = [numbers.apart(&[1, 1, 3, 3]), Array::f32(&[4], vec![1.0, 1.0, 2.0, 2.0])];
    check_op(&Op::Named(old), &inputs, &[0], 1);
}

/// Grids that keep off the kinks at whole pixels by more than a step.
fn grid(numbers: &mut Numbers, shape: &[usize], extents: &[usize], corners: bool) -> Array {
    let count: usize = shape.iter().product();
    let mut values = Vec::with_capacity(count);
    for i in 0..count {
        let n = extents[extents.len() - 1 - i % extents.len()] as f32;
        // A pixel's number between two whole ones, some of them outside.
        let pixel = numbers.below(extents.len() + 4) as f32 - 1.5 + 0.15 * numbers.next();
        let half = if corners { (n - 1.0) / 2.0 } else { n / 2.0 };
        let offset = if corners { 0.0 } else { 0.5 };
        // A quarter off the middle between pixels, where mirrors have their edge.
        values.push((pixel + 0.25 + offset) / half - 1.0);
    }
    Array::f32(shape, values)
}

#[test]
fn sampling() {
    let mut numbers = Numbers(23);
    for mode in ["nearest", "linear", "cubic"] {
        for padding in ["zeros", "border", "reflection"] {
            for corners in [false, true] {
                let attrs = word(word(Attrs::new(), "mode", mode), "padding_mode", padding)
                    .with("align_corners", Attr::Int(i64::from(corners)));
                let flat = grid(&mut numbers, &[2, 3, 2, 2], &[4, 5], corners);
                let wanted: &[usize] = if mode == "nearest" { &[0] } else { &[0, 1] };
                let op = named("GridSample", attrs);
                check_op(&op, &[numbers.apart(&[2, 2, 4, 5]), flat], wanted, 1);
                let deep = grid(&mut numbers, &[1, 2, 2, 3, 3], &[3, 4, 3], corners);
                check_op(&op, &[numbers.apart(&[1, 2, 3, 4, 3]), deep], wanted, 1);
            }
        }
    }
}

#[test]
fn blocks_and_norms() {
    let mut numbers = Numbers(24);
    for mode in ["DCR", "CRD"] {
        let attrs = word(Attrs::new().with("blocksize", Attr::Int(2)), "mode", mode);
        check_op(&named("DepthToSpace", attrs.clone()), &[numbers.apart(&[1, 8, 2, 3])], &[0], 1);
        check_op(&named("SpaceToDepth", attrs), &[numbers.apart(&[1, 2, 4, 6])], &[0], 1);
    }
    for p in [1, 2, 3] {
        let attrs = Attrs::new().with("p", Attr::Int(p));
        check_op(&named("GlobalLpPool", attrs.clone()), &[numbers.apart(&[2, 2, 3, 4])], &[0], 1);
        let attrs = attrs
            .with("kernel_shape", Attr::Ints(vec![2, 3]))
            .with("strides", Attr::Ints(vec![1, 2]))
            .with("pads", Attr::Ints(vec![1, 0, 0, 1]));
        check_op(&named("LpPool", attrs), &[numbers.apart(&[2, 2, 5, 6])], &[0], 1);
    }
}

#[test]
fn maps_regions_and_images() {
    let mut numbers = Numbers(29);
    for corners in [0, 1] {
        let op = named("AffineGrid", Attrs::new().with("align_corners", Attr::Int(corners)));
        check_op(&op, &[numbers.apart(&[2, 2, 3]), integers(&[2, 1, 3, 4])], &[0], 1);
        check_op(&op, &[numbers.apart(&[1, 3, 4]), integers(&[1, 1, 2, 3, 2])], &[0], 1);
    }
    let regions = Array::f32(&[3, 4], vec![0., 0., 4., 3., 1., 1., 5., 4., -2., 0., 2., 9.]);
    let attrs = Attrs::new()
        .with("output_height", Attr::Int(2))
        .with("output_width", Attr::Int(3))
        .with("sampling_ratio", Attr::Int(2));
    let inputs = [numbers.apart(&[2, 2, 5, 6]), regions, integers(&[0, 1, 1])];
    check_op(&named("RoiAlign", attrs), &inputs, &[0], 1);
    let inputs = [numbers.apart(&[2, 5, 4]), integers(&[2, 3, 7])];
    check_op(&named("CenterCropPad", Attrs::new()), &inputs, &[0], 1);
    let window =
        Attrs::new().with("kernel_shape", Attr::Ints(vec![2])).with("strides", Attr::Ints(vec![1]));
    let inputs = [numbers.apart(&[1, 1, 3]), shaped(&[1, 1, 3], &[1, 3, 1])];
    check_op(&named("MaxUnpool", window), &inputs, &[0], 1);
    let attrs = Attrs::new().with("pads", Attr::Ints(vec![1, 0, 0, 1]));
    let inputs = [numbers.apart(&[2, 8, 12]), integers(&[3, 4]), integers(&[2, 2])];
    check_op(&named("Col2Im", attrs), &inputs, &[0], 1);
}

#[test]
fn picking_and_placing() {
    let mut numbers = Numbers(25);
    let axis = |it: i64| Attrs::new().with("axis", Attr::Int(it));
    let at = shaped(&[2, 3], &[1, -1, 0, 1, 0, 0]);
    check_op(&named("GatherElements", axis(0)), &[numbers.apart(&[2, 3]), at.clone()], &[0], 1);
    for batch in [0, 1] {
        let attrs = Attrs::new().with("batch_dims", Attr::Int(batch));
        let at = shaped(&[2, 2, 1], &[1, 0, -1, 1]);
        check_op(&named("GatherND", attrs), &[numbers.apart(&[2, 3, 4]), at], &[0], 1);
    }
    for reduction in ["none", "add", "mul", "max", "min"] {
        let op = named("ScatterElements", word(axis(0), "reduction", reduction));
        let both = numbers.apart(&[2, 12]).to_f32();
        let (x, new) =
            (Array::f32(&[4, 3], both[..12].to_vec()), Array::f32(&[2, 3], both[12..18].to_vec()));
        check_op(&op, &[x.clone(), at.clone(), new], &[0, 2], 1);
        let op = named("ScatterND", word(Attrs::new(), "reduction", reduction));
        let new = Array::f32(&[2, 3], both[18..].to_vec());
        check_op(&op, &[x, shaped(&[2, 1], &[2, 2]), new], &[0, 2], 1);
    }
}

#[test]
fn choosing_and_summing() {
    let mut numbers = Numbers(26);
    check_op(&named("Tile", Attrs::new()), &[numbers.apart(&[2, 3]), integers(&[2, 3])], &[0], 1);
    for (axis, largest) in [(0, 1), (1, 0), (-1, 1)] {
        let attrs = Attrs::new().with("axis", Attr::Int(axis)).with("largest", Attr::Int(largest));
        check_op(&named("TopK", attrs), &[numbers.apart(&[3, 4, 2]), integers(&[2])], &[0], 1);
    }
    for (exclusive, reverse) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let attrs = Attrs::new()
            .with("exclusive", Attr::Int(exclusive))
            .with("reverse", Attr::Int(reverse));
        let axis = shaped(&[], &[1]);
        check_op(&named("CumSum", attrs), &[numbers.apart(&[2, 4, 2]), axis], &[0], 1);
    }
    for (upper, k) in [(0, 0), (1, 1), (0, -1)] {
        let attrs = Attrs::new().with("upper", Attr::Int(upper));
        let inputs = [numbers.apart(&[2, 3, 4]), shaped(&[], &[k])];
        check_op(&named("Trilu", attrs), &inputs, &[0], 1);
    }
    let training = Array { shape: vec![], data: Data::Bool(vec![true]) };
    let inputs = [numbers.apart(&[4, 6]), Array::f32(&[], vec![0.5]), training];
    check_op(&named("Dropout", Attrs::new()), &inputs, &[0], 1);
    let inputs = [numbers.apart(&[4, 2, 3]), integers(&[3, 1])];
    check_op(&named("ReverseSequence", Attrs::new()), &inputs, &[0], 1);
}

#[test]
fn equations() {
    let mut numbers = Numbers(27);
    for (equation, shapes) in [
        ("ij,jk->ik", vec![vec![2, 3], vec![3, 4]]),
        ("bhid,bhjd->bhij", vec![vec![2, 2, 3, 4], vec![2, 2, 5, 4]]),
        ("...ij,...jk->...ik", vec![vec![2, 1, 3, 4], vec![3, 4, 2]]),
        ("ii->i", vec![vec![4, 4]]),
        ("ij->", vec![vec![3, 4]]),
        ("ij,jk,kl->il", vec![vec![2, 3], vec![3, 4], vec![4, 2]]),
        ("ij,jk->k", vec![vec![2, 3], vec![3, 4]]),
        ("ij,jk", vec![vec![2, 1], vec![3, 4]]),
    ] {
        let op = named("Einsum", word(Attrs::new(), "equation", equation));
        let operands: Vec<Array> = shapes.iter().map(|it| numbers.apart(it)).collect();
        let wanted: Vec<usize> = (0..operands.len()).collect();
        check_op(&op, &operands, &wanted, 1);
    }
}

#[test]
fn losses() {
    let mut numbers = Numbers(28);
    let target = shaped(&[2, 3], &[0, 3, 1, 2, 3, 0]);
    for name in ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"] {
        for reduction in ["none", "sum", "mean"] {
            for ignored in [-1, 3] {
                let attrs = word(Attrs::new(), "reduction", reduction)
                    .with("ignore_index", Attr::Int(ignored));
                let mut inputs = vec![numbers.apart(&[2, 4, 3]), target.clone()];
                let op = named(name, attrs);
                let outputs = if name.starts_with('S') { 2 } else { 1 };
                check_op(&op, &inputs, &[0], outputs);
                inputs.push(numbers.positive(&[4]));
                check_op(&op, &inputs, &[0], outputs);
            }
        }
    }
}

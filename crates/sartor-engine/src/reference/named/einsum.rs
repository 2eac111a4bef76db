//! Sums of products named by their axes (<https://onnx.ai/onnx/operators/onnx__Einsum.html>).
//!
//! Operands are contracted one after the other; a pair is one matrix product for each index that both and
//! the result share.

use std::collections::BTreeMap;

use sartor_ir::{DType, Einsum, Label, Named};

use super::Rule;
use crate::{
    Array, Data,
    reference::{
        elementwise::Number,
        evaluate::by_number,
        layout::{View, strides},
    },
    simd::{Strided, Tail, gemm},
};

pub(super) const RULES: &[Rule] = &[Rule { domain: "", name: "Einsum", evaluate: einsum }];

/// An equation with its operands' extents.
pub(crate) struct Equation {
    pub(crate) it: Einsum,
    pub(crate) extents: BTreeMap<Label, usize>,
}

impl Equation {
    pub(crate) fn read(op: &Named, shapes: &[&[usize]]) -> Result<Self, String> {
        let ranks: Vec<usize> = shapes.iter().map(|it| it.len()).collect();
        let it = Einsum::read(op.text("equation", "")?, &ranks)?;
        let mut extents: BTreeMap<Label, usize> = BTreeMap::new();
        for (labels, shape) in it.inputs.iter().zip(shapes) {
            for (&label, &n) in labels.iter().zip(*shape) {
                let known = extents.entry(label).or_insert(n);
                if *known == 1 {
                    *known = n;
                } else if n != 1 && n != *known {
                    return Err(format!("an axis has the extents {known} and {n}"));
                }
            }
        }
        Ok(Equation { it, extents })
    }

    pub(crate) fn shape(&self, labels: &[Label]) -> Vec<usize> {
        labels.iter().map(|it| self.extents.get(it).copied().unwrap_or(1)).collect()
    }

    /// An operand seen along `labels`: an axis that it lacks, or has with extent 1, repeats; one that it has
    /// twice is its diagonal.
    pub(crate) fn view(&self, own: &[Label], shape: &[usize], labels: &[Label]) -> View {
        let steps = strides(shape);
        let along = |label: &Label| {
            let axes = (0..own.len()).filter(|&axis| own[axis] == *label && shape[axis] != 1);
            axes.map(|axis| steps[axis]).sum::<usize>().cast_signed()
        };
        View { shape: self.shape(labels), strides: labels.iter().map(along).collect(), offset: 0 }
    }

    /// `output[labels] = sum over the other labels of the product of all operands`.
    pub(crate) fn contract(&self, operands: &[(&[Label], &Array)], output: &[Label]) -> Vec<f32> {
        let mut rest: Vec<Term> =
            operands.iter().map(|(labels, it)| self.term(labels, it)).collect();
        while rest.len() > 1 {
            let (a, b) = (rest.remove(0), rest.remove(0));
            let needed =
                |it: &Label| output.contains(it) || rest.iter().any(|other| other.has(*it));
            let product = self.product(&self.summed(a, |it| needed(it) || b.has(*it)), &b, &needed);
            rest.insert(0, product);
        }
        let last = rest.pop().unwrap_or(Term { labels: Vec::new(), values: vec![1.0] });
        let last = self.summed(last, |it| output.contains(it));
        let shape = self.shape(&last.labels);
        self.view(&last.labels, &shape, output).read(&last.values)
    }

    /// An operand with each label once; axes of extent 1 that others fill are left out.
    fn term(&self, own: &[Label], it: &Array) -> Term {
        let mut labels: Vec<Label> = Vec::new();
        for (&label, &n) in own.iter().zip(&it.shape) {
            if !labels.contains(&label) && n == self.extents.get(&label).copied().unwrap_or(1) {
                labels.push(label);
            }
        }
        let view = self.view(own, &it.shape, &labels);
        Term { values: view.read(&crate::gradient::floats(it)), labels }
    }

    /// The sum over the labels that are not `needed`.
    fn summed(&self, it: Term, needed: impl Fn(&Label) -> bool) -> Term {
        let (kept, gone): (Vec<Label>, Vec<Label>) =
            it.labels.iter().copied().partition(|it| needed(it));
        if gone.is_empty() {
            return it;
        }
        let ordered = it.ordered(self, &[kept.as_slice(), &gone].concat());
        let run: usize = self.shape(&gone).iter().product();
        let count: usize = self.shape(&kept).iter().product();
        let sum = |i: usize| {
            let wide = ordered[i * run..][..run].iter().map(|&it| f64::from(it));
            wide.sum::<f64>() as f32
        };
        Term { labels: kept, values: (0..count).map(sum).collect() }
    }

    /// The product of two operands, summed over the labels that both have and nobody needs.
    fn product(&self, a: &Term, b: &Term, needed: &impl Fn(&Label) -> bool) -> Term {
        let b_labels = |it: &&Label| b.has(**it);
        let common: Vec<Label> = a.labels.iter().filter(b_labels).copied().collect();
        let (batch, inner): (Vec<Label>, Vec<Label>) = common.iter().partition(|it| needed(it));
        let alone = |it: &Term| -> Vec<Label> {
            it.labels.iter().filter(|it| !common.contains(it)).copied().collect()
        };
        let (rows, columns) = (alone(a), alone(b));
        let size = |labels: &[Label]| self.shape(labels).iter().product::<usize>();
        let (m, n, k) = (size(&rows), size(&columns), size(&inner));
        let left = a.ordered(self, &[batch.as_slice(), &rows, &inner].concat());
        let right = b.ordered(self, &[batch.as_slice(), &inner, &columns].concat());
        let mut values = vec![0.0; size(&batch) * m * n];
        for (i, y) in values.chunks_exact_mut((m * n).max(1)).enumerate() {
            let l = Strided { data: &left[i * m * k..][..m * k], row: k, col: 1 };
            let r = Strided { data: &right[i * k * n..][..k * n], row: n, col: 1 };
            gemm((m, n, k), l, r, y, None, Tail::None);
        }
        Term { labels: [batch, rows, columns].concat(), values }
    }
}

/// Numbers along labels, each of which stands once.
struct Term {
    labels: Vec<Label>,
    values: Vec<f32>,
}

impl Term {
    fn has(&self, label: Label) -> bool {
        self.labels.contains(&label)
    }

    fn ordered(&self, equation: &Equation, labels: &[Label]) -> Vec<f32> {
        if self.labels == labels {
            return self.values.clone();
        }
        equation.view(&self.labels, &equation.shape(&self.labels), labels).read(&self.values)
    }
}

fn einsum(op: &Named, inputs: &[Option<&Array>], _: &[DType]) -> Result<Vec<Array>, String> {
    let operands: Vec<&Array> = inputs.iter().flatten().copied().collect();
    let shapes: Vec<&[usize]> = operands.iter().map(|it| it.shape.as_slice()).collect();
    let equation = Equation::read(op, &shapes)?;
    let first = operands.first().copied().ok_or("there is no operand")?;
    if operands.iter().any(|it| it.dtype() != first.dtype()) {
        return Err("the operands are of several types".to_owned());
    }
    let shape = equation.shape(&equation.it.output);
    if first.dtype() == DType::F32 {
        let terms: Vec<(&[Label], &Array)> =
            equation.it.inputs.iter().map(Vec::as_slice).zip(operands).collect();
        return Ok(vec![Array::f32(&shape, equation.contract(&terms, &equation.it.output))]);
    }
    let data = by_number!(first, plain(&equation, &operands))?;
    Ok(vec![Array { shape, data }])
}

/// Every product of every element, by the definition.
fn plain<T: Number>(equation: &Equation, operands: &[&Array]) -> Result<Data, String> {
    let output = &equation.it.output;
    let summed: Vec<Label> =
        equation.extents.keys().filter(|it| !output.contains(it)).copied().collect();
    let all = [output.as_slice(), &summed].concat();
    let mut products: Option<Vec<T>> = None;
    for (own, it) in equation.it.inputs.iter().zip(operands) {
        let values = it.values::<T>().ok_or("the operands are of several types")?;
        let wide = equation.view(own, &it.shape, &all).read(values);
        products = Some(match products {
            None => wide,
            Some(so_far) => {
                let pairs = so_far.into_iter().zip(wide);
                pairs.map(|(a, b)| T::arithmetic(sartor_ir::Binary::Mul, a, b)).collect()
            }
        });
    }
    let products = products.unwrap_or_default();
    let run: usize = equation.shape(&summed).iter().product();
    let count: usize = equation.shape(output).iter().product();
    let sum = |i: usize| {
        let terms = products[i * run..][..run].iter();
        terms.fold(T::default(), |a, &b| T::arithmetic(sartor_ir::Binary::Add, a, b))
    };
    Ok(T::wrap((0..count).map(sum).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::named::tests::{Numbers, named, run};
    use sartor_ir::{Attr, Attrs};

    #[test]
    fn matrices_and_the_definition_agree() {
        let mut numbers = Numbers::new(5);
        for (equation, shapes) in [
            ("ij,jk->ik", vec![vec![2, 3], vec![3, 4]]),
            ("bij,bjk->bik", vec![vec![2, 3, 4], vec![2, 4, 5]]),
            ("bhid,bhjd->bhij", vec![vec![2, 2, 3, 4], vec![2, 2, 5, 4]]),
            ("...ij,...jk->...ik", vec![vec![2, 1, 3, 4], vec![3, 4, 2]]),
            ("ii->i", vec![vec![4, 4]]),
            ("...ii", vec![vec![2, 3, 3]]),
            ("ij->j", vec![vec![3, 4]]),
            ("ij,ij->", vec![vec![3, 4], vec![3, 4]]),
            ("i,j->ij", vec![vec![3], vec![4]]),
            ("ij,jk,kl->il", vec![vec![2, 3], vec![3, 4], vec![4, 2]]),
            ("ij,j,k->ki", vec![vec![2, 3], vec![3], vec![4]]),
            ("ij,jk", vec![vec![2, 1], vec![3, 4]]),
            ("iji,ik->jk", vec![vec![3, 2, 3], vec![3, 4]]),
            (",i->i", vec![vec![], vec![3]]),
        ] {
            let op = named("Einsum", Attrs::new().with("equation", Attr::Str(equation.into())));
            let arrays: Vec<Array> = shapes.iter().map(|it| numbers.array(it)).collect();
            let wide: Vec<Array> = arrays.iter().map(|it| it.cast(DType::F64).unwrap()).collect();
            let fast = run(&op, &arrays.iter().collect::<Vec<_>>()).remove(0);
            let exact = run(&op, &wide.iter().collect::<Vec<_>>()).remove(0);
            assert_eq!(fast.shape, exact.shape, "{equation}");
            for (a, b) in fast.to_f64().into_iter().zip(exact.to_f64()) {
                assert!((a - b).abs() < 1e-5, "{equation}: {a}, not {b}");
            }
        }
    }
}

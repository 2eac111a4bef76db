//! The gradient of `Einsum`: by one operand, the output's gradient contracted with all other operands.

use sartor_ir::{Label, Named};

use super::{Context, Made, Rule, broadcast, floats};
use crate::{Array, reference::named::einsum::Equation};

pub(super) const RULES: &[Rule] = &[Rule { domain: "", name: "Einsum", backward: einsum }];

fn einsum(op: &Named, context: &Context<'_>) -> Made {
    let mut made = context.zero();
    let Some(g) = context.gradient(0) else { return Ok(made) };
    let operands: Vec<&Array> =
        (0..context.inputs.len()).map(|i| context.input(i)).collect::<Result<_, _>>()?;
    let shapes: Vec<&[usize]> = operands.iter().map(|it| it.shape.as_slice()).collect();
    let equation = Equation::read(op, &shapes)?;
    for (i, part) in made.iter_mut().enumerate() {
        if !context.wants(i) {
            continue;
        }
        let (own, x) = (&equation.it.inputs[i], operands[i]);
        let mut terms: Vec<(&[Label], &Array)> = vec![(&equation.it.output, g)];
        for (j, other) in operands.iter().enumerate() {
            if j != i {
                terms.push((&equation.it.inputs[j], other));
            }
        }
        // Each label once, without the axes that were repeated: over these the gradient is summed.
        let mut labels: Vec<Label> = Vec::new();
        for (&label, &n) in own.iter().zip(&x.shape) {
            if !labels.contains(&label) && equation.extents.get(&label) == Some(&n) {
                labels.push(label);
            }
        }
        let terms = Array::f32(&equation.shape(&labels), equation.contract(&terms, &labels));
        let mut sums = vec![0.0; x.len()];
        broadcast::scatter(&equation.view(own, &x.shape, &labels), &floats(&terms), &mut sums);
        *part = Some(Array::f32(&x.shape, sums.into_iter().map(|it| it as f32).collect()));
    }
    Ok(made)
}

//! Where in a network its answer is compared with what it shall be.

use std::collections::BTreeMap;

use rayon::prelude::*;
use sartor_engine::Array;
use sartor_ir::{Binary, Dim, Graph, Op, ReduceKind, Unary, ValueId, infer_facts};

use crate::{Loss, Objective, TrainError, loss::Scored, watch::Sums};

/// The value that a loss looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) value: ValueId,
    form: Form,
}

/// What its numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Anything; for classes: scores before a softmax.
    Scores,
    /// Probabilities of a softmax that the file spells out: their logarithms are scores.
    Probabilities,
}

/// Probabilities below this count as this, as a logarithm needs.
const LEAST: f32 = 1e-30;

impl Head {
    /// The first output as it is.
    pub(crate) fn output(graph: &Graph) -> Result<Head, TrainError> {
        let missing = || TrainError::Network("the network has no outputs".to_owned());
        let value = *graph.outputs().first().ok_or_else(missing)?;
        Ok(Head { value, form: Form::Scores })
    }

    /// The scores of the classes: the first output, or what goes into the softmax that makes it.
    ///
    /// # Errors
    /// An output that is no distribution over classes: that of a sigmoid, or a softmax along another axis.
    pub(crate) fn classes(graph: &Graph) -> Result<Head, TrainError> {
        let output = Head::output(graph)?;
        let name = &graph.value(output.value).name;
        let mut at = output.value;
        while let Some(id) = graph.producer(at) {
            let node = graph.node(id);
            match &node.op {
                Op::Softmax(it) | Op::LogSoftmax(it) => {
                    let value = node.input(0).unwrap_or(at);
                    check_axis(graph, value, it.axis, name)?;
                    return Ok(Head { value, form: Form::Scores });
                }
                Op::Unary(Unary::Sigmoid) => {
                    return Err(TrainError::Network(format!(
                        "output `{name}` comes out of a sigmoid: cross-entropy takes scores of classes that \
                         exclude each other; use --loss mse"
                    )));
                }
                Op::Binary(Binary::Div) if normalizes(graph, node.input(0), node.input(1)) => {
                    return Ok(Head { form: Form::Probabilities, ..output });
                }
                Op::Identity | Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Cast(_) => {
                    match node.input(0) {
                        Some(it) => at = it,
                        None => break,
                    }
                }
                _ => break,
            }
        }
        Ok(output)
    }

    /// What goes into the softmax that makes the first output, if one does.
    pub(crate) fn before_softmax(graph: &Graph) -> Option<Head> {
        Head::classes(graph).ok().filter(|it| Some(&it.value) != graph.outputs().first())
    }

    /// The graph with nothing but this value as its output.
    pub(crate) fn graph(self, graph: &Graph) -> Graph {
        let mut graph = graph.clone();
        graph.set_outputs(vec![self.value]);
        graph
    }

    /// One row of numbers for each of `count` samples.
    fn rows(self, output: &Array, count: usize) -> Result<Rows<'_>, TrainError> {
        let shape = &output.shape;
        let values = output.as_f32().filter(|_| shape.first() == Some(&count) && count > 0);
        let Some(values) = values else {
            return Err(TrainError::Network(format!(
                "the network answers {} {shape:?} to {count} samples, expected float32 with one row for each",
                output.dtype()
            )));
        };
        let len = values.len() / count;
        let classes = len > 1 && shape.iter().skip(1).filter(|it| **it != 1).count() == 1;
        Ok(Rows { values, len, classes, form: self.form })
    }
}

/// The numbers of a head, sample by sample.
struct Rows<'a> {
    values: &'a [f32],
    len: usize,
    /// Whether a row has one number for each class.
    classes: bool,
    form: Form,
}

impl Rows<'_> {
    fn scores(&self, i: usize) -> Vec<f32> {
        let row = &self.values[i * self.len..(i + 1) * self.len];
        match self.form {
            Form::Scores => row.to_vec(),
            Form::Probabilities => row.iter().map(|it| it.max(LEAST).ln()).collect(),
        }
    }

    /// From the derivative by scores to that by the numbers of the head.
    fn gradient(&self, i: usize, scored: &Scored, factor: f64) -> Vec<f32> {
        let row = &self.values[i * self.len..(i + 1) * self.len];
        let one = |(g, p): (&f64, &f32)| match self.form {
            Form::Scores => (factor * g) as f32,
            Form::Probabilities => (factor * g / f64::from(p.max(LEAST))) as f32,
        };
        scored.gradient.iter().zip(row).map(one).collect()
    }
}

/// What one batch is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets<'a> {
    pub(crate) labels: Option<&'a [usize]>,
    /// What the teacher answers, or what the samples ask for, and where it was taken.
    pub(crate) example: Option<(&'a Array, Head)>,
}

/// The losses of a batch, and `factor` times their derivative by the head's numbers.
///
/// # Errors
/// An answer that has no row of classes for each sample where the objective needs one, a label that is no
/// class, an example of another shape.
pub(crate) fn score(
    objective: &Objective,
    head: Head,
    output: &Array,
    targets: &Targets<'_>,
    factor: f64,
) -> Result<(Sums, Array), TrainError> {
    let count = output.shape.first().copied().unwrap_or(0);
    let rows = head.rows(output, count)?;
    check(objective, &rows, output, targets)?;
    let example = targets.example.map(|(it, head)| head.rows(it, count)).transpose()?;
    let one = |i: usize| {
        let scores = rows.scores(i);
        let label = targets.labels.and_then(|it| it.get(i)).copied();
        let scored =
            objective.of(&scores, label, example.as_ref().map(|it| it.scores(i)).as_deref());
        let correct = label.is_some_and(|it| best(&scores) == it);
        (scored.loss, correct, rows.gradient(i, &scored, factor))
    };
    let all: Vec<_> = (0..count).into_par_iter().map(one).collect();
    let labelled = if targets.labels.is_some() && rows.classes { count as u64 } else { 0 };
    let mut sums = Sums { samples: count as u64, labelled, ..Sums::default() };
    let mut gradient = Vec::with_capacity(rows.values.len());
    for (loss, correct, row) in all {
        sums.loss += loss;
        sums.correct += u64::from(correct && labelled > 0);
        gradient.extend(row);
    }
    Ok((sums, Array::f32(&output.shape, gradient)))
}

fn check(
    objective: &Objective,
    rows: &Rows<'_>,
    output: &Array,
    targets: &Targets<'_>,
) -> Result<(), TrainError> {
    let shape = &output.shape;
    let by_class = objective.loss == Loss::CrossEntropy || targets.example.is_none();
    if by_class && !rows.classes {
        return Err(TrainError::Network(format!(
            "the first output is {shape:?}, and this loss needs one row of class scores for each sample, \
             [N, classes]; networks with other outputs can be trained with --loss mse and a --teacher or \
             `targets`"
        )));
    }
    if let Some((example, _)) = targets.example
        && example.shape != *shape
    {
        return Err(TrainError::Network(format!(
            "the network answers in shape {shape:?}, its teacher or target in shape {:?}: they do not do the same",
            example.shape
        )));
    }
    let imitates = objective.loss == Loss::Mse && targets.example.is_some();
    let wrong = targets.labels.and_then(|it| it.iter().find(|label| **label >= rows.len));
    match wrong {
        Some(label) if rows.classes => Err(TrainError::Samples(format!(
            "a sample is labelled {label}, the network has {} classes: the data are not what it was made for",
            rows.len
        ))),
        _ if objective.needs_labels() && targets.labels.is_none() && !imitates => Err(TrainError::Samples(
            "the data split has no labels; name them with `labels`, or learn from --teacher alone with --mix 1"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// The best class; the first of equals.
fn best(scores: &[f32]) -> usize {
    scores.iter().enumerate().fold(0, |best, (i, it)| if *it > scores[best] { i } else { best })
}

/// Whether `sum` is the sum of the exponentials `part`: a softmax that the file spells out.
fn normalizes(graph: &Graph, part: Option<ValueId>, sum: Option<ValueId>) -> bool {
    let made = |it: Option<ValueId>| it.and_then(|it| graph.producer(it)).map(|it| graph.node(it));
    let exponential = made(part).is_some_and(|it| it.op == Op::Unary(Unary::Exp));
    let total = made(sum).is_some_and(|it| {
        matches!(&it.op, Op::Reduce(op) if op.kind == ReduceKind::Sum) && it.input(0) == part
    });
    exponential && total
}

/// Whether a softmax runs along the classes: the only axis beside the first whose extent is not 1.
fn check_axis(graph: &Graph, value: ValueId, axis: i64, name: &str) -> Result<(), TrainError> {
    let facts = infer_facts(graph, &BTreeMap::new()).unwrap_or_default();
    let shape = facts.get(value.index()).and_then(|it| it.as_ref()?.ty.shape.as_ref());
    let Some(shape) = shape else { return Ok(()) };
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let others = shape.iter().enumerate().skip(1).filter(|it| it.0 as i64 != axis);
    if axis > 0 && others.into_iter().all(|it| *it.1 == Dim::Known(1)) {
        return Ok(());
    }
    let shape: Vec<_> = shape.iter().map(ToString::to_string).collect();
    Err(TrainError::Network(format!(
        "output `{name}` is a softmax of [{}] along axis {axis}, and cross-entropy takes [N, classes]; networks \
         with other outputs can be trained with --loss mse and --teacher",
        shape.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use sartor_ir::Softmax;

    use super::*;
    use crate::{config::tests::config, fixture};

    fn after(op: Op) -> Graph {
        let mut graph = fixture::network();
        let y = graph.find_value("y").unwrap();
        let z = graph.add_node("z", op, &[y], &["z"]).unwrap()[0];
        let z = graph.add_node("end", Op::Identity, &[z], &["end"]).unwrap()[0];
        graph.set_outputs(vec![z]);
        graph
    }

    #[test]
    fn scores_are_what_goes_into_the_softmax() {
        let graph = fixture::network();
        let y = graph.find_value("y").unwrap();
        assert_eq!(Head::classes(&graph).unwrap().value, y);
        for op in [Op::Softmax(Softmax { axis: -1 }), Op::LogSoftmax(Softmax { axis: 1 })] {
            assert_eq!(Head::classes(&after(op)).unwrap(), Head { value: y, form: Form::Scores });
        }
        let graph = after(Op::Softmax(Softmax { axis: 0 }));
        let error = Head::classes(&graph).unwrap_err().to_string();
        assert!(error.contains("along axis 0"), "{error}");
        let error = Head::classes(&after(Op::Unary(Unary::Sigmoid))).unwrap_err().to_string();
        assert!(error.contains("`end`") && error.contains("sigmoid"), "{error}");
    }

    #[test]
    fn probabilities_give_the_loss_of_their_scores() {
        let scores = Array::f32(&[2, 3], vec![0.5, 2.0, -1.0, 0.0, 1.0, 3.0]);
        let soft = |row: &[f32]| {
            let sum: f32 = row.iter().map(|it| it.exp()).sum();
            row.iter().map(|it| it.exp() / sum).collect::<Vec<_>>()
        };
        let values = scores.as_f32().unwrap();
        let probabilities = Array::f32(&[2, 3], [soft(&values[..3]), soft(&values[3..])].concat());
        let head = |form| Head { value: fixture::network().outputs()[0], form };
        let targets = Targets { labels: Some(&[1, 0]), example: None };
        let of =
            |form, array| score(&config().objective, head(form), array, &targets, 1.0).unwrap();
        let (plain, gradient) = of(Form::Scores, &scores);
        let (other, by_probability) = of(Form::Probabilities, &probabilities);
        assert!((plain.loss - other.loss).abs() < 1e-5);
        assert_eq!((plain.correct, plain.samples), (1, 2));
        // d loss / d z = sum (d loss / d p) (d p / d z), of which a constant per row may differ.
        let (g, p) = (by_probability.as_f32().unwrap(), probabilities.as_f32().unwrap());
        let inner: f32 = (0..3).map(|i| g[i] * p[i]).sum();
        for i in 0..3 {
            assert!((p[i] * (g[i] - inner) - gradient.as_f32().unwrap()[i]).abs() < 1e-5);
        }
    }

    #[test]
    fn answers_that_do_not_fit() {
        let head = Head::output(&fixture::network()).unwrap();
        let says = |shape: &[usize], labels: Option<&[usize]>| {
            let output = Array::f32(shape, vec![0.0; shape.iter().product()]);
            let targets = Targets { labels, example: None };
            score(&config().objective, head, &output, &targets, 1.0).unwrap_err().to_string()
        };
        assert!(says(&[2, 5, 4], Some(&[0, 0])).contains("[2, 5, 4]"));
        assert!(says(&[2, 3], Some(&[0, 3])).contains("labelled 3"));
        assert!(says(&[2, 3], None).contains("no labels"));
    }
}

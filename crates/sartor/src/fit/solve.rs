//! Non-negative least squares, and a fit that outliers do not bend.

/// One observation: what each unknown contributes to it, and what was measured.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    /// By unknown.
    pub(super) terms: Vec<f64>,
    /// Above zero.
    pub(super) measured: f64,
}

impl Observation {
    /// What values of the unknowns say of it.
    pub(super) fn predicted(&self, values: &[f64]) -> f64 {
        self.terms.iter().zip(values).map(|(term, value)| term * value).sum()
    }

    /// How far that is from what was measured, as a share of it.
    pub(super) fn error(&self, values: &[f64]) -> f64 {
        self.predicted(values) / self.measured - 1.0
    }
}

/// Rounds in which the weights of the observations are found.
const ROUNDS: usize = 12;

/// Relative errors below this one count by their square, those above by themselves.
const KNEE: f64 = 0.05;

/// Values of the unknowns, none below zero, with the least sum of relative errors: squared up to [`KNEE`], linear beyond it
/// (Huber's loss, by reweighted least squares: Holland and Welsch, Robust regression using iteratively reweighted least-squares,
/// 1977).
pub(super) fn fit(observations: &[Observation], unknowns: usize) -> Vec<f64> {
    let mut weights = vec![1.0; observations.len()];
    let mut values = vec![0.0; unknowns];
    for _ in 0..ROUNDS {
        let mut normal = Normal::new(unknowns);
        for (observation, weight) in observations.iter().zip(&weights) {
            normal.add(observation, *weight);
        }
        values = normal.solve();
        for (observation, weight) in observations.iter().zip(&mut weights) {
            *weight = KNEE / observation.error(&values).abs().max(KNEE);
        }
    }
    values
}

/// The normal equations `AᵀA x = Aᵀb` of relative errors.
struct Normal {
    size: usize,
    /// Row by row, symmetric.
    matrix: Vec<f64>,
    right: Vec<f64>,
}

/// Added to the diagonal of the scaled equations: unknowns that no observation tells apart share what they explain.
const RIDGE: f64 = 1e-9;

impl Normal {
    fn new(size: usize) -> Self {
        Normal { size, matrix: vec![0.0; size * size], right: vec![0.0; size] }
    }

    fn add(&mut self, it: &Observation, weight: f64) {
        let terms: Vec<f64> = it.terms.iter().map(|term| term / it.measured).collect();
        for (i, a) in terms.iter().enumerate().filter(|it| *it.1 != 0.0) {
            self.right[i] += weight * a;
            for (cell, b) in self.matrix[i * self.size..].iter_mut().zip(&terms) {
                *cell += weight * a * b;
            }
        }
    }

    /// Lawson and Hanson's active set method (Solving Least Squares Problems, 1974, algorithm 23.10) on the normal equations (Bro
    /// and de Jong, A fast non-negativity-constrained least squares algorithm, 1997).
    fn solve(mut self) -> Vec<f64> {
        let n = self.size;
        let scale: Vec<f64> = (0..n).map(|i| self.matrix[i * n + i].sqrt()).collect();
        for i in 0..n {
            for j in 0..n {
                let by = scale[i] * scale[j];
                self.matrix[i * n + j] = if by > 0.0 { self.matrix[i * n + j] / by } else { 0.0 };
            }
            self.right[i] = if scale[i] > 0.0 { self.right[i] / scale[i] } else { 0.0 };
            self.matrix[i * n + i] += RIDGE;
        }
        let mut free: Vec<usize> = Vec::new();
        let mut x = vec![0.0; n];
        // Each round frees one unknown; the bound only guards against rounding that would free it for ever.
        for _ in 0..4 * n {
            let gradient = |i: usize| {
                let row = &self.matrix[i * n..(i + 1) * n];
                self.right[i] - row.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>()
            };
            let bound = (0..n).filter(|i| !free.contains(i)).map(|i| (i, gradient(i)));
            let Some((enters, slope)) = bound.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
            if slope <= 1e-10 {
                break;
            }
            free.push(enters);
            self.settle(&mut free, &mut x);
        }
        for (value, scale) in x.iter_mut().zip(&scale) {
            *value = if *scale > 0.0 { *value / scale } else { 0.0 };
        }
        x
    }

    /// Solves for the free unknowns; those that would fall below zero stop there and are bound again.
    fn settle(&self, free: &mut Vec<usize>, x: &mut [f64]) {
        while !free.is_empty() {
            let wanted = self.solve_free(free);
            let blocked = free.iter().zip(&wanted).filter(|it| *it.1 <= 0.0);
            let step = blocked
                .map(|(&i, &to)| if x[i] > to { x[i] / (x[i] - to) } else { 0.0 })
                .fold(1.0, f64::min);
            for (&i, to) in free.iter().zip(&wanted) {
                x[i] += step * (to - x[i]);
            }
            if step >= 1.0 {
                return;
            }
            let before = free.len();
            free.retain(|&i| x[i] > 1e-14);
            if free.len() == before {
                return;
            }
            (0..x.len()).filter(|i| !free.contains(i)).for_each(|i| x[i] = 0.0);
        }
    }

    /// The equations of some unknowns alone, by Cholesky's decomposition.
    fn solve_free(&self, free: &[usize]) -> Vec<f64> {
        let n = free.len();
        let mut lower = vec![0.0; n * n];
        let mut x = vec![0.0; n];
        for i in 0..n {
            for j in 0..=i {
                let done: f64 = (0..j).map(|k| lower[i * n + k] * lower[j * n + k]).sum();
                let rest = self.matrix[free[i] * self.size + free[j]] - done;
                lower[i * n + j] =
                    if i == j { rest.max(RIDGE * RIDGE).sqrt() } else { rest / lower[j * n + j] };
            }
            let done: f64 = (0..i).map(|k| lower[i * n + k] * x[k]).sum();
            x[i] = (self.right[free[i]] - done) / lower[i * n + i];
        }
        for i in (0..n).rev() {
            let done: f64 = (i + 1..n).map(|k| lower[k * n + i] * x[k]).sum();
            x[i] = (x[i] - done) / lower[i * n + i];
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(rows: &[(&[f64], f64)]) -> Vec<Observation> {
        rows.iter().map(|it| Observation { terms: it.0.to_vec(), measured: it.1 }).collect()
    }

    #[test]
    fn finds_what_can_be_found_and_nothing_below_zero() {
        let exact = observe(&[(&[1.0, 2.0], 8.0), (&[3.0, 1.0], 9.0), (&[1.0, 1.0], 5.0)]);
        let values = fit(&exact, 2);
        assert!((values[0] - 2.0).abs() < 1e-6 && (values[1] - 3.0).abs() < 1e-6, "{values:?}");
        // Without the bound the second were −1.
        let bound = observe(&[(&[1.0, 0.0], 2.0), (&[1.0, 1.0], 1.0)]);
        let values = fit(&bound, 2);
        assert!(values[1] == 0.0 && values[0] > 0.9 && values[0] < 2.1, "{values:?}");
    }

    #[test]
    fn unknowns_without_a_term_stay_zero() {
        let values = fit(&observe(&[(&[2.0, 0.0], 4.0), (&[1.0, 0.0], 2.0)]), 2);
        assert!((values[0] - 2.0).abs() < 1e-6 && values[1] == 0.0, "{values:?}");
        assert_eq!(fit(&[], 1), [0.0]);
    }

    #[test]
    fn outliers_do_not_bend_it() {
        let mut rows: Vec<_> = (1..20)
            .map(|i| Observation { terms: vec![f64::from(i), 1.0], measured: f64::from(3 * i + 5) })
            .collect();
        rows[7].measured *= 5.0;
        let values = fit(&rows, 2);
        assert!((values[0] - 3.0).abs() < 0.1 && (values[1] - 5.0).abs() < 0.5, "{values:?}");
    }
}

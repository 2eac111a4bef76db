//! Which layers stay in the arrays, how often they are there, and which must be written anew.

use sartor_chip::{Crossbar, Seconds};

use super::Use;

/// The arrays dealt out to the layers of a network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Arrays that all layers need once.
    pub(crate) needed: u64,
    /// Whether they fit.
    pub(crate) fits: bool,
    /// By layer: how often its weights are there.
    pub(crate) replicas: Vec<u64>,
    /// By layer: time in which its weights are written in each inference.
    pub(crate) reload: Vec<Seconds>,
}

impl Plan {
    /// Deals out the arrays. If all layers fit, what is left holds copies of the slow ones: the sum of `time / replicas` is least, for
    /// a given number of arrays, at `replicas ∝ √(time / arrays)` (Lagrange). If they do not fit, nothing stays: each layer is written
    /// in each inference, in as many rounds as it needs. Weights that are no constants are always written.
    pub(crate) fn of(crossbar: &Crossbar, uses: &[Use]) -> Self {
        let needed = uses.iter().fold(0u64, |sum, it| sum.saturating_add(it.arrays));
        let available = crossbar.arrays.as_ref().map(|it| it.value.max(1));
        let fits = available.is_none_or(|it| it >= needed);
        let write = crossbar.write_row.as_ref().map_or(Seconds(0.0), |it| it.value);
        let reload = uses.iter().map(|it| {
            let rounds = available.map_or(1, |all| it.arrays.div_ceil(all));
            let stays = fits && it.constant;
            if stays { Seconds(0.0) } else { write * (rounds * it.written_rows) as f64 }
        });
        let reload = reload.collect();
        let replicas = match available {
            Some(all) if fits => replicate(uses, all),
            _ => vec![1; uses.len()],
        };
        Plan { needed, fits, replicas, reload }
    }

    /// Time of layer `i` in one inference.
    pub(crate) fn time(&self, i: usize, it: &Use) -> Seconds {
        it.latency * it.products.div_ceil(self.replicas[i]) as f64 + self.reload[i]
    }
}

/// Halvings of the interval in which the factor of the replicas is sought.
const HALVINGS: usize = 40;

fn replicate(uses: &[Use], all: u64) -> Vec<u64> {
    let root = |it: &Use| (it.latency.0 * it.products as f64 / it.arrays.max(1) as f64).sqrt();
    let copies = |factor: f64| -> Vec<u64> {
        let each = |it: &Use| ((factor * root(it)) as u64).clamp(1, it.products.max(1));
        uses.iter().map(each).collect()
    };
    let arrays = |replicas: &[u64]| {
        let all = replicas.iter().zip(uses).map(|(n, it)| n.saturating_mul(it.arrays));
        all.fold(0u64, u64::saturating_add)
    };
    let largest = uses.iter().map(root).filter(|it| *it > 0.0).fold(f64::INFINITY, f64::min);
    if !largest.is_finite() {
        return vec![1; uses.len()];
    }
    let (mut fits, mut fails) = (0.0, all as f64 / largest);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(fits, fails);
        if arrays(&copies(middle)) <= all { fits = middle } else { fails = middle }
    }
    copies(fits)
}

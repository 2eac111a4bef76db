//! Parts of feature maps over blocked channels, and their padding: every output index names an input index or nothing.

use super::super::tasks;

/// y [n, c, h, w] = x [n, table(c), table(h), table(w)], both blocked.
#[derive(Clone, Debug)]
pub(crate) struct BlockedSelect {
    lanes: usize,
    /// Blocks of channels, rows and columns of the input.
    from: [usize; 3],
    /// Runs of channels of each block of the output.
    runs: Vec<Vec<Run>>,
    rows: Vec<Option<usize>>,
    columns: Vec<Option<usize>>,
    fill: f32,
}

/// Lanes that come from neighbouring lanes of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    to: usize,
    block: usize,
    from: usize,
    len: usize,
}

/// Elements of one task.
const TASK: usize = 1 << 14;

impl BlockedSelect {
    /// From an input [n, c, h, w] by tables of its channels, rows and columns; `None` becomes `fill`.
    pub(crate) fn new(
        lanes: usize,
        [channels, height, width]: [usize; 3],
        [c, rows, columns]: [&[Option<usize>]; 3],
        fill: f32,
    ) -> Self {
        let runs = c.chunks(lanes).map(|it| runs(lanes, it)).collect();
        let from = [channels.div_ceil(lanes), height, width];
        Self { lanes, from, runs, rows: rows.to_vec(), columns: columns.to_vec(), fill }
    }

    /// Fills `y`.
    ///
    /// # Panics
    /// If a slice does not have the length of its shape: a bug of the caller.
    pub(crate) fn run(&self, x: &[f32], y: &mut [f32]) {
        let ([blocks, height, width], lanes) = (self.from, self.lanes);
        let line = self.columns.len() * lanes;
        let plane = self.rows.len() * line;
        let image = blocks * height * width * lanes;
        if y.is_empty() {
            return;
        }
        assert_eq!(y.len() / (self.runs.len() * plane) * image, x.len(), "images of a selection");
        let work = |at: usize, y: &mut [f32]| {
            let (n, runs) = (at / self.runs.len(), &self.runs[at % self.runs.len()]);
            let covers = runs.iter().map(|it| it.len).sum::<usize>() == lanes;
            for (row, y) in self.rows.iter().zip(y.chunks_exact_mut(line)) {
                let Some(row) = row else {
                    y.fill(self.fill);
                    continue;
                };
                for (column, y) in self.columns.iter().zip(y.chunks_exact_mut(lanes)) {
                    if !covers || column.is_none() {
                        y.fill(self.fill);
                    }
                    let Some(column) = column else { continue };
                    for it in runs {
                        let x = &x[n * image..][..image];
                        let at = ((it.block * height + row) * width + column) * lanes + it.from;
                        y[it.to..it.to + it.len].copy_from_slice(&x[at..at + it.len]);
                    }
                }
            }
        };
        tasks::for_each_chunk(y, plane, TASK, work);
    }
}

/// The runs of one block of output channels.
fn runs(lanes: usize, channels: &[Option<usize>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (to, &c) in channels.iter().enumerate() {
        let Some(c) = c else { continue };
        let (block, from) = (c / lanes, c % lanes);
        match runs.last_mut() {
            Some(last)
                if last.block == block
                    && last.to + last.len == to
                    && last.from + last.len == from =>
            {
                last.len += 1;
            }
            _ => runs.push(Run { to, block, from, len: 1 }),
        }
    }
    runs
}

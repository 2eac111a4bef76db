//! How axes flow through an operator, declared once per operator (`Op::axes`).
//!
//! A link ties the indices of one axis to those of another: removing index `i` here means removing
//! the tied indices there. Pruning groups are the classes of the union of all links; an axis on which
//! an operator has no link may not lose indices by that operator, and the operator says why.

use std::ops::Range;

/// An input or output position of one operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// The `i`-th input.
    Input(usize),
    /// The `i`-th output.
    Output(usize),
}

/// Which indices of axis `b` go with index `i` of axis `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexMap {
    /// `b = i`.
    Same,
    /// `b = i + offset`: `a` is a window of `b` (Concat, Pad).
    Offset(usize),
    /// `b = start + i * step`: `a` is a strided view of `b` (Slice).
    Strided {
        /// Index of `b` for `i = 0`.
        start: usize,
        /// Distance in `b`, possibly negative.
        step: isize,
    },
    /// `b = i * block + 0..block`: `a` is the outer of two merged axes (Flatten), or a depth multiplier.
    Block(usize),
    /// `b = i, i + period, i + 2 * period, …` below `extent`: one weight index serves every group.
    Every {
        /// Distance between tied indices.
        period: usize,
        /// Extent of `b`.
        extent: usize,
    },
}

impl IndexMap {
    /// The indices of `b` tied to index `i` of `a`.
    pub fn targets(self, i: usize) -> std::iter::StepBy<Range<usize>> {
        let run = |start: usize, len: usize| (start..start + len).step_by(1);
        match self {
            IndexMap::Same => run(i, 1),
            IndexMap::Offset(offset) => run(i + offset, 1),
            IndexMap::Strided { start, step } => {
                run(start.wrapping_add_signed(step * i.cast_signed()), 1)
            }
            IndexMap::Block(block) => run(i * block, block),
            IndexMap::Every { period, extent } => (i..extent).step_by(period.max(1)),
        }
    }
}

/// A declaration about one axis of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AxisLink {
    /// Indices of `a` and `b` live and die together.
    Tied {
        /// Port and axis of `a`.
        a: (Port, usize),
        /// Port and axis of `b`.
        b: (Port, usize),
        /// Which indices.
        map: IndexMap,
    },
    /// The axis may lose indices without touching any other axis of this operator.
    Free {
        /// Port and axis.
        at: (Port, usize),
    },
    /// The axis may lose no index, and why.
    Fixed {
        /// Port and axis.
        at: (Port, usize),
        /// The reason, to be shown to a person.
        reason: &'static str,
    },
}

impl AxisLink {
    /// Ties equal indices of two axes.
    pub fn same(a: (Port, usize), b: (Port, usize)) -> Self {
        AxisLink::Tied { a, b, map: IndexMap::Same }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (map, i, expected) in [
            (IndexMap::Same, 3, vec![3]),
            (IndexMap::Offset(8), 3, vec![11]),
            (IndexMap::Strided { start: 9, step: -2 }, 3, vec![3]),
            (IndexMap::Block(4), 2, vec![8, 9, 10, 11]),
            (IndexMap::Every { period: 4, extent: 12 }, 1, vec![1, 5, 9]),
        ] {
            assert_eq!(map.targets(i).collect::<Vec<_>>(), expected, "{map:?}");
        }
    }
}

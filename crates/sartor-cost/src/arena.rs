//! One block of memory for all activations: where each buffer lies in it.

use serde::Serialize;

use sartor_chip::Bytes;

/// Alignment of buffers in bytes: what vector units and DMA engines of the chips here ask for.
pub const ALIGNMENT: u64 = 16;

/// A plan of one block of memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Arena {
    /// Size of the block.
    pub size: Bytes,
    /// The most bytes that live at once: no plan is smaller.
    pub least: Bytes,
    /// Offset of each buffer, in the order in which they were given.
    pub offsets: Vec<Bytes>,
}

/// A buffer: bytes, and the first and the last step at which they are needed.
pub(crate) type Span = (Bytes, (u32, u32));

/// Places buffers greedily, the largest first, each at the lowest offset where it overlaps none that lives at the same time
/// (Pisarchyk and Lee, Efficient memory management for deep neural net inference, 2020, section 5.2).
pub(crate) fn plan(buffers: &[Span]) -> Arena {
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&i| buffers[i].0.0 > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].0), buffers[i].1.0, i));
    let mut offsets = vec![Bytes(0); buffers.len()];
    // Placed buffers in order of their offsets.
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut size = 0;
    for &i in &order {
        let (Bytes(bytes), (first, last)) = buffers[i];
        let mut at = 0u64;
        for &other in &placed {
            let (Bytes(length), (begin, end)) = buffers[other];
            if begin > last || end < first {
                continue;
            }
            if offsets[other].0 >= at.saturating_add(bytes) {
                break;
            }
            let after = offsets[other].0.saturating_add(length);
            at = at.max(after.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX));
        }
        offsets[i] = Bytes(at);
        size = size.max(at.saturating_add(bytes));
        let slot = placed.partition_point(|&other| offsets[other].0 <= at);
        placed.insert(slot, i);
    }
    Arena { size: Bytes(size), least: peak(buffers), offsets }
}

/// The most bytes that live at once.
pub(crate) fn peak(buffers: &[Span]) -> Bytes {
    alive(buffers).into_iter().max().unwrap_or_default()
}

/// By step: bytes that live.
pub(crate) fn alive(buffers: &[Span]) -> Vec<Bytes> {
    let end = buffers.iter().map(|it| it.1.1 as usize + 1).max().unwrap_or(0);
    let mut begins = vec![0u64; end + 1];
    let mut ends = vec![0u64; end + 1];
    for &(Bytes(bytes), (first, last)) in buffers {
        begins[first as usize] = begins[first as usize].saturating_add(bytes);
        ends[last as usize + 1] = ends[last as usize + 1].saturating_add(bytes);
    }
    let mut now = 0u64;
    let step = |(begin, end): (&u64, &u64)| {
        now = now.saturating_sub(*end).saturating_add(*begin);
        Bytes(now)
    };
    begins[..end].iter().zip(&ends).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_that_live_together_do_not_overlap_and_large_ones_come_first() {
        let buffers = [
            (Bytes(100), (0, 1)),
            (Bytes(40), (1, 2)),
            (Bytes(100), (2, 3)),
            (Bytes(7), (0, 3)),
            (Bytes(0), (0, 3)),
        ];
        let arena = plan(&buffers);
        assert_eq!(arena.least, Bytes(147));
        // 100 at 0 (twice, at different times), 40 behind at 112, 7 behind that at 160 (the next multiple of 16 after 152).
        let offsets: Vec<u64> = arena.offsets.iter().map(|it| it.0).collect();
        assert_eq!((offsets, arena.size), (vec![0, 112, 0, 160, 0], Bytes(167)));
        for (i, a) in buffers.iter().enumerate() {
            for (j, b) in buffers.iter().enumerate().filter(|it| it.0 != i) {
                let together = a.1.0 <= b.1.1 && b.1.0 <= a.1.1;
                let apart = arena.offsets[i] + a.0 <= arena.offsets[j]
                    || arena.offsets[j] + b.0 <= arena.offsets[i];
                assert!(!together || apart || a.0.0 == 0 || b.0.0 == 0, "{i} and {j}");
            }
        }
    }
}

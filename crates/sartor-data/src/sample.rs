//! Which samples of a set are taken.

use std::collections::BTreeMap;

use rand::seq::SliceRandom;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// `count` samples, as equally many of each class as there are: the samples of each class are shuffled, and the classes
/// dealt out in turn until there are enough, so that every prefix of the answer is balanced too. A class that runs short is
/// passed over. Fewer than `count` come back only where there are no more.
pub(crate) fn balanced(labels: &[usize], count: usize, seed: u64) -> Vec<usize> {
    let mut by_class = BTreeMap::<_, Vec<_>>::new();
    for (index, &label) in labels.iter().enumerate() {
        by_class.entry(label).or_default().push(index);
    }
    let mut by_class: Vec<_> = by_class.into_values().collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for samples in &mut by_class {
        samples.shuffle(&mut rng);
    }
    let rounds = by_class.iter().map(Vec::len).max().unwrap_or(0);
    let deal = |round: usize| by_class.iter().filter_map(move |it| it.get(round).copied());
    (0..rounds).flat_map(deal).take(count).collect()
}

/// The samples that stay and the share held out of `len`, both in order: of each class as of the whole, each count rounded;
/// without labels all samples are one class.
pub(crate) fn held_out(
    labels: Option<&[usize]>,
    len: usize,
    share: f64,
    seed: u64,
) -> (Vec<usize>, Vec<usize>) {
    let mut by_class = BTreeMap::<_, Vec<_>>::new();
    for index in 0..len {
        by_class.entry(labels.and_then(|it| it.get(index))).or_default().push(index);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut stay, mut held) = (Vec::new(), Vec::new());
    for mut samples in by_class.into_values() {
        samples.shuffle(&mut rng);
        let count = (share * samples.len() as f64).round() as usize;
        stay.extend(samples.split_off(count.min(samples.len())));
        held.extend(samples);
    }
    stay.sort_unstable();
    held.sort_unstable();
    (stay, held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_each_class_is_held_out() {
        let labels: Vec<_> = (0..300).map(|i| usize::from(i % 3 == 0)).collect();
        let (stay, held) = held_out(Some(&labels), 300, 0.1, 5);
        assert_eq!((stay.len(), held.len()), (270, 30));
        assert_eq!(held.iter().filter(|it| labels[**it] == 1).count(), 10);
        let mut all = [stay, held.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..300).collect::<Vec<_>>());
        assert_eq!(held_out(Some(&labels), 300, 0.1, 5).1, held);
        assert_ne!(held_out(Some(&labels), 300, 0.1, 6).1, held);
        assert_eq!(held_out(None, 7, 0.5, 0).1.len(), 4);
    }

    #[test]
    fn a_sample_is_balanced_and_repeatable() {
        let labels: Vec<_> = (0..1000).map(|i| i * i % 7 % 4).collect();
        let sample = balanced(&labels, 100, 1);
        let mut counts = [0; 4];
        for &index in &sample {
            counts[labels[index]] += 1;
        }
        // Squares modulo 7 are 0, 1, 2 and 4, hence 0, 1, 2 and 0 modulo 4: class 3 does not occur.
        assert_eq!(counts, [34, 33, 33, 0]);
        assert_eq!(sample, balanced(&labels, 100, 1));
        assert_ne!(sample, balanced(&labels, 100, 2));
        let mut distinct = sample;
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 100);
    }

    #[test]
    fn a_short_class_is_passed_over() {
        let labels = [0, 0, 0, 0, 1];
        let mut sample = balanced(&labels, 4, 3);
        assert!(sample[..2].contains(&4), "the only sample of class 1 is in the first round");
        sample.sort_unstable();
        sample.dedup();
        assert_eq!(sample.len(), 4);
        assert_eq!(balanced(&labels, 9, 3).len(), 5);
    }
}

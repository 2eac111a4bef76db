//! "Did you mean": the nearest of some known names.

/// The name among `known` nearest to `found` by edit distance, if it is near enough to be a slip of the pen: at most a third of
/// the letters differ, or one name holds the other.
pub(crate) fn nearest<'a>(
    found: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let found = found.to_lowercase();
    known
        .into_iter()
        .map(|name| (closeness(&found, name), name))
        .filter(|&(distance, name)| distance <= name.len().max(found.len()).div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// The edit distance, or 1 where one name of at least three letters is part of the other.
fn closeness(found: &str, name: &str) -> usize {
    if found.len() >= 3 && (name.contains(found) || found.contains(name)) {
        return usize::from(found != name);
    }
    edit_distance(found, name)
}

/// The Levenshtein distance in characters.
fn edit_distance(lhs: &str, rhs: &str) -> usize {
    let rhs: Vec<char> = rhs.chars().collect();
    let mut row: Vec<usize> = (0..=rhs.len()).collect();
    for (i, l) in lhs.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &r) in rhs.iter().enumerate() {
            let substituted = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[rhs.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let known = ["nvidia-a100", "jetson-orin-nano", "arm-cortex-m7"];
        for (found, expected) in [
            ("nvidia-a10", Some("nvidia-a100")),
            ("a100", Some("nvidia-a100")),
            ("NVIDIA-A100", Some("nvidia-a100")),
            ("jetson-orin", Some("jetson-orin-nano")),
            ("arm-cortexm7", Some("arm-cortex-m7")),
            ("zilog-z80", None),
            ("", None),
        ] {
            assert_eq!(nearest(found, known), expected, "{found}");
        }
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}

//! Structured pruning: whole channels go, and everything that is tied to them goes along.
//!
//! 1. [`groups`] finds the channels that can go only together, from the axes that every operator declares.
//! 2. [`importance`] gives every channel a number, [`uniform_widths`] or the step gives every group a width,
//!    and [`least_important`] names the channels to go.
//! 3. [`remove_channels`] takes them out. The result computes what the network with those channels silenced
//!    ([`masked`]) computes, up to the rounding of shorter sums.

mod groups;
mod importance;
mod remove;
mod rewrite;
#[cfg(test)]
mod tests;
mod ties;

use std::collections::BTreeMap;

use sartor_ir::{Graph, infer};
use serde::{Deserialize, Serialize};

use crate::CompressError;
pub use groups::{Cell, Channel, Group, Groups, groups};
pub use importance::{Criterion, importance};
pub use remove::{Kept, Removed, masked};
pub(crate) use ties::node_name;

/// The step `prune-channels`.
///
/// ```toml
/// criterion = "l1"
/// grain = 8
/// keep = { share = 0.5 }
/// # or: keep = { widths = { "/layer1/conv1/Conv" = 16 } }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PruneChannels {
    /// How channels are compared.
    #[serde(default)]
    pub criterion: Criterion,
    /// Every pruned group keeps a multiple of this many channels, at least one such multiple.
    #[serde(default = "one")]
    pub grain: usize,
    /// How many channels stay.
    pub keep: Keep,
}

fn one() -> usize {
    1
}

/// How many channels stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The same share, above 0 and at most 1, of every group that may lose channels.
    Share(f64),
    /// This many channels of the groups of these names; all others stay whole.
    Widths(BTreeMap<String, usize>),
}

/// A pruned network.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// The smaller network, compacted.
    pub graph: Graph,
    /// The groups of the network that came in.
    pub groups: Groups,
    /// What went.
    pub removed: Removed,
    /// What is left of every axis of the network that came in.
    pub kept: Kept,
}

/// Applies the step: the least important channels of every group go.
///
/// # Errors
/// A share or grain out of range, a group that the graph does not have, a width that it cannot have, or
/// shapes of `graph` that do not fit.
pub fn prune(graph: &Graph, config: &PruneChannels) -> Result<Pruned, CompressError> {
    if config.grain == 0 {
        return Err(config_error("grain", "0", "a positive number of channels"));
    }
    let groups = groups(graph)?;
    let importance = importance(graph, &groups, config.criterion);
    let widths = match &config.keep {
        Keep::Share(share) => uniform_widths(&groups, *share, config.grain)?,
        Keep::Widths(widths) => {
            check_widths(&groups, widths, config.grain)?;
            widths.clone()
        }
    };
    let removed = least_important(&groups, &importance, &widths)?;
    remove_channels(graph, groups, removed)
}

/// The width nearest to `share` of every group that may lose channels, the wider of two equally near, by
/// group name.
///
/// # Errors
/// A share that is not above 0 and at most 1.
pub fn uniform_widths(
    groups: &Groups,
    share: f64,
    grain: usize,
) -> Result<BTreeMap<String, usize>, CompressError> {
    if !(share > 0.0 && share <= 1.0) {
        return Err(config_error(
            "keep.share",
            &share.to_string(),
            "a number above 0 and at most 1",
        ));
    }
    let nearest = |group: &Group| {
        let wanted = share * group.size() as f64;
        let distance = |width: usize| (width as f64 - wanted).abs();
        let wider_first = group.widths(grain).into_iter().rev();
        wider_first.min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap_or(group.size())
    };
    Ok(groups.prunable().map(|it| (it.name.clone(), nearest(it))).collect())
}

fn check_widths(
    groups: &Groups,
    widths: &BTreeMap<String, usize>,
    grain: usize,
) -> Result<(), CompressError> {
    for (name, width) in widths {
        let group = groups.find(name).ok_or_else(|| no_such_group(groups, name))?;
        let allowed = group.widths(grain);
        if !allowed.contains(width) {
            let reason = group
                .frozen
                .as_ref()
                .map_or_else(String::new, |it| format!(" (it is frozen: {it})"));
            let expected = format!("one of {allowed:?}{reason}");
            return Err(config_error(
                &format!("keep.widths.\"{name}\""),
                &width.to_string(),
                &expected,
            ));
        }
    }
    Ok(())
}

/// The channels that go so that each group named in `widths` keeps that many of its most important ones; of
/// equally important channels the first stay. `importance` is in the order of [`Groups::all`].
///
/// # Errors
/// A group that is not there, is frozen, or has fewer channels than it should keep, or a width of 0.
pub fn least_important(
    groups: &Groups,
    importance: &[Vec<f64>],
    widths: &BTreeMap<String, usize>,
) -> Result<Removed, CompressError> {
    let mut removed = Removed::new();
    for (name, &width) in widths {
        let at = groups
            .all()
            .iter()
            .position(|it| it.name == *name)
            .ok_or_else(|| no_such_group(groups, name))?;
        let group = &groups.all()[at];
        let least = if group.frozen.is_some() { group.size() } else { 1 };
        if width < least || width > group.size() {
            let expected = format!("{least} to {}", group.size());
            return Err(config_error(
                &format!("keep.widths.\"{name}\""),
                &width.to_string(),
                &expected,
            ));
        }
        let of = |i: usize| importance.get(at).and_then(|it| it.get(i)).copied().unwrap_or(0.0);
        let mut order: Vec<usize> = (0..group.size()).collect();
        order.sort_by(|&a, &b| of(b).total_cmp(&of(a)).then(a.cmp(&b)));
        let mut gone = order.split_off(width);
        gone.sort_unstable();
        if !gone.is_empty() {
            removed.insert(name.clone(), gone);
        }
    }
    Ok(removed)
}

/// Takes the channels out of the graph that `groups` were found in.
///
/// # Errors
/// Shapes that do not fit, or a result that is not a valid graph (a fault of ours).
pub fn remove_channels(
    graph: &Graph,
    groups: Groups,
    removed: Removed,
) -> Result<Pruned, CompressError> {
    let mut typed = graph.clone();
    infer(&mut typed)?;
    let kept = Kept::of(&typed, &groups, &removed);
    let graph = remove::remove(&typed, &kept)?;
    Ok(Pruned { graph, groups, removed, kept })
}

fn config_error(key: &str, found: &str, expected: &str) -> CompressError {
    CompressError::Config {
        key: key.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}

fn no_such_group(groups: &Groups, name: &str) -> CompressError {
    let names: Vec<_> = groups.prunable().map(|it| it.name.as_str()).collect();
    config_error("keep.widths", &format!("`{name}`"), &format!("one of the groups {names:?}"))
}

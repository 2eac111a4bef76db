//! Which operators run on the chip, within which limits, and what becomes of the others.

use serde::Serialize;

use crate::error::ChipError;
use crate::figure::Figure;
use crate::reader::Section;
use crate::words::words;

words! {
    /// What happens to an operator that the chip does not run.
    Fallback {
        /// It runs on the host CPU, with a transfer to and fro.
        CpuPerOp = "cpu_per_op",
        /// It and everything after it run on the host CPU.
        CpuSuffix = "cpu_suffix",
        /// The runtime runs it by other means of the same chip.
        Split = "split",
        /// The network is refused.
        Reject = "reject",
    }
}

/// Which operators the chip runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operators {
    /// What happens to the others.
    pub fallback: Fallback,
    /// The operators that run, by their ONNX names. Absent: all.
    pub allow: Option<Vec<String>>,
    /// Operators that do not run although `allow` is absent or names them.
    pub deny: Vec<String>,
    /// The largest batch. Absent: any.
    pub batch_max: Option<Figure<u64>>,
    /// Chains of operators that run as one. Absent: batch normalizations and activations melt into the product before them.
    pub fusions: Option<Vec<Vec<String>>>,
    /// Beyond which sizes an operator does not run. Absent: none.
    pub limits: Vec<Limit>,
}

/// Limits of some operators; an absent one does not bind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// ONNX names, or `DepthwiseConv`; empty: all operators.
    pub ops: Vec<String>,
    /// The only kernel extents that run.
    pub kernels: Vec<u64>,
    /// The largest kernel extent along an axis.
    pub kernel_max: Option<Figure<u64>>,
    /// The largest product of the kernel's extents.
    pub kernel_area_max: Option<Figure<u64>>,
    /// The largest stride along an axis.
    pub stride_max: Option<Figure<u64>>,
    /// The largest dilation along an axis.
    pub dilation_max: Option<Figure<u64>>,
    /// The most channels of an input or output.
    pub channels_max: Option<Figure<u64>>,
    /// The largest extent of any tensor along any axis.
    pub extent_max: Option<Figure<u64>>,
    /// The most axes with an extent above 1.
    pub rank_max: Option<Figure<u64>>,
}

/// What one operator does, for [`Chip::refuses`](crate::Chip::refuses).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpFacts<'a> {
    /// ONNX name, or `DepthwiseConv`.
    pub op: &'a str,
    /// Extents of the kernel; empty where there is none.
    pub kernel: &'a [u64],
    /// Strides; empty where there are none.
    pub strides: &'a [u64],
    /// Dilations; empty where there are none.
    pub dilations: &'a [u64],
    /// Channels of its inputs and outputs.
    pub channels: &'a [u64],
    /// Extents of all its tensors, one list each.
    pub shapes: &'a [Vec<u64>],
}

impl Operators {
    pub(crate) const KEYS: &'static [&'static str] =
        &["fallback", "allow", "deny", "batch_max", "fusions", "limit"];

    pub(crate) fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        let limits = section.sections("limit", Limit::KEYS)?;
        Ok(Self {
            fallback: section.word("fallback")?,
            allow: section.maybe_texts("allow")?,
            deny: section.texts("deny")?,
            batch_max: section.maybe_count("batch_max")?,
            fusions: section.has("fusions").then(|| section.chains("fusions")).transpose()?,
            limits: limits.iter().map(Limit::read).collect::<Result<_, _>>()?,
        })
    }

    /// Whether an operator of this name runs at all.
    pub fn runs(&self, op: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|known| known == op);
        !named(&self.deny) && self.allow.as_deref().is_none_or(named)
    }
}

impl Limit {
    const KEYS: &'static [&'static str] = &[
        "ops",
        "kernels",
        "kernel_max",
        "kernel_area_max",
        "stride_max",
        "dilation_max",
        "channels_max",
        "extent_max",
        "rank_max",
    ];

    fn read(section: &Section<'_>) -> Result<Self, ChipError> {
        Ok(Self {
            ops: section.texts("ops")?,
            kernels: section.counts("kernels")?,
            kernel_max: section.maybe_count("kernel_max")?,
            kernel_area_max: section.maybe_count("kernel_area_max")?,
            stride_max: section.maybe_count("stride_max")?,
            dilation_max: section.maybe_count("dilation_max")?,
            channels_max: section.maybe_count("channels_max")?,
            extent_max: section.maybe_count("extent_max")?,
            rank_max: section.maybe_count("rank_max")?,
        })
    }

    /// Which limit `facts` breaks, as a fragment: `stride 4 above 3`.
    pub(crate) fn broken_by(&self, facts: &OpFacts<'_>) -> Option<String> {
        if !self.ops.is_empty() && !self.ops.iter().any(|op| op == facts.op) {
            return None;
        }
        let odd =
            facts.kernel.iter().find(|it| !self.kernels.is_empty() && !self.kernels.contains(it));
        if let Some(kernel) = odd {
            return Some(format!("kernel extent {kernel} is not one of {:?}", self.kernels));
        }
        let above = |name: &str, found: Option<u64>, most: Option<&Figure<u64>>| {
            let (found, most) = (found?, most?.value);
            (found > most).then(|| format!("{name} {found} above {most}"))
        };
        let largest = |list: &[u64]| list.iter().copied().max();
        let area = facts.kernel.iter().copied().reduce(u64::saturating_mul);
        let extent = facts.shapes.iter().flatten().copied().max();
        let rank = facts.shapes.iter().map(|it| it.iter().filter(|&&e| e > 1).count() as u64).max();
        above("kernel extent", largest(facts.kernel), self.kernel_max.as_ref())
            .or_else(|| above("kernel area", area, self.kernel_area_max.as_ref()))
            .or_else(|| above("stride", largest(facts.strides), self.stride_max.as_ref()))
            .or_else(|| above("dilation", largest(facts.dilations), self.dilation_max.as_ref()))
            .or_else(|| above("channel count", largest(facts.channels), self.channels_max.as_ref()))
            .or_else(|| above("extent", extent, self.extent_max.as_ref()))
            .or_else(|| above("rank", rank, self.rank_max.as_ref()))
    }
}

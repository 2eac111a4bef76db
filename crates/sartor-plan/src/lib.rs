//! Policy: which techniques, at what grain and in what order, for one network, one chip and one limit.
//!
//! This crate chooses recipes and edits no graph itself. Rules and the cost model propose and rank
//! candidates; measurements through a [`Judge`] decide. The same request gives the same plan.
//!
//! The way of a plan ([`plan`]): simplify; ask the chip which arithmetic it has and what binds the network
//! on it; look for channel cuts that reach a step of the chip's array and take those that cost least, as
//! far as the limit allows; quantize to the chip's scheme with the ranges that change the outputs least;
//! keep every combination that holds the limit, fastest first. A step without predicted gain is refused,
//! and so is a network that would be slower than the one that came in.

mod error;
mod judge;
mod price;
mod prune_search;
mod quantize_search;
mod scheme;
mod search;
mod wanted;
mod widths;

pub use error::PlanError;
pub use judge::{Judge, Score};
pub use price::WidthChanges;
pub use scheme::{QuantizationScheme, quantization_scheme};
pub use search::{Candidate, Event, Limits, Plan, PlannedStep, Refusal, Request, plan};
pub use wanted::{WantedScheme, wanted_scheme};
pub use widths::widths_for_share;

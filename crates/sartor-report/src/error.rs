//! The ways in which a record can be refused.

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The text is not JSON, or a key is missing or of another type.
    #[error("report is not a valid record: {0}; write it again with `sartor compress`")]
    Json(#[from] serde_json::Error),
    /// The record was written by another version of the layout.
    #[error(
        "report has schema {found}, expected {expected}; use the version of Sartor that wrote it"
    )]
    Schema {
        /// The number in the file.
        found: u64,
        /// The number that this version reads and writes.
        expected: u64,
    },
    /// JSON has no infinity and no NaN: such a figure would be lost without a word.
    #[error("`{key}` is {value}, expected a finite number; leave out a figure that is not known")]
    NotFinite {
        /// Where it stands, as `nodes_after[3].latency_s`.
        key: String,
        /// What was found.
        value: f64,
    },
}

//! Why there is no prediction.

use std::fmt;

use latlas_shared::MissingOp;
use ops_catalog::{Invalid, OpDigest};
use thiserror::Error;

use crate::interpolate::EstimateError;

/// Why a network has no prediction.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PredictError {
    /// The network is not valid.
    #[error(transparent)]
    Network(#[from] Invalid),
    /// Rows are missing: all of them, each once.
    #[error("{}", MissingRows(.0))]
    Missing(Vec<MissingOp>),
}

struct MissingRows<'a>(&'a [MissingOp]);

impl fmt::Display for MissingRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.len() {
            1 => "a row is missing from the table:",
            _ => "rows are missing from the table:",
        })?;
        self.0.iter().try_for_each(|op| write!(f, "\n  {}  ({})", op.key, op.why))
    }
}

/// Why a table gives no latency of an op at a shape.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum NoLatency {
    /// The table has no row for it.
    #[error("not measured")]
    NotMeasured,
    /// The table has a row without a latency: this hardware cannot run the op.
    #[error("it could not be measured: {reason}")]
    Failed {
        /// The reason in the row.
        reason: String,
    },
    /// The row contradicts its neighbours.
    #[error("its row is suspect: {reason}")]
    Suspect {
        /// The contradiction.
        reason: String,
    },
    /// The row is of another op with the same name.
    #[error(
        "the table has it for another definition of {op}, digest {measured}; this catalog's is {known}"
    )]
    OtherDefinition {
        /// The name of both.
        op: String,
        /// What was measured.
        measured: OpDigest,
        /// The local meaning of the name.
        known: OpDigest,
    },
    /// The table has no row for it, and other rows give no estimate.
    #[error(transparent)]
    NoEstimate(#[from] EstimateError),
    /// The op does not exist at this shape.
    #[error(transparent)]
    Shape(#[from] Invalid),
    /// A packed table is full.
    #[error("a packed table holds {} ops at most", u32::MAX)]
    Full,
}

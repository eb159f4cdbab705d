//! Why the rows of a table give no estimate.

use thiserror::Error;

use super::across::FEWEST_OPS;
use super::hull::OutsideRange;
use crate::regression::{FEWEST_POINTS, FitError};

/// Why the rows of a table give no estimate of an op at a shape.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum EstimateError {
    /// The op does not exist at this shape.
    #[error("not measured, and not possible for this op")]
    Impossible,
    /// The table does not know the op.
    #[error("not measured, and not interpolated: the table has no row of {op}")]
    NoRow {
        /// Its name.
        op: String,
    },
    /// Neither the op's own rows nor those of all ops give an estimate.
    #[error(
        "not measured, and not interpolated: {own}; estimating from other ops failed too: {across}"
    )]
    NothingLearned {
        /// Why the op's own rows give none.
        own: NothingLearned,
        /// Why the rows of all ops together give none.
        across: NothingLearned,
    },
}

/// Why some rows give no estimate of a shape.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum NothingLearned {
    /// Too few rows of one op.
    #[error("that takes {FEWEST_POINTS} rows of {op}, and the table has {rows}")]
    FewRows {
        /// The op's name.
        op: String,
        /// How many rows of it there are.
        rows: usize,
    },
    /// Rows of too few ops.
    #[error("it needs {FEWEST_OPS} ops, and the table has {ops}")]
    FewOps {
        /// How many ops have rows.
        ops: usize,
    },
    /// No function of the shape fits the rows.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A size of the shape was not measured.
    #[error(transparent)]
    Outside(#[from] OutsideRange),
    /// The op does not exist at this shape.
    #[error("this op does not have this shape")]
    NoSuchShape,
    /// The error of the estimate is too large.
    #[error("the estimate could be off by a factor of {factor:.1}, as left-out rows show")]
    TooUncertain {
        /// About 90% of left-out rows were within this factor.
        factor: f64,
    },
}

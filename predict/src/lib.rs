//! Computations that all programs share: statistics, merging of measurements, building of tables, interpolation between
//! rows, and prediction of networks.
//!
//! Everything here is pure.

pub mod accuracy;
mod assemble;
mod index;
mod interpolate;
pub mod merge;
mod neighbours;
mod predictor;
pub mod profile_order;
pub mod regression;
pub mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod two_clock;

pub use assemble::{TableContent, assemble};
pub use index::TableIndex;
pub use interpolate::{EstimateError, NothingLearned, OutsideRange};
pub use predictor::{
    Features, Micros, NoLatency, PackedOp, PackedTable, PartSums, PredictError, Predictor,
    calibration,
};

//! What travels between the agent, the coordinator and the search side, and what all of them
//! compute alike: identities, measurements, tables, statistics and predictions.
//!
//! Everything here is plain data and pure functions, except the HTTP client, which stands behind the
//! feature `client`.

pub mod api;
#[cfg(feature = "client")]
pub mod client;
mod identity;
mod interpolate;
mod measurement;
mod predict;
pub mod regression;
pub mod samples;
pub mod stats;
mod table;
pub mod two_clock;

pub use identity::{
    Allocator, CONFIG_DEFAULT_REUSE_DISTANCE, Device, Dtype, Fingerprint, HardwareId, MemoryFormat,
    RunConfig,
};
pub use measurement::{CurvePoint, Energy, Latency, Measurement, Status, Subject, Telemetry};
pub use predict::{Contribution, Missing, MissingOp, Origin, PredictError, Prediction, Predictor};
pub use table::{Row, TABLE_SCHEMA, Table, TableError, TableIndex};

//! What travels between the agent, the coordinator and the search side, and what all of them
//! compute alike: identities, measurements, tables, statistics and predictions.
//!
//! Everything here is plain data and pure functions, except the HTTP client, which stands behind the
//! feature `client`.

pub mod accuracy;
pub mod api;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod command_line;
mod identity;
mod interpolate;
#[cfg(feature = "log")]
pub mod log;
mod measurement;
pub mod merge;
mod network;
mod predict;
pub mod profile_order;
pub mod regression;
pub mod samples;
pub mod stats;
mod table;
pub mod two_clock;

pub use accuracy::Accuracy;
pub use identity::{
    Allocator, CONFIG_DEFAULT_REUSE_DISTANCE, Device, Dtype, Fingerprint, HardwareId,
    LIBTORCH_EAGER, MemoryFormat, RunConfig,
};
pub use measurement::{
    CurvePoint, Energy, FailureKind, HOST_BOUND_SHARE, Latency, MEASUREMENT_SCHEMA, Measurement,
    Status, Subject, Telemetry,
};
pub use merge::MeasuredNetwork;
pub use network::{NetworkDigest, WholeNetwork};
pub use predict::{
    Calibration, Contribution, Features, Micros, Missing, MissingOp, Origin, PackedOp, PackedTable,
    PredictError, Prediction, Predictor,
};
pub use table::{Row, TABLE_SCHEMA, Table, TableContent, TableError, TableIndex};

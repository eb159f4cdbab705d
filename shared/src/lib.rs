//! What travels between the agent, the coordinator and the search side: identities, measurements, tables and the
//! bodies of calls.
//!
//! Everything here is plain data with its checks. What is computed from it is in the crate `latlas_predict`.

pub mod accuracy;
pub mod api;
mod flat_row;
mod identity;
mod measurement;
mod merged;
mod network;
mod prediction;
pub mod samples;
mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use accuracy::Accuracy;
pub use flat_row::{COLUMNS, FlatRow};
pub use identity::{
    Allocator, CONFIG_DEFAULT_REUSE_DISTANCE, Device, Dtype, Fingerprint, HardwareId,
    LIBTORCH_EAGER, MemoryFormat, RunConfig,
};
pub use measurement::{
    CurvePoint, Energy, FailureKind, HOST_BOUND_SHARE, Latency, MEASUREMENT_SCHEMA, Measurement,
    Status, Subject, Telemetry,
};
pub use merged::{BetweenAgents, MeasuredNetwork};
pub use network::{NetworkDigest, WholeNetwork, is_builtin};
pub use prediction::{
    ASSUMED_ERROR, Calibration, Contribution, Missing, MissingOp, Origin, Prediction,
};
pub use table::{Row, RowStatus, TABLE_SCHEMA, Table, TableError, shown_key};

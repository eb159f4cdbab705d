//! The data that the agent, the coordinator and the search side exchange: identities, measurements, tables and the
//! bodies of calls.
//!
//! Everything here is plain data with its checks. The crate `latlas_predict` computes with it.

pub mod accuracy;
pub mod api;
mod cost;
mod flat_row;
mod identity;
mod latency;
mod measurement;
mod merged;
mod names;
mod network;
mod prediction;
mod run_config;
pub mod samples;
mod sustained;
mod table;
mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod words;

pub use accuracy::Accuracy;
pub use cost::{Costs, NetworkCost, OpCost};
pub use flat_row::{COLUMNS, Cell, ColumnKind, FlatRow};
pub use identity::{Device, Fingerprint, HardwareId, NotADevice, NotAHardwareId};
pub use latency::{CurveError, CurvePoint, Energy, HOST_BOUND_SHARE, Latency};
pub use measurement::{FailureKind, MEASUREMENT_SCHEMA, Measurement, ResultError, Status, Subject};
pub use merged::{BetweenAgents, MeasuredNetwork};
pub use names::UnknownName;
pub use network::{MOST_SUSTAINED_SECONDS, NetworkDigest, WholeNetwork, is_builtin};
pub use prediction::{
    Calibration, Contribution, Missing, MissingOp, Origin, Prediction, Uncertainty,
};
pub use run_config::{
    Allocator, CONFIG_DEFAULT_REUSE_DISTANCE, Dtype, LIBTORCH_EAGER, MemoryFormat, RunConfig,
};
pub use sustained::{Sustained, SustainedOverBurst};
pub use table::{
    NotAVersion, Row, RowStatus, TABLE_SCHEMA, Table, TableError, check_version, shown_key,
};
pub use telemetry::Telemetry;

//! The prediction of a network, and the calibration that it was made with. The crate `latlas_predict` makes both.

use ops_catalog::OpKey;
use serde::{Deserialize, Serialize};

use crate::UnknownName;

/// The standard deviation of a prediction's relative error that is assumed as long as no network was measured.
pub const ASSUMED_ERROR: f64 = 0.04;

/// What happens to an op whose row is missing.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Missing>)]
pub enum Missing {
    /// The prediction fails and lists it.
    #[default]
    Error,
    /// It is estimated from rows of the same op around it; outside the measured range it fails.
    Interpolate,
}

/// Where an op's share of a prediction comes from.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A row of the table.
    Measured,
    /// Rows around it.
    Interpolated,
}

/// One op's share of a prediction. Times are microseconds.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Its place in the network as its author wrote it.
    pub place: String,
    /// Its row.
    pub key: OpKey,
    /// Its latency.
    pub latency_micros: f64,
    /// Lower end of its interval.
    pub low_micros: f64,
    /// Upper end.
    pub high_micros: f64,
    /// On a GPU, the time of the host to issue the op, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_micros: Option<f64>,
    /// On a GPU, what the device needs to run the op, in microseconds; the latency is the larger of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_micros: Option<f64>,
    /// Where the number comes from.
    pub origin: Origin,
}

/// The latency of a network on one class of hardware. Times are microseconds.
///
/// The interval holds the intervals of the ops (95% for a measured row, 90% for an interpolated one), added up
/// as errors that are a little correlated; and, added in squares, what a sum of ops can't know: how far
/// measured networks are from their calibrated predictions, or an assumed 4% (one standard deviation) as
/// long as none was measured.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The estimate: the ops, corrected by the table's calibration.
    pub latency_micros: f64,
    /// Lower end of the interval.
    pub low_micros: f64,
    /// Upper end of the interval.
    pub high_micros: f64,
    /// The ops alone: their sum on a processor, and on a GPU what the two clocks of host and device come
    /// to.
    pub ops_micros: f64,
    /// Merges among the ops: places where branches come together.
    pub merges: u32,
    /// Networks that the calibration was fitted on; 0 for none, and then the estimate is that of the
    /// ops alone.
    pub calibration_networks: u32,
    /// Share of the latency, 0 to 1, that rests on measured rows.
    pub measured_share: f64,
    /// The reuse distance, in bytes, at which the rows' curves were read: the network's footprint.
    pub reuse_distance_bytes: f64,
    /// Multiply-accumulates of the network.
    pub flops: u64,
    /// Its parameters.
    pub params: u64,
    /// Each op's share, in running order.
    pub ops: Vec<Contribution>,
}

/// An op without which there is no prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingOp {
    /// Its row.
    pub key: OpKey,
    /// Why there is no number for it.
    pub why: String,
}

/// A correction of the sum of ops, and how far off it still is.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Factor on the sum of the ops.
    pub scale: f64,
    /// Microseconds for each op.
    pub per_op_micros: f64,
    /// Microseconds for each merge of branches.
    pub per_merge_micros: f64,
    /// Standard deviation of a network's relative error.
    pub relative_error: f64,
    /// Networks that it was fitted on.
    pub networks: u32,
}

impl Default for Calibration {
    /// The plain sum, with the error that is assumed before any network is measured.
    fn default() -> Calibration {
        Calibration {
            scale: 1.0,
            per_op_micros: 0.0,
            per_merge_micros: 0.0,
            relative_error: ASSUMED_ERROR,
            networks: 0,
        }
    }
}

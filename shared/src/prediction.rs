//! The prediction of a network, and the calibration that it was made with. The crate `latlas_predict` makes both.

use ops_catalog::OpKey;
use serde::{Deserialize, Serialize};

use crate::UnknownName;

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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The estimate: the ops, corrected by the table's calibration.
    pub latency_micros: f64,
    /// Lower end of the 95% interval.
    pub low_micros: f64,
    /// Upper end of the 95% interval.
    pub high_micros: f64,
    /// What the width of the interval comes from.
    pub uncertainty: Uncertainty,
    /// The ops alone: their sum on a processor, and on a GPU what the two clocks of host and device come
    /// to.
    pub ops_micros: f64,
    /// Merges among the ops: places where branches come together.
    pub merges: u32,
    /// Networks that the calibration was fitted on. With 0 the calibration is the one of a box that nothing is
    /// known of, and the interval is as wide.
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

/// Independent parts of the relative error of a prediction, as standard deviations. Their squares add up.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Uncertainty {
    /// Errors of the rows, measured or interpolated.
    pub rows: f64,
    /// What is not known of this hardware: the coefficients of the calibration. Measured networks reduce it.
    pub calibration: f64,
    /// What a sum of ops leaves out in any single network.
    pub model: f64,
}

/// An op without which there is no prediction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingOp {
    /// Its row.
    pub key: OpKey,
    /// Why there is no number for it.
    pub why: String,
}

/// How the latency of a whole network follows from its ops on one hardware, learned from networks that were
/// measured there. `latlas_predict` has the model, and fits it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Factor on the sum of the ops.
    pub scale: f64,
    /// MiB that lie between two uses of a weight, beside all weights of the network. Rows are read at the sum of
    /// both.
    pub footprint_mib: f64,
    /// Share of the differences between the ops' medians and their quiet quantiles that a network sees.
    pub unquiet: f64,
    /// Microseconds for each op.
    pub per_op_micros: f64,
    /// Microseconds for each merge of branches.
    pub per_merge_micros: f64,
    /// Covariance of these five, in this order and their units.
    pub covariance: [[f64; Calibration::COEFFICIENTS]; Calibration::COEFFICIENTS],
    /// Factor on the errors of rows and model, found on networks that were left out.
    pub noise: f64,
    /// How many standard deviations of the errors of rows and model a 95% interval reaches to each side. It reaches
    /// 1.96 of those of the coefficients.
    pub reach: f64,
    /// Networks that it was fitted on.
    pub networks: u32,
}

impl Calibration {
    /// Number of coefficients.
    pub const COEFFICIENTS: usize = 5;
}

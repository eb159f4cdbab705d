//! The figures of a table's accuracy: how well it predicts whole networks that were measured on the same hardware. The
//! crate `latlas_predict` computes them.
//!
//! The relative error of a network is `predicted / measured - 1`: positive if the prediction is too high.

use std::collections::BTreeMap;

use ops_catalog::OpKey;
use serde::{Deserialize, Serialize};

use crate::{NetworkDigest, Origin, Status};

/// How well a table predicts.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Over all networks, predicted from the rows alone.
    pub overall: Summary,
    /// Predicted with a calibration that was fitted on few of the networks and is judged by the others.
    pub calibrated: Vec<Calibrated>,
    /// Over the networks of each family.
    pub families: BTreeMap<String, Summary>,
    /// The networks, the worst predicted first and those without a prediction at the end; at most 1000.
    pub networks: Vec<NetworkAccuracy>,
}

/// What a calibration on few networks is worth. The networks, in the order of their digests, are cut
/// into groups of `fitted_on`; each group in turn is fitted on and all others are judged, and the
/// figures are means over the groups.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrated {
    /// Networks that each calibration was fitted on.
    pub fitted_on: u32,
    /// Errors of the networks that it was not fitted on.
    pub summary: Summary,
}

/// Errors of some networks. Null where no network has a prediction.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Networks that were measured.
    pub networks: u32,
    /// Networks among them that the table predicts.
    pub predicted: u32,
    /// Mean of the absolute relative errors.
    pub mape: Option<f64>,
    /// Mean of the signed relative errors.
    pub bias: Option<f64>,
    /// Share of the predicted networks with an error of at most 5%.
    pub within_5: Option<f64>,
    /// Share with an error of at most 10%.
    pub within_10: Option<f64>,
    /// Kendall's tau-b between predicted and measured latencies; null for fewer than two networks.
    pub kendall_tau: Option<f64>,
    /// Share whose measured latency lies inside the predicted interval.
    pub covered: Option<f64>,
    /// Mean of half the width of the interval over the predicted latency.
    pub half_width: Option<f64>,
    /// Mean interval score: the width of the interval, and 40 times how far outside the measured latency lies, both
    /// over the measured latency. Smaller is better.
    pub interval_score: Option<f64>,
}

/// One network, predicted and measured. Times are microseconds.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAccuracy {
    /// Its name, for people.
    pub name: String,
    /// Its digest.
    pub digest: NetworkDigest,
    /// Its family; null when its definition belongs to another version of the catalog.
    pub family: Option<String>,
    /// How far the measured number can be trusted.
    pub status: Status,
    /// What one inference takes.
    pub measured_micros: f64,
    /// Lower end of its 95% interval.
    pub measured_low_micros: f64,
    /// Upper end of it.
    pub measured_high_micros: f64,
    /// The prediction beside it.
    pub prediction: Option<Comparison>,
    /// Why there is no prediction.
    pub unpredicted: Option<String>,
}

/// A prediction compared with the measured latency. Times are microseconds.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The prediction.
    pub predicted_micros: f64,
    /// Lower end of its interval.
    pub low_micros: f64,
    /// Upper end of it.
    pub high_micros: f64,
    /// `predicted / measured - 1`.
    pub error: f64,
    /// Share of the prediction that rests on measured rows.
    pub measured_share: f64,
    /// The ops whose intervals reach furthest towards the measured latency: those that may carry the error.
    pub carriers: Vec<Carrier>,
    /// How much the measured latency lies above (positive) or below (negative) the predicted interval: the
    /// part of the error that no op's interval explains, and that therefore can't be traced to single ops.
    pub unattributed_micros: f64,
}

/// An op of a network, all its places together.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carrier {
    /// Its row.
    pub key: OpKey,
    /// How often the network has it.
    pub count: u32,
    /// Its share of the predicted latency, 0 to 1.
    pub share: f64,
    /// How far its interval reaches towards the measured latency, in microseconds, over all places.
    pub reach_micros: f64,
    /// Where its number comes from.
    pub origin: Origin,
}

//! Merged measurements: the differences between agents, and the ground truth of a network. The crate `latlas_predict`
//! merges them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{CurvePoint, Status, Sustained, WholeNetwork};

/// How the agents behind a number differ.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BetweenAgents {
    /// How far the farthest agent's value lies from the published one, over the published one; those that
    /// disagree included.
    pub spread: f64,
    /// The values, in microseconds, of agents that disagree with most others by more than
    /// 1.3 times, ascending. They are shown here and are no part of the published value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disagreeing_micros: Vec<f64>,
}

/// The merged result of all measurements of a whole network. Predictions are compared with it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredNetwork {
    /// The network.
    pub network: WholeNetwork,
    /// What one inference takes.
    pub latency: CurvePoint,
    /// The latency at both ends of a sustained run: the median ratio of the agents. Absent for a usual network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained: Option<Sustained>,
    /// How far the number can be trusted; never `failed`.
    pub status: Status,
    /// Why the status is not `ok`, and whether measurements are left out since they can't be read.
    pub reason: Option<String>,
    /// Number of agents whose measurements make it up.
    pub agents: u32,
    /// How they differ; null when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between_agents: Option<BetweenAgents>,
    /// When it was last measured.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub measured_at: Timestamp,
}

//! States of agents, decisions about them, and the overview of a farm.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::HardwareId;

/// A decision about an agent.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum AgentState {
    /// It gets work, and its measurements count.
    #[default]
    Active,
    /// It finishes its tasks and stops. Its measurements count.
    Draining,
    /// It only gets canaries. Its measurements are kept, and no table uses them.
    Quarantined,
}

impl AgentState {
    /// The name in JSON and on screens.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The state of an agent: the decision about it, or else whether it runs and is fit.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::Display,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum BoxState {
    /// It gets work.
    Active,
    /// It reports that its box is not fit for work now.
    Unfit,
    /// It has not called for 45 seconds, and did not announce a stop.
    Silent,
    /// It announced that it stops.
    Stopped,
    /// It finishes its tasks and stops.
    Draining,
    /// It is not trusted.
    Quarantined,
}

impl BoxState {
    /// The name in JSON and on screens.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Whether an agent runs, independent of decisions about it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPresence {
    /// It called in the last 45 seconds.
    #[default]
    Present,
    /// It has not called for 45 seconds, and did not announce a stop.
    Silent,
    /// It announced that it stops.
    Stopped,
}

/// The state of an agent, with its reason.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The state.
    pub state: BoxState,
    /// The reason; null for an agent that was always active.
    pub reason: Option<String>,
    /// Since when; for a silent agent, its last call. Null for an agent that was always active.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub since: Option<Timestamp>,
    /// Who decided it: `admin`, or the farm itself by a `canary` or by `failures`; null like the others.
    pub by: Option<String>,
}

/// `PATCH /agents/{id}`, for admins. The answer is the [`super::AgentEntry`].
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentChange {
    /// A new name, unique in the farm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels to set, or with null to remove. Others stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}

/// The agents of the class and run config of a request, none of which takes its tasks now.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unattended {
    /// At most 20 of them. Empty where all were removed.
    pub boxes: Vec<AbsentBox>,
    /// How many more there are.
    pub more: u32,
}

/// An agent that takes no tasks, with its state.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentBox {
    /// The agent's identity.
    pub agent_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its state.
    #[serde(flatten)]
    pub standing: Standing,
}

/// How a request ended before its tasks did.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Who: the label of a token.
    pub by: String,
    /// Its tasks that were not over.
    pub tasks: u32,
}

/// `PUT /agents/{id}/state`, for admins. The answer is the [`super::AgentEntry`].
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateChange {
    /// The new state.
    pub state: AgentState,
    /// The reason. Required for every state except `active`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One run of an agent. It distinguishes two processes with one credential.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Made at random when the process starts.
    pub id: Uuid,
    /// The kernel's random id of this boot; empty where there is none.
    pub boot_id: String,
}

/// A lease, as a list of agents shows it.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentLease {
    /// Its id.
    pub id: Uuid,
    /// Whether it is a canary.
    pub canary: bool,
    /// When it was handed out.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// When it ends unless it is renewed.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub deadline: Timestamp,
    /// Tasks that were handed out with it.
    pub tasks: u32,
    /// Tasks of it that have no result yet; null for a canary, which ends as a whole.
    pub left: Option<u32>,
    /// Visits that the agent reported for it; null before the first report.
    pub visits: Option<u64>,
    /// When that number last changed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub moved_at: Option<Timestamp>,
}

/// One entry of `GET /farm`: a class of device under one run config, with its agents, queue and table.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmEntry {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config.
    pub config: String,
    /// Its agents, by [`BoxState`].
    pub agents: BTreeMap<String, u32>,
    /// Tasks that wait.
    pub queued: u32,
    /// Tasks that an agent works on.
    pub running: u32,
    /// When the oldest request that still waits for something was made.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub oldest_waiting: Option<Timestamp>,
    /// Tasks that were given up.
    pub failed: u32,
    /// The most frequent reasons for that, each with its number of tasks.
    pub failures: BTreeMap<String, u32>,
    /// Rows of its table.
    pub rows: u32,
    /// When its latest row was measured.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub measured_at: Option<Timestamp>,
}

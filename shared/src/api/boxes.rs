//! How far a box is trusted, what it is told, and what the farm looks like at one glance.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::HardwareId;

/// What a box may do.
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
    /// It gets work, and what it measures counts.
    #[default]
    Active,
    /// It finishes what it has and leaves; what it measures counts.
    Draining,
    /// It gets no work but canaries, and what it measures is kept and counts for no table.
    Quarantined,
}

impl AgentState {
    /// The name in JSON and on screens.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What a box is at this moment: what was decided about it, or else whether its agent runs and is fit.
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
    /// Its agent says that the box is not fit for work now.
    Unfit,
    /// Its agent was not heard of for 45 seconds and had not said that it stops.
    Silent,
    /// Its agent has said that it stops.
    Stopped,
    /// It finishes what it has and leaves.
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

/// Whether an agent runs, whatever was decided about its box.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPresence {
    /// It was heard of in the last 45 seconds.
    #[default]
    Present,
    /// It was not, and had not said that it stops.
    Silent,
    /// It has said that it stops.
    Stopped,
}

/// A box's state, and why it is what it is.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The state.
    pub state: BoxState,
    /// Why; null for a box that was active all along.
    pub reason: Option<String>,
    /// Since when: of a silent box, when it was last heard of. Null for a box that was active all along.
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
    /// A new name, which no other box of the farm has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels to set, and with null to take away. Others stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}

/// The boxes that could work on a request, none of which takes its tasks now.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unattended {
    /// The boxes of the class and run config, at most 20. Empty where all of them were removed.
    pub boxes: Vec<AbsentBox>,
    /// How many more there are.
    pub more: u32,
}

/// A box that takes no tasks, and why.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentBox {
    /// The box's identity.
    pub agent_id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is.
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
    /// What it is to be.
    pub state: AgentState,
    /// Why. Needed for every state but `active`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One run of an agent: what tells two processes with one credential apart.
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
    /// Those of them that still want a result; null for a canary, which ends as a whole.
    pub left: Option<u32>,
    /// Visits that its agent has made for it, as it says; null when it has not said.
    pub visits: Option<u64>,
    /// When that number last changed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub moved_at: Option<Timestamp>,
}

/// One entry of `GET /farm`: a class of device under one run config, with its boxes, queue and table.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmEntry {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config.
    pub config: String,
    /// Its boxes, by [`BoxState`].
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

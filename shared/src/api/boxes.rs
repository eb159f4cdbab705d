//! How far a box is trusted, what it is told, and what the farm looks like at one glance.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::HardwareId;

/// What a box may do.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
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
        match self {
            AgentState::Active => "active",
            AgentState::Draining => "draining",
            AgentState::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A box's state, and why it is what it is.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The state.
    pub state: AgentState,
    /// Why; null for a box that was active all along.
    pub reason: Option<String>,
    /// Since when; null for a box that was active all along.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub since: Option<Timestamp>,
    /// Who decided it: `admin`, or the farm itself by a `canary` or by `failures`; null like the others.
    pub by: Option<String>,
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
    /// Its boxes, by state. An active one that was not heard of for five minutes is `silent`.
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

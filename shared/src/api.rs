//! The bodies of the coordinator's HTTP interface. Paths stand at each type; all are under `/v1`.

mod agent;
mod boxes;
mod lists;
mod requests;

use serde::{Deserialize, Serialize};

pub use agent::{
    EnrolRequest, Enrolled, FarmIdentity, Heartbeat, Lease, LeaseAnswer, LeaseCall, LeaseRequest,
    Orders, Renewed, Results, ResultsAnswer, Task, TaskWork,
};
pub use boxes::{
    AbsentBox, AgentChange, AgentLease, AgentPresence, AgentState, BoxState, Cancelled, FarmEntry,
    Instance, Standing, StateChange, Unattended,
};
pub use lists::{AgentEntry, AuditEntry, HardwareEntry, OpAnswer, OpEntry, TableEntry, TokenEntry};
pub use requests::{
    MOST_CALIBRATION_NETWORKS, NetworkChoice, PredictAnswer, PredictRequest, ProfileRequest,
    RequestStatus, STALE, Stale,
};

/// Media type of every error answer.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Kind of the problem that a second process with one agent's credential is told.
pub const AGENT_CLONED: &str = "agent-cloned";

/// An error answer, as in RFC 9457.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Kind of the problem, a relative reference such as `/problems/unknown-hardware`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong in this case, and what to do.
    pub detail: String,
}

/// A page of a list.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What to pass as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

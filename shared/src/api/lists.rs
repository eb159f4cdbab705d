//! Entries of lists.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ops_catalog::{OpDef, OpDigest};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AgentLease, AgentPresence, Stale, Standing};
use crate::HardwareId;

/// Answer to `POST /ops`, whose body is an [`OpDef`].
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpAnswer {
    /// The op's name.
    pub name: String,
    /// Digest of its definition.
    pub digest: OpDigest,
}

/// One entry of `GET /ops`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpEntry {
    /// Digest of the definition.
    pub digest: OpDigest,
    /// Whether it is in the coordinator's built-in catalog.
    pub builtin: bool,
    /// The definition.
    pub definition: OpDef,
}

/// One entry of `GET /hardware`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareEntry {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Its agents.
    pub agents: u32,
    /// Ids of its run configs; the first is its default.
    pub configs: Vec<String>,
}

/// One entry of `GET /agents`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentEntry {
    /// The agent's identity.
    pub agent_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its class.
    pub hardware_id: HardwareId,
    /// Id of the run config that it measures under.
    pub config: String,
    /// When it enrolled.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub enrolled_at: Timestamp,
    /// When it last called.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub seen_at: Timestamp,
    /// Its state.
    #[serde(flatten)]
    pub standing: Standing,
    /// Whether the agent runs: a quarantined agent can be silent, too.
    #[serde(default)]
    pub presence: AgentPresence,
    /// Labels that the host has set.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Why it gets no work now, as its last heartbeat reported; null when it is fit or has not reported.
    pub unfit: Option<String>,
    /// How far its clock was ahead of the coordinator's at its last call, in seconds; null before its first call since
    /// the coordinator was started.
    #[serde(default)]
    pub clock_ahead_seconds: Option<f64>,
    /// When its canary last came in whole; null before.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub canary_at: Option<Timestamp>,
    /// Its current leases.
    pub leases: Vec<AgentLease>,
}

/// One entry of `GET /tables`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableEntry {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config.
    pub config: String,
    /// Its latest version; null while the first one is being put together.
    pub version: Option<String>,
    /// When that came to be.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub created_at: Option<Timestamp>,
    /// Its rows.
    pub rows: u32,
    /// Why this version lacks stored measurements; absent when it has them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
}

/// One entry of `GET /tokens`, and answer to `POST /tokens/{id}/revoke`: a token without its secret.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Its number.
    pub id: i64,
    /// What its holder may do: `enroll`, `researcher`, `admin` or `agent`.
    pub role: String,
    /// What it is for; of an agent's credential, the agent's name.
    pub label: String,
    /// The agent whose credential it is.
    pub agent_id: Option<Uuid>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When it was last used, to the hour; of an agent's credential, when the agent was last heard of.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_used_at: Option<Timestamp>,
    /// When it ends by itself.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub expires_at: Option<Timestamp>,
    /// How many boxes may still be enrolled with it; null where there is no limit.
    pub uses_left: Option<u32>,
    /// When it was revoked.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub revoked_at: Option<Timestamp>,
}

impl TokenEntry {
    /// Whether it is still good, in a word or two: `in force`, `revoked`, `expired` or `used up`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match self {
            TokenEntry { revoked_at: Some(_), .. } => "revoked",
            TokenEntry { expires_at: Some(end), .. } if *end <= now => "expired",
            TokenEntry { uses_left: Some(0), .. } => "used up",
            _ => "in force",
        }
    }
}

/// One entry of `GET /audit`: a change by a person.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, ascending in time.
    pub id: i64,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Who: the label of a token, or `command line`.
    pub who: String,
    /// The number of that token; null at the coordinator's own command line.
    pub token_id: Option<i64>,
    /// What was done, such as `token.revoke`.
    pub action: String,
    /// To what, such as `token 3`.
    pub subject: String,
    /// What else there is to know.
    pub detail: serde_json::Value,
}

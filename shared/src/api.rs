//! The bodies of the coordinator's HTTP interface. Paths stand at each type; all are under `/v1`.

mod boxes;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use ops_catalog::{NetworkSpec, OpDef, OpDigest, OpKey, SpaceDef};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::{
    Fingerprint, HardwareId, Measurement, Missing, Prediction, RunConfig, Subject, Telemetry,
    WholeNetwork,
};

pub use boxes::{
    AbsentBox, AgentChange, AgentLease, AgentPresence, AgentState, BoxState, Cancelled, FarmEntry,
    Instance, Standing, StateChange, Unattended,
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
    /// What is wrong this time, and what to do.
    pub detail: String,
}

/// `POST /agents`, with an enrol token: a box enters the farm.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// A name for people, such as the host's.
    pub name: String,
    /// What the box says of itself.
    pub fingerprint: Fingerprint,
    /// The run config that it measures under.
    pub run_config: RunConfig,
    /// The primitives that it can run, so that a newer catalog does not break an older agent.
    pub primitives: Vec<String>,
    /// Version of the agent.
    pub agent_version: String,
    /// What tells this box from all others, whatever its state directory has become: a box that enrols with
    /// the key of an agent of the same table is that agent. Null where nothing tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub box_key: Option<String>,
    /// The process that enrols; see [`Heartbeat::instance`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
}

/// Answer to [`EnrolRequest`].
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The box's identity in the farm.
    pub agent_id: Uuid,
    /// Its own credential, shown once.
    pub credential: String,
    /// The class of device that its results belong to.
    pub hardware_id: HardwareId,
    /// The farm, whatever its address.
    pub farm_id: Uuid,
}

/// `GET /farm/id`, for everybody: which farm this coordinator is, whatever its address.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmIdentity {
    /// Made at random with the database, and kept in it.
    pub farm_id: Uuid,
}

/// Body of `POST /leases/{id}/renew` and `/release`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseCall {
    /// The process that calls; see [`Heartbeat::instance`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
}

/// `PUT /agents/{id}/heartbeat`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The leases that it works on.
    pub leases: Vec<Uuid>,
    /// The box at this moment.
    pub telemetry: Telemetry,
    /// Visits made so far for the leases above: a number that moves as long as the work does. An
    /// agent that says none is not watched for standing still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visits: Option<u64>,
    /// Why the box should get no work now: too hot, held down, or busy. Null when it is fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
    /// The process that speaks. Without it, two boxes with one credential are not told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// Why this is the last heartbeat, when the agent stops in order. Its leases are then given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
    /// What the box's clock shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub clock: Option<Timestamp>,
}

/// Answer to a heartbeat.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orders {
    /// Leases that are no longer the agent's: drop the work.
    pub cancelled_leases: Vec<Uuid>,
    /// What the agent is to do: work, finish and leave, or wait.
    #[serde(default)]
    pub state: AgentState,
    /// Why, when it is not to work.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /agents/{id}/leases`: a long poll for tasks.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The most tasks that it takes at once.
    pub max_tasks: u32,
    /// How long to wait for one, in seconds.
    pub wait_seconds: u32,
    /// The id that the lease is to have, random: whoever asks with it again, because an answer was lost, gets
    /// the same lease, and can give it back without having seen it. The coordinator chooses one where it is
    /// missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<Uuid>,
    /// The process that asks; see [`Heartbeat::instance`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
}

/// One thing to measure.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The coordinator's number for it.
    pub id: i64,
    /// How often it was asked for anew. A measurement repeats it, so that one of an earlier generation does
    /// not pass for what was asked for now.
    #[serde(default)]
    pub generation: u32,
    /// What to measure.
    pub work: TaskWork,
}

/// What a task asks for.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskWork {
    /// An op at a shape.
    Op {
        /// The row.
        key: OpKey,
        /// Digest of the op's definition.
        digest: OpDigest,
        /// The op's definition: the agent needs no catalog.
        definition: OpDef,
    },
    /// A whole network.
    Network(Box<WholeNetwork>),
}

impl Task {
    /// What a measurement that answers it is about.
    pub fn subject(&self) -> Subject {
        match &self.work {
            TaskWork::Op { key, digest, .. } => {
                Subject::Op { key: key.clone(), digest: digest.clone() }
            }
            TaskWork::Network(network) => Subject::Network(network.clone()),
        }
    }
}

/// The right to work on some tasks until a deadline.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Fencing token.
    pub id: Uuid,
    /// When it ends unless it is renewed.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub deadline: Timestamp,
    /// The tasks.
    pub tasks: Vec<Task>,
}

/// Answer to [`LeaseRequest`]; null when there was no task in time.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// The lease.
    pub lease: Option<Lease>,
}

/// Answer to `POST /leases/{id}/renew`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The new deadline.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub deadline: Timestamp,
}

/// `POST /results`: measurements, acknowledged once they are committed.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// The measurements.
    pub measurements: Vec<Measurement>,
    /// The process that sends them; see [`Heartbeat::instance`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// What the box's clock shows: what tells how far the measurements' times are off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub clock: Option<Timestamp>,
}

/// Answer to [`Results`]. A measurement that is neither new nor known was refused, with a reason.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResultsAnswer {
    /// Stored now.
    pub stored: u32,
    /// Stored before: the same id came again.
    pub known: u32,
    /// Refused, with the reason.
    pub refused: BTreeMap<Uuid, String>,
}

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

/// `POST /requests`: measure these keys and networks on that hardware.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileRequest {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config; the hardware's default when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Name of a built-in space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// A space that is spelled out, possibly with ops of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<SpaceDef>,
    /// Whole networks, to hold predictions against.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkChoice>,
    /// Measure again what has been measured.
    #[serde(default)]
    pub remeasure: bool,
}

/// A network that is asked for: the name of a built-in one, or a definition.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkChoice {
    /// The name of a built-in network.
    Named(String),
    /// A network that is spelled out, of ops that the coordinator knows.
    Defined(Box<NetworkSpec>),
}

#[cfg(feature = "openapi")]
ops_catalog::openapi::either_schema!(
    NetworkChoice,
    String,
    NetworkSpec,
    "The name of a built-in network, or a network that is spelled out."
);

impl Serialize for NetworkChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            NetworkChoice::Named(name) => serializer.serialize_str(name),
            NetworkChoice::Defined(spec) => spec.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NetworkChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = NetworkChoice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network, or the name of a built-in one")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<NetworkChoice, E> {
                Ok(NetworkChoice::Named(name.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NetworkChoice, A::Error> {
                let spec = NetworkSpec::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(NetworkChoice::Defined(Box::new(spec)))
            }
        }
        deserializer.deserialize_any(ChoiceVisitor)
    }
}

/// State of a request: `POST /requests`, `GET /requests/{id}`, and the data of its events.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    /// Its id.
    pub id: Uuid,
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config.
    pub config: String,
    /// Name of the space; null when only networks were asked for.
    pub space: Option<String>,
    /// Whole networks that were asked for.
    pub networks: u32,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// Tasks in all.
    pub total: u32,
    /// Tasks that have a measurement.
    pub done: u32,
    /// Tasks that were given up.
    pub failed: u32,
    /// Tasks that an agent is working on.
    pub running: u32,
    /// Given-up tasks, by key or as `network NAME`, and why; at most 100.
    pub failures: BTreeMap<String, String>,
    /// Null while a box takes its tasks, and once it is over.
    pub unattended: Option<Unattended>,
    /// By whom it was cancelled; null unless it was.
    pub cancelled: Option<Cancelled>,
}

impl RequestStatus {
    /// Whether nothing more will happen to it.
    pub fn is_finished(&self) -> bool {
        self.cancelled.is_some() || self.open() == 0
    }

    /// Tasks that are not over.
    pub fn open(&self) -> u32 {
        self.total.saturating_sub(self.done + self.failed)
    }
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
    /// The box's identity.
    pub agent_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its class.
    pub hardware_id: HardwareId,
    /// Id of the run config that it measures under.
    pub config: String,
    /// When it entered.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub enrolled_at: Timestamp,
    /// When it was last heard of.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub seen_at: Timestamp,
    /// What it is now.
    #[serde(flatten)]
    pub standing: Standing,
    /// Whether its agent runs: a box in quarantine may be silent, too.
    #[serde(default)]
    pub presence: AgentPresence,
    /// What the host has written on it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Why it gets no work now, by its own word; null when it is fit or has not said.
    pub unfit: Option<String>,
    /// How far its clock is ahead of the coordinator's, in seconds, as its last call told; null when it has
    /// not said since the coordinator was started.
    #[serde(default)]
    pub clock_ahead_seconds: Option<f64>,
    /// When its canary last came in whole; null before.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub canary_at: Option<Timestamp>,
    /// What it works on.
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

/// The header of an answer from a version that lacks stored measurements; its value is a [`Stale`].
pub const STALE: &str = "latlas-stale";

/// Why an answer rests on an older version of a table than the measurements that are stored.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stale {
    /// The next version is being put together, and takes longer than readers wait.
    Behind,
    /// The coordinator's disk is full.
    DiskFull,
    /// The coordinator can't write its database.
    DiskTrouble,
    /// The next version could not be put together; the coordinator's log says why.
    Failed,
}

impl Stale {
    /// As it is written in a header.
    pub fn name(self) -> &'static str {
        match self {
            Stale::Behind => "behind",
            Stale::DiskFull => "disk-full",
            Stale::DiskTrouble => "disk-trouble",
            Stale::Failed => "failed",
        }
    }
}

/// `POST /predict`: what a network costs on that hardware.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictRequest {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config; the hardware's default when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The network.
    pub network: NetworkSpec,
    /// What happens to an op whose row is missing.
    #[serde(default)]
    pub missing: Missing,
}

/// Answer to [`PredictRequest`].
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictAnswer {
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Id of the run config.
    pub config: String,
    /// The table version that it was predicted from.
    pub version: String,
    /// Why this version lacks stored measurements; absent when it has them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// The prediction.
    pub prediction: Prediction,
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

/// One entry of `GET /audit`: what somebody changed.
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

/// A page of a list.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What to pass as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

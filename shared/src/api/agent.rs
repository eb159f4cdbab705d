//! Calls of agents: enrolment, heartbeats, leases and results.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ops_catalog::{OpDef, OpDigest, OpKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AgentState, Instance};
use crate::{Fingerprint, HardwareId, Measurement, RunConfig, Subject, Telemetry, WholeNetwork};

/// `POST /agents`, with an enrol token: enrols an agent.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// A name for people, such as the host's.
    pub name: String,
    /// The facts about the box.
    pub fingerprint: Fingerprint,
    /// The run config that it measures under.
    pub run_config: RunConfig,
    /// The primitives that it can run, so that a newer catalog does not break an older agent.
    pub primitives: Vec<String>,
    /// Version of the agent.
    pub agent_version: String,
    /// A key that identifies this box even after the loss of its state directory: a box that enrols with the key of an
    /// agent of the same table is that agent. Null where the box has no such key.
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
    /// The agent's identity in the farm.
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
    /// Visits made so far for the leases above. The number grows as long as the work goes on. An agent that reports
    /// none is not checked for a hang.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visits: Option<u64>,
    /// Why the box should get no work now: too hot, held down, or busy. Null when it is fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
    /// The process that calls. It distinguishes two processes with one credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// Why this is the last heartbeat, when the agent stops in order. Its leases are then given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
    /// The time on the box's clock.
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
    /// A random id for the lease. A retry with the same id, after a lost answer, gets the same lease. The agent can
    /// give the lease back without having seen it. The coordinator chooses an id where it is missing.
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
    /// How often it was requested again. A measurement repeats the number, so that a measurement of an earlier
    /// generation does not answer the task.
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

    /// Whether it is a sustained run, which takes its box for minutes.
    pub fn is_sustained(&self) -> bool {
        matches!(&self.work, TaskWork::Network(network) if network.is_sustained())
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
    /// The time on the box's clock, which shows the offset of the measurements' times.
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

//! Measurements before they reach the database: what each is about, and whether it is admitted.

use std::collections::HashMap;

use jiff::Timestamp;
use latlas_shared::{FailureKind, Measurement, Status, Subject, WholeNetwork, samples};
use uuid::Uuid;

use super::table::TableId;
use super::to_json;
use crate::chain::Chain;
use crate::op_book::{OpBook, OpId};
use crate::rules::admission::{EnrolledClass, NotAdmitted, check_measurement};
use crate::rules::{canary, plausible};

/// Received measurements.
#[derive(Debug, Clone, Default)]
pub struct Incoming {
    /// Readable measurements.
    pub measurements: Vec<Measurement>,
    /// Unreadable measurements.
    pub unreadable: Vec<Refusal>,
    /// The box's clock at the time of sending, if reported.
    pub clock: Option<Timestamp>,
}

/// A refused measurement.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its id.
    pub id: Uuid,
    /// The task that it answers, by its own statement.
    pub task: Option<i64>,
    /// Why it is refused.
    pub reason: String,
}

/// Known facts about an agent's class of device, and the tables of its run configs.
pub(super) struct Class {
    pub known: EnrolledClass,
    pub tables: HashMap<String, TableId>,
}

/// The subject of an admitted measurement.
pub(super) enum About {
    Row(OpId, String),
    Network(Box<WholeNetwork>),
}

/// An admitted measurement, in its stored form.
pub(super) struct Admitted {
    pub id: Uuid,
    pub table: TableId,
    pub about: About,
    pub fingerprint: String,
    pub status: Status,
    pub reason: Option<String>,
    pub failure: FailureKind,
    pub finished_at: Timestamp,
    /// The measurement without its samples, as JSON.
    pub text: String,
    /// As gzip.
    pub samples: Option<Vec<u8>>,
    /// The task that it answers, and the task's generation, by its own statement.
    pub task: Option<i64>,
    pub generation: Option<u32>,
    /// Whether it is only evidence about its agent, and enters no row.
    pub canary: bool,
    /// Why its number is physically impossible.
    pub impossible: Option<String>,
}

impl Admitted {
    pub fn has_number(&self) -> bool {
        self.status != Status::Failed
    }
}

/// Checks a measurement, and converts it to its stored form.
pub(super) fn check(
    measurement: Measurement,
    class: &Class,
    ops: &OpBook,
) -> Result<Admitted, Refusal> {
    let (id, task) = (measurement.id, measurement.task);
    as_stored(measurement, class, ops).map_err(|error| Refusal {
        id,
        task,
        reason: Chain(&error).to_string(),
    })
}

fn as_stored(
    mut measurement: Measurement,
    class: &Class,
    ops: &OpBook,
) -> Result<Admitted, NotAdmitted> {
    let (table, about) = admit(&measurement, class, ops)?;
    let samples = measurement.samples.take().map(|text| samples::bytes(&text)).transpose();
    let samples = samples.map_err(|error| NotAdmitted::Samples(Chain(&error).to_string()))?;
    let text = to_json(&measurement);
    let reason = measurement.reason.clone();
    let words = || FailureKind::from_words(reason.as_deref().unwrap_or_default());
    let failure = measurement.failure_kind.unwrap_or_else(words);
    let op = match &measurement.subject {
        Subject::Op { digest, .. } => ops.by_digest(digest).map(|entry| entry.op.as_ref()),
        Subject::Network(_) => None,
    };
    Ok(Admitted {
        id: measurement.id,
        table,
        about,
        status: measurement.status,
        failure,
        finished_at: measurement.finished_at,
        text,
        samples,
        task: measurement.task,
        generation: measurement.task_generation,
        canary: canary::is_canary(measurement.task),
        impossible: plausible::suspect(&measurement, op),
        fingerprint: measurement.fingerprint,
        reason,
    })
}

/// Checks a measurement, and finds its table and its subject.
fn admit(
    measurement: &Measurement,
    class: &Class,
    ops: &OpBook,
) -> Result<(TableId, About), NotAdmitted> {
    let entry = match &measurement.subject {
        Subject::Op { digest, .. } => ops.by_digest(digest),
        Subject::Network(_) => None,
    };
    check_measurement(measurement, &class.known, entry.map(|entry| entry.op.as_ref()))?;
    let config = measurement.run_config.id();
    let Some(&table) = class.tables.get(&config) else {
        let hardware_id = class.known.hardware_id.clone();
        return Err(NotAdmitted::Config { hardware_id, config });
    };
    let about = match &measurement.subject {
        Subject::Op { key, digest } => {
            let (digest, name) = (digest.clone(), key.op.clone());
            let entry = entry.ok_or(NotAdmitted::UnknownOp { digest, name })?;
            About::Row(entry.id, key.to_string())
        }
        Subject::Network(network) => About::Network(network.clone()),
    };
    Ok((table, about))
}

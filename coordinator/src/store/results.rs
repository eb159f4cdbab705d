//! Results coming in: facts are stored, and what follows from them is brought up to date, in one
//! transaction.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use latlas_shared::api::{AgentState, ResultsAnswer};
use latlas_shared::{Measurement, Subject};
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::rows::{self, Place, What};
use super::{Agent, Store, StoreError, TableId, boxes, canaries, micros, networks, tasks, to_json};
use crate::admission::{Known, check_measurement};
use crate::op_book::OpId;
use crate::{canary, plausible};

/// Measurements as they came.
#[derive(Debug, Clone, Default)]
pub struct Incoming {
    /// Those that could be read.
    pub measurements: Vec<Measurement>,
    /// Those that could not.
    pub unreadable: Vec<Refusal>,
}

/// A measurement that is not taken.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its id.
    pub id: Uuid,
    /// The task that it answers, as it says.
    pub task: Option<i64>,
    /// Why it is not taken.
    pub reason: String,
}

/// What a measurement counts for, decided when it comes in and for good.
struct Trust {
    /// It tells of its box, and makes no row.
    canary: bool,
    /// Why it counts for nothing.
    set_aside: Option<String>,
}

/// What is known of an agent's class of device, and the tables of its run configs.
struct Class {
    known: Known,
    tables: HashMap<String, TableId>,
}

impl Store {
    /// Takes measurements in. Those that came before change nothing; those that are refused don't keep the
    /// others out. When it returns, what it counts as stored is on the disk.
    ///
    /// # Errors
    /// When the store fails; then nothing was stored.
    pub async fn add_results(
        &self,
        agent: &Agent,
        incoming: Incoming,
        now: Timestamp,
    ) -> Result<ResultsAnswer, StoreError> {
        let mut answer = ResultsAnswer::default();
        let mut touched: BTreeSet<Place> = BTreeSet::new();
        let mut refusals = incoming.unreadable;
        let mut tx = self.begin().await?;
        let class = class_of(&mut tx, agent).await?;
        let trusted = boxes::state(&mut tx, agent).await? != AgentState::Quarantined;
        let mut canaries = false;
        for measurement in incoming.measurements {
            if is_known(&mut tx, &measurement).await? {
                answer.known += 1;
                continue;
            }
            match self.admit(&class, &measurement, now) {
                Ok((table, op)) => {
                    let what = what(&mut tx, &measurement.subject, op, now).await?;
                    let place = Place { table, what };
                    let trust = self.trust(&measurement, trusted);
                    insert(&mut tx, agent, &measurement, &place, &trust, now).await?;
                    canaries |= trust.canary;
                    answer.stored += 1;
                    if let Some(reason) = trust.set_aside.filter(|_| trusted) {
                        self.count_attempt(&mut tx, agent, measurement.task, &reason).await?;
                    } else if trusted && !trust.canary {
                        settle_task(&mut tx, &place, &measurement).await?;
                        touched.insert(place);
                    }
                }
                Err(reason) => {
                    let Measurement { id, task, .. } = measurement;
                    refusals.push(Refusal { id, task, reason });
                }
            }
        }
        for Refusal { id, task, reason } in refusals {
            tracing::warn!(agent = %agent.uuid, %id, reason, "a measurement was refused");
            self.count_attempt(&mut tx, agent, task, &reason).await?;
            if canary::is_canary(task) {
                let why = format!("its canary was refused: {reason}");
                canaries::distrust(&mut tx, agent, why, now).await?;
            }
            answer.refused.insert(id, reason);
        }
        let changed = canaries && self.judge_canary(&mut tx, agent, now).await?;
        rows::refresh(&mut tx, &touched).await?;
        if answer.stored > 0 {
            seen(&mut tx, agent, now).await?;
        }
        tx.commit().await?;
        if changed || !answer.refused.is_empty() {
            self.announce_work();
        }
        self.announce_progress();
        Ok(answer)
    }

    /// What a measurement that is let in counts for.
    fn trust(&self, measurement: &Measurement, trusted: bool) -> Trust {
        let ops = self.ops();
        let op = match &measurement.subject {
            Subject::Op { digest, .. } => ops.by_digest(digest).map(|entry| entry.op.as_ref()),
            Subject::Network(_) => None,
        };
        let set_aside = match trusted {
            true => plausible::suspect(measurement, op),
            false => Some("its box was in quarantine".to_owned()),
        };
        Trust { canary: canary::is_canary(measurement.task), set_aside }
    }

    /// Counts an attempt on the task that a refused measurement answers, if this agent holds it.
    async fn count_attempt(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        agent: &Agent,
        task: Option<i64>,
        why: &str,
    ) -> Result<(), StoreError> {
        let Some(id) = task else { return Ok(()) };
        let Some((task, lease)) = tasks::held_by(tx, id, agent.id).await? else { return Ok(()) };
        let after = task.progress.refused(lease, &agent.name, why, self.policy());
        tasks::write(tx, id, &after).await
    }

    /// Checks a measurement, and finds its table and op.
    fn admit(
        &self,
        class: &Class,
        measurement: &Measurement,
        now: Timestamp,
    ) -> Result<(TableId, Option<OpId>), String> {
        let ops = self.ops();
        let entry = match &measurement.subject {
            Subject::Op { digest, .. } => ops.by_digest(digest),
            Subject::Network(_) => None,
        };
        let op = entry.map(|entry| entry.op.as_ref());
        check_measurement(measurement, &class.known, op, now)?;
        let table = class.tables.get(&measurement.run_config.id());
        let table = *table.ok_or("its run config is not known")?;
        Ok((table, entry.map(|entry| entry.id)))
    }
}

async fn class_of(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
) -> Result<Class, StoreError> {
    let hardware_id = agent.table.hardware_id.clone();
    let tables: Vec<(String, i64)> =
        sqlx::query_as("SELECT config_id, id FROM tables WHERE hardware_id = ?1")
            .bind(hardware_id.as_str())
            .fetch_all(&mut **tx)
            .await?;
    let fingerprints: Vec<String> =
        sqlx::query_scalar("SELECT digest FROM fingerprints WHERE hardware_id = ?1")
            .bind(hardware_id.as_str())
            .fetch_all(&mut **tx)
            .await?;
    let tables: HashMap<String, TableId> =
        tables.into_iter().map(|(config, id)| (config, TableId(id))).collect();
    let configs: HashSet<String> = tables.keys().cloned().collect();
    let fingerprints = fingerprints.into_iter().collect();
    Ok(Class { known: Known { hardware_id, fingerprints, configs }, tables })
}

async fn is_known(
    tx: &mut Transaction<'static, Sqlite>,
    measurement: &Measurement,
) -> Result<bool, StoreError> {
    let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM measurements WHERE uuid = ?1")
        .bind(measurement.id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(known.is_some())
}

/// What an admitted measurement is about. `op` is the op of a row.
async fn what(
    tx: &mut Transaction<'static, Sqlite>,
    subject: &Subject,
    op: Option<OpId>,
    now: Timestamp,
) -> Result<What, StoreError> {
    match (subject, op) {
        (Subject::Op { key, .. }, Some(op)) => Ok(What::Row { op, key: key.to_string() }),
        (Subject::Op { key, .. }, None) => Err(StoreError::damaged("no op", key)),
        (Subject::Network(network), _) => {
            Ok(What::Network(networks::find_or_add(tx, network, now).await?))
        }
    }
}

async fn insert(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
    measurement: &Measurement,
    place: &Place,
    trust: &Trust,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (op, key, network) = match &place.what {
        What::Row { op, key } => (Some(op.0), Some(key), None),
        What::Network(network) => (None, None, Some(network.0)),
    };
    let without_samples = Measurement { samples: None, ..measurement.clone() };
    sqlx::query(
        "INSERT INTO measurements
            (uuid, table_id, agent_id, op_id, key, fingerprint, status, finished_at, received_at,
             measurement, samples, network_id, canary, set_aside)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )
    .bind(measurement.id.to_string())
    .bind(place.table.0)
    .bind(agent.id)
    .bind(op)
    .bind(key)
    .bind(&measurement.fingerprint)
    .bind(measurement.status.name())
    .bind(micros(measurement.finished_at))
    .bind(micros(now))
    .bind(to_json(&without_samples))
    .bind(&measurement.samples)
    .bind(network)
    .bind(trust.canary)
    .bind(&trust.set_aside)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A result settles the task of its key or network, whoever works on that now.
async fn settle_task(
    tx: &mut Transaction<'static, Sqlite>,
    place: &Place,
    measurement: &Measurement,
) -> Result<(), StoreError> {
    let Some(task) = tasks::of_place(tx, place).await? else {
        return Ok(());
    };
    let after = task.progress.clone().measured(measurement.status, measurement.reason.as_deref());
    if after != task.progress {
        tasks::write(tx, task.id, &after).await?;
    }
    Ok(())
}

async fn seen(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE agents SET seen_at = max(seen_at, ?1) WHERE id = ?2")
        .bind(micros(now))
        .bind(agent.id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

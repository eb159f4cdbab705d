//! Stored tasks: the rules of [`crate::rules::lease`], applied.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::types::Text;
use uuid::Uuid;

use super::db::Tx;
use super::effects::Effects;
use super::rows::{self, Place};
use super::{StoreError, TableId, to_json};
use crate::rules::task::{Progress, State};

/// A task that is read for a change.
#[derive(Debug, Clone)]
pub(super) struct StoredTask {
    pub id: i64,
    /// How often it was requested again.
    pub generation: u32,
    pub progress: Progress,
}

type Columns = (i64, i64, String, i64, Option<String>, Option<Text<Uuid>>);

fn stored(
    (id, generation, state, attempts, reason, lease): Columns,
) -> Result<StoredTask, StoreError> {
    let state = match (state.as_str(), lease) {
        ("queued", None) => State::Queued,
        ("leased", Some(Text(lease))) => State::Leased(lease),
        ("done", None) => State::Done,
        ("failed", None) => State::Failed,
        (other, _) => return Err(StoreError::damaged("a task's state", other)),
    };
    let attempts = super::count(attempts);
    let generation = super::count(generation);
    Ok(StoredTask { id, generation, progress: Progress { state, attempts, reason } })
}

/// The requested tasks of keys and networks.
pub(super) async fn of_places(
    tx: &mut Tx,
    places: &BTreeSet<Place>,
) -> Result<BTreeMap<Place, StoredTask>, StoreError> {
    let places: Vec<&Place> = places.iter().collect();
    type Found = (i64, i64, i64, String, i64, Option<String>, Option<Text<Uuid>>);
    let found: Vec<Found> = sqlx::query_as(
        "SELECT place.key, tasks.id, generation, state, attempts, reason, lease_id
         FROM json_each(?1) AS place CROSS JOIN tasks
         ON table_id = place.value ->> 0 AND op_id = place.value ->> 1
            AND tasks.key = place.value ->> 2
         UNION ALL
         SELECT place.key, tasks.id, generation, state, attempts, reason, lease_id
         FROM json_each(?1) AS place CROSS JOIN tasks
         ON table_id = place.value ->> 0 AND network_id = place.value ->> 3",
    )
    .bind(rows::as_json(&places))
    .fetch_all(&mut **tx)
    .await?;
    found
        .into_iter()
        .map(|(place, id, generation, state, attempts, reason, lease)| {
            let place = rows::nth(&places, place)?.clone();
            Ok((place, stored((id, generation, state, attempts, reason, lease))?))
        })
        .collect()
}

/// A task and its lease, if the lease is this agent's.
pub(super) async fn held_by(
    tx: &mut Tx,
    id: i64,
    agent: i64,
) -> Result<Option<(StoredTask, Uuid)>, StoreError> {
    let found: Option<Columns> = sqlx::query_as(
        "SELECT tasks.id, generation, state, attempts, reason, lease_id
         FROM tasks JOIN leases ON leases.id = lease_id WHERE tasks.id = ?1 AND agent_id = ?2",
    )
    .bind(id)
    .bind(agent)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(task) = found.map(stored).transpose()? else { return Ok(None) };
    match task.progress.state {
        State::Leased(lease) => Ok(Some((task, lease))),
        State::Queued | State::Done | State::Failed => Ok(None),
    }
}

/// The tasks under leases (?1, a JSON array).
pub(super) const OF_LEASES: &str = "
    SELECT tasks.id, generation, state, attempts, reason, lease_id
    FROM json_each(?1) AS ended CROSS JOIN tasks ON lease_id = ended.value";

/// The tasks under some leases, each with its lease.
pub(super) async fn of_leases(
    tx: &mut Tx,
    leases: &[Uuid],
) -> Result<Vec<(StoredTask, Uuid)>, StoreError> {
    let found: Vec<Columns> =
        sqlx::query_as(OF_LEASES).bind(to_json(&leases)).fetch_all(&mut **tx).await?;
    let mut held = Vec::with_capacity(found.len());
    for task in found {
        let task = stored(task)?;
        if let State::Leased(lease) = task.progress.state {
            held.push((task, lease));
        }
    }
    Ok(held)
}

/// Writes the new state of a task, and updates the requests that wait for it.
pub(super) async fn write(
    tx: &mut Tx,
    id: i64,
    progress: &Progress,
) -> Result<Effects, StoreError> {
    write_all(tx, &BTreeMap::from([(id, progress.clone())])).await
}

/// Writes the new states of tasks, and updates the requests that wait for them.
pub(super) async fn write_all(
    tx: &mut Tx,
    tasks: &BTreeMap<i64, Progress>,
) -> Result<Effects, StoreError> {
    let (mut written, mut settled) = (Vec::with_capacity(tasks.len()), Vec::new());
    for (id, progress) in tasks {
        let (state, lease) = match progress.state {
            State::Queued => ("queued", None),
            State::Leased(lease) => ("leased", Some(lease.to_string())),
            State::Done => ("done", None),
            State::Failed => ("failed", None),
        };
        written.push((id, state, progress.attempts, &progress.reason, lease));
        match progress.state {
            State::Queued | State::Leased(_) => {}
            State::Done => settled.push((id, state, &None)),
            State::Failed => settled.push((id, state, &progress.reason)),
        }
    }
    if written.is_empty() {
        return Ok(Effects::none());
    }
    let queued: Vec<Option<i64>> = sqlx::query_scalar(
        "UPDATE tasks SET state = task.value ->> 1, attempts = task.value ->> 2,
                          reason = task.value ->> 3, lease_id = task.value ->> 4
         FROM json_each(?1) AS task WHERE tasks.id = task.value ->> 0
         RETURNING CASE state WHEN 'queued' THEN table_id END",
    )
    .bind(to_json(&written))
    .fetch_all(&mut **tx)
    .await?;
    let effects = Effects::work(queued.into_iter().flatten().map(TableId)).and(Effects::progress());
    if settled.is_empty() {
        return Ok(effects);
    }
    // A late number also corrects requests that have recorded a failure; a failure changes no
    // outcome.
    sqlx::query(
        "UPDATE request_tasks SET outcome = task.value ->> 1, reason = task.value ->> 2
         FROM json_each(?1) AS task
         WHERE task_id = task.value ->> 0
           AND (outcome IS NULL OR (task.value ->> 1 = 'done' AND outcome <> 'done'))",
    )
    .bind(to_json(&settled))
    .execute(&mut **tx)
    .await?;
    Ok(effects)
}

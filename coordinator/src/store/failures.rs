//! Failures through faults of a box. The task goes to another agent, and an agent that fails what others measure is
//! quarantined. The rules are in [`crate::rules::failures`] and [`crate::rules::task`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::agent_state::FAILURES;
use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::{Agent, Store, StoreError, TableId, agents, canaries, count, to_json};
use crate::rules::failures::{self, Record};
use crate::rules::presence::SILENT_AFTER;

/// Whether the agent `other` of `agents` can run the task `task` of `tasks`, and has not failed it.
macro_rules! could_try {
    () => {
        "NOT EXISTS (
             SELECT 1 FROM op_primitives WHERE op_id = task.op_id AND primitive NOT IN (
                 SELECT value FROM json_each(other.primitives)))
         AND NOT EXISTS (
             SELECT 1 FROM network_primitives WHERE network_id = task.network_id AND primitive NOT IN (
                 SELECT value FROM json_each(other.primitives)))
         AND NOT EXISTS (
             SELECT 1 FROM box_failures WHERE task_id = task.id AND agent_id = other.id
                AND generation = task.generation)"
    };
}
pub(super) use could_try;

/// A task that an agent failed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub task: i64,
    /// A failure kind in its serialized form, or `refused`.
    pub kind: &'static str,
    pub reason: String,
}

impl Store {
    /// The other active agents of the agent's class that are not silent, as a JSON array.
    pub(super) async fn others_alive(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let active: Vec<(i64, StoredTime)> = sqlx::query_as(
            "SELECT id, seen_at FROM agents
             WHERE table_id = ?1 AND state = 'active' AND id <> ?2 AND removed_at IS NULL AND stopped_at IS NULL",
        )
        .bind(agent.table.id.0)
        .bind(agent.id)
        .fetch_all(&mut **tx)
        .await?;
        let mut alive = Vec::with_capacity(active.len());
        for (id, seen_at) in active {
            if now.duration_since(self.last_heard(id, seen_at.0)) < SILENT_AFTER {
                alive.push(id);
            }
        }
        Ok(to_json(&alive))
    }

    /// The other agents that may try tasks that this agent has failed, as a JSON array; none if no failed task of this
    /// agent is queued.
    pub(super) async fn others_for(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let has_failed: bool = sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT 1 FROM box_failures JOIN tasks ON tasks.id = task_id
                 WHERE agent_id = ?1 AND state = 'queued'
                   AND box_failures.generation = tasks.generation)",
        )
        .bind(agent.id)
        .fetch_one(&mut **tx)
        .await?;
        match has_failed {
            true => Ok(Some(self.others_alive(tx, agent, now).await?)),
            false => Ok(None),
        }
    }

    /// The tasks among these that another agent could try: one that is alive and has not failed them.
    pub(super) async fn with_another_agent(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        tasks: &BTreeSet<i64>,
        now: Timestamp,
    ) -> Result<BTreeSet<i64>, StoreError> {
        if tasks.is_empty() {
            return Ok(BTreeSet::new());
        }
        let alive = self.others_alive(tx, agent, now).await?;
        let found: Vec<i64> = sqlx::query_scalar(concat!(
            "SELECT task.id FROM json_each(?1) AS wanted CROSS JOIN tasks AS task ON task.id = wanted.value
             WHERE EXISTS (
                 SELECT 1 FROM json_each(?2) AS alive CROSS JOIN agents AS other ON other.id = alive.value
                 WHERE ",
            could_try!(),
            ")"
        ))
        .bind(to_json(tasks))
        .bind(alive)
        .fetch_all(&mut **tx)
        .await?;
        Ok(found.into_iter().collect())
    }

    /// Records the outcomes of some tasks for an agent, and quarantines agents that fail what others measure.
    /// `measured` are the tasks that got a number. `numbers` says whether any number arrived that counts.
    pub(super) async fn weigh(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        measured: &BTreeSet<i64>,
        numbers: bool,
        failed: &[Failed],
        now: Timestamp,
    ) -> Result<Effects, StoreError> {
        if numbers {
            note_numbers(tx, agent, measured, now).await?;
        }
        if !failed.is_empty() {
            note_failures(tx, agent, failed, now).await?;
        }
        let mut effects = Effects::none();
        for suspect in suspects(tx, agent.table.id, measured).await? {
            let record = record(tx, agent.table.id, suspect, now).await?;
            if let Some(reason) = failures::distrusted(&record) {
                let suspect = agents::agent(tx, suspect).await?;
                effects =
                    effects.and(canaries::distrust(tx, &suspect, reason, FAILURES, now).await?);
            }
        }
        Ok(effects)
    }
}

async fn note_numbers(
    tx: &mut Tx,
    agent: &Agent,
    measured: &BTreeSet<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE agents SET number_at = ?1, failures_in_row = 0, failing_since = NULL WHERE id = ?2",
    )
    .bind(StoredTime(now))
    .bind(agent.id)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "DELETE FROM box_failures
         WHERE task_id IN (SELECT value FROM json_each(?1)) AND agent_id = ?2",
    )
    .bind(to_json(measured))
    .bind(agent.id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn note_failures(
    tx: &mut Tx,
    agent: &Agent,
    failed: &[Failed],
    now: Timestamp,
) -> Result<(), StoreError> {
    let failed: BTreeMap<i64, &Failed> =
        failed.iter().map(|failed| (failed.task, failed)).collect();
    let columns: Vec<(i64, &str, &str)> =
        failed.values().map(|failed| (failed.task, failed.kind, failed.reason.as_str())).collect();
    sqlx::query(
        "INSERT INTO box_failures (task_id, agent_id, generation, at, kind, reason)
         SELECT tasks.id, ?2, generation, ?3, failed.value ->> 1, failed.value ->> 2
         FROM json_each(?1) AS failed CROSS JOIN tasks ON tasks.id = failed.value ->> 0 WHERE true
         ON CONFLICT (task_id, agent_id) DO UPDATE SET
             generation = excluded.generation, at = excluded.at, kind = excluded.kind,
             reason = excluded.reason",
    )
    .bind(to_json(&columns))
    .bind(agent.id)
    .bind(StoredTime(now))
    .execute(&mut **tx)
    .await?;
    // Failures that no longer count and no longer keep a task from the agent.
    sqlx::query(
        "DELETE FROM box_failures WHERE agent_id = ?1 AND at <= ?2 AND NOT EXISTS (
             SELECT 1 FROM tasks WHERE tasks.id = task_id AND state IN ('queued', 'leased')
                AND tasks.generation = box_failures.generation)",
    )
    .bind(agent.id)
    .bind(window_start(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "UPDATE agents SET failures_in_row = failures_in_row + ?1, failing_since = coalesce(failing_since, ?2)
         WHERE id = ?3",
    )
    .bind(i64::try_from(columns.len()).unwrap_or(i64::MAX))
    .bind(StoredTime(now))
    .bind(agent.id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The active agents that have failed one of these tasks, which now have a number, and the active agents of the table
/// that have recently sent only failures.
async fn suspects(
    tx: &mut Tx,
    table: TableId,
    measured: &BTreeSet<i64>,
) -> Result<Vec<i64>, StoreError> {
    let found = sqlx::query_scalar(
        "SELECT id FROM agents
         WHERE id IN (SELECT agent_id FROM box_failures
                      WHERE task_id IN (SELECT value FROM json_each(?1)))
           AND state = 'active'
         UNION
         SELECT id FROM agents
         WHERE table_id = ?2 AND failing_since IS NOT NULL AND state = 'active'",
    )
    .bind(to_json(measured))
    .bind(table.0)
    .fetch_all(&mut **tx)
    .await?;
    Ok(found)
}

/// Earlier failures count against no agent.
fn window_start(now: Timestamp) -> StoredTime {
    StoredTime(now.checked_sub(failures::WINDOW).unwrap_or(Timestamp::MIN))
}

async fn record(
    tx: &mut Tx,
    table: TableId,
    suspect: i64,
    now: Timestamp,
) -> Result<Record, StoreError> {
    // A state has a reason, and earlier failures were already considered for it.
    let refuted: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM box_failures JOIN tasks ON tasks.id = task_id
         WHERE agent_id = ?1 AND at > ?2 AND kind <> 'out_of_memory' AND state = 'done'
           AND box_failures.generation = tasks.generation
           AND at > coalesce((SELECT state_since FROM agents WHERE id = ?1), 0)",
    )
    .bind(suspect)
    .bind(window_start(now))
    .fetch_one(&mut **tx)
    .await?;
    let (in_a_row, others): (i64, i64) = sqlx::query_as(
        "SELECT failures_in_row,
                (SELECT count(*) FROM agents AS other
                 WHERE other.table_id = ?2 AND other.id <> suspect.id AND other.state = 'active'
                   AND other.number_at >= suspect.failing_since)
         FROM agents AS suspect WHERE id = ?1",
    )
    .bind(suspect)
    .bind(table.0)
    .fetch_one(&mut **tx)
    .await?;
    let last = sqlx::query_as(
        "SELECT coalesce(key, 'a network'), box_failures.reason
         FROM box_failures JOIN tasks ON tasks.id = task_id
         WHERE agent_id = ?1 ORDER BY at DESC, task_id DESC LIMIT 1",
    )
    .bind(suspect)
    .fetch_optional(&mut **tx)
    .await?;
    Ok(Record { refuted: count(refuted), in_a_row: count(in_a_row), others: count(others), last })
}

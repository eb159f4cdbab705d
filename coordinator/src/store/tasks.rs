//! Tasks as they are stored: the rules of [`crate::lease`], applied.

use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::StoreError;
use super::rows::{Place, What};
use crate::lease::{Progress, State};

/// A task that is read to be changed.
#[derive(Debug)]
pub(super) struct Stored {
    pub id: i64,
    pub progress: Progress,
}

type Columns = (i64, String, i64, Option<String>, Option<String>);

fn stored((id, state, attempts, reason, lease): Columns) -> Result<Stored, StoreError> {
    let state = match (state.as_str(), lease) {
        ("queued", None) => State::Queued,
        ("leased", Some(lease)) => State::Leased(
            Uuid::parse_str(&lease).map_err(|e| StoreError::damaged("a lease's id", e))?,
        ),
        ("done", None) => State::Done,
        ("failed", None) => State::Failed,
        (other, _) => return Err(StoreError::damaged("a task's state", other)),
    };
    let attempts = super::count(attempts);
    Ok(Stored { id, progress: Progress { state, attempts, reason } })
}

/// The task of a key or a network, if somebody has asked for it.
pub(super) async fn of_place(
    tx: &mut Transaction<'static, Sqlite>,
    place: &Place,
) -> Result<Option<Stored>, StoreError> {
    let query = match &place.what {
        What::Row { op, key } => sqlx::query_as(
            "SELECT id, state, attempts, reason, lease_id FROM tasks
             WHERE table_id = ?1 AND op_id = ?2 AND key = ?3",
        )
        .bind(place.table.0)
        .bind(op.0)
        .bind(key),
        What::Network(network) => sqlx::query_as(
            "SELECT id, state, attempts, reason, lease_id FROM tasks
             WHERE table_id = ?1 AND network_id = ?2",
        )
        .bind(place.table.0)
        .bind(network.0),
    };
    let found: Option<Columns> = query.fetch_optional(&mut **tx).await?;
    found.map(stored).transpose()
}

/// A task and its lease, if it stands under one of this agent.
pub(super) async fn held_by(
    tx: &mut Transaction<'static, Sqlite>,
    id: i64,
    agent: i64,
) -> Result<Option<(Stored, Uuid)>, StoreError> {
    let found: Option<Columns> = sqlx::query_as(
        "SELECT tasks.id, state, attempts, reason, lease_id
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

/// The tasks that stand under a lease.
pub(super) async fn of_lease(
    tx: &mut Transaction<'static, Sqlite>,
    lease: Uuid,
) -> Result<Vec<Stored>, StoreError> {
    let found: Vec<Columns> = sqlx::query_as(
        "SELECT id, state, attempts, reason, lease_id FROM tasks WHERE lease_id = ?1 ORDER BY id",
    )
    .bind(lease.to_string())
    .fetch_all(&mut **tx)
    .await?;
    found.into_iter().map(stored).collect()
}

/// Writes what a task has become, and tells the requests that wait for it.
pub(super) async fn write(
    tx: &mut Transaction<'static, Sqlite>,
    id: i64,
    progress: &Progress,
) -> Result<(), StoreError> {
    let (state, lease) = match progress.state {
        State::Queued => ("queued", None),
        State::Leased(lease) => ("leased", Some(lease.to_string())),
        State::Done => ("done", None),
        State::Failed => ("failed", None),
    };
    sqlx::query(
        "UPDATE tasks SET state = ?1, attempts = ?2, reason = ?3, lease_id = ?4 WHERE id = ?5",
    )
    .bind(state)
    .bind(progress.attempts)
    .bind(&progress.reason)
    .bind(lease)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    match progress.state {
        State::Queued | State::Leased(_) => {}
        // A late number also mends requests that were told of a failure.
        State::Done => {
            sqlx::query(
                "UPDATE request_tasks SET outcome = 'done', reason = NULL
                 WHERE task_id = ?1 AND outcome IS NOT 'done'",
            )
            .bind(id)
            .execute(&mut **tx)
            .await?;
        }
        State::Failed => {
            sqlx::query(
                "UPDATE request_tasks SET outcome = 'failed', reason = ?2
                 WHERE task_id = ?1 AND outcome IS NULL",
            )
            .bind(id)
            .bind(&progress.reason)
            .execute(&mut **tx)
            .await?;
        }
    }
    Ok(())
}

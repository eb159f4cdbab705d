//! Cancelled requests.

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::RequestStatus;
use serde_json::json;
use sqlx::types::Text;
use uuid::Uuid;

use super::audit::{Actor, audit};
use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::error::Retryable;
use super::{Store, StoreError, leases, requests, to_json};

/// Why a request was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is no such request.
    #[error("there is no such request")]
    Missing,
    /// Another user made it.
    #[error("the request is somebody else's")]
    NotYours,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CancelError {
    fn from(error: sqlx::Error) -> CancelError {
        CancelError::Store(error.into())
    }
}

impl Retryable for CancelError {
    fn is_retryable(&self) -> bool {
        matches!(self, CancelError::Store(error) if error.is_retryable())
    }
}

impl Store {
    /// Cancels a request. Tasks that no other request waits for leave the queue, and leases on such tasks end.
    /// Measurements stay. A request that is finished or cancelled stays as it is. Returns the request's new status.
    /// `anybodys` says whether the actor may cancel the requests of others.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub async fn cancel_request(
        &self,
        request: Uuid,
        actor: &Actor,
        anybodys: bool,
        now: Timestamp,
    ) -> Result<RequestStatus, CancelError> {
        self.db
            .change_alone(actor.clone(), move |actor, tx| {
                cancel(tx, request, actor, anybodys, now).boxed()
            })
            .await
    }
}

async fn cancel(
    tx: &mut Tx,
    request: Uuid,
    actor: &Actor,
    anybodys: bool,
    now: Timestamp,
) -> Result<(RequestStatus, Effects), CancelError> {
    let found: Option<(i64, Option<i64>)> =
        sqlx::query_as("SELECT id, token_id FROM requests WHERE uuid = ?1")
            .bind(Text(request))
            .fetch_optional(&mut **tx)
            .await?;
    let Some((id, asked_by)) = found else { return Err(CancelError::Missing) };
    let (token, who) = match actor {
        Actor::CommandLine => (None, "command line"),
        Actor::Token { id, label } => (Some(*id), label.as_str()),
    };
    if !anybodys && (token.is_none() || asked_by != token) {
        return Err(CancelError::NotYours);
    }
    let before = requests::status(tx, id).await?;
    if before.is_finished() {
        return Ok((before, Effects::none()));
    }
    let effects = end_leases(tx, id).await?;
    let dropped = drop_tasks(tx, id).await?;
    sqlx::query(
        "UPDATE requests SET cancelled_at = ?1, cancelled_by = ?2, cancelled_tasks = ?3 WHERE id = ?4",
    )
    .bind(StoredTime(now))
    .bind(who)
    .bind(before.open())
    .bind(id)
    .execute(&mut **tx)
    .await?;
    let detail = json!({"tasks": before.open(), "dropped": dropped, "done": before.done});
    audit(tx, actor, "request.cancel", &format!("request {request}"), &detail, now).await?;
    let after = requests::status(tx, id).await?;
    Ok((after, effects.and(Effects::progress())))
}

/// The tasks that only this request waits for.
const ONLY_ITS_OWN: &str = "SELECT own.task_id FROM request_tasks AS own
     WHERE own.request_id = ?1 AND own.outcome IS NULL AND NOT EXISTS (
         SELECT 1 FROM request_tasks AS other
         WHERE other.task_id = own.task_id AND other.request_id <> ?1 AND other.outcome IS NULL)";

/// Ends the leases on tasks that no request waits for any more. Their agents learn it with their next heartbeat.
async fn end_leases(tx: &mut Tx, request: i64) -> Result<Effects, StoreError> {
    let sql = format!(
        "SELECT DISTINCT lease_id FROM tasks WHERE lease_id IS NOT NULL AND id IN ({ONLY_ITS_OWN})"
    );
    let held: Vec<Text<Uuid>> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(request).fetch_all(&mut **tx).await?;
    let held: Vec<Uuid> = held.into_iter().map(Text::into_inner).collect();
    leases::give_back(tx, &held).await
}

/// Removes the tasks that no request waits for any more from the queue; returns their number. A task that was finished
/// for an earlier request gets that outcome again.
async fn drop_tasks(tx: &mut Tx, request: i64) -> Result<usize, StoreError> {
    let tasks: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(ONLY_ITS_OWN))
        .bind(request)
        .fetch_all(&mut **tx)
        .await?;
    sqlx::query("DELETE FROM request_tasks WHERE request_id = ?1 AND outcome IS NULL")
        .bind(request)
        .execute(&mut **tx)
        .await?;
    let unwanted = to_json(&tasks);
    sqlx::query(
        "UPDATE tasks SET state = latest.outcome, reason = latest.reason, attempts = 0
         FROM (SELECT task_id, outcome, reason, max(request_id) FROM request_tasks
               WHERE task_id IN (SELECT value FROM json_each(?1)) AND outcome IS NOT NULL
               GROUP BY task_id) AS latest
         WHERE tasks.id = latest.task_id",
    )
    .bind(&unwanted)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "DELETE FROM tasks WHERE id IN (SELECT value FROM json_each(?1))
         AND NOT EXISTS (SELECT 1 FROM request_tasks WHERE task_id = tasks.id)",
    )
    .bind(&unwanted)
    .execute(&mut **tx)
    .await?;
    Ok(tasks.len())
}

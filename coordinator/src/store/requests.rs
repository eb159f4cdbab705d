//! Requests: what is to be measured, and the progress.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::{Cancelled, RequestStatus};
use latlas_shared::{HardwareId, WholeNetwork};
use ops_catalog::{OpDef, OpDigest, OpKey};
use serde_json::json;
use sqlx::types::Text;
use uuid::Uuid;

use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::error::Retryable;
use super::networks::{self, NetworkId};
use super::ops::{SubmitError, submit};
use super::{Actor, Store, StoreError, TableRef, audit::audit, count, to_json};
use crate::op_book::OpBook;

/// The most failures that a status lists.
const MOST_FAILURES: i64 = 100;

/// Tasks of requests (?1, a JSON array) by outcome.
pub(super) const COUNTS: &str = "
    SELECT request_id, count(*), count(*) FILTER (WHERE outcome = 'done'),
           count(*) FILTER (WHERE outcome = 'failed')
    FROM request_tasks WHERE request_id IN (SELECT value FROM json_each(?1)) GROUP BY request_id";

/// Tasks of requests that are leased to an agent.
pub(super) const RUNNING: &str = "
    SELECT request_id, count(*)
    FROM tasks INDEXED BY tasks_by_state
        CROSS JOIN request_tasks ON task_id = tasks.id AND outcome IS NULL
    WHERE table_id IN (SELECT table_id FROM requests
                       WHERE requests.id IN (SELECT value FROM json_each(?1)))
      AND state = 'leased' AND +request_id IN (SELECT value FROM json_each(?1))
    GROUP BY request_id";

/// A request whose space was expanded and checked.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// The table to measure for.
    pub table: TableRef,
    /// Name of the space, if there is one.
    pub space: Option<String>,
    /// Ops that are defined in the request.
    pub ops: Vec<OpDef>,
    /// Its keys, each once.
    pub keys: Vec<(OpKey, OpDigest)>,
    /// Whole networks, each once.
    pub networks: Vec<WholeNetwork>,
    /// Sustained runs of some of these networks.
    pub sustained: Vec<WholeNetwork>,
    /// Whether to measure again what was measured or given up.
    pub remeasure: bool,
    /// The client's key for this request.
    pub idempotency_key: Option<String>,
    /// Hash of the body that the client sent.
    pub body_hash: String,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// One of its ops was refused.
    #[error(transparent)]
    Op(#[from] SubmitError),
    /// No enrolled agent of the table can run these ops and networks.
    #[error("no agent can run {0:?}")]
    Unsupported(Vec<String>),
    /// The idempotency key was used before, with another body.
    #[error("the idempotency key was used for another request")]
    KeyReused,
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> RequestError {
        RequestError::Op(SubmitError::Store(error))
    }
}

impl From<sqlx::Error> for RequestError {
    fn from(error: sqlx::Error) -> RequestError {
        StoreError::from(error).into()
    }
}

impl Retryable for RequestError {
    fn is_retryable(&self) -> bool {
        matches!(self, RequestError::Op(error) if error.is_retryable())
    }
}

impl Store {
    /// Adds a request, and returns its id and whether it is new: it is not new if its idempotency key is known. Keys
    /// and networks that are already requested are not queued twice.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn add_request(
        &self,
        request: NewRequest,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(Uuid, bool), RequestError> {
        let data = (self.clone(), request, actor.clone());
        self.db
            .change_alone(data, move |(store, request, actor), tx| {
                async move {
                    let effects = Effects::work([request.table.id]).and(Effects::progress());
                    if let Some(known) = same_request(tx, request).await? {
                        // Nothing has changed, but the caller of a repeated call expects its effect.
                        return Ok(((known, false), effects));
                    }
                    let (uuid, book) = add(tx, request, store.ops(), actor, now).await?;
                    Ok(((uuid, true), effects.and(Effects::ops(book))))
                }
                .boxed()
            })
            .await
    }

    /// The status of a request; none if there is no such request.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_status(
        &self,
        uuid: Uuid,
        now: Timestamp,
    ) -> Result<Option<RequestStatus>, StoreError> {
        let mut tx = self.db.read().await?;
        let id: Option<i64> = sqlx::query_scalar("SELECT id FROM requests WHERE uuid = ?1")
            .bind(Text(uuid))
            .fetch_optional(&mut *tx)
            .await?;
        match id {
            Some(id) => {
                let status = status(&mut tx, id).await?;
                Ok(Some(self.with_attendance(&mut tx, status, now).await?))
            }
            None => Ok(None),
        }
    }
}

/// Stores a new request, and returns the ops that are known with it.
async fn add(
    tx: &mut Tx,
    request: &NewRequest,
    mut book: Arc<OpBook>,
    actor: &Actor,
    now: Timestamp,
) -> Result<(Uuid, Arc<OpBook>), RequestError> {
    for def in &request.ops {
        (book, _) = submit(tx, &book, def, actor, now).await?;
    }
    let keys = numbered_keys(&book, &request.keys)?;
    let networks = numbered_networks(tx, &request.networks, now).await?;
    let sustained = numbered_networks(tx, &request.sustained, now).await?;
    let mut unsupported = unsupported_ops(tx, &request.table, &keys).await?;
    unsupported.extend(unsupported_networks(tx, &request.table, &networks).await?);
    if !unsupported.is_empty() {
        return Err(RequestError::Unsupported(unsupported));
    }
    let wanted = TasksWanted {
        keys: to_json(&keys),
        networks: to_json(&networks),
        sustained: to_json(&sustained),
    };
    let uuid = insert(tx, request, &wanted, now).await?;
    note_requester(tx, uuid, actor).await?;
    let detail = json!({
        "hardware_id": request.table.hardware_id, "config": request.table.run_config.id(),
        "space": request.space, "keys": keys.len(), "networks": networks.len(),
        "sustained": sustained.len(), "remeasure": request.remeasure,
    });
    audit(tx, actor, "request.create", &format!("request {uuid}"), &detail, now).await?;
    Ok((uuid, book))
}

/// Notes the author of a request, who may cancel it.
async fn note_requester(tx: &mut Tx, request: Uuid, actor: &Actor) -> Result<(), StoreError> {
    let Actor::Token { id, .. } = actor else { return Ok(()) };
    sqlx::query("UPDATE requests SET token_id = ?1 WHERE uuid = ?2")
        .bind(id)
        .bind(Text(request))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn same_request(tx: &mut Tx, request: &NewRequest) -> Result<Option<Uuid>, RequestError> {
    let Some(key) = &request.idempotency_key else { return Ok(None) };
    let known: Option<(Text<Uuid>, String)> =
        sqlx::query_as("SELECT uuid, body_hash FROM requests WHERE idempotency_key = ?1")
            .bind(key)
            .fetch_optional(&mut **tx)
            .await?;
    match known {
        None => Ok(None),
        Some((Text(uuid), hash)) if hash == request.body_hash => Ok(Some(uuid)),
        Some(_) => Err(RequestError::KeyReused),
    }
}

/// The tasks of a request in the form for SQL, each kind as one JSON array: a space may have many keys.
struct TasksWanted {
    /// Of `[op id, key]`.
    keys: String,
    /// Of ids.
    networks: String,
    /// Of ids.
    sustained: String,
}

/// The numbers of networks. New ones are stored.
async fn numbered_networks(
    tx: &mut Tx,
    networks: &[WholeNetwork],
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let mut numbers = Vec::with_capacity(networks.len());
    for network in networks {
        let NetworkId(id) = networks::find_or_add(tx, network, now).await?;
        numbers.push(id);
    }
    Ok(numbers)
}

/// Keys with the numbers of their ops, in the form for SQL.
fn numbered_keys(
    book: &OpBook,
    keys: &[(OpKey, OpDigest)],
) -> Result<Vec<(i64, String)>, StoreError> {
    keys.iter()
        .map(|(key, digest)| {
            let entry = book
                .by_digest(digest)
                .ok_or_else(|| StoreError::damaged("the catalog", format!("no op for {key}")))?;
            Ok((entry.id.0, key.to_string()))
        })
        .collect()
}

/// The ops that no agent of the table can run.
async fn unsupported_ops(
    tx: &mut Tx,
    table: &TableRef,
    keys: &[(i64, String)],
) -> Result<Vec<String>, StoreError> {
    let ops: BTreeSet<i64> = keys.iter().map(|(op, _)| *op).collect();
    let names = sqlx::query_scalar(
        "SELECT name FROM ops
         WHERE id IN (SELECT value FROM json_each(?1)) AND NOT EXISTS (
             SELECT 1 FROM agents WHERE table_id = ?2 AND NOT EXISTS (
                 SELECT 1 FROM op_primitives WHERE op_id = ops.id AND primitive NOT IN (
                     SELECT value FROM json_each(agents.primitives))))
         ORDER BY name",
    )
    .bind(to_json(&ops))
    .bind(table.id.0)
    .fetch_all(&mut **tx)
    .await?;
    Ok(names)
}

/// The networks that no agent of the table can run.
async fn unsupported_networks(
    tx: &mut Tx,
    table: &TableRef,
    networks: &[i64],
) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(
        "SELECT 'network ' || coalesce(name, substr(digest, 1, 17)) FROM networks
         WHERE id IN (SELECT value FROM json_each(?1)) AND NOT EXISTS (
             SELECT 1 FROM agents WHERE table_id = ?2 AND NOT EXISTS (
                 SELECT 1 FROM network_primitives
                 WHERE network_id = networks.id AND primitive NOT IN (
                     SELECT value FROM json_each(agents.primitives))))
         ORDER BY name, digest",
    )
    .bind(to_json(&networks))
    .bind(table.id.0)
    .fetch_all(&mut **tx)
    .await?;
    Ok(names)
}

/// Each array is passed in one statement. `CROSS JOIN` makes SQLite iterate over the keys and look up tasks, not the
/// reverse.
async fn insert(
    tx: &mut Tx,
    request: &NewRequest,
    wanted: &TasksWanted,
    now: Timestamp,
) -> Result<Uuid, StoreError> {
    let uuid = Uuid::new_v4();
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO requests
            (uuid, table_id, space, idempotency_key, body_hash, created_at, networks)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
    )
    .bind(Text(uuid))
    .bind(request.table.id.0)
    .bind(request.space.as_deref().unwrap_or_default())
    .bind(&request.idempotency_key)
    .bind(&request.body_hash)
    .bind(StoredTime(now))
    .bind(u32::try_from(request.networks.len()).unwrap_or(u32::MAX))
    .fetch_one(&mut **tx)
    .await?;
    insert_tasks(tx, id, &request.table, wanted).await?;
    if request.remeasure {
        // The rule of `Progress::requeued`, for many tasks at once. Earlier measurements answer none of them.
        sqlx::query(
            "UPDATE tasks SET state = 'queued', attempts = 0, reason = NULL, generation = generation + 1
             WHERE state IN ('done', 'failed')
               AND id IN (SELECT task_id FROM request_tasks WHERE request_id = ?1)",
        )
        .bind(id)
        .execute(&mut **tx)
        .await?;
    }
    // Tasks that are already finished are finished for this request too.
    sqlx::query(
        "UPDATE request_tasks SET outcome = tasks.state, reason = tasks.reason
         FROM tasks WHERE tasks.id = task_id AND request_id = ?1 AND tasks.state IN ('done', 'failed')",
    )
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(uuid)
}

/// The tasks of a request: existing ones, and new ones.
async fn insert_tasks(
    tx: &mut Tx,
    request: i64,
    table: &TableRef,
    TasksWanted { keys, networks, sustained }: &TasksWanted,
) -> Result<(), StoreError> {
    // Networks come first: the agent measures them together with the first rows, and the table is calibrated after
    // minutes. Sustained runs come last, because each takes a box for minutes.
    insert_network_tasks(tx, table, networks).await?;
    sqlx::query(
        "INSERT INTO tasks (table_id, op_id, key)
         SELECT ?1, wanted.value ->> 0, wanted.value ->> 1 FROM json_each(?2) AS wanted WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(table.id.0)
    .bind(keys)
    .execute(&mut **tx)
    .await?;
    insert_network_tasks(tx, table, sustained).await?;
    sqlx::query(
        "INSERT INTO request_tasks (request_id, task_id)
         SELECT ?1, tasks.id FROM json_each(?2) AS wanted CROSS JOIN tasks
         ON table_id = ?3 AND op_id = wanted.value ->> 0 AND tasks.key = wanted.value ->> 1",
    )
    .bind(request)
    .bind(keys)
    .bind(table.id.0)
    .execute(&mut **tx)
    .await?;
    for networks in [networks, sustained] {
        sqlx::query(
            "INSERT INTO request_tasks (request_id, task_id)
             SELECT ?1, tasks.id FROM json_each(?2) AS wanted CROSS JOIN tasks
             ON table_id = ?3 AND network_id = wanted.value",
        )
        .bind(request)
        .bind(networks)
        .bind(table.id.0)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// The tasks of networks (a JSON array of ids) that do not exist yet.
async fn insert_network_tasks(
    tx: &mut Tx,
    table: &TableRef,
    networks: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tasks (table_id, network_id)
         SELECT ?1, value FROM json_each(?2) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(table.id.0)
    .bind(networks)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The status of an existing request.
pub(super) async fn status(tx: &mut Tx, id: i64) -> Result<RequestStatus, StoreError> {
    let found = statuses(tx, &[id]).await?.pop();
    found.ok_or_else(|| StoreError::damaged("a request", "it is gone"))
}

#[derive(sqlx::FromRow)]
struct RequestColumns {
    id: i64,
    uuid: Text<Uuid>,
    hardware_id: Text<HardwareId>,
    config_id: String,
    space: Option<String>,
    networks: i64,
    created_at: StoredTime,
    cancelled_at: Option<StoredTime>,
    cancelled_by: Option<String>,
    /// Number of its tasks that were dropped by the cancellation.
    cancelled_tasks: i64,
}

/// The statuses of requests, in the order of their numbers. The number of queries does not depend on the number of
/// requests.
pub(super) async fn statuses(tx: &mut Tx, ids: &[i64]) -> Result<Vec<RequestStatus>, StoreError> {
    let ids = to_json(&ids);
    let requests: Vec<RequestColumns> = sqlx::query_as(
        "SELECT requests.id, uuid, hardware_id, config_id, nullif(space, '') AS space, networks, requests.created_at,
                cancelled_at, cancelled_by, cancelled_tasks
         FROM json_each(?1) AS wanted CROSS JOIN requests ON requests.id = wanted.value
         JOIN tables ON tables.id = table_id
         ORDER BY wanted.key",
    )
    .bind(&ids)
    .fetch_all(&mut **tx)
    .await?;
    let mut counts = counts(tx, &ids).await?;
    let mut running = running(tx, &ids).await?;
    let mut failures = failures(tx, &ids).await?;
    let status = |request: RequestColumns| {
        let id = request.id;
        let (total, done, failed) = counts.remove(&id).unwrap_or_default();
        let left = request.cancelled_tasks;
        let cancelled = request.cancelled_at.zip(request.cancelled_by);
        RequestStatus {
            id: request.uuid.0,
            hardware_id: request.hardware_id.0,
            config: request.config_id,
            space: request.space,
            networks: count(request.networks),
            created_at: request.created_at.0,
            total: count(total + left),
            done: count(done),
            failed: count(failed),
            running: count(running.remove(&id).unwrap_or_default()),
            failures: failures.remove(&id).unwrap_or_default(),
            unattended: None,
            cancelled: cancelled.map(|(at, by)| Cancelled { at: at.0, by, tasks: count(left) }),
        }
    };
    Ok(requests.into_iter().map(status).collect())
}

/// The tasks of each request: all, done and failed. `ids` is a JSON array.
async fn counts(tx: &mut Tx, ids: &str) -> Result<HashMap<i64, (i64, i64, i64)>, StoreError> {
    let found: Vec<(i64, i64, i64, i64)> =
        sqlx::query_as(COUNTS).bind(ids).fetch_all(&mut **tx).await?;
    Ok(found.into_iter().map(|(id, all, done, failed)| (id, (all, done, failed))).collect())
}

/// The tasks of each request that an agent is working on. These are few among the tasks of a farm, so the query
/// iterates over them (the `+` keeps SQLite from looking each of them up under each request).
async fn running(tx: &mut Tx, ids: &str) -> Result<HashMap<i64, i64>, StoreError> {
    let found: Vec<(i64, i64)> = sqlx::query_as(RUNNING).bind(ids).fetch_all(&mut **tx).await?;
    Ok(found.into_iter().collect())
}

/// The first failures of each request, by key or network, and why.
async fn failures(
    tx: &mut Tx,
    ids: &str,
) -> Result<HashMap<i64, BTreeMap<String, String>>, StoreError> {
    let found: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT request_id, coalesce(key, 'network ' || coalesce(name, substr(digest, 1, 17))),
                coalesce(failed.reason, '')
         FROM (SELECT request_id, task_id, reason, row_number() OVER (
                   PARTITION BY request_id ORDER BY task_id) AS place
               FROM request_tasks
               WHERE request_id IN (SELECT value FROM json_each(?1)) AND outcome = 'failed') AS failed
         JOIN tasks ON tasks.id = task_id LEFT JOIN networks ON networks.id = network_id
         WHERE place <= ?2",
    )
    .bind(ids)
    .bind(MOST_FAILURES)
    .fetch_all(&mut **tx)
    .await?;
    let mut failures: HashMap<i64, BTreeMap<String, String>> = HashMap::new();
    for (id, what, why) in found {
        failures.entry(id).or_default().insert(what, why);
    }
    Ok(failures)
}

//! Requests: what somebody wants measured, and how far that is.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use latlas_shared::WholeNetwork;
use latlas_shared::api::RequestStatus;
use ops_catalog::{OpDef, OpDigest, OpKey};
use serde_json::json;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::networks::{self, NetworkId};
use super::ops::{SubmitError, submit};
use super::{Actor, Store, StoreError, TableRef, audit::audit, count, micros, time, to_json};
use crate::op_book::OpBook;

/// The most failures that a status lists.
const MOST_FAILURES: i64 = 100;

/// A request whose space was spelled out and checked.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Where to measure.
    pub table: TableRef,
    /// Name of the space, if there is one.
    pub space: Option<String>,
    /// Ops that come with it.
    pub ops: Vec<OpDef>,
    /// Its keys, each once.
    pub keys: Vec<(OpKey, OpDigest)>,
    /// Whole networks, each once.
    pub networks: Vec<WholeNetwork>,
    /// Whether to measure again what has been measured or given up.
    pub remeasure: bool,
    /// The client's key for this request.
    pub idempotency_key: Option<String>,
    /// Hash of the body that the client sent.
    pub body_hash: String,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// One of its ops was not.
    #[error(transparent)]
    Op(#[from] SubmitError),
    /// No enrolled agent of the table can run these ops and networks.
    #[error("no agent can run {0:?}")]
    Unsupported(Vec<String>),
    /// The idempotency key came before, with another body.
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

impl Store {
    /// Takes a request in, and gives its id and whether it is new: it is not when its idempotency key
    /// came before. Keys and networks that were asked for before are not queued twice.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn add_request(
        &self,
        request: NewRequest,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(Uuid, bool), RequestError> {
        let turn = self.submitting().await;
        let mut tx = self.begin().await?;
        if let Some(known) = same_request(&mut tx, &request).await? {
            return Ok((known, false));
        }
        let mut book = self.ops();
        for def in &request.ops {
            (book, _) = submit(&mut tx, &book, def.clone(), actor, now).await?;
        }
        let keys = numbered_keys(&book, &request.keys)?;
        let mut networks = Vec::with_capacity(request.networks.len());
        for network in &request.networks {
            let NetworkId(id) = networks::find_or_add(&mut tx, network, now).await?;
            networks.push(id);
        }
        let mut unsupported = unsupported_ops(&mut tx, &request.table, &keys).await?;
        unsupported.extend(unsupported_networks(&mut tx, &request.table, &networks).await?);
        if !unsupported.is_empty() {
            return Err(RequestError::Unsupported(unsupported));
        }
        let uuid = insert(&mut tx, &request, &to_json(&keys), &to_json(&networks), now).await?;
        let detail = json!({
            "hardware_id": request.table.hardware_id, "config": request.table.run_config.id(),
            "space": request.space, "keys": keys.len(), "networks": networks.len(),
            "remeasure": request.remeasure,
        });
        audit(&mut tx, actor, "request.create", &format!("request {uuid}"), &detail, now).await?;
        self.commit_with_ops(tx, book, turn).await?;
        self.announce_work();
        self.announce_progress();
        Ok((uuid, true))
    }

    /// How far a request is; none when there is no such request.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_status(&self, uuid: Uuid) -> Result<Option<RequestStatus>, StoreError> {
        let mut tx = self.readers.begin().await?;
        let id: Option<i64> = sqlx::query_scalar("SELECT id FROM requests WHERE uuid = ?1")
            .bind(uuid.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        match id {
            Some(id) => Ok(Some(status(&mut tx, id).await?)),
            None => Ok(None),
        }
    }
}

async fn same_request(
    tx: &mut Transaction<'static, Sqlite>,
    request: &NewRequest,
) -> Result<Option<Uuid>, RequestError> {
    let Some(key) = &request.idempotency_key else { return Ok(None) };
    let known: Option<(String, String)> =
        sqlx::query_as("SELECT uuid, body_hash FROM requests WHERE idempotency_key = ?1")
            .bind(key)
            .fetch_optional(&mut **tx)
            .await?;
    match known {
        None => Ok(None),
        Some((uuid, hash)) if hash == request.body_hash => {
            let uuid = uuid.parse().map_err(|e| StoreError::damaged("a request's id", e))?;
            Ok(Some(uuid))
        }
        Some(_) => Err(RequestError::KeyReused),
    }
}

/// Keys with the numbers of their ops, as SQL takes them.
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
    tx: &mut Transaction<'static, Sqlite>,
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
    tx: &mut Transaction<'static, Sqlite>,
    table: &TableRef,
    networks: &[i64],
) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar(
        "SELECT 'network ' || coalesce(name, substr(digest, 1, 12)) FROM networks
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

/// `keys` is a JSON array of `[op id, key]`, `networks` one of ids. All of them go in with one statement
/// each: a space may have many keys. `CROSS JOIN` is how SQLite is told to go through the keys and look tasks up, not the reverse.
async fn insert(
    tx: &mut Transaction<'static, Sqlite>,
    request: &NewRequest,
    keys: &str,
    networks: &str,
    now: Timestamp,
) -> Result<Uuid, StoreError> {
    let uuid = Uuid::new_v4();
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO requests
            (uuid, table_id, space, idempotency_key, body_hash, created_at, networks)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
    )
    .bind(uuid.to_string())
    .bind(request.table.id.0)
    .bind(request.space.as_deref().unwrap_or_default())
    .bind(&request.idempotency_key)
    .bind(&request.body_hash)
    .bind(micros(now))
    .bind(u32::try_from(request.networks.len()).unwrap_or(u32::MAX))
    .fetch_one(&mut **tx)
    .await?;
    insert_tasks(tx, id, &request.table, keys, networks).await?;
    if request.remeasure {
        // The rule of `Progress::requeued`, for many tasks at once. What was measured before answers none of them.
        sqlx::query(
            "UPDATE tasks SET state = 'queued', attempts = 0, reason = NULL, generation = generation + 1
             WHERE state IN ('done', 'failed')
               AND id IN (SELECT task_id FROM request_tasks WHERE request_id = ?1)",
        )
        .bind(id)
        .execute(&mut **tx)
        .await?;
    }
    // What is over already is over for this request too.
    sqlx::query(
        "UPDATE request_tasks SET outcome = tasks.state, reason = tasks.reason
         FROM tasks WHERE tasks.id = task_id AND request_id = ?1 AND tasks.state IN ('done', 'failed')",
    )
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(uuid)
}

/// The tasks of a request: those that there are, and new ones.
async fn insert_tasks(
    tx: &mut Transaction<'static, Sqlite>,
    request: i64,
    table: &TableRef,
    keys: &str,
    networks: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tasks (table_id, op_id, key)
         SELECT ?1, wanted.value ->> 0, wanted.value ->> 1 FROM json_each(?2) AS wanted WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(table.id.0)
    .bind(keys)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO tasks (table_id, network_id)
         SELECT ?1, value FROM json_each(?2) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(table.id.0)
    .bind(networks)
    .execute(&mut **tx)
    .await?;
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
    Ok(())
}

pub(super) async fn status(
    tx: &mut Transaction<'static, Sqlite>,
    id: i64,
) -> Result<RequestStatus, StoreError> {
    type Columns = (String, String, String, Option<String>, i64, i64);
    let (uuid, hardware_id, config, space, networks, created_at): Columns = sqlx::query_as(
        "SELECT uuid, hardware_id, config_id, nullif(space, ''), networks, requests.created_at
         FROM requests JOIN tables ON tables.id = table_id WHERE requests.id = ?1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    let (total, done, failed): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE outcome = 'done'),
                count(*) FILTER (WHERE outcome = 'failed')
         FROM request_tasks WHERE request_id = ?1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    let running: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tasks CROSS JOIN request_tasks ON task_id = tasks.id AND request_id = ?1
         WHERE lease_id IS NOT NULL AND outcome IS NULL",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    Ok(RequestStatus {
        id: uuid.parse().map_err(|e| StoreError::damaged("a request's id", e))?,
        hardware_id: hardware_id.parse().map_err(|e| StoreError::damaged("a hardware id", e))?,
        config,
        space,
        networks: count(networks),
        created_at: time(created_at)?,
        total: count(total),
        done: count(done),
        failed: count(failed),
        running: count(running),
        failures: failures(tx, id).await?,
    })
}

async fn failures(
    tx: &mut Transaction<'static, Sqlite>,
    request: i64,
) -> Result<BTreeMap<String, String>, StoreError> {
    let failures: Vec<(String, String)> = sqlx::query_as(
        "SELECT coalesce(key, 'network ' || coalesce(name, substr(digest, 1, 12))),
                coalesce(request_tasks.reason, '')
         FROM request_tasks JOIN tasks ON tasks.id = task_id
         LEFT JOIN networks ON networks.id = network_id
         WHERE request_id = ?1 AND outcome = 'failed' ORDER BY task_id LIMIT ?2",
    )
    .bind(request)
    .bind(MOST_FAILURES)
    .fetch_all(&mut **tx)
    .await?;
    Ok(failures.into_iter().collect())
}

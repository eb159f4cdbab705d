//! Enrolment: an agent joins the farm, or returns.

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::HardwareId;
use latlas_shared::api::{AgentState, EnrolRequest, StateChange};
use serde_json::json;
use sqlx::types::Text;
use uuid::Uuid;

use super::agents::Agent;
use super::audit::{Actor, audit};
use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::error::Retryable;
use super::table::{TableId, TableRef};
use super::tokens::NewToken;
use super::{Store, StoreError, agent_state, leases, to_json, tokens};
use crate::token::{Role, Terms, Token};

/// Why an agent was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Its token has ended in the meantime, or another agent took its last use.
    #[error("the token has ended")]
    TokenEnded,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for EnrolError {
    fn from(error: sqlx::Error) -> EnrolError {
        EnrolError::Store(error.into())
    }
}

impl Retryable for EnrolError {
    fn is_retryable(&self) -> bool {
        matches!(self, EnrolError::Store(error) if error.is_retryable())
    }
}

impl Store {
    /// Enrols an agent, which takes one use of its token. A box whose key is known in this table keeps its agent. The
    /// request was checked.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn enrol(
        &self,
        request: &EnrolRequest,
        credential: &Token,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Agent, EnrolError> {
        let (store, request) = (self.clone(), request.clone());
        let (credential, actor) = (credential.clone(), actor.clone());
        let data = (store, request, credential, actor);
        self.db
            .change(data, move |(store, request, credential, actor), tx| {
                store.add_agent(tx, request, credential, actor, now).boxed()
            })
            .await
    }

    async fn add_agent(
        &self,
        tx: &mut Tx,
        request: &EnrolRequest,
        credential: &Token,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(Agent, Effects), EnrolError> {
        let hardware_id = request.fingerprint.hardware_id();
        let uuid = Uuid::new_v4();
        let primitives = to_json(&request.primitives);
        if !tokens::take_use(tx, actor, now).await? {
            return Err(EnrolError::TokenEnded);
        }
        let table_id = find_or_add_table(tx, &hardware_id, request, now).await?;
        let (id, uuid, effects) = match self.enrolment_of(tx, table_id, request, now).await? {
            Enrolment::New => {
                let id = insert(tx, uuid, table_id, request, true, now).await?;
                (id, uuid, share_quarantine(tx, id, request, now).await?)
            }
            Enrolment::KeyInUse => {
                let id = insert(tx, uuid, table_id, request, false, now).await?;
                (id, uuid, Effects::none())
            }
            Enrolment::Returning(id, uuid) => (id, uuid, come_back(tx, id, request, now).await?),
        };
        let new = NewToken { role: Role::Agent, label: String::new(), terms: Terms::default() };
        let token = tokens::insert(tx, credential, &new, Some(id), now).await?;
        let detail = json!({
            "name": request.name, "hardware_id": hardware_id, "config": request.run_config.id(),
            "token": token,
        });
        audit(tx, actor, "agent.enrol", &format!("agent {uuid}"), &detail, now).await?;
        let table = TableRef { id: table_id, hardware_id, run_config: request.run_config.clone() };
        let agent = Agent { id, uuid, name: request.name.clone(), table, primitives };
        Ok((agent, effects))
    }

    /// Whether the key of an enrolling box is known.
    async fn enrolment_of(
        &self,
        tx: &mut Tx,
        table: TableId,
        request: &EnrolRequest,
        now: Timestamp,
    ) -> Result<Enrolment, StoreError> {
        let Some(key) = &request.box_key else { return Ok(Enrolment::New) };
        let found: Option<(i64, Text<Uuid>)> =
            sqlx::query_as("SELECT id, uuid FROM agents WHERE table_id = ?1 AND box_key = ?2")
                .bind(table.0)
                .bind(key)
                .fetch_optional(&mut **tx)
                .await?;
        let Some((id, Text(uuid))) = found else { return Ok(Enrolment::New) };
        if self.hub.presence.may_take_over(id, request.instance.as_ref(), now) {
            return Ok(Enrolment::Returning(id, uuid));
        }
        tracing::warn!(
            agent = %uuid,
            name = request.name,
            "an agent enrols with the key of a box that runs elsewhere: it gets a new identity"
        );
        Ok(Enrolment::KeyInUse)
    }
}

/// Whether an enrolling box is known.
enum Enrolment {
    /// It is new, or has no key.
    New,
    /// It is the box of this agent. It has lost its state directory, or has changed.
    Returning(i64, Uuid),
    /// Another running box has the same key, so the key identifies neither.
    KeyInUse,
}

async fn insert(
    tx: &mut Tx,
    uuid: Uuid,
    table: TableId,
    request: &EnrolRequest,
    with_key: bool,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let id = sqlx::query_scalar(
        "INSERT INTO agents
            (uuid, name, table_id, fingerprint, primitives, agent_version, enrolled_at, seen_at, box_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8) RETURNING id",
    )
    .bind(Text(uuid))
    .bind(&request.name)
    .bind(table.0)
    .bind(request.fingerprint.digest())
    .bind(to_json(&request.primitives))
    .bind(&request.agent_version)
    .bind(StoredTime(now))
    .bind(request.box_key.as_ref().filter(|_| with_key))
    .fetch_one(&mut **tx)
    .await?;
    Ok(id)
}

/// A quarantine by an admin applies to a box under each run config.
async fn share_quarantine(
    tx: &mut Tx,
    id: i64,
    request: &EnrolRequest,
    now: Timestamp,
) -> Result<Effects, StoreError> {
    let reason: Option<Option<String>> = sqlx::query_scalar(
        "SELECT state_reason FROM agents
         WHERE box_key = ?1 AND state = 'quarantined' AND state_by = ?2 ORDER BY id LIMIT 1",
    )
    .bind(&request.box_key)
    .bind(agent_state::ADMIN)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(reason) = reason else { return Ok(Effects::none()) };
    let change = StateChange { state: AgentState::Quarantined, reason };
    agent_state::write(tx, id, &change, agent_state::ADMIN, now).await
}

/// Updates an agent that enrols again. Name, state and history stay. Its canary is due, and the leases of its ended
/// process are given back. A removed agent is in the farm again.
async fn come_back(
    tx: &mut Tx,
    id: i64,
    request: &EnrolRequest,
    now: Timestamp,
) -> Result<Effects, StoreError> {
    let effects = leases::release_all(tx, id).await?;
    sqlx::query(
        "UPDATE agents SET fingerprint = ?1, primitives = ?2, agent_version = ?3,
                           seen_at = max(seen_at, ?4), canary_asked_at = NULL,
                           stopped_at = NULL, removed_at = NULL
         WHERE id = ?5",
    )
    .bind(request.fingerprint.digest())
    .bind(to_json(&request.primitives))
    .bind(&request.agent_version)
    .bind(StoredTime(now))
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(effects)
}

async fn find_or_add_table(
    tx: &mut Tx,
    hardware_id: &HardwareId,
    request: &EnrolRequest,
    now: Timestamp,
) -> Result<TableId, StoreError> {
    sqlx::query(
        "INSERT INTO fingerprints (digest, hardware_id, fingerprint, created_at)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )
    .bind(request.fingerprint.digest())
    .bind(hardware_id.as_str())
    .bind(to_json(&request.fingerprint))
    .bind(StoredTime(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO tables (hardware_id, config_id, run_config, created_at)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )
    .bind(hardware_id.as_str())
    .bind(request.run_config.id())
    .bind(to_json(&request.run_config))
    .bind(StoredTime(now))
    .execute(&mut **tx)
    .await?;
    let id = sqlx::query_scalar("SELECT id FROM tables WHERE hardware_id = ?1 AND config_id = ?2")
        .bind(hardware_id.as_str())
        .bind(request.run_config.id())
        .fetch_one(&mut **tx)
        .await?;
    Ok(TableId(id))
}

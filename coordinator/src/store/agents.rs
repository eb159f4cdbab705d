//! Enrolled boxes, and the tables that they measure for.

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::{AgentState, EnrolRequest, StateChange};
use latlas_shared::{HardwareId, Telemetry};
use serde_json::json;
use uuid::Uuid;

use super::db::Tx;
use super::effects::Effects;
use super::error::Retryable;
use super::{
    Actor, Lookup, NewToken, Store, StoreError, TableId, TableRef, audit::audit, boxes, from_json,
    leases, micros, time, to_json, tokens,
};
use crate::rules::lease;
use crate::token::{Role, Terms, Token};

/// An enrolled box.
#[derive(Debug, Clone)]
pub struct Agent {
    pub(super) id: i64,
    /// Its identity in the farm.
    pub uuid: Uuid,
    /// Its name, for people.
    pub name: String,
    /// The table that it measures for.
    pub table: TableRef,
    /// The primitives that it can run, as a JSON array.
    pub(super) primitives: String,
}

/// Why a box was not brought in.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token that it came with has ended meanwhile, or another box had its last use.
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

/// The most hardware ids or run configs that a message lists.
const MOST_LISTED: i64 = 20;

impl Retryable for EnrolError {
    fn is_retryable(&self) -> bool {
        matches!(self, EnrolError::Store(error) if error.is_retryable())
    }
}

impl Store {
    /// Brings a box into the farm, which takes one use of the token that it came with. A box that was in this
    /// table before, by its key, is the agent that it was. The request was checked.
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
        let (id, uuid, effects) = match self.of_box(tx, table_id, request, now).await? {
            OfBox::Comes => {
                let id = insert(tx, uuid, table_id, request, true, now).await?;
                (id, uuid, share_quarantine(tx, id, request, now).await?)
            }
            OfBox::IsElsewhere => {
                let id = insert(tx, uuid, table_id, request, false, now).await?;
                (id, uuid, Effects::none())
            }
            OfBox::ComesBack(id, uuid) => (id, uuid, come_back(tx, id, request, now).await?),
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

    /// What the key of a box that enrols says of it.
    async fn of_box(
        &self,
        tx: &mut Tx,
        table: TableId,
        request: &EnrolRequest,
        now: Timestamp,
    ) -> Result<OfBox, StoreError> {
        let Some(key) = &request.box_key else { return Ok(OfBox::Comes) };
        let found: Option<(i64, String)> =
            sqlx::query_as("SELECT id, uuid FROM agents WHERE table_id = ?1 AND box_key = ?2")
                .bind(table.0)
                .bind(key)
                .fetch_optional(&mut **tx)
                .await?;
        let Some((id, uuid)) = found else { return Ok(OfBox::Comes) };
        if self.hub.presence.may_take_over(id, request.instance.as_ref(), now) {
            let uuid = uuid.parse().map_err(|e| StoreError::damaged("an agent's id", e))?;
            return Ok(OfBox::ComesBack(id, uuid));
        }
        tracing::warn!(
            agent = uuid,
            name = request.name,
            "a box enrols with the key of one that runs elsewhere"
        );
        Ok(OfBox::IsElsewhere)
    }

    /// Notes that an agent lives, and gives those of `leases` that are no longer its own. Costs no write:
    /// see [`Store::write_heard`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn heartbeat(
        &self,
        agent: &Agent,
        leases: &[Uuid],
        telemetry: &Telemetry,
        now: Timestamp,
    ) -> Result<Vec<Uuid>, StoreError> {
        self.heard_of(agent, Some(telemetry), now);
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let held: Vec<(String, i64)> =
            sqlx::query_as("SELECT id, deadline FROM leases WHERE agent_id = ?1")
                .bind(agent.id)
                .fetch_all(&self.db.readers)
                .await?;
        let mut live = Vec::with_capacity(held.len());
        for (id, deadline) in held {
            if lease::is_live(time(deadline)?, now) {
                live.push(id);
            }
        }
        Ok(leases.iter().filter(|id| !live.contains(&id.to_string())).copied().collect())
    }

    /// The table of a class of device: of one run config, or of its default one.
    ///
    /// # Errors
    /// When there is no such class or run config: then with those that there are.
    pub async fn table(&self, hardware_id: &str, config: Option<&str>) -> Result<TableRef, Lookup> {
        let found: Option<(i64, String)> = sqlx::query_as(
            "SELECT id, run_config FROM tables
             WHERE hardware_id = ?1 AND (?2 IS NULL OR config_id = ?2) ORDER BY id LIMIT 1",
        )
        .bind(hardware_id)
        .bind(config)
        .fetch_optional(&self.db.readers)
        .await?;
        if let Some((id, run_config)) = found {
            return Ok(table_ref(id, hardware_id, &run_config)?);
        }
        let configs: Vec<String> = sqlx::query_scalar(
            "SELECT config_id FROM tables WHERE hardware_id = ?1 ORDER BY id LIMIT ?2",
        )
        .bind(hardware_id)
        .bind(MOST_LISTED)
        .fetch_all(&self.db.readers)
        .await?;
        if !configs.is_empty() {
            return Err(Lookup::UnknownConfig { known: configs });
        }
        let known: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT hardware_id FROM tables ORDER BY hardware_id LIMIT ?1",
        )
        .bind(MOST_LISTED)
        .fetch_all(&self.db.readers)
        .await?;
        Err(Lookup::UnknownHardware { known })
    }
}

/// What is known of a box that enrols.
enum OfBox {
    /// It is new, or does not say who it is.
    Comes,
    /// It is the box of this agent, which has lost its state directory or has changed.
    ComesBack(i64, Uuid),
    /// Another box, which runs now, has the same key: the key tells nothing of this one.
    IsElsewhere,
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
    .bind(uuid.to_string())
    .bind(&request.name)
    .bind(table.0)
    .bind(request.fingerprint.digest())
    .bind(to_json(&request.primitives))
    .bind(&request.agent_version)
    .bind(micros(now))
    .bind(request.box_key.as_ref().filter(|_| with_key))
    .fetch_one(&mut **tx)
    .await?;
    Ok(id)
}

/// What an admin has decided of a box holds for it under each run config.
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
    .bind(boxes::ADMIN)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(reason) = reason else { return Ok(Effects::none()) };
    let change = StateChange { state: AgentState::Quarantined, reason };
    boxes::write(tx, id, &change, boxes::ADMIN, now).await
}

/// An agent's box is what it says now. Name, state and history stay; its canary is due, and the leases of the process
/// that has ended are given back. One that was removed is in the farm again.
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
    .bind(micros(now))
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(effects)
}

/// The agent with this number.
pub(super) async fn agent(tx: &mut Tx, id: i64) -> Result<Agent, StoreError> {
    let found: Columns = sqlx::query_as(
        "SELECT uuid, name, primitives, table_id, hardware_id, run_config
         FROM agents JOIN tables ON tables.id = agents.table_id WHERE agents.id = ?1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    found.agent(id)
}

/// What is stored of an agent; nothing where a join found none.
#[derive(sqlx::FromRow)]
pub(super) struct Columns {
    uuid: Option<String>,
    name: Option<String>,
    primitives: Option<String>,
    table_id: Option<i64>,
    hardware_id: Option<String>,
    run_config: Option<String>,
}

impl Columns {
    /// The agent with this number.
    pub fn agent(self, id: i64) -> Result<Agent, StoreError> {
        let missing = || StoreError::damaged("an agent", "it is not there");
        let uuid = self.uuid.ok_or_else(missing)?;
        let uuid = uuid.parse().map_err(|e| StoreError::damaged("an agent's id", e))?;
        let (name, primitives) = self.name.zip(self.primitives).ok_or_else(missing)?;
        let (table, class) = self.table_id.zip(self.hardware_id).ok_or_else(missing)?;
        let table = table_ref(table, &class, &self.run_config.ok_or_else(missing)?)?;
        Ok(Agent { id, uuid, name, table, primitives })
    }
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
    .bind(micros(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO tables (hardware_id, config_id, run_config, created_at)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )
    .bind(hardware_id.as_str())
    .bind(request.run_config.id())
    .bind(to_json(&request.run_config))
    .bind(micros(now))
    .execute(&mut **tx)
    .await?;
    let id = sqlx::query_scalar("SELECT id FROM tables WHERE hardware_id = ?1 AND config_id = ?2")
        .bind(hardware_id.as_str())
        .bind(request.run_config.id())
        .fetch_one(&mut **tx)
        .await?;
    Ok(TableId(id))
}

pub(super) fn table_ref(
    id: i64,
    hardware_id: &str,
    run_config: &str,
) -> Result<TableRef, StoreError> {
    Ok(TableRef {
        id: TableId(id),
        hardware_id: hardware_id.parse().map_err(|e| StoreError::damaged("a hardware id", e))?,
        run_config: from_json("a run config", run_config)?,
    })
}

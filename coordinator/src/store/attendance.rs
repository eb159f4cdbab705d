//! The current states of agents, for lists, requests, metrics and alarms.

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::{AbsentBox, AgentPresence, RequestStatus, Unattended};
use sqlx::types::Text;
use uuid::Uuid;

use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::{Agent, Store, StoreError, agent_state, leases, to_json};
use crate::rules::standing::{self, AgentNow, Facts};

/// Number of agents that are read first: in most cases one of them is active, and the other agents of the class are not
/// needed.
const FIRST: i64 = 32;

/// The columns of [`AgentRow`], from `agents` and `tables`.
pub(super) const COLUMNS: &str = "agents.id, agents.uuid, agents.name, agents.table_id,
    tables.hardware_id, tables.config_id, seen_at, stopped_at, stopped_reason,
    state, state_reason, state_since, state_by";

/// Agents with their tables, except removed ones.
pub(super) const AGENTS: &str =
    "FROM agents JOIN tables ON tables.id = agents.table_id WHERE removed_at IS NULL";

#[derive(sqlx::FromRow)]
pub(super) struct AgentRow {
    pub id: i64,
    pub uuid: Text<Uuid>,
    pub name: String,
    pub table_id: i64,
    pub hardware_id: String,
    pub config_id: String,
    pub seen_at: StoredTime,
    stopped_at: Option<StoredTime>,
    stopped_reason: Option<String>,
    state: String,
    state_reason: Option<String>,
    state_since: Option<StoredTime>,
    state_by: Option<String>,
}

impl Store {
    /// Every agent of the farm, with its current state.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn agents_now(&self, now: Timestamp) -> Result<Vec<AgentNow>, StoreError> {
        let found: Vec<AgentRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} {AGENTS} ORDER BY agents.id"
        )))
        .fetch_all(&self.db.readers)
        .await?;
        found.into_iter().map(|columns| self.agent_now(columns, now)).collect()
    }

    /// The agents of some tables.
    pub(super) async fn agents_of(
        &self,
        tx: &mut Tx,
        tables: &[i64],
        now: Timestamp,
    ) -> Result<Vec<AgentNow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} {AGENTS} AND table_id IN (SELECT value FROM json_each(?1)) ORDER BY agents.id"
        );
        let found: Vec<AgentRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(to_json(&tables))
            .fetch_all(&mut **tx)
            .await?;
        found.into_iter().map(|columns| self.agent_now(columns, now)).collect()
    }

    pub(super) fn agent_now(
        &self,
        columns: AgentRow,
        now: Timestamp,
    ) -> Result<AgentNow, StoreError> {
        let presence = &self.hub.presence;
        let facts = Facts {
            decided: agent_state::state_of(&columns.state)?,
            reason: columns.state_reason,
            since: columns.state_since.map(|at| at.0),
            by: columns.state_by,
            seen_at: self.last_heard(columns.id, columns.seen_at.0),
            stopped: columns.stopped_at.map(|at| at.0).zip(columns.stopped_reason),
            unfit: presence.unfit_since(columns.id),
        };
        let (seen_at, is) = (facts.seen_at, facts.presence(presence.awake_since(), now));
        let hangs_since = presence.hangs_since(columns.id, now, self.policy());
        Ok(AgentNow {
            table: columns.table_id,
            agent_id: columns.uuid.0,
            name: columns.name,
            hardware_id: columns.hardware_id,
            config: columns.config_id,
            seen_at,
            standing: facts.standing(is),
            presence: is,
            hangs_since: hangs_since.filter(|_| is == AgentPresence::Present),
        })
    }

    /// A request's status with the states of the agents that could work on it.
    pub(super) async fn with_attendance(
        &self,
        tx: &mut Tx,
        status: RequestStatus,
        now: Timestamp,
    ) -> Result<RequestStatus, StoreError> {
        if status.is_finished() {
            return Ok(status);
        }
        // The cheap query first: not sorted, and only agents that may be active. It runs at each change of a request,
        // and a class may have thousands of agents.
        let first = format!("AND state = 'active' AND stopped_at IS NULL LIMIT {FIRST}");
        let unattended = match self.attendance(tx, status.id, &first, now).await? {
            Some(_) => {
                self.attendance(tx, status.id, "ORDER BY seen_at DESC, agents.id", now).await?
            }
            None => None,
        };
        Ok(RequestStatus { unattended, ..status })
    }

    async fn attendance(
        &self,
        tx: &mut Tx,
        request: Uuid,
        which: &str,
        now: Timestamp,
    ) -> Result<Option<Unattended>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} {AGENTS} AND table_id = (SELECT table_id FROM requests WHERE uuid = ?1)
             {which}"
        );
        let found: Vec<AgentRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(Text(request))
            .fetch_all(&mut **tx)
            .await?;
        let mut absent = Vec::with_capacity(found.len());
        for columns in found {
            let AgentNow { agent_id, name, standing, .. } = self.agent_now(columns, now)?;
            absent.push(AbsentBox { agent_id, name, standing });
        }
        Ok(standing::unattended(absent))
    }

    /// Notes that an agent stops cleanly. Its leases are given back without an attempt.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn goodbye(
        &self,
        agent: &Agent,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = agent.id;
        self.db.change(reason.to_owned(), move |reason, tx| stop(tx, id, reason, now).boxed()).await
    }
}

async fn stop(
    tx: &mut Tx,
    agent: i64,
    reason: &str,
    now: Timestamp,
) -> Result<((), Effects), StoreError> {
    sqlx::query(
        "UPDATE agents SET stopped_at = ?1, stopped_reason = ?2, seen_at = ?1 WHERE id = ?3",
    )
    .bind(StoredTime(now))
    .bind(reason)
    .bind(agent)
    .execute(&mut **tx)
    .await?;
    let effects = leases::release_all(tx, agent).await?.and(Effects::left(agent, now));
    Ok(((), effects.and(Effects::progress())))
}

//! How far a box is trusted: its state, who set it and why, and the list of all of them.

use std::collections::HashMap;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::{
    AgentEntry, AgentLease, AgentState, Heartbeat, Instance, Page, StateChange,
};
use serde_json::json;
use uuid::Uuid;

use super::audit::{Actor, audit};
use super::db::Tx;
use super::effects::Effects;
use super::lists::After;
use super::{Agent, Store, StoreError, attendance, count, leases, micros, readable, time, to_json};

/// Who sets a state when an admin does.
pub(super) const ADMIN: &str = "admin";

/// Who sets a state when nobody does: the farm, by an agent's canary.
pub(super) const CANARY: &str = "canary";

/// The same, by what the agent failed that others measured.
pub(super) const FAILURES: &str = "failures";

#[derive(sqlx::FromRow)]
struct Columns {
    #[sqlx(flatten)]
    known: attendance::Columns,
    enrolled_at: i64,
    canary_at: Option<i64>,
    labels: String,
}

impl Store {
    /// Whether a process may speak for an agent; if another one does, when that last spoke.
    ///
    /// # Errors
    /// When another process speaks for the agent.
    pub fn hear(&self, agent: &Agent, speaker: &Instance, now: Timestamp) -> Result<(), Timestamp> {
        self.hub.presence.hear(agent.id, speaker, now)
    }

    /// Notes what a heartbeat says beside the agent's being alive. `cancelled` are those of its leases
    /// that are not its own.
    pub fn note(&self, agent: &Agent, beat: &Heartbeat, cancelled: &[Uuid], now: Timestamp) {
        let own: Vec<Uuid> =
            beat.leases.iter().filter(|id| !cancelled.contains(id)).copied().collect();
        self.hub.presence.note(agent.id, beat, &own, now);
    }

    /// What was decided about an agent, and why.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn decided(&self, agent: &Agent) -> Result<StateChange, StoreError> {
        let (state, reason): (String, Option<String>) =
            sqlx::query_as("SELECT state, state_reason FROM agents WHERE id = ?1")
                .bind(agent.id)
                .fetch_one(&self.db.readers)
                .await?;
        Ok(StateChange { state: state_of(&state)?, reason })
    }

    /// Sets an agent's state. In quarantine its leases end, and their tasks wait again without an attempt.
    /// Gives the agent as it is then; none when there is no such agent.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set_state(
        &self,
        agent: Uuid,
        change: &StateChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<AgentEntry>, StoreError> {
        let (change, actor) = (change.clone(), actor.clone());
        let found = self.db.change((change, actor), move |(change, actor), tx| {
            decide(tx, agent, change, actor, now).boxed()
        });
        if !found.await? {
            return Ok(None);
        }
        self.agent_entry(agent, now).await
    }

    /// An agent as lists show it; none when there is no such agent.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn agent_entry(
        &self,
        agent: Uuid,
        now: Timestamp,
    ) -> Result<Option<AgentEntry>, StoreError> {
        let only = After { cursor: None, limit: 1 };
        Ok(self.agents(&only, Some(agent), now).await?.items.pop())
    }

    /// Agents, in the order in which they were enrolled.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_agents(
        &self,
        after: &After<i64>,
        now: Timestamp,
    ) -> Result<Page<AgentEntry>, StoreError> {
        self.agents(after, None, now).await
    }

    /// A page of agents, or the one of an id.
    async fn agents(
        &self,
        after: &After<i64>,
        only: Option<Uuid>,
        now: Timestamp,
    ) -> Result<Page<AgentEntry>, StoreError> {
        let mut tx = self.db.read().await?;
        let sql = format!(
            "SELECT {}, enrolled_at, canary_at, labels {}
             AND agents.id > ?1 AND (?3 IS NULL OR agents.uuid = ?3) ORDER BY agents.id LIMIT ?2",
            attendance::COLUMNS,
            attendance::BOXES
        );
        let found: Vec<Columns> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(after.cursor.unwrap_or(0))
            .bind(after.fetch())
            .bind(only.map(|id| id.to_string()))
            .fetch_all(&mut *tx)
            .await?;
        let ids: Vec<i64> = found.iter().map(|agent| agent.known.id).collect();
        let mut leases = self.leases_of(&mut tx, &ids).await?;
        let entries = found
            .into_iter()
            .map(|agent| {
                let id = agent.known.id;
                let leases = leases.remove(&id).unwrap_or_default();
                Ok((id.to_string(), self.entry(agent, leases, now)?))
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(after.page(entries))
    }

    fn entry(
        &self,
        agent: Columns,
        leases: Vec<AgentLease>,
        now: Timestamp,
    ) -> Result<AgentEntry, StoreError> {
        let unfit = self.hub.presence.unfit(agent.known.id);
        let ahead = self.hub.presence.clock_ahead(agent.known.id);
        let clock_ahead_seconds = ahead.map(|ahead| ahead.as_secs_f64());
        let is = self.box_now(agent.known, now)?;
        Ok(AgentEntry {
            agent_id: is.agent_id,
            name: is.name,
            hardware_id: is
                .hardware_id
                .parse()
                .map_err(|e| StoreError::damaged("a hardware id", e))?,
            config: is.config,
            enrolled_at: time(agent.enrolled_at)?,
            seen_at: is.seen_at,
            standing: is.standing,
            presence: is.presence,
            labels: readable("an agent's labels", &agent.labels).unwrap_or_default(),
            unfit,
            clock_ahead_seconds,
            canary_at: agent.canary_at.map(time).transpose()?,
            leases,
        })
    }

    /// The leases of some agents, by agent.
    async fn leases_of(
        &self,
        tx: &mut Tx,
        agents: &[i64],
    ) -> Result<HashMap<i64, Vec<AgentLease>>, StoreError> {
        type Columns = (i64, String, bool, i64, i64, i64, i64);
        let found: Vec<Columns> = sqlx::query_as(
            "SELECT agent_id, id, canary, created_at, deadline, tasks,
                    (SELECT count(*) FROM tasks WHERE lease_id = leases.id)
             FROM leases WHERE agent_id IN (SELECT value FROM json_each(?1)) ORDER BY created_at, id",
        )
        .bind(to_json(&agents))
        .fetch_all(&mut **tx)
        .await?;
        let mut leases: HashMap<i64, Vec<AgentLease>> = HashMap::new();
        for (agent, id, canary, since, deadline, tasks, left) in found {
            let id = id.parse().map_err(|e| StoreError::damaged("a lease's id", e))?;
            let pace = self.hub.presence.pace(id);
            leases.entry(agent).or_default().push(AgentLease {
                id,
                canary,
                since: time(since)?,
                deadline: time(deadline)?,
                tasks: count(tasks),
                left: (!canary).then(|| count(left)),
                visits: pace.map(|pace| pace.visits),
                moved_at: pace.map(|pace| pace.moved_at),
            });
        }
        Ok(leases)
    }
}

/// The number of an agent that is in the farm.
pub(super) async fn number(tx: &mut Tx, agent: Uuid) -> Result<Option<i64>, StoreError> {
    let found = sqlx::query_scalar("SELECT id FROM agents WHERE uuid = ?1 AND removed_at IS NULL")
        .bind(agent.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(found)
}

pub(super) fn state_of(name: &str) -> Result<AgentState, StoreError> {
    [AgentState::Active, AgentState::Draining, AgentState::Quarantined]
        .into_iter()
        .find(|state| state.name() == name)
        .ok_or_else(|| StoreError::damaged("an agent's state", name))
}

/// An agent's state, as a transaction sees it.
pub(super) async fn state(tx: &mut Tx, agent: &Agent) -> Result<AgentState, StoreError> {
    let name: String = sqlx::query_scalar("SELECT state FROM agents WHERE id = ?1")
        .bind(agent.id)
        .fetch_one(&mut **tx)
        .await?;
    state_of(&name)
}

/// An agent's state as a transaction sees it, and when it was enrolled.
pub(super) async fn state_and_enrolment(
    tx: &mut Tx,
    agent: &Agent,
) -> Result<(AgentState, Timestamp), StoreError> {
    let (name, enrolled_at): (String, i64) =
        sqlx::query_as("SELECT state, enrolled_at FROM agents WHERE id = ?1")
            .bind(agent.id)
            .fetch_one(&mut **tx)
            .await?;
    Ok((state_of(&name)?, time(enrolled_at)?))
}

/// Writes the state that somebody has decided on; false when there is no such agent.
async fn decide(
    tx: &mut Tx,
    agent: Uuid,
    change: &StateChange,
    actor: &Actor,
    now: Timestamp,
) -> Result<(bool, Effects), StoreError> {
    let Some(id) = number(tx, agent).await? else { return Ok((false, Effects::none())) };
    let effects = write(tx, id, change, ADMIN, now).await?;
    let detail = json!({"state": change.state, "reason": change.reason});
    audit(tx, actor, "agent.state", &format!("agent {agent}"), &detail, now).await?;
    Ok((true, effects))
}

/// Writes a state, and ends the leases of an agent that is no longer trusted. One that is trusted again may
/// get work at once.
pub(super) async fn write(
    tx: &mut Tx,
    agent: i64,
    change: &StateChange,
    by: &str,
    now: Timestamp,
) -> Result<Effects, StoreError> {
    sqlx::query(
        "UPDATE agents SET state = ?1, state_reason = ?2, state_since = ?3, state_by = ?4,
                           failures_in_row = 0, failing_since = NULL
         WHERE id = ?5",
    )
    .bind(change.state.name())
    .bind(&change.reason)
    .bind(micros(now))
    .bind(by)
    .bind(agent)
    .execute(&mut **tx)
    .await?;
    let effects = match change.state {
        AgentState::Quarantined => leases::release_all(tx, agent).await?,
        AgentState::Active | AgentState::Draining => Effects::work_for([agent]),
    };
    // Requests say who is there to work on them.
    Ok(effects.and(Effects::progress()))
}

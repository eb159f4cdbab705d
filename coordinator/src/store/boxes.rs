//! How far a box is trusted: its state, who set it and why, and the list of all of them.

use std::collections::HashMap;

use jiff::Timestamp;
use latlas_shared::api::{
    AgentEntry, AgentLease, AgentState, Heartbeat, Instance, Page, Standing, StateChange,
};
use serde_json::json;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::audit::{Actor, audit};
use super::lists::After;
use super::{Agent, Store, StoreError, count, leases, micros, time, to_json};

/// Who sets a state when an admin does.
pub(super) const ADMIN: &str = "admin";

/// Who sets a state when nobody does: the farm, by an agent's canary.
pub(super) const CANARY: &str = "canary";

/// The same, by what the agent failed that others measured.
pub(super) const FAILURES: &str = "failures";

#[derive(sqlx::FromRow)]
struct Columns {
    id: i64,
    uuid: String,
    name: String,
    hardware_id: String,
    config_id: String,
    enrolled_at: i64,
    seen_at: i64,
    canary_at: Option<i64>,
    state: String,
    state_reason: Option<String>,
    state_since: Option<i64>,
    state_by: Option<String>,
}

impl Store {
    /// Whether a process may speak for an agent; if another one does, when that last spoke.
    ///
    /// # Errors
    /// When another process speaks for the agent.
    pub fn hear(&self, agent: &Agent, speaker: &Instance, now: Timestamp) -> Result<(), Timestamp> {
        self.shared.presence.hear(agent.id, speaker, now)
    }

    /// Notes what a heartbeat says beside the agent's being alive. `cancelled` are those of its leases
    /// that are not its own.
    pub fn note(&self, agent: &Agent, beat: &Heartbeat, cancelled: &[Uuid], now: Timestamp) {
        let own: Vec<Uuid> =
            beat.leases.iter().filter(|id| !cancelled.contains(id)).copied().collect();
        self.shared.presence.note(agent.id, beat, &own, now);
    }

    /// How far an agent is trusted now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn standing(&self, agent: &Agent) -> Result<Standing, StoreError> {
        let found: (String, Option<String>, Option<i64>, Option<String>) = sqlx::query_as(
            "SELECT state, state_reason, state_since, state_by FROM agents WHERE id = ?1",
        )
        .bind(agent.id)
        .fetch_one(&self.readers)
        .await?;
        let (state, reason, since, by) = found;
        Ok(Standing { state: state_of(&state)?, reason, since: since.map(time).transpose()?, by })
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
        let mut tx = self.begin().await?;
        let id: Option<i64> = sqlx::query_scalar("SELECT id FROM agents WHERE uuid = ?1")
            .bind(agent.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(id) = id else { return Ok(None) };
        write(&mut tx, id, change, ADMIN, now).await?;
        let detail = json!({"state": change.state, "reason": change.reason});
        audit(&mut tx, actor, "agent.state", &format!("agent {agent}"), &detail, now).await?;
        tx.commit().await?;
        self.announce_work();
        self.announce_progress();
        let only = After { cursor: None, limit: 1 };
        Ok(self.agents(&only, Some(agent)).await?.items.pop())
    }

    /// Agents, in the order in which they were enrolled.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_agents(&self, after: &After<i64>) -> Result<Page<AgentEntry>, StoreError> {
        self.agents(after, None).await
    }

    /// A page of agents, or the one of an id.
    async fn agents(
        &self,
        after: &After<i64>,
        only: Option<Uuid>,
    ) -> Result<Page<AgentEntry>, StoreError> {
        let mut tx = self.readers.begin().await?;
        let found: Vec<Columns> = sqlx::query_as(
            "SELECT agents.id, uuid, name, hardware_id, config_id, enrolled_at, seen_at, canary_at,
                    state, state_reason, state_since, state_by
             FROM agents JOIN tables ON tables.id = table_id
             WHERE agents.id > ?1 AND (?3 IS NULL OR uuid = ?3) ORDER BY agents.id LIMIT ?2",
        )
        .bind(after.cursor.unwrap_or(0))
        .bind(after.fetch())
        .bind(only.map(|id| id.to_string()))
        .fetch_all(&mut *tx)
        .await?;
        let ids: Vec<i64> = found.iter().map(|agent| agent.id).collect();
        let mut leases = self.leases_of(&mut tx, &ids).await?;
        let entries = found
            .into_iter()
            .map(|agent| {
                let leases = leases.remove(&agent.id).unwrap_or_default();
                Ok((agent.id.to_string(), self.entry(agent, leases)?))
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(after.page(entries))
    }

    fn entry(&self, agent: Columns, leases: Vec<AgentLease>) -> Result<AgentEntry, StoreError> {
        Ok(AgentEntry {
            agent_id: agent.uuid.parse().map_err(|e| StoreError::damaged("an agent's id", e))?,
            name: agent.name,
            hardware_id: agent
                .hardware_id
                .parse()
                .map_err(|e| StoreError::damaged("a hardware id", e))?,
            config: agent.config_id,
            enrolled_at: time(agent.enrolled_at)?,
            seen_at: self.last_heard(agent.id, time(agent.seen_at)?),
            standing: Standing {
                state: state_of(&agent.state)?,
                reason: agent.state_reason,
                since: agent.state_since.map(time).transpose()?,
                by: agent.state_by,
            },
            unfit: self.shared.presence.unfit(agent.id),
            clock_ahead_seconds: self
                .shared
                .presence
                .clock_ahead(agent.id)
                .map(|ahead| ahead.as_secs_f64()),
            canary_at: agent.canary_at.map(time).transpose()?,
            leases,
        })
    }

    /// The leases of some agents, by agent.
    async fn leases_of(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
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
            let pace = self.shared.presence.pace(id);
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

pub(super) fn state_of(name: &str) -> Result<AgentState, StoreError> {
    [AgentState::Active, AgentState::Draining, AgentState::Quarantined]
        .into_iter()
        .find(|state| state.name() == name)
        .ok_or_else(|| StoreError::damaged("an agent's state", name))
}

/// An agent's state, as a transaction sees it.
pub(super) async fn state(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
) -> Result<AgentState, StoreError> {
    let name: String = sqlx::query_scalar("SELECT state FROM agents WHERE id = ?1")
        .bind(agent.id)
        .fetch_one(&mut **tx)
        .await?;
    state_of(&name)
}

/// An agent's state as a transaction sees it, and when it was enrolled.
pub(super) async fn state_and_enrolment(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
) -> Result<(AgentState, Timestamp), StoreError> {
    let (name, enrolled_at): (String, i64) =
        sqlx::query_as("SELECT state, enrolled_at FROM agents WHERE id = ?1")
            .bind(agent.id)
            .fetch_one(&mut **tx)
            .await?;
    Ok((state_of(&name)?, time(enrolled_at)?))
}

/// Writes a state, and ends the leases of an agent that is no longer trusted.
pub(super) async fn write(
    tx: &mut Transaction<'static, Sqlite>,
    agent: i64,
    change: &StateChange,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
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
    if change.state == AgentState::Quarantined {
        leases::release_all(tx, agent).await?;
    }
    Ok(())
}

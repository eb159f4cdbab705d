//! Decisions about an agent: its state, its author and its reason.

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::{AgentEntry, AgentState, StateChange};
use serde_json::json;
use uuid::Uuid;

use super::agents::{self, Agent};
use super::audit::{Actor, audit};
use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::{Store, StoreError, leases};

/// The author of a state that an admin sets.
pub(super) const ADMIN: &str = "admin";

/// The author of a state that the farm sets because of a canary.
pub(super) const CANARY: &str = "canary";

/// The author of a state that the farm sets because of failures of tasks that others measured.
pub(super) const FAILURES: &str = "failures";

impl Store {
    /// The decided state of an agent, and why.
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

    /// Sets an agent's state. In quarantine its leases end, and their tasks are queued again without an attempt.
    /// Returns the updated agent; none if there is no such agent.
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
}

pub(super) fn state_of(name: &str) -> Result<AgentState, StoreError> {
    [AgentState::Active, AgentState::Draining, AgentState::Quarantined]
        .into_iter()
        .find(|state| state.name() == name)
        .ok_or_else(|| StoreError::damaged("an agent's state", name))
}

/// An agent's state in a transaction.
pub(super) async fn state(tx: &mut Tx, agent: &Agent) -> Result<AgentState, StoreError> {
    let name: String = sqlx::query_scalar("SELECT state FROM agents WHERE id = ?1")
        .bind(agent.id)
        .fetch_one(&mut **tx)
        .await?;
    state_of(&name)
}

/// An agent's state in a transaction, and when it was enrolled.
pub(super) async fn state_and_enrolment(
    tx: &mut Tx,
    agent: &Agent,
) -> Result<(AgentState, Timestamp), StoreError> {
    let (name, enrolled_at): (String, StoredTime) =
        sqlx::query_as("SELECT state, enrolled_at FROM agents WHERE id = ?1")
            .bind(agent.id)
            .fetch_one(&mut **tx)
            .await?;
    Ok((state_of(&name)?, enrolled_at.0))
}

/// Writes a state that somebody has decided; false if there is no such agent.
async fn decide(
    tx: &mut Tx,
    agent: Uuid,
    change: &StateChange,
    actor: &Actor,
    now: Timestamp,
) -> Result<(bool, Effects), StoreError> {
    let Some(id) = agents::number(tx, agent).await? else { return Ok((false, Effects::none())) };
    let effects = write(tx, id, change, ADMIN, now).await?;
    let detail = json!({"state": change.state, "reason": change.reason});
    audit(tx, actor, "agent.state", &format!("agent {agent}"), &detail, now).await?;
    Ok((true, effects))
}

/// Writes a state, and ends the leases of an agent that is no longer trusted. An agent that is trusted again may get
/// work at once.
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
    .bind(StoredTime(now))
    .bind(by)
    .bind(agent)
    .execute(&mut **tx)
    .await?;
    let effects = match change.state {
        AgentState::Quarantined => leases::release_all(tx, agent).await?,
        AgentState::Active | AgentState::Draining => Effects::work_for([agent]),
    };
    // The status of requests includes the available agents.
    Ok(effects.and(Effects::progress()))
}

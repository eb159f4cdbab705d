//! Canaries: handed out before other work, and compared with those of other agents when they arrive.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::Measurement;
use latlas_shared::api::{AgentState, Lease, StateChange, Task, TaskWork};
use uuid::Uuid;

use super::agent_state::{self, CANARY, FAILURES};
use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::{Agent, Store, StoreError, count, from_json, leases, readable, to_json};
use crate::rules::canary::{self, Due, Round, Values, Verdict};
use crate::rules::lease;

/// The most canaries that one is compared with: those of other agents, or earlier ones of the agent itself.
pub(super) const MOST_COMPARED: i64 = 32;

#[derive(sqlx::FromRow)]
struct CanaryRow {
    state: String,
    state_by: Option<String>,
    state_since: Option<StoredTime>,
    canary_asked_at: Option<StoredTime>,
    canary_at: Option<StoredTime>,
    canary_tries: i64,
    out: bool,
}

impl CanaryRow {
    fn round(&self) -> Result<Round, StoreError> {
        Ok(Round {
            state: agent_state::state_of(&self.state)?,
            by_farm: matches!(self.state_by.as_deref(), Some(CANARY | FAILURES)),
            asked_at: self.canary_asked_at.map(|at| at.0),
            tries: count(self.canary_tries),
            out: self.out,
        })
    }

    /// Whether the agent was quarantined for missing numbers, and not by the verdict on a canary.
    fn lost(&self) -> bool {
        self.state_by.as_deref() == Some(FAILURES) || self.canary_at < self.state_since
    }
}

/// The next duty of an agent.
pub(super) enum Duty {
    Nothing,
    Work,
    Canary,
}

impl Store {
    /// The duty of an agent, independent of the queue.
    pub(super) async fn duty_of(&self, agent: &Agent, now: Timestamp) -> Result<Duty, StoreError> {
        if self.hub.presence.unfit(agent.id).is_some() {
            return Ok(Duty::Nothing);
        }
        let round = {
            let mut tx = self.db.read().await?;
            read(&mut tx, agent).await?.round()?
        };
        match canary::due(&round, self.policy().canary_every, now) {
            Due::Yes if !self.canary_tasks(agent)?.is_empty() => return Ok(Duty::Canary),
            Due::Lost => {
                self.lose_canary(agent, now).await?;
                return Ok(Duty::Nothing);
            }
            Due::Yes | Due::No => {}
        }
        match round.state {
            AgentState::Active => Ok(Duty::Work),
            AgentState::Draining | AgentState::Quarantined => Ok(Duty::Nothing),
        }
    }

    /// The canary's tasks that the agent can run.
    pub(super) fn canary_tasks(&self, agent: &Agent) -> Result<Vec<Task>, StoreError> {
        let damaged = |e: ops_catalog::Invalid| StoreError::damaged("the canary", e);
        let ops = self.ops();
        let catalog = ops.catalog();
        let space = catalog.space(canary::SPACE).map_err(damaged)?;
        let entries = space.resolve(catalog).map_err(damaged)?.entries;
        let known: Vec<String> = from_json("an agent's primitives", &agent.primitives)?;
        let able = |op: &ops_catalog::Op| {
            op.def().nodes.iter().all(|node| known.iter().any(|name| name == node.apply.name()))
        };
        let able = entries.into_iter().filter(|(_, op)| able(op)).enumerate();
        let task = |(index, (key, op)): (usize, (_, std::sync::Arc<ops_catalog::Op>))| Task {
            id: canary::task_number(index),
            generation: 0,
            work: TaskWork::Op { key, digest: op.digest().clone(), definition: op.def().clone() },
        };
        Ok(able.map(task).collect())
    }

    /// Hands the canary out; none if another call was first.
    pub(super) async fn lease_canary(
        &self,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let (store, agent) = (self.clone(), agent.clone());
        self.db
            .write((store, agent), move |(store, agent), tx| {
                store.grant_canary(tx, agent, id, now).boxed()
            })
            .await
    }

    async fn grant_canary(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let tasks = self.canary_tasks(agent)?;
        if leases::is_taken(tx, id).await? {
            return self.held_lease(tx, agent, id, now).await;
        }
        let round = read(tx, agent).await?.round()?;
        if canary::due(&round, self.policy().canary_every, now) != Due::Yes {
            return Ok(None);
        }
        let lease = Lease { id, deadline: lease::deadline(now, self.policy()), tasks };
        leases::insert_lease(tx, agent, &lease, lease.tasks.len(), true, now).await?;
        sqlx::query(
            "UPDATE agents SET canary_asked_at = ?1, canary_tries = canary_tries + 1 WHERE id = ?2",
        )
        .bind(StoredTime(now))
        .bind(agent.id)
        .execute(&mut **tx)
        .await?;
        Ok(Some(lease))
    }

    /// Quarantines an agent that was given the canary repeatedly and never sent one.
    async fn lose_canary(&self, agent: &Agent, now: Timestamp) -> Result<(), StoreError> {
        self.db.change(agent.clone(), move |agent, tx| lose(tx, agent, now).boxed()).await
    }

    /// Compares the agent's canary with others once it is complete, and changes the agent's state accordingly.
    pub(super) async fn judge_canary(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        now: Timestamp,
    ) -> Result<Effects, StoreError> {
        let columns = read(tx, agent).await?;
        let Some(asked_at) = columns.canary_asked_at else { return Ok(Effects::none()) };
        let wanted = self.canary_tasks(agent)?;
        let keys: Vec<String> = wanted.iter().map(|task| task.subject().to_string()).collect();
        let came = own(tx, agent, &keys, asked_at).await?;
        if !keys.iter().all(|key| came.iter().any(|last| last.key == *key)) {
            return Ok(Effects::none());
        }
        let values = Last::values(came.iter());
        let others = others(tx, agent).await?;
        let past = match canary::is_enough(&values, &others) {
            true => Vec::new(),
            false => past(tx, agent, &keys, asked_at).await?,
        };
        let verdict = canary::judge(&values, &others, &past);
        let counting = Last::values(came.iter().filter(|last| last.counts));
        sqlx::query(
            "UPDATE agents SET canary_at = ?1, canary_tries = 0,
                               canary_values = coalesce(?2, canary_values)
             WHERE id = ?3",
        )
        .bind(StoredTime(now))
        .bind((!counting.is_empty()).then(|| to_json(&counting)))
        .bind(agent.id)
        .execute(&mut **tx)
        .await?;
        if let Verdict::Outside(reason) = &verdict {
            tracing::warn!(agent = %agent.uuid, name = agent.name, reason, "a canary is outside its limits");
        }
        let after = canary::after(&columns.round()?, &verdict, columns.lost());
        let Some((state, reason)) = after else { return Ok(Effects::none()) };
        let change = StateChange { state, reason: Some(reason) };
        agent_state::write(tx, agent.id, &change, CANARY, now).await
    }
}

async fn lose(tx: &mut Tx, agent: &Agent, now: Timestamp) -> Result<((), Effects), StoreError> {
    let effects = distrust(tx, agent, canary::lost_reason(), CANARY, now).await?;
    sqlx::query("UPDATE agents SET canary_tries = 0, canary_asked_at = ?1 WHERE id = ?2")
        .bind(StoredTime(now))
        .bind(agent.id)
        .execute(&mut **tx)
        .await?;
    Ok(((), effects))
}

/// Quarantines an agent, if it counts as active.
pub(super) async fn distrust(
    tx: &mut Tx,
    agent: &Agent,
    reason: String,
    by: &str,
    now: Timestamp,
) -> Result<Effects, StoreError> {
    if agent_state::state(tx, agent).await? != AgentState::Active {
        return Ok(Effects::none());
    }
    tracing::warn!(agent = %agent.uuid, name = agent.name, reason, "an agent was quarantined");
    let change = StateChange { state: AgentState::Quarantined, reason: Some(reason) };
    agent_state::write(tx, agent.id, &change, by, now).await
}

async fn read(tx: &mut Tx, agent: &Agent) -> Result<CanaryRow, StoreError> {
    let found = sqlx::query_as(
        "SELECT state, state_by, state_since, canary_asked_at, canary_at, canary_tries,
                EXISTS (SELECT 1 FROM leases WHERE agent_id = agents.id AND canary = 1) AS out
         FROM agents WHERE id = ?1",
    )
    .bind(agent.id)
    .fetch_one(&mut **tx)
    .await?;
    Ok(found)
}

/// The last measurement of a canary's op.
#[derive(sqlx::FromRow)]
struct Last {
    key: String,
    measurement: String,
    /// Whether it may be compared with other agents.
    counts: bool,
}

impl Last {
    /// The values of the measurements with a number, by key.
    fn values<'a>(all: impl Iterator<Item = &'a Last>) -> Values {
        all.filter_map(|last| Some((last.key.clone(), value(&last.measurement)?))).collect()
    }
}

/// The last measurement of each key (?1) by an agent since its canary was handed out. The index `canaries` has this
/// order, so one look-up per key is enough, whatever else the agent has sent.
pub(super) const OWN: &str = "
    SELECT last.key, measurement, set_aside IS NULL AS counts
    FROM json_each(?1) AS wanted CROSS JOIN measurements AS last
    WHERE last.id = (SELECT id FROM measurements INDEXED BY canaries
                     WHERE canary = 1 AND table_id = ?2 AND agent_id = ?3 AND key = wanted.value
                       AND received_at >= ?4
                     ORDER BY received_at DESC, id DESC LIMIT 1)";

/// The latest canaries of the trusted agents of a table (?1), except one agent (?2); ?3 agents at most.
pub(super) const OTHERS: &str = "
    SELECT canary_values FROM agents INDEXED BY agents_by_canary
    WHERE table_id = ?1 AND id <> ?2 AND state <> 'quarantined' AND canary_at IS NOT NULL
      AND canary_values IS NOT NULL
    ORDER BY canary_at DESC LIMIT ?3";

/// The last measurements that count (?5 of them), of a key (?1) by an agent before its canary was handed out.
pub(super) const PAST: &str = "
    SELECT measurement FROM measurements INDEXED BY canaries_that_count
    WHERE canary = 1 AND set_aside IS NULL AND table_id = ?2 AND agent_id = ?3 AND key = ?1
      AND received_at < ?4
    ORDER BY received_at DESC, id DESC LIMIT ?5";

/// The measurements so far of the canary that was handed out at `asked_at`.
async fn own(
    tx: &mut Tx,
    agent: &Agent,
    keys: &[String],
    asked_at: StoredTime,
) -> Result<Vec<Last>, StoreError> {
    let found = sqlx::query_as(OWN)
        .bind(to_json(&keys))
        .bind(agent.table.id.0)
        .bind(agent.id)
        .bind(asked_at)
        .fetch_all(&mut **tx)
        .await?;
    Ok(found)
}

/// The latest canaries of the other trusted agents of the class.
async fn others(tx: &mut Tx, agent: &Agent) -> Result<Vec<Values>, StoreError> {
    let found: Vec<String> = sqlx::query_scalar(OTHERS)
        .bind(agent.table.id.0)
        .bind(agent.id)
        .bind(MOST_COMPARED)
        .fetch_all(&mut **tx)
        .await?;
    Ok(found.iter().filter_map(|values| readable("an agent's canary", values)).collect())
}

/// Earlier canaries of the agent itself, the latest first: the nth of each op form one canary.
async fn past(
    tx: &mut Tx,
    agent: &Agent,
    keys: &[String],
    asked_at: StoredTime,
) -> Result<Vec<Values>, StoreError> {
    let mut rounds: BTreeMap<usize, Values> = BTreeMap::new();
    for key in keys {
        let found: Vec<String> = sqlx::query_scalar(PAST)
            .bind(key)
            .bind(agent.table.id.0)
            .bind(agent.id)
            .bind(asked_at)
            .bind(MOST_COMPARED)
            .fetch_all(&mut **tx)
            .await?;
        for (round, measurement) in found.iter().enumerate() {
            if let Some(micros) = value(measurement) {
                rounds.entry(round).or_default().insert(key.clone(), micros);
            }
        }
    }
    Ok(rounds.into_values().collect())
}

fn value(measurement: &str) -> Option<f64> {
    readable::<Measurement>("a canary's measurement", measurement)?.micros()
}

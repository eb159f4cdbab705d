//! The queue: selecting tasks for an agent, and handing them out under a lease.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::{AgentState, Lease, Task, TaskWork};
use ops_catalog::OpDigest;
use sqlx::types::Text;
use uuid::Uuid;

use super::agents::Agent;
use super::canaries::Duty;
use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::failures::could_try;
use super::{Store, StoreError, agent_state, leases, tasks};
use crate::chain::Chain;
use crate::rules::lease;
use crate::rules::task::Progress;

/// The head of the queue of a table (?1), as far as an agent (?4) can run it. Tasks that the agent has failed are left
/// out while one of the other agents (?5, a JSON array) could try them.
pub(super) const QUEUE: &str = concat!(
    "SELECT task.id, generation, attempts,
            attempts - (SELECT count(*) FROM box_failures
                        WHERE task_id = task.id AND generation = task.generation) AS lost,
            reason, key, ops.digest, CAST(networks.definition AS BLOB) AS network
     FROM tasks AS task LEFT JOIN ops ON ops.id = op_id LEFT JOIN networks ON networks.id = network_id
     WHERE table_id = ?1 AND state = 'queued'
       AND NOT EXISTS (
         SELECT 1 FROM op_primitives WHERE op_id = task.op_id AND primitive NOT IN (
             SELECT value FROM json_each(?2)))
       AND NOT EXISTS (
         SELECT 1 FROM network_primitives WHERE network_id = task.network_id AND primitive NOT IN (
             SELECT value FROM json_each(?2)))
       AND NOT EXISTS (
         SELECT 1 FROM box_failures AS own CROSS JOIN json_each(?5) AS alive
                       CROSS JOIN agents AS other ON other.id = alive.value
         WHERE own.task_id = task.id AND own.agent_id = ?4 AND own.generation = task.generation
           AND ",
    could_try!(),
    ")
     ORDER BY attempts, task.id LIMIT ?3"
);

#[derive(sqlx::FromRow)]
struct Candidate {
    id: i64,
    generation: i64,
    attempts: i64,
    /// The number of attempts that no agent has reported.
    lost: i64,
    reason: Option<String>,
    /// Key and op digest of a row.
    key: Option<String>,
    digest: Option<Text<OpDigest>>,
    /// Definition of a network.
    network: Option<Vec<u8>>,
}

impl Candidate {
    /// Its state, which is queued.
    fn progress(&self) -> Progress {
        let attempts = super::count(self.attempts);
        Progress { attempts, reason: self.reason.clone(), ..Progress::new() }
    }
}

impl Store {
    /// Hands out tasks under a lease with this id, if there are any for this agent: its canary if it is due, else tasks
    /// of its table whose primitives it can run. An agent that is quarantined, draining or unfit gets no such tasks.
    ///
    /// The query only reads, so that a crowd of idle agents costs no writes. Expired leases are ended by
    /// [`Store::sweep`], not here.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lease(
        &self,
        agent: &Agent,
        id: Uuid,
        max_tasks: u32,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        // Work for this agent alone is checked separately, whatever other agents of its kind have found.
        match self.duty_of(agent, now).await? {
            Duty::Canary if max_tasks > 0 => return self.lease_canary(agent, id, now).await,
            Duty::Work if max_tasks > 0 => {}
            Duty::Nothing | Duty::Canary | Duty::Work => return Ok(None),
        }
        if !self.is_work_for(agent, now).await? {
            return Ok(None);
        }
        let (store, agent) = (self.clone(), agent.clone());
        self.db
            .change((store, agent), move |(store, agent), tx| {
                store.grant(tx, agent, id, max_tasks, now).boxed()
            })
            .await
    }

    /// Whether the queue contains a task for this agent. Agents query one after the other, so that agents that were
    /// woken together use the result of the first. Nothing is written meanwhile.
    async fn is_work_for(&self, agent: &Agent, now: Timestamp) -> Result<bool, StoreError> {
        let idle = &self.hub.idle;
        let _turn = idle.turn().await;
        let news = idle.news();
        if idle.is_nothing(agent, news, now) {
            return Ok(false);
        }
        let mut tx = self.db.read().await?;
        let others = self.others_for(&mut tx, agent, now).await?;
        let is_work = !candidates(&mut tx, agent, others.as_deref(), 1).await?.is_empty();
        // A task that waits for other agents says nothing about the work of those agents.
        if !is_work && others.is_none() {
            idle.found_nothing(agent, news, now);
        }
        Ok(is_work)
    }

    async fn grant(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        id: Uuid,
        max_tasks: u32,
        now: Timestamp,
    ) -> Result<(Option<Lease>, Effects), StoreError> {
        if leases::is_taken(tx, id).await? {
            return Ok((self.held_lease(tx, agent, id, now).await?, Effects::none()));
        }
        if agent_state::state(tx, agent).await? != AgentState::Active {
            return Ok((None, Effects::none()));
        }
        let others = self.others_for(tx, agent, now).await?;
        let mut effects = Effects::none();
        let limit = max_tasks.min(self.policy().max_tasks);
        let queue = loop {
            let mut unreadable = BTreeMap::new();
            let mut readable = Vec::new();
            for candidate in candidates(tx, agent, others.as_deref(), limit).await? {
                match self.task(&candidate) {
                    Ok(task) => readable.push((candidate, task)),
                    // At the head of the queue it would block all later tasks for every agent.
                    Err(error) => {
                        tracing::error!(
                            task = candidate.id,
                            "a task can't be handed out: {}",
                            Chain(&error)
                        );
                        let progress = candidate.progress().unreadable(&error.to_string());
                        unreadable.insert(candidate.id, progress);
                    }
                }
            }
            effects = effects.and(tasks::write_all(tx, &unreadable).await?);
            if unreadable.is_empty() || !readable.is_empty() {
                break readable;
            }
        };
        let lost: Vec<u32> = queue.iter().map(|(task, _)| super::count(task.lost.max(0))).collect();
        let size = lease::batch(&lost, max_tasks, self.policy());
        let size = lease::apart(queue.iter().map(|(_, task)| task.is_sustained()), size);
        if size == 0 {
            return Ok((None, effects));
        }
        let deadline = lease::deadline(now, self.policy());
        let mut lease = Lease { id, deadline, tasks: Vec::with_capacity(size) };
        leases::insert_lease(tx, agent, &lease, size, false, now).await?;
        let mut leased = BTreeMap::new();
        for (candidate, task) in queue.into_iter().take(size) {
            leased.extend(candidate.progress().leased(id).map(|progress| (candidate.id, progress)));
            lease.tasks.push(task);
        }
        effects = effects.and(tasks::write_all(tx, &leased).await?);
        Ok((Some(lease), effects))
    }

    /// A lease that this agent requests again, with its remaining tasks. None if the agent has no such lease.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lease_again(
        &self,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let mut tx = self.db.read().await?;
        self.held_lease(&mut tx, agent, id, now).await
    }

    pub(super) async fn held_lease(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let found: Option<(StoredTime, bool)> =
            sqlx::query_as("SELECT deadline, canary FROM leases WHERE id = ?1 AND agent_id = ?2")
                .bind(Text(id))
                .bind(agent.id)
                .fetch_optional(&mut **tx)
                .await?;
        let Some((StoredTime(deadline), canary)) = found else { return Ok(None) };
        if !lease::is_live(deadline, now) {
            return Ok(None);
        }
        let tasks = match canary {
            true => self.canary_tasks(agent)?,
            false => {
                let left = under(tx, id).await?;
                left.iter().map(|task| self.task(task)).collect::<Result<_, _>>()?
            }
        };
        Ok(Some(Lease { id, deadline, tasks }))
    }

    fn task(&self, candidate: &Candidate) -> Result<Task, StoreError> {
        let Candidate { id, generation, key, digest, network, .. } = candidate;
        let work = match (key.as_ref().zip(digest.as_ref()), network) {
            (Some((key, Text(digest))), None) => self.op_work(key, digest.clone())?,
            (None, Some(definition)) => TaskWork::Network(
                serde_json::from_slice(definition)
                    .map_err(|e| StoreError::damaged("a network's definition", e))?,
            ),
            _ => return Err(StoreError::damaged("a task", "it is neither a key nor a network")),
        };
        Ok(Task { id: *id, generation: super::count(*generation), work })
    }

    fn op_work(&self, key: &str, digest: OpDigest) -> Result<TaskWork, StoreError> {
        let definition = self
            .ops()
            .by_digest(&digest)
            .map(|entry| entry.op.def().clone())
            .ok_or_else(|| StoreError::damaged("a task", format!("no op for {key}")))?;
        let key = key.parse().map_err(|e| StoreError::damaged("a task's key", e))?;
        Ok(TaskWork::Op { key, digest, definition })
    }
}

/// The tasks under a lease, in the form in which they are handed out.
async fn under(tx: &mut Tx, id: Uuid) -> Result<Vec<Candidate>, StoreError> {
    let found = sqlx::query_as(
        "SELECT tasks.id, generation, attempts, 0 AS lost, reason, key, ops.digest,
                CAST(networks.definition AS BLOB) AS network
         FROM tasks LEFT JOIN ops ON ops.id = op_id LEFT JOIN networks ON networks.id = network_id
         WHERE lease_id = ?1 ORDER BY tasks.id",
    )
    .bind(Text(id))
    .fetch_all(&mut **tx)
    .await?;
    Ok(found)
}

/// The head of an agent's queue: tasks without earlier attempts come first. Tasks that the agent has failed are left
/// out if one of the `others` could try them.
async fn candidates(
    tx: &mut Tx,
    agent: &Agent,
    others: Option<&str>,
    limit: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let found = sqlx::query_as(QUEUE)
        .bind(agent.table.id.0)
        .bind(&agent.primitives)
        .bind(limit)
        .bind(agent.id)
        .bind(others.unwrap_or("[]"))
        .fetch_all(&mut **tx)
        .await?;
    Ok(found)
}

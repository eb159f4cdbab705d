//! Leases: handing tasks out and taking them back.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{AgentState, Lease, Task, TaskWork};
use ops_catalog::OpDigest;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::canaries::Next;
use super::failures::could_try;
use super::{Agent, Store, StoreError, boxes, from_json, micros, tasks, time};
use crate::lease::{self, Pace, Progress};

#[derive(sqlx::FromRow)]
struct Candidate {
    id: i64,
    generation: i64,
    attempts: i64,
    /// Those of the attempts that no box has reported.
    lost: i64,
    reason: Option<String>,
    /// Key and op digest of a row.
    key: Option<String>,
    digest: Option<String>,
    /// Definition of a network.
    network: Option<String>,
}

impl Store {
    /// Hands out tasks under a lease with this id, if there are any for this agent: its canary when that is
    /// due, else tasks of its table with primitives that it can run. A box that is not trusted, is to leave, or is unfit gets none.
    ///
    /// Reads first, so that a crowd of idle agents costs no writes.
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
        let turn = self.shared.idle.turn().await;
        let news = self.shared.idle.news();
        // A canary is for one agent, so it is looked for whatever others like it have found.
        let is_nothing = self.shared.idle.is_nothing(agent, news);
        if !is_nothing {
            self.sweep(now).await?;
        }
        match self.next_for(agent, now).await? {
            Next::Canary if max_tasks > 0 => {
                drop(turn);
                return self.lease_canary(agent, id, now).await;
            }
            Next::Work if !is_nothing => {}
            Next::Nothing | Next::Canary | Next::Work => return Ok(None),
        }
        let (waiting, others) = {
            let mut tx = self.readers.begin().await?;
            let others = self.others_for(&mut tx, agent, now).await?;
            (candidates(&mut tx, agent, others.as_deref(), 1).await?, others)
        };
        // What waits for others says nothing of what there is for them.
        if waiting.is_empty() && others.is_none() {
            self.shared.idle.found_nothing(agent, news);
        }
        if waiting.is_empty() || max_tasks == 0 {
            return Ok(None);
        }
        drop(turn);
        let (store, agent) = (self.clone(), agent.clone());
        let lease = self
            .write(move |tx| {
                async move { store.grant(tx, &agent, id, max_tasks, now).await }.boxed()
            })
            .await?;
        if lease.is_some() {
            self.announce_progress();
        }
        Ok(lease)
    }

    async fn grant(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        agent: &Agent,
        id: Uuid,
        max_tasks: u32,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        if is_taken(tx, id).await? {
            return self.held_lease(tx, agent, id, now).await;
        }
        if boxes::state(tx, agent).await? != AgentState::Active {
            return Ok(None);
        }
        let limit = max_tasks.min(self.policy().max_tasks);
        let others = self.others_for(tx, agent, now).await?;
        let queue = candidates(tx, agent, others.as_deref(), limit).await?;
        let lost: Vec<u32> = queue.iter().map(|task| super::count(task.lost.max(0))).collect();
        let size = lease::batch(&lost, max_tasks, self.policy());
        if size == 0 {
            return Ok(None);
        }
        let deadline = lease::deadline(now, self.policy());
        let mut lease = Lease { id, deadline, tasks: Vec::with_capacity(size) };
        insert_lease(tx, agent, &lease, size, false, now).await?;
        let mut leased = BTreeMap::new();
        for candidate in queue.into_iter().take(size) {
            let Candidate { id: task, attempts, reason, .. } = &candidate;
            let attempts = super::count(*attempts);
            let waiting = Progress { attempts, reason: reason.clone(), ..Progress::new() };
            leased.extend(waiting.leased(id).map(|progress| (*task, progress)));
            lease.tasks.push(self.task(candidate)?);
        }
        tasks::write_all(tx, &leased).await?;
        Ok(Some(lease))
    }

    /// A lease that this agent asks for once more, with what is left to do under it. None when it holds no such
    /// lease.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lease_again(
        &self,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let mut tx = self.readers.begin().await?;
        self.held_lease(&mut tx, agent, id, now).await
    }

    pub(super) async fn held_lease(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let found: Option<(i64, bool)> =
            sqlx::query_as("SELECT deadline, canary FROM leases WHERE id = ?1 AND agent_id = ?2")
                .bind(id.to_string())
                .bind(agent.id)
                .fetch_optional(&mut **tx)
                .await?;
        let Some((deadline, canary)) = found else { return Ok(None) };
        let deadline = time(deadline)?;
        if !lease::is_live(deadline, now) {
            return Ok(None);
        }
        let tasks = match canary {
            true => self.canary_tasks(agent)?,
            false => {
                let left = under(tx, id).await?;
                left.into_iter().map(|task| self.task(task)).collect::<Result<_, _>>()?
            }
        };
        Ok(Some(Lease { id, deadline, tasks }))
    }

    fn task(&self, candidate: Candidate) -> Result<Task, StoreError> {
        let Candidate { id, generation, key, digest, network, .. } = candidate;
        let work = match (key.zip(digest), network) {
            (Some((key, digest)), None) => self.op_work(&key, OpDigest(digest))?,
            (None, Some(definition)) => {
                TaskWork::Network(from_json("a network's definition", &definition)?)
            }
            _ => return Err(StoreError::damaged("a task", "it is neither a key nor a network")),
        };
        Ok(Task { id, generation: super::count(generation), work })
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

    /// Extends a lease; none when it is not this agent's or has ended: then its work is to be dropped.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn renew(
        &self,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (agent, deadline) = (agent.clone(), lease::deadline(now, self.policy()));
        let renewed = self
            .write(move |tx| async move { extend(tx, &agent, id, deadline, now).await }.boxed())
            .await?;
        Ok(renewed.then_some(deadline))
    }

    /// Takes a lease back; what was not measured waits again. False when it is not this agent's or has
    /// ended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(
        &self,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let agent = agent.clone();
        let given_back = self
            .write(move |tx| {
                async move {
                    let is_own = holds(tx, &agent, id, now).await?;
                    if is_own {
                        give_back(tx, id).await?;
                    }
                    Ok(is_own)
                }
                .boxed()
            })
            .await?;
        if given_back {
            self.shared.presence.forget(id);
            self.announce_work();
            self.announce_progress();
        }
        Ok(given_back)
    }

    /// Ends the leases whose deadline has passed and those whose agent lives and gets nowhere, and shortens
    /// those that a clock which was set back has made too long.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        for (lease, pace) in self.shared.presence.stuck(now, self.policy()) {
            self.end_stuck(lease, pace, now).await?;
        }
        let latest = lease::deadline(now, self.policy());
        let due: i64 =
            sqlx::query_scalar("SELECT count(*) FROM leases WHERE deadline <= ?1 OR deadline > ?2")
                .bind(micros(now))
                .bind(micros(latest))
                .fetch_one(&self.readers)
                .await?;
        if due == 0 {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let due: Vec<(String, i64, String)> = sqlx::query_as(
            "SELECT leases.id, deadline, name FROM leases JOIN agents ON agents.id = agent_id
             WHERE deadline <= ?1 OR deadline > ?2",
        )
        .bind(micros(now))
        .bind(micros(latest))
        .fetch_all(&mut *tx)
        .await?;
        for (id, deadline, agent_name) in due {
            let id = id.parse().map_err(|e| StoreError::damaged("a lease's id", e))?;
            let deadline = time(deadline)?;
            if lease::is_live(deadline, now) {
                let deadline = lease::bounded(deadline, now, self.policy());
                set_deadline(&mut tx, id, deadline).await?;
                continue;
            }
            for task in tasks::of_lease(&mut tx, id).await? {
                let after = task.progress.expired(id, &agent_name, self.policy());
                tracing::warn!(task = task.id, agent = agent_name, state = ?after.state, "a lease ran out");
                tasks::write(&mut tx, task.id, &after).await?;
            }
            delete_lease(&mut tx, id).await?;
            self.shared.presence.forget(id);
        }
        tx.commit().await?;
        self.announce_work();
        self.announce_progress();
        Ok(())
    }

    /// Takes a lease from an agent that is alive and gets nowhere.
    async fn end_stuck(&self, id: Uuid, pace: Pace, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let agent_name: Option<String> = sqlx::query_scalar(
            "SELECT name FROM leases JOIN agents ON agents.id = agent_id WHERE leases.id = ?1",
        )
        .bind(id.to_string())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(agent_name) = agent_name {
            let stood_still = now.duration_since(pace.moved_at);
            for task in tasks::of_lease(&mut tx, id).await? {
                let after = task.progress.stuck(id, &agent_name, stood_still, self.policy());
                tracing::warn!(task = task.id, agent = agent_name, state = ?after.state, "a lease stood still");
                tasks::write(&mut tx, task.id, &after).await?;
            }
            delete_lease(&mut tx, id).await?;
            tx.commit().await?;
            self.announce_work();
            self.announce_progress();
        }
        self.shared.presence.forget(id);
        Ok(())
    }

    /// To be called when a server starts: leases that nobody could renew while there was no server get
    /// the time to be renewed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        // A clock that was set back meanwhile would keep the leases of dead agents for as long.
        sqlx::query("UPDATE leases SET deadline = ?1")
            .bind(micros(lease::deadline(now, self.policy())))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Moves all leases by as much as the clock was set by.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn shift_leases(&self, by: SignedDuration) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE leases SET deadline = deadline + ?1")
            .bind(i64::try_from(by.as_micros()).unwrap_or(i64::MAX / 4))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        self.shared.presence.shift(by);
        Ok(())
    }
}

/// Extends a lease of this agent; false when it is not its own or has ended.
async fn extend(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
    id: Uuid,
    deadline: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if !holds(tx, agent, id, now).await? {
        return Ok(false);
    }
    set_deadline(tx, id, deadline).await?;
    Ok(true)
}

/// Whether there is a lease with this id, of whomever.
pub(super) async fn is_taken(
    tx: &mut Transaction<'static, Sqlite>,
    id: Uuid,
) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM leases WHERE id = ?1")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(found.is_some())
}

/// The tasks under a lease, as they are handed out.
async fn under(
    tx: &mut Transaction<'static, Sqlite>,
    id: Uuid,
) -> Result<Vec<Candidate>, StoreError> {
    let found = sqlx::query_as(
        "SELECT tasks.id, generation, attempts, 0 AS lost, reason, key, ops.digest,
                networks.definition AS network
         FROM tasks LEFT JOIN ops ON ops.id = op_id LEFT JOIN networks ON networks.id = network_id
         WHERE lease_id = ?1 ORDER BY tasks.id",
    )
    .bind(id.to_string())
    .fetch_all(&mut **tx)
    .await?;
    Ok(found)
}

/// The head of an agent's queue: tasks that were not tried before come first. What the agent has failed is not
/// among them where one of the `others` could try it.
async fn candidates(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
    others: Option<&str>,
    limit: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let found = sqlx::query_as(concat!(
        "SELECT task.id, generation, attempts,
                attempts - (SELECT count(*) FROM box_failures
                            WHERE task_id = task.id AND generation = task.generation) AS lost,
                reason, key, ops.digest, networks.definition AS network
         FROM tasks AS task LEFT JOIN ops ON ops.id = op_id LEFT JOIN networks ON networks.id = network_id
         WHERE table_id = ?1 AND state = 'queued'
           AND (op_id IS NULL OR op_id NOT IN (
             SELECT op_id FROM op_primitives
             WHERE primitive NOT IN (SELECT value FROM json_each(?2))))
           AND (network_id IS NULL OR network_id NOT IN (
             SELECT network_id FROM network_primitives
             WHERE primitive NOT IN (SELECT value FROM json_each(?2))))
           AND NOT EXISTS (
             SELECT 1 FROM box_failures AS own CROSS JOIN json_each(?5) AS alive
                           CROSS JOIN agents AS other ON other.id = alive.value
             WHERE own.task_id = task.id AND own.agent_id = ?4 AND own.generation = task.generation
               AND ",
        could_try!(),
        ")
         ORDER BY attempts, task.id LIMIT ?3"
    ))
    .bind(agent.table.id.0)
    .bind(&agent.primitives)
    .bind(limit)
    .bind(agent.id)
    .bind(others.unwrap_or("[]"))
    .fetch_all(&mut **tx)
    .await?;
    Ok(found)
}

/// Notes a lease of so many tasks, a canary or not.
pub(super) async fn insert_lease(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
    lease: &Lease,
    tasks: usize,
    canary: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO leases (id, agent_id, created_at, deadline, tasks, canary)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(lease.id.to_string())
    .bind(agent.id)
    .bind(micros(now))
    .bind(micros(lease.deadline))
    .bind(i64::try_from(tasks).unwrap_or(i64::MAX))
    .bind(canary)
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE agents SET seen_at = max(seen_at, ?1) WHERE id = ?2")
        .bind(micros(now))
        .bind(agent.id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Whether a lease lives and is this agent's.
async fn holds(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
    id: Uuid,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let deadline: Option<i64> =
        sqlx::query_scalar("SELECT deadline FROM leases WHERE id = ?1 AND agent_id = ?2")
            .bind(id.to_string())
            .bind(agent.id)
            .fetch_optional(&mut **tx)
            .await?;
    match deadline {
        Some(deadline) => Ok(lease::is_live(time(deadline)?, now)),
        None => Ok(false),
    }
}

/// Ends all leases of an agent; their tasks wait again, without an attempt.
pub(super) async fn release_all(
    tx: &mut Transaction<'static, Sqlite>,
    agent: i64,
) -> Result<(), StoreError> {
    let held: Vec<String> = sqlx::query_scalar("SELECT id FROM leases WHERE agent_id = ?1")
        .bind(agent)
        .fetch_all(&mut **tx)
        .await?;
    for id in held {
        give_back(tx, id.parse().map_err(|e| StoreError::damaged("a lease's id", e))?).await?;
    }
    Ok(())
}

/// Ends a lease whose work is given back: what was not measured waits again, without an attempt. A canary that
/// has not come in is due again at once.
async fn give_back(tx: &mut Transaction<'static, Sqlite>, id: Uuid) -> Result<(), StoreError> {
    let tasks = tasks::of_lease(tx, id).await?;
    let released: BTreeMap<i64, Progress> =
        tasks.into_iter().map(|task| (task.id, task.progress.released(id))).collect();
    tasks::write_all(tx, &released).await?;
    sqlx::query(
        "UPDATE agents SET canary_tries = canary_tries - 1, canary_asked_at = NULL
         WHERE canary_tries > 0 AND id = (SELECT agent_id FROM leases WHERE id = ?1 AND canary = 1)",
    )
    .bind(id.to_string())
    .execute(&mut **tx)
    .await?;
    delete_lease(tx, id).await
}

async fn set_deadline(
    tx: &mut Transaction<'static, Sqlite>,
    id: Uuid,
    deadline: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE leases SET deadline = ?1 WHERE id = ?2")
        .bind(micros(deadline))
        .bind(id.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The caller has moved the lease's tasks out of it.
async fn delete_lease(tx: &mut Transaction<'static, Sqlite>, id: Uuid) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM leases WHERE id = ?1").bind(id.to_string()).execute(&mut **tx).await?;
    Ok(())
}

//! Leases: handing tasks out and taking them back.

use jiff::Timestamp;
use latlas_shared::api::{Lease, Task, TaskWork};
use ops_catalog::OpDigest;
use sqlx::{Sqlite, Transaction};
use uuid::Uuid;

use super::{Agent, Store, StoreError, from_json, micros, tasks, time};
use crate::lease::{self, Progress};

#[derive(sqlx::FromRow)]
struct Candidate {
    id: i64,
    attempts: i64,
    reason: Option<String>,
    /// Key and op digest of a row.
    key: Option<String>,
    digest: Option<String>,
    /// Definition of a network.
    network: Option<String>,
}

impl Store {
    /// Hands out tasks, if there are any for this agent: of its table, with primitives that it can run.
    ///
    /// Reads first, so that a crowd of idle agents costs no writes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lease(
        &self,
        agent: &Agent,
        max_tasks: u32,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        self.sweep(now).await?;
        let waiting = {
            let mut tx = self.readers.begin().await?;
            candidates(&mut tx, agent, 1).await?
        };
        if waiting.is_empty() || max_tasks == 0 {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        let limit = max_tasks.min(self.policy().max_tasks);
        let queue = candidates(&mut tx, agent, limit).await?;
        let attempts: Vec<u32> = queue.iter().map(|task| super::count(task.attempts)).collect();
        let size = lease::batch(&attempts, max_tasks, self.policy());
        if size == 0 {
            return Ok(None);
        }
        let (id, deadline) = (Uuid::new_v4(), lease::deadline(now, self.policy()));
        insert_lease(&mut tx, id, agent, now, deadline).await?;
        let mut handed_out = Vec::with_capacity(size);
        for candidate in queue.into_iter().take(size) {
            handed_out.push(self.hand_out(&mut tx, candidate, id).await?);
        }
        tx.commit().await?;
        self.announce_progress();
        Ok(Some(Lease { id, deadline, tasks: handed_out }))
    }

    async fn hand_out(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        candidate: Candidate,
        lease: Uuid,
    ) -> Result<Task, StoreError> {
        let Candidate { id, attempts, reason, key, digest, network } = candidate;
        let waiting = Progress { attempts: super::count(attempts), reason, ..Progress::new() };
        if let Some(leased) = waiting.leased(lease) {
            tasks::write(tx, id, &leased).await?;
        }
        let work = match (key.zip(digest), network) {
            (Some((key, digest)), None) => self.op_work(&key, OpDigest(digest))?,
            (None, Some(definition)) => {
                TaskWork::Network(from_json("a network's definition", &definition)?)
            }
            _ => return Err(StoreError::damaged("a task", "it is neither a key nor a network")),
        };
        Ok(Task { id, work })
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
        let mut tx = self.begin().await?;
        if !holds(&mut tx, agent, id, now).await? {
            return Ok(None);
        }
        let deadline = lease::deadline(now, self.policy());
        set_deadline(&mut tx, id, deadline).await?;
        tx.commit().await?;
        Ok(Some(deadline))
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
        let mut tx = self.begin().await?;
        if !holds(&mut tx, agent, id, now).await? {
            return Ok(false);
        }
        for task in tasks::of_lease(&mut tx, id).await? {
            tasks::write(&mut tx, task.id, &task.progress.released(id)).await?;
        }
        delete_lease(&mut tx, id).await?;
        tx.commit().await?;
        self.announce_work();
        self.announce_progress();
        Ok(true)
    }

    /// Ends the leases whose deadline has passed, and shortens those that a clock which was set back has
    /// made too long.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
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
        }
        tx.commit().await?;
        self.announce_work();
        self.announce_progress();
        Ok(())
    }

    /// To be called when a server starts: leases that nobody could renew while there was no server get
    /// the time to be renewed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume(&self, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE leases SET deadline = ?1")
            .bind(micros(lease::deadline(now, self.policy())))
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

/// The head of an agent's queue: tasks that were not tried before come first.
async fn candidates(
    tx: &mut Transaction<'static, Sqlite>,
    agent: &Agent,
    limit: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let found = sqlx::query_as(
        "SELECT tasks.id, attempts, reason, key, ops.digest, networks.definition AS network
         FROM tasks LEFT JOIN ops ON ops.id = op_id LEFT JOIN networks ON networks.id = network_id
         WHERE table_id = ?1 AND state = 'queued'
           AND (op_id IS NULL OR op_id NOT IN (
             SELECT op_id FROM op_primitives
             WHERE primitive NOT IN (SELECT value FROM json_each(?2))))
           AND (network_id IS NULL OR network_id NOT IN (
             SELECT network_id FROM network_primitives
             WHERE primitive NOT IN (SELECT value FROM json_each(?2))))
         ORDER BY attempts, tasks.id LIMIT ?3",
    )
    .bind(agent.table.id.0)
    .bind(&agent.primitives)
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?;
    Ok(found)
}

async fn insert_lease(
    tx: &mut Transaction<'static, Sqlite>,
    id: Uuid,
    agent: &Agent,
    now: Timestamp,
    deadline: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO leases (id, agent_id, created_at, deadline) VALUES (?1, ?2, ?3, ?4)")
        .bind(id.to_string())
        .bind(agent.id)
        .bind(micros(now))
        .bind(micros(deadline))
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

//! Leases: granted to an agent, renewed, and given back.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::Lease;
use sqlx::types::Text;
use uuid::Uuid;

use super::agents::Agent;
use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::{Store, StoreError, tasks, to_json};
use crate::rules::lease;
use crate::rules::task::Progress;

impl Store {
    /// Extends a lease; none if it is not this agent's or has ended. The agent then drops the work.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn renew(
        &self,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let deadline = lease::deadline(now, self.policy());
        let renewed = self
            .db
            .write(agent.clone(), move |agent, tx| extend(tx, agent, id, deadline, now).boxed())
            .await?;
        Ok(renewed.then_some(deadline))
    }

    /// Releases a lease; unmeasured tasks are queued again. False if it is not this agent's or has ended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(
        &self,
        agent: &Agent,
        id: Uuid,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.db.change(agent.clone(), move |agent, tx| release(tx, agent, id, now).boxed()).await
    }
}

/// Extends a lease of this agent; false if it is not the agent's own or has ended.
async fn extend(
    tx: &mut Tx,
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

/// Releases a lease of this agent; false if it is not the agent's own or has ended.
async fn release(
    tx: &mut Tx,
    agent: &Agent,
    id: Uuid,
    now: Timestamp,
) -> Result<(bool, Effects), StoreError> {
    if !holds(tx, agent, id, now).await? {
        return Ok((false, Effects::none()));
    }
    Ok((true, give_back(tx, &[id]).await?))
}

/// Whether there is a lease with this id, of any agent.
pub(super) async fn is_taken(tx: &mut Tx, id: Uuid) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM leases WHERE id = ?1")
        .bind(Text(id))
        .fetch_optional(&mut **tx)
        .await?;
    Ok(found.is_some())
}

/// Stores a lease with this number of tasks, for a canary or not.
pub(super) async fn insert_lease(
    tx: &mut Tx,
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
    .bind(Text(lease.id))
    .bind(agent.id)
    .bind(StoredTime(now))
    .bind(StoredTime(lease.deadline))
    .bind(i64::try_from(tasks).unwrap_or(i64::MAX))
    .bind(canary)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Whether a lease is valid and is this agent's.
async fn holds(tx: &mut Tx, agent: &Agent, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
    let deadline: Option<StoredTime> =
        sqlx::query_scalar("SELECT deadline FROM leases WHERE id = ?1 AND agent_id = ?2")
            .bind(Text(id))
            .bind(agent.id)
            .fetch_optional(&mut **tx)
            .await?;
    Ok(deadline.is_some_and(|StoredTime(deadline)| lease::is_live(deadline, now)))
}

/// Ends all leases of an agent; their tasks are queued again, without an attempt.
pub(super) async fn release_all(tx: &mut Tx, agent: i64) -> Result<Effects, StoreError> {
    let held: Vec<Text<Uuid>> = sqlx::query_scalar("SELECT id FROM leases WHERE agent_id = ?1")
        .bind(agent)
        .fetch_all(&mut **tx)
        .await?;
    let held: Vec<Uuid> = held.into_iter().map(Text::into_inner).collect();
    give_back(tx, &held).await
}

/// Ends released leases: unmeasured tasks are queued again, without an attempt. An incomplete canary is due again at
/// once.
pub(super) async fn give_back(tx: &mut Tx, leases: &[Uuid]) -> Result<Effects, StoreError> {
    let tasks = tasks::of_leases(tx, leases).await?;
    let released: BTreeMap<i64, Progress> =
        tasks.into_iter().map(|(task, lease)| (task.id, task.progress.released(lease))).collect();
    let effects = tasks::write_all(tx, &released).await?;
    sqlx::query(
        "UPDATE agents SET canary_tries = canary_tries - 1, canary_asked_at = NULL
         WHERE canary_tries > 0 AND id IN (
             SELECT agent_id FROM json_each(?1) AS given CROSS JOIN leases ON leases.id = given.value
             WHERE canary = 1)",
    )
    .bind(to_json(&leases))
    .execute(&mut **tx)
    .await?;
    Ok(effects.and(delete(tx, leases.to_vec()).await?))
}

async fn set_deadline(tx: &mut Tx, id: Uuid, deadline: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE leases SET deadline = ?1 WHERE id = ?2")
        .bind(StoredTime(deadline))
        .bind(Text(id))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Deletes leases whose tasks the caller has already moved. Their agents may then have to repeat the canary.
pub(super) async fn delete(tx: &mut Tx, leases: Vec<Uuid>) -> Result<Effects, StoreError> {
    if leases.is_empty() {
        return Ok(Effects::none());
    }
    let agents: Vec<i64> = sqlx::query_scalar(
        "DELETE FROM leases WHERE id IN (SELECT value FROM json_each(?1)) RETURNING agent_id",
    )
    .bind(to_json(&leases))
    .fetch_all(&mut **tx)
    .await?;
    Ok(Effects::ended(leases).and(Effects::work_for(agents)))
}

//! Leases that end without results, and the deadlines of leases after a change of the clock or a downtime of the
//! server.

use std::collections::{BTreeMap, HashMap};

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use sqlx::types::Text;
use uuid::Uuid;

use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::leases::delete;
use super::{Store, StoreError, tasks, to_json};
use crate::rules::lease::{self, Pace, Policy};
use crate::rules::task::Progress;

/// The most tasks that one transaction takes back, if they belong to more than one lease: other writers wait meanwhile.
const TASKS_AT_ONCE: i64 = 1024;

/// The most stuck leases that end in one transaction.
const STUCK_AT_ONCE: usize = 16;

/// Expired leases, each with the number of tasks that were handed out under it.
pub(super) const DUE: &str =
    "SELECT id, tasks FROM leases WHERE deadline <= ?1 ORDER BY deadline LIMIT ?2";

impl Store {
    /// Ends expired leases and leases whose agent is alive but makes no progress. Shortens leases that became too long
    /// when the clock was set back.
    ///
    /// Many leases are ended in several transactions, so that other changes can run in between.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        self.shorten(now).await?;
        let stuck = self.hub.presence.stuck(now, self.policy());
        for piece in stuck.chunks(STUCK_AT_ONCE) {
            self.db
                .change((*self.policy(), piece.to_vec()), move |(policy, stuck), tx| {
                    end_stuck(tx, stuck, policy, now).boxed()
                })
                .await?;
        }
        loop {
            let due = self.due(now).await?;
            if due.is_empty() {
                return Ok(());
            }
            self.db
                .change((*self.policy(), due), move |(policy, due), tx| {
                    end_due(tx, due, policy, now).boxed()
                })
                .await?;
        }
    }

    /// Expired leases, as many as one transaction ends.
    async fn due(&self, now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
        let due: Vec<(Text<Uuid>, i64)> = sqlx::query_as(DUE)
            .bind(StoredTime(now))
            .bind(TASKS_AT_ONCE)
            .fetch_all(&self.db.readers)
            .await?;
        let mut tasks = 0;
        let piece = due.into_iter().take_while(|(_, of_lease)| {
            let fits = tasks == 0 || tasks + of_lease <= TASKS_AT_ONCE;
            tasks += of_lease.max(&1);
            fits
        });
        Ok(piece.map(|(Text(id), _)| id).collect())
    }

    /// Shortens leases that became too long when the clock was set back.
    async fn shorten(&self, now: Timestamp) -> Result<(), StoreError> {
        let latest = StoredTime(lease::bounded(Timestamp::MAX, now, self.policy()));
        let too_long: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM leases WHERE deadline > ?1)")
                .bind(latest)
                .fetch_one(&self.db.readers)
                .await?;
        if !too_long {
            return Ok(());
        }
        self.set_deadlines("UPDATE leases SET deadline = ?1 WHERE deadline > ?1", latest).await
    }

    /// Runs a statement on the deadlines of all leases.
    async fn set_deadlines<V>(&self, sql: &'static str, value: V) -> Result<(), StoreError>
    where
        V: Copy + Send + Sync + 'static + sqlx::Type<sqlx::Sqlite>,
        V: for<'q> sqlx::Encode<'q, sqlx::Sqlite>,
    {
        self.db
            .write((), move |(), tx| {
                async move {
                    sqlx::query(sql).bind(value).execute(&mut **tx).await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Called when a server starts. Leases that could not be renewed during the downtime are extended, so that they can
    /// be renewed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume(&self, now: Timestamp) -> Result<(), StoreError> {
        // If the clock was set back in the meantime, the leases of dead agents would last longer by that amount.
        let deadline = StoredTime(lease::deadline(now, self.policy()));
        self.set_deadlines("UPDATE leases SET deadline = ?1", deadline).await?;
        self.hub.presence.wake(now);
        Ok(())
    }

    /// Shifts all leases by the amount by which the clock was set.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn shift_leases(&self, by: SignedDuration) -> Result<(), StoreError> {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX / 4);
        self.set_deadlines("UPDATE leases SET deadline = deadline + ?1", micros).await?;
        self.hub.presence.shift(by);
        Ok(())
    }
}

/// Ends those of some leases whose deadline has passed, checked again in the transaction.
async fn end_due(
    tx: &mut Tx,
    leases: &[Uuid],
    policy: &Policy,
    now: Timestamp,
) -> Result<((), Effects), StoreError> {
    let holders = holders(tx, leases, now).await?;
    let ended = end(tx, holders, |progress, lease, agent| progress.expired(lease, agent, policy));
    Ok(((), ended.await?))
}

/// Ends leases whose agents are alive but make no progress. Leases that ended in the meantime are forgotten, too.
async fn end_stuck(
    tx: &mut Tx,
    stuck: &[(Uuid, Pace)],
    policy: &Policy,
    now: Timestamp,
) -> Result<((), Effects), StoreError> {
    let leases: Vec<Uuid> = stuck.iter().map(|(id, _)| *id).collect();
    let paces: HashMap<Uuid, Pace> = stuck.iter().copied().collect();
    let holders = holders(tx, &leases, Timestamp::MAX).await?;
    let ended = end(tx, holders, |progress, lease, agent| match paces.get(&lease) {
        Some(pace) => progress.stuck(lease, agent, now.duration_since(pace.moved_at), policy),
        None => progress,
    });
    Ok(((), ended.await?.and(Effects::ended(leases))))
}

/// The names of the agents that hold some leases with at most this deadline, by lease.
async fn holders(
    tx: &mut Tx,
    leases: &[Uuid],
    latest: Timestamp,
) -> Result<HashMap<Uuid, String>, StoreError> {
    let found: Vec<(Text<Uuid>, String)> = sqlx::query_as(
        "SELECT leases.id, name FROM json_each(?1) AS wanted
         CROSS JOIN leases ON leases.id = wanted.value JOIN agents ON agents.id = agent_id
         WHERE deadline <= ?2",
    )
    .bind(to_json(&leases))
    .bind(StoredTime(latest))
    .fetch_all(&mut **tx)
    .await?;
    Ok(found.into_iter().map(|(Text(id), name)| (id, name)).collect())
}

/// Ends leases without results, given the names of their agents; `after` gives the new state of a task. The number of
/// statements does not depend on the number of leases.
async fn end(
    tx: &mut Tx,
    holders: HashMap<Uuid, String>,
    after: impl Fn(Progress, Uuid, &str) -> Progress,
) -> Result<Effects, StoreError> {
    let leases: Vec<Uuid> = holders.keys().copied().collect();
    let mut left: HashMap<Uuid, usize> = HashMap::new();
    let mut ended = BTreeMap::new();
    for (task, lease) in tasks::of_leases(tx, &leases).await? {
        let Some(agent) = holders.get(&lease) else { continue };
        *left.entry(lease).or_default() += 1;
        ended.insert(task.id, after(task.progress, lease, agent));
    }
    for (lease, agent) in &holders {
        let tasks = left.get(lease).copied().unwrap_or_default();
        tracing::warn!(%lease, agent, tasks, "a lease ended without results");
    }
    let effects = tasks::write_all(tx, &ended).await?;
    Ok(effects.and(delete(tx, leases).await?))
}

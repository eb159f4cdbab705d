//! Leases that end without results, and their deadlines when the clock or the server was away.

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

/// The most tasks that one transaction takes back, if they are of more than one lease: others wait for the writer
/// meanwhile.
const TASKS_AT_ONCE: i64 = 1024;

/// The most leases that stand still and end in one transaction.
const STUCK_AT_ONCE: usize = 16;

/// Leases that are over, each with the number of tasks that were handed out under it.
pub(super) const DUE: &str =
    "SELECT id, tasks FROM leases WHERE deadline <= ?1 ORDER BY deadline LIMIT ?2";

impl Store {
    /// Ends the leases whose deadline has passed and those whose agent lives and gets nowhere, and shortens
    /// those that a clock which was set back has made too long.
    ///
    /// Many that end together end in several transactions, between which others get their turn.
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

    /// Leases whose deadline has passed, as many as one transaction ends.
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

    /// Shortens leases that a clock which was set back has made too long.
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

    /// To be called when a server starts: leases that nobody could renew while there was no server get
    /// the time to be renewed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume(&self, now: Timestamp) -> Result<(), StoreError> {
        // A clock that was set back meanwhile would keep the leases of dead agents for as long.
        let deadline = StoredTime(lease::deadline(now, self.policy()));
        self.set_deadlines("UPDATE leases SET deadline = ?1", deadline).await?;
        self.hub.presence.wake(now);
        Ok(())
    }

    /// Moves all leases by as much as the clock was set by.
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

/// Ends those of some leases whose deadline has passed, also as a transaction sees it.
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

/// Ends leases whose agents live and get nowhere. What ended meanwhile is forgotten, too.
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

/// The names of the agents that hold some leases whose deadline is no later than this, by lease.
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

/// Ends leases whose work came to nothing, given the names of their agents; `after` says what becomes of a task.
/// It costs the same few statements for any number of leases.
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

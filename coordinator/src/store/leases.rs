//! Leases: handing tasks out and taking them back.

use std::collections::{BTreeMap, HashMap};

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{AgentState, Lease, Task, TaskWork};
use ops_catalog::OpDigest;
use uuid::Uuid;

use super::canaries::Next;
use super::db::Tx;
use super::effects::Effects;
use super::failures::could_try;
use super::{Agent, Store, StoreError, boxes, micros, tasks, time, to_json};
use crate::chain::Chain;
use crate::rules::lease::{self, Pace, Policy, Progress};

/// The most tasks that one transaction takes back, if they are of more than one lease: others wait for the writer
/// meanwhile.
const TASKS_AT_ONCE: i64 = 1024;

/// The most leases that stand still and end in one transaction.
const STUCK_AT_ONCE: usize = 16;

/// Leases that are over, each with the number of tasks that were handed out under it.
pub(super) const DUE: &str =
    "SELECT id, tasks FROM leases WHERE deadline <= ?1 ORDER BY deadline LIMIT ?2";

/// The head of the queue of a table (?1), as far as an agent (?4) can run it, without what it has failed and one of
/// the other boxes (?5, a JSON array) could try.
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
    /// Those of the attempts that no box has reported.
    lost: i64,
    reason: Option<String>,
    /// Key and op digest of a row.
    key: Option<String>,
    digest: Option<String>,
    /// Definition of a network.
    network: Option<Vec<u8>>,
}

impl Candidate {
    /// Where it stands: it waits.
    fn progress(&self) -> Progress {
        let attempts = super::count(self.attempts);
        Progress { attempts, reason: self.reason.clone(), ..Progress::new() }
    }
}

impl Store {
    /// Hands out tasks under a lease with this id, if there are any for this agent: its canary when that is
    /// due, else tasks of its table with primitives that it can run. A box that is not trusted, is to leave, or is unfit gets none.
    ///
    /// Reads first, so that a crowd of idle agents costs no writes. Leases that are over end with
    /// [`Store::sweep`] and not here.
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
        // What is for this agent alone is looked for whatever others like it have found.
        match self.next_for(agent, now).await? {
            Next::Canary if max_tasks > 0 => return self.lease_canary(agent, id, now).await,
            Next::Work if max_tasks > 0 => {}
            Next::Nothing | Next::Canary | Next::Work => return Ok(None),
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

    /// Whether the queue holds a task for this agent. Agents look one after the other, so that a crowd that
    /// was woken together sees what the first of them found. Nothing is written meanwhile.
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
        // What waits for others says nothing of what there is for them.
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
        if is_taken(tx, id).await? {
            return Ok((self.held_lease(tx, agent, id, now).await?, Effects::none()));
        }
        if boxes::state(tx, agent).await? != AgentState::Active {
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
                    // At the head of the queue it would keep all that comes after it from every agent.
                    Err(error) => {
                        tracing::error!(
                            task = candidate.id,
                            "it can't be handed out: {}",
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
        if size == 0 {
            return Ok((None, effects));
        }
        let deadline = lease::deadline(now, self.policy());
        let mut lease = Lease { id, deadline, tasks: Vec::with_capacity(size) };
        insert_lease(tx, agent, &lease, size, false, now).await?;
        let mut leased = BTreeMap::new();
        for (candidate, task) in queue.into_iter().take(size) {
            leased.extend(candidate.progress().leased(id).map(|progress| (candidate.id, progress)));
            lease.tasks.push(task);
        }
        effects = effects.and(tasks::write_all(tx, &leased).await?);
        Ok((Some(lease), effects))
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
                left.iter().map(|task| self.task(task)).collect::<Result<_, _>>()?
            }
        };
        Ok(Some(Lease { id, deadline, tasks }))
    }

    fn task(&self, candidate: &Candidate) -> Result<Task, StoreError> {
        let Candidate { id, generation, key, digest, network, .. } = candidate;
        let work = match (key.as_ref().zip(digest.as_ref()), network) {
            (Some((key, digest)), None) => {
                self.op_work(key, digest.parse().map_err(|e| StoreError::damaged("a digest", e))?)?
            }
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
        let deadline = lease::deadline(now, self.policy());
        let renewed = self
            .db
            .write(agent.clone(), move |agent, tx| extend(tx, agent, id, deadline, now).boxed())
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
        self.db.change(agent.clone(), move |agent, tx| release(tx, agent, id, now).boxed()).await
    }

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
        let due: Vec<(String, i64)> = sqlx::query_as(DUE)
            .bind(micros(now))
            .bind(TASKS_AT_ONCE)
            .fetch_all(&self.db.readers)
            .await?;
        let mut tasks = 0;
        let piece = due.into_iter().take_while(|(_, of_lease)| {
            let fits = tasks == 0 || tasks + of_lease <= TASKS_AT_ONCE;
            tasks += of_lease.max(&1);
            fits
        });
        piece.map(|(id, _)| lease_id(&id)).collect()
    }

    /// Shortens leases that a clock which was set back has made too long.
    async fn shorten(&self, now: Timestamp) -> Result<(), StoreError> {
        let latest = micros(lease::bounded(Timestamp::MAX, now, self.policy()));
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

    /// Runs a statement on the deadlines of all leases, with a number of microseconds.
    async fn set_deadlines(&self, sql: &'static str, micros: i64) -> Result<(), StoreError> {
        self.db
            .write((), move |(), tx| {
                async move {
                    sqlx::query(sql).bind(micros).execute(&mut **tx).await?;
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
        let deadline = micros(lease::deadline(now, self.policy()));
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

/// Extends a lease of this agent; false when it is not its own or has ended.
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

/// Gives a lease of this agent back; false when it is not its own or has ended.
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

/// Whether there is a lease with this id, of whomever.
pub(super) async fn is_taken(tx: &mut Tx, id: Uuid) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM leases WHERE id = ?1")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(found.is_some())
}

/// The tasks under a lease, as they are handed out.
async fn under(tx: &mut Tx, id: Uuid) -> Result<Vec<Candidate>, StoreError> {
    let found = sqlx::query_as(
        "SELECT tasks.id, generation, attempts, 0 AS lost, reason, key, ops.digest,
                CAST(networks.definition AS BLOB) AS network
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

/// Notes a lease of so many tasks, a canary or not.
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
    .bind(lease.id.to_string())
    .bind(agent.id)
    .bind(micros(now))
    .bind(micros(lease.deadline))
    .bind(i64::try_from(tasks).unwrap_or(i64::MAX))
    .bind(canary)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Whether a lease lives and is this agent's.
async fn holds(tx: &mut Tx, agent: &Agent, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
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
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT leases.id, name FROM json_each(?1) AS wanted
         CROSS JOIN leases ON leases.id = wanted.value JOIN agents ON agents.id = agent_id
         WHERE deadline <= ?2",
    )
    .bind(to_json(&leases))
    .bind(micros(latest))
    .fetch_all(&mut **tx)
    .await?;
    found.into_iter().map(|(id, name)| Ok((lease_id(&id)?, name))).collect()
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

/// Ends all leases of an agent; their tasks wait again, without an attempt.
pub(super) async fn release_all(tx: &mut Tx, agent: i64) -> Result<Effects, StoreError> {
    let held: Vec<String> = sqlx::query_scalar("SELECT id FROM leases WHERE agent_id = ?1")
        .bind(agent)
        .fetch_all(&mut **tx)
        .await?;
    let held: Vec<Uuid> = held.iter().map(|id| lease_id(id)).collect::<Result<_, _>>()?;
    give_back(tx, &held).await
}

/// Ends leases whose work is given back: what was not measured waits again, without an attempt. A canary that
/// has not come in is due again at once.
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
        .bind(micros(deadline))
        .bind(id.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Deletes leases, whose tasks the caller has moved out of them. Their agents may have the canary to do again then.
async fn delete(tx: &mut Tx, leases: Vec<Uuid>) -> Result<Effects, StoreError> {
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

pub(super) fn lease_id(text: &str) -> Result<Uuid, StoreError> {
    text.parse().map_err(|e| StoreError::damaged("a lease's id", e))
}

//! Incoming results: facts are stored and tasks are settled, in one transaction. Tables are updated later (`derive`).
//!
//! Work that needs no database is done before the transaction: checking a measurement and writing it as JSON. Inside
//! the transaction, a batch costs a handful of statements, not a handful for each measurement.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{AgentState, ResultsAnswer};
use sqlx::QueryBuilder;
use sqlx::types::Text;
use uuid::Uuid;

use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::failures::Failed;
use super::incoming::{About, Admitted, Class, Incoming, Refusal, check};
use super::rows::{Place, What};
use super::{
    Agent, Store, StoreError, TableId, agent_state, canaries, chunks, networks, tasks, to_json,
};
use crate::rules::admission::EnrolledClass;
use crate::rules::task::{self, Failure, State};
use crate::rules::{canary, failures};

/// An accepted measurement, and its place.
struct Taken<'b> {
    place: Place,
    /// The generation of its task.
    generation: u32,
    /// When it was made, by the coordinator's clock.
    measured_at: Timestamp,
    /// Why it does not count. This is decided once, when it arrives.
    set_aside: Option<&'b str>,
    admitted: &'b Admitted,
}

impl Taken<'_> {
    fn counts(&self) -> bool {
        !self.admitted.canary && self.set_aside.is_none()
    }
}

/// The new measurements of a batch.
#[derive(Default)]
struct New<'b> {
    taken: Vec<Taken<'b>>,
    refused: Vec<&'b Refusal>,
    /// Number of measurements that were known before.
    known: u32,
}

/// The changes that a batch makes to tasks.
#[derive(Default)]
struct Settled {
    /// The tasks for which this agent has sent a number.
    measured: BTreeSet<i64>,
    /// The tasks that the agent has failed through its own fault.
    failed: Vec<Failed>,
    /// The effects of the changes.
    effects: Effects,
}

impl Settled {
    /// Adds an attempt that was counted, if one was.
    fn count(&mut self, attempt: Option<(Failed, Effects)>) {
        if let Some((failed, effects)) = attempt {
            self.failed.push(failed);
            self.follow(effects);
        }
    }

    fn follow(&mut self, effects: Effects) {
        self.effects = std::mem::take(&mut self.effects).and(effects);
    }
}

/// A batch after all steps that need no database.
struct Batch {
    agent: Agent,
    now: Timestamp,
    /// How far the box's clock is ahead of the coordinator's.
    ahead: Option<SignedDuration>,
    checked: Vec<Result<Admitted, Refusal>>,
    unreadable: Vec<Refusal>,
}

/// The fingerprints of a class of device.
pub(super) const FINGERPRINTS: &str = "SELECT digest FROM fingerprints WHERE hardware_id = ?1";

impl Store {
    /// Adds measurements. Known ones change nothing; refused ones do not block the others. When it returns, the
    /// measurements that it counts as stored are on disk.
    ///
    /// # Errors
    /// When the store fails; then nothing is stored.
    pub async fn add_results(
        &self,
        agent: &Agent,
        incoming: Incoming,
        now: Timestamp,
    ) -> Result<ResultsAnswer, StoreError> {
        let Incoming { measurements, unreadable, clock } = incoming;
        let ahead = self.hub.presence.hear_clock(agent.id, clock, now);
        let class = self.class_of(agent).await?;
        let ops = self.ops();
        // A thousand measurements keep a processor busy for longer than other calls should wait.
        let checked = tokio::task::spawn_blocking(move || {
            measurements.into_iter().map(|m| check(m, &class, &ops)).collect()
        });
        let checked = checked.await.map_err(|_| StoreError::Ended("the check of measurements"))?;
        let batch = Batch { agent: agent.clone(), now, ahead, checked, unreadable };
        let store = self.clone();
        let answer =
            self.db.change((store, batch), |(store, batch), tx| store.take_in(tx, batch).boxed());
        let answer = answer.await?;
        if answer.stored > 0 {
            self.heard_of(agent, None, now);
        }
        Ok(answer)
    }

    async fn class_of(&self, agent: &Agent) -> Result<Class, StoreError> {
        let hardware_id = agent.table.hardware_id.clone();
        let tables: Vec<(String, i64)> =
            sqlx::query_as("SELECT config_id, id FROM tables WHERE hardware_id = ?1")
                .bind(hardware_id.as_str())
                .fetch_all(&self.db.readers)
                .await?;
        let fingerprints: Vec<String> = sqlx::query_scalar(FINGERPRINTS)
            .bind(hardware_id.as_str())
            .fetch_all(&self.db.readers)
            .await?;
        let tables: HashMap<String, TableId> =
            tables.into_iter().map(|(config, id)| (config, TableId(id))).collect();
        let configs: HashSet<String> = tables.keys().cloned().collect();
        let fingerprints = fingerprints.into_iter().collect();
        Ok(Class { known: EnrolledClass { hardware_id, fingerprints, configs }, tables })
    }

    /// Stores a batch and its consequences for tasks and agents.
    async fn take_in(
        &self,
        tx: &mut Tx,
        batch: &Batch,
    ) -> Result<(ResultsAnswer, Effects), StoreError> {
        let Batch { agent, now, .. } = batch;
        let now = *now;
        let (state, enrolled_at) = agent_state::state_and_enrolment(tx, agent).await?;
        let trusted = state != AgentState::Quarantined;
        let New { mut taken, refused, known } = new_of(tx, batch, trusted, enrolled_at).await?;
        let mut settled = self.settle_tasks(tx, agent, &mut taken, now).await?;
        insert(tx, agent, &taken, now).await?;
        for Taken { admitted, .. } in taken.iter().filter(|_| trusted) {
            if let Some(reason) = &admitted.impossible {
                settled.count(self.count_attempt(tx, agent, admitted.task, reason).await?);
            }
        }
        for refusal in &refused {
            self.refuse(tx, agent, refusal, &mut settled, now).await?;
        }
        let Settled { measured, failed, mut effects } = settled;
        let numbers = taken.iter().any(|t| t.counts() && t.admitted.has_number());
        if numbers || !failed.is_empty() {
            effects = effects.and(self.weigh(tx, agent, &measured, numbers, &failed, now).await?);
        }
        if taken.iter().any(|taken| taken.admitted.canary) {
            effects = effects.and(self.judge_canary(tx, agent, now).await?);
        }
        if taken.iter().any(Taken::counts) {
            // Tables are updated afterwards.
            effects = effects.and(Effects::progress());
        }
        let refused = refused.iter().map(|refusal| (refusal.id, refusal.reason.clone())).collect();
        let stored = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        Ok((ResultsAnswer { stored, known, refused }, effects))
    }

    /// Applies the consequences of a refused measurement.
    async fn refuse(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        refusal: &Refusal,
        settled: &mut Settled,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Refusal { id, task, reason } = refusal;
        tracing::warn!(agent = %agent.uuid, %id, reason, "a measurement was refused");
        settled.count(self.count_attempt(tx, agent, *task, reason).await?);
        if canary::is_canary(*task) {
            let why = format!("its canary was refused: {reason}");
            let distrusted = canaries::distrust(tx, agent, why, agent_state::CANARY, now).await?;
            settled.follow(distrusted);
        }
        Ok(())
    }

    /// Counts an attempt on the task that a refused measurement answers, if this agent holds it. Other agents then get
    /// it first.
    async fn count_attempt(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        task: Option<i64>,
        why: &str,
    ) -> Result<Option<(Failed, Effects)>, StoreError> {
        let Some(id) = task else { return Ok(None) };
        let Some((task, lease)) = tasks::held_by(tx, id, agent.id).await? else { return Ok(None) };
        let after = task.progress.refused(lease, &agent.name, why, self.policy());
        let effects = tasks::write(tx, id, &after).await?;
        Ok(Some((Failed { task: id, kind: "refused", reason: why.to_owned() }, effects)))
    }

    /// A result settles the task of its key or network, whoever works on it now, unless the result's work was handed
    /// out before the task was requested again. After a failure through a fault of the box, another agent can take the
    /// task.
    async fn settle_tasks(
        &self,
        tx: &mut Tx,
        agent: &Agent,
        taken: &mut [Taken<'_>],
        now: Timestamp,
    ) -> Result<Settled, StoreError> {
        let counting = taken.iter().filter(|taken| taken.counts());
        let places: BTreeSet<Place> = counting.map(|taken| taken.place.clone()).collect();
        if places.is_empty() {
            return Ok(Settled::default());
        }
        let before = tasks::of_places(tx, &places).await?;
        let held = leases_of(tx, agent).await?;
        let failing = taken.iter().filter(|t| t.counts() && !t.admitted.has_number());
        let failing: BTreeSet<i64> =
            failing.filter_map(|taken| Some(before.get(&taken.place)?.id)).collect();
        let elsewhere = self.with_another_agent(tx, agent, &failing, now).await?;
        let mut after = before.clone();
        let mut settled = Settled::default();
        for taken in taken.iter_mut().filter(|taken| taken.counts()) {
            let Some(task) = after.get_mut(&taken.place) else { continue };
            let lease = match task.progress.state {
                State::Leased(lease) => held.contains(&lease).then_some(lease),
                State::Queued | State::Done | State::Failed => None,
            };
            let said = taken.admitted.generation;
            if !task::answers(said, task.generation, lease.is_some()) {
                continue;
            }
            taken.generation = task.generation;
            let progress = task.progress.clone();
            if taken.admitted.has_number() {
                task.progress = progress.measured();
                settled.measured.insert(task.id);
                continue;
            }
            let kind = taken.admitted.failure;
            let reason = taken.admitted.reason.as_deref().unwrap_or("the agent gave no reason");
            let elsewhere = elsewhere.contains(&task.id);
            let failure = Failure { kind, reason, agent_name: &agent.name, lease, elsewhere };
            task.progress = progress.failed(&failure, self.policy());
            if kind.is_of_box() {
                let reason = reason.to_owned();
                settled.failed.push(Failed { task: task.id, kind: kind.name(), reason });
            }
        }
        let changed: BTreeMap<i64, _> = after
            .into_iter()
            .filter(|(place, task)| before.get(place).is_none_or(|b| b.progress != task.progress))
            .map(|(_, task)| (task.id, task.progress))
            .collect();
        settled.effects = tasks::write_all(tx, &changed).await?;
        Ok(settled)
    }
}

/// Splits a batch into new, refused and known measurements.
async fn new_of<'b>(
    tx: &mut Tx,
    batch: &'b Batch,
    trusted: bool,
    enrolled_at: Timestamp,
) -> Result<New<'b>, StoreError> {
    let mut known = known_of(tx, &batch.checked).await?;
    let mut new = New { refused: batch.unreadable.iter().collect(), ..New::default() };
    for checked in &batch.checked {
        let id = match checked {
            Ok(admitted) => admitted.id,
            Err(refusal) => refusal.id,
        };
        if known.contains(&id) {
            new.known += 1;
            continue;
        }
        match checked {
            Ok(admitted) => {
                known.insert(id);
                let set_aside = match trusted {
                    true => admitted.impossible.as_deref(),
                    false => Some("its agent was in quarantine"),
                };
                let place = place(tx, admitted, batch.now).await?;
                let (finished_at, generation) = (admitted.finished_at, admitted.generation);
                let measured_at =
                    failures::measured_at(finished_at, batch.ahead, enrolled_at, batch.now);
                let generation = generation.unwrap_or_default();
                new.taken.push(Taken { place, generation, measured_at, set_aside, admitted });
            }
            Err(refusal) => new.refused.push(refusal),
        }
    }
    Ok(new)
}

/// The leases that an agent holds.
async fn leases_of(tx: &mut Tx, agent: &Agent) -> Result<BTreeSet<Uuid>, StoreError> {
    let held: Vec<Text<Uuid>> = sqlx::query_scalar("SELECT id FROM leases WHERE agent_id = ?1")
        .bind(agent.id)
        .fetch_all(&mut **tx)
        .await?;
    Ok(held.into_iter().map(Text::into_inner).collect())
}

/// The measurements of a batch that were known before.
async fn known_of(
    tx: &mut Tx,
    checked: &[Result<Admitted, Refusal>],
) -> Result<HashSet<Uuid>, StoreError> {
    let ids: Vec<Uuid> = checked
        .iter()
        .map(|checked| checked.as_ref().map_or_else(|refusal| refusal.id, |admitted| admitted.id))
        .collect();
    let known: Vec<Text<Uuid>> = sqlx::query_scalar(
        "SELECT uuid FROM measurements WHERE uuid IN (SELECT value FROM json_each(?1))",
    )
    .bind(to_json(&ids))
    .fetch_all(&mut **tx)
    .await?;
    Ok(known.into_iter().map(Text::into_inner).collect())
}

async fn place(tx: &mut Tx, admitted: &Admitted, now: Timestamp) -> Result<Place, StoreError> {
    let what = match &admitted.about {
        About::Row(op, key) => What::Row { op: *op, key: key.clone() },
        About::Network(network) => What::Network(networks::find_or_add(tx, network, now).await?),
    };
    Ok(Place { table: admitted.table, what })
}

async fn insert(
    tx: &mut Tx,
    agent: &Agent,
    taken: &[Taken<'_>],
    now: Timestamp,
) -> Result<(), StoreError> {
    for piece in chunks(taken) {
        let mut query = QueryBuilder::new(
            "INSERT INTO measurements
                (uuid, table_id, agent_id, op_id, key, fingerprint, status, finished_at, received_at,
                 measurement, samples, network_id, canary, set_aside, generation, measured_at) ",
        );
        query.push_values(piece, |mut values, taken| {
            let Taken { place, generation, measured_at, set_aside, admitted } = taken;
            let (op, key, network) = match &place.what {
                What::Row { op, key } => (Some(op.0), Some(key), None),
                What::Network(network) => (None, None, Some(network.0)),
            };
            values
                .push_bind(Text(admitted.id))
                .push_bind(place.table.0)
                .push_bind(agent.id)
                .push_bind(op)
                .push_bind(key)
                .push_bind(&admitted.fingerprint)
                .push_bind(admitted.status.name())
                .push_bind(StoredTime(admitted.finished_at))
                .push_bind(StoredTime(now))
                .push_bind(&admitted.text)
                .push_bind(&admitted.samples)
                .push_bind(network)
                .push_bind(admitted.canary)
                .push_bind(set_aside)
                .push_bind(generation)
                .push_bind(StoredTime(*measured_at));
        });
        query.build().execute(&mut **tx).await?;
    }
    Ok(())
}

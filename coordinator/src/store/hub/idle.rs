//! Idle agents: which agents wait for work, and what they already know. A crowd of waiting agents queries the queue
//! once, not once each.
//!
//! News wakes only the agents that it concerns. Otherwise, in a farm of thousands of waiting agents, all of them would
//! query the queue whenever a lease ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::store::agents::Agent;
use crate::store::effects::Calls;
use crate::store::table::TableId;

/// Number of kinds of agents that are remembered; a farm has a handful.
const MOST_KINDS: usize = 1000;

/// How long an agent relies on an empty queue without a new query. This is a fallback for work that was not announced,
/// which waits at most this long.
const BELIEVED_FOR: SignedDuration = SignedDuration::from_secs(5);

/// Agents that get the same tasks: those of one table, with the same primitives.
type Kind = (TableId, String);

/// The notification of one waiting call.
#[derive(Debug)]
struct Bell {
    table: TableId,
    agent: i64,
    rung: Arc<Notify>,
}

/// A registration as waiting for work, until it is dropped.
#[derive(Debug)]
pub struct Waiting {
    idle: Arc<Idle>,
    number: u64,
    rung: Arc<Notify>,
}

impl Waiting {
    /// Waits until there may be work for the agent. Returns at once if there may have been work since the last call.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.idle.known().bells.remove(&self.number);
    }
}

/// The waiting agents, and the kinds of agents that have queried the queue in vain since the last new work.
#[derive(Debug, Default)]
pub struct Idle {
    known: Mutex<IdleState>,
    /// Locked while an agent queries the queue, so that agents that were woken with it can use its result.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct IdleState {
    bells: HashMap<u64, Bell>,
    /// A counter that numbers the waiting agents.
    places: u64,
    /// Counts how often there may have been new work.
    news: u64,
    /// The count at which a kind of agents last found nothing, with the time.
    nothing_at: HashMap<Kind, (u64, Timestamp)>,
}

impl Idle {
    fn known(&self) -> MutexGuard<'_, IdleState> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a waiting agent. Called before the query, so that later work notifies it.
    pub fn wait(self: &Arc<Self>, agent: &Agent) -> Waiting {
        let rung = Arc::new(Notify::new());
        let bell = Bell { table: agent.table.id, agent: agent.id, rung: Arc::clone(&rung) };
        let mut known = self.known();
        known.places += 1;
        let number = known.places;
        known.bells.insert(number, bell);
        Waiting { idle: Arc::clone(self), number, rung }
    }

    /// Announces possible work for some agents. Called after the commit of the work.
    pub fn announce(&self, calls: &Calls) {
        let mut known = self.known();
        if !calls.tables.is_empty() {
            known.news += 1;
        }
        for bell in known.bells.values().filter(|bell| calls.concern(bell.table, bell.agent)) {
            bell.rung.notify_one();
        }
    }

    /// Waits for the turn to query the queue.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.looking.lock().await
    }

    /// Read before a query of the queue: later work then counts as new.
    pub fn news(&self) -> u64 {
        self.known().news
    }

    /// Whether an agent of this kind has recently found nothing at this count.
    pub fn is_nothing(&self, agent: &Agent, news: u64, now: Timestamp) -> bool {
        self.known().nothing_at.get(&kind(agent)).is_some_and(|&(count, at)| {
            count == news && now.duration_since(at).abs() < BELIEVED_FOR
        })
    }

    /// Records that an agent has found nothing, after reading `news` before its query.
    pub fn found_nothing(&self, agent: &Agent, news: u64, now: Timestamp) {
        let nothing_at = &mut self.known().nothing_at;
        if nothing_at.len() >= MOST_KINDS {
            nothing_at.clear();
        }
        nothing_at.insert(kind(agent), (news, now));
    }
}

fn kind(agent: &Agent) -> Kind {
    (agent.table.id, agent.primitives.clone())
}

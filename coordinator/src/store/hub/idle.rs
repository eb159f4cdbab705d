//! Idle agents: who waits for work, and what they already know, so that a crowd looks for it once, and not once
//! each.
//!
//! A bell is rung for the agents that news concerns and for no others: in a farm of thousands that wait, each
//! lease that ends would have all of them look again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::store::agents::Agent;
use crate::store::effects::Calls;
use crate::store::table::TableId;

/// Kinds of agents that are remembered; a farm has a handful.
const MOST_KINDS: usize = 1000;

/// What an agent has found is true for so long without a look: a net under the announcements, so that work
/// that was not announced waits no longer.
const BELIEVED_FOR: SignedDuration = SignedDuration::from_secs(5);

/// Agents that are given the same tasks: of one table, with the same primitives.
type Kind = (TableId, String);

/// The bell of one call that waits.
#[derive(Debug)]
struct Bell {
    table: TableId,
    agent: i64,
    rung: Arc<Notify>,
}

/// A place among those who wait for work, until it is dropped.
#[derive(Debug)]
pub struct Waiting {
    idle: Arc<Idle>,
    number: u64,
    rung: Arc<Notify>,
}

impl Waiting {
    /// Waits until there may be work for the agent, at once if that was so since the last call.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.idle.known().bells.remove(&self.number);
    }
}

/// Who waits, and which kinds of agents have looked at the queue in vain since something last came into it.
#[derive(Debug, Default)]
pub struct Idle {
    known: Mutex<IdleState>,
    /// Held while an agent looks, so that those who were woken with it see what it found.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct IdleState {
    bells: HashMap<u64, Bell>,
    /// Numbers those who wait.
    places: u64,
    /// Counts the times at which there may be new work.
    news: u64,
    /// The count at which a kind of agents last found nothing, and when that was.
    nothing_at: HashMap<Kind, (u64, Timestamp)>,
}

impl Idle {
    fn known(&self) -> MutexGuard<'_, IdleState> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place among those who wait. To be called before looking, so that what comes after the look rings.
    pub fn wait(self: &Arc<Self>, agent: &Agent) -> Waiting {
        let rung = Arc::new(Notify::new());
        let bell = Bell { table: agent.table.id, agent: agent.id, rung: Arc::clone(&rung) };
        let mut known = self.known();
        known.places += 1;
        let number = known.places;
        known.bells.insert(number, bell);
        Waiting { idle: Arc::clone(self), number, rung }
    }

    /// There may be work for some. To be called after the commit that has it.
    pub fn announce(&self, calls: &Calls) {
        let mut known = self.known();
        if !calls.tables.is_empty() {
            known.news += 1;
        }
        for bell in known.bells.values().filter(|bell| calls.concern(bell.table, bell.agent)) {
            bell.rung.notify_one();
        }
    }

    /// Waits for the turn to look.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.looking.lock().await
    }

    /// To be read before looking at the queue: what comes after it is news again.
    pub fn news(&self) -> u64 {
        self.known().news
    }

    /// Whether an agent like this one has found nothing at this count, a moment ago.
    pub fn is_nothing(&self, agent: &Agent, news: u64, now: Timestamp) -> bool {
        self.known().nothing_at.get(&kind(agent)).is_some_and(|&(count, at)| {
            count == news && now.duration_since(at).abs() < BELIEVED_FOR
        })
    }

    /// An agent has found nothing, having read `news` before it looked.
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

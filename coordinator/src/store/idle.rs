//! What idle agents already know: a crowd that waits for work looks for it once, and not once each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::{Agent, TableId};

/// Kinds of agents that are remembered; a farm has a handful.
const MOST_KINDS: usize = 1000;

/// What an agent has found is true for so long without a look: a net under the announcements, so that work
/// that was not announced waits no longer.
const BELIEVED_FOR: SignedDuration = SignedDuration::from_secs(5);

/// Agents that are given the same tasks: of one table, with the same primitives.
type Kind = (TableId, String);

/// Which kinds of agents have looked at the queue in vain since something last came into it.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Counts the times at which there may be new work.
    news: AtomicU64,
    /// The count at which a kind of agents last found nothing, and when that was.
    nothing_at: Mutex<HashMap<Kind, (u64, Timestamp)>>,
    /// Held while an agent looks, so that those who were woken with it see what it found.
    looking: tokio::sync::Mutex<()>,
}

impl Idle {
    /// There may be new work. To be called after the commit that has it.
    pub fn announce(&self) {
        self.news.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits for the turn to look.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.looking.lock().await
    }

    /// To be read before looking at the queue: what comes after it is news again.
    pub fn news(&self) -> u64 {
        self.news.load(Ordering::SeqCst)
    }

    /// Whether an agent like this one has found nothing at this count, a moment ago.
    pub fn is_nothing(&self, agent: &Agent, news: u64, now: Timestamp) -> bool {
        let nothing_at = self.nothing_at.lock().unwrap_or_else(PoisonError::into_inner);
        nothing_at.get(&kind(agent)).is_some_and(|&(count, at)| {
            count == news && now.duration_since(at).abs() < BELIEVED_FOR
        })
    }

    /// An agent has found nothing, having read `news` before it looked.
    pub fn found_nothing(&self, agent: &Agent, news: u64, now: Timestamp) {
        let mut nothing_at = self.nothing_at.lock().unwrap_or_else(PoisonError::into_inner);
        if nothing_at.len() >= MOST_KINDS {
            nothing_at.clear();
        }
        nothing_at.insert(kind(agent), (news, now));
    }
}

fn kind(agent: &Agent) -> Kind {
    (agent.table.id, agent.primitives.clone())
}

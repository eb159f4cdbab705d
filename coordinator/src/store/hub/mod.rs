//! In-memory state of the running coordinator: waiting agents, watchers, and the last reports of agents.

pub(super) mod idle;
mod single_flight;
mod unwritten;

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Semaphore, watch};

use self::idle::Idle;
use self::single_flight::SingleFlight;
use self::unwritten::Unwritten;
use super::effects::Effects;
use super::table::Version;
use crate::op_book::OpBook;
use crate::rules::presence::Presence;

/// Number of versions that are built at one time: each takes a processor and the table's rows in memory.
pub(super) const ASSEMBLING: usize = 2;

/// The live state of a coordinator. It does not access the database. Effects of database changes are applied by
/// [`Hub::run`], which the task that commits calls.
///
/// The order of locks. The holder of a lock may take locks below it, and none above it.
///
/// 1. The turn to query for work (`idle`), then a permit to build a version (`assembling`). They are held across
///    database calls.
/// 2. A connection of the database.
/// 3. The locks of the fields below. They are leaves: each is held for a few instructions, never while another lock is
///    taken, and never across an `await`.
///
/// The task that commits takes only leaves. So the holder of a turn or a permit may await a change. The holder of a
/// reading connection must not await a change: the pool has few of them.
#[derive(Debug)]
pub(super) struct Hub {
    /// Facts about agents that are known as long as this process runs.
    pub presence: Presence,
    /// Frequent notes that are not yet written.
    pub unwritten: Unwritten,
    /// Agents that wait for a task, and kinds of agents that have queried the queue in vain.
    pub idle: Arc<Idle>,
    /// Versions of tables that are being built.
    pub versions: SingleFlight<Version>,
    /// Permits to build versions.
    pub assembling: Semaphore,
    /// Tables whose rows are being updated for a reader.
    pub deriving: SingleFlight<()>,
    /// Notified when a request may have progressed.
    pub progress: watch::Sender<()>,
    /// The ops of the database, ready to use. Changes that add ops run in separate transactions, so each sees the ops
    /// of the previous one.
    ops: RwLock<Arc<OpBook>>,
}

impl Default for Hub {
    fn default() -> Hub {
        Hub {
            presence: Presence::default(),
            unwritten: Unwritten::default(),
            idle: Arc::default(),
            versions: SingleFlight::default(),
            assembling: Semaphore::new(ASSEMBLING),
            deriving: SingleFlight::default(),
            progress: watch::channel(()).0,
            ops: RwLock::new(Arc::new(OpBook::default())),
        }
    }
}

impl Hub {
    /// All currently known ops.
    pub fn ops(&self) -> Arc<OpBook> {
        Arc::clone(&self.ops.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs the effects of changes, after their commit.
    pub fn run(&self, effects: Effects) {
        let Effects { work, progress, ended, left, ops } = effects;
        if let Some(book) = ops {
            *self.ops.write().unwrap_or_else(PoisonError::into_inner) = book;
        }
        for lease in ended {
            self.presence.forget(lease);
        }
        for (agent, at) in left {
            self.unwritten.forget(agent, at);
            self.presence.leave(agent);
        }
        self.idle.announce(&work);
        if progress {
            self.progress.send_replace(());
        }
    }
}

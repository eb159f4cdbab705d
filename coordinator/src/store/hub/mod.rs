//! What lives in memory as long as the coordinator runs: who waits, who watches, what agents have said.

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

/// Versions that are built at one time: each takes a processor and the table's rows in memory.
pub(super) const ASSEMBLING: usize = 2;

/// The live state of a coordinator. It knows nothing of the database. What of it follows from a change of the
/// database follows by [`Hub::run`], from the task that commits.
///
/// The order of locks. Who holds one may take those below it, and none above it.
///
/// 1. The turn to look for work (`idle`), then a permit to build a version (`assembling`). They are held across calls
///    of the database.
/// 2. A connection of the database.
/// 3. The locks of the fields below. They are leaves: each is held for a few instructions, never while another one
///    is taken, and never across an `await`.
///
/// The task that commits takes leaves only. So a change may be awaited by whoever holds a turn or a permit.
/// Who holds a connection that reads must not await a change: the pool has few of them.
#[derive(Debug)]
pub(super) struct Hub {
    /// What is known of agents as long as this process runs.
    pub presence: Presence,
    /// What is said or used often, until it is written.
    pub unwritten: Unwritten,
    /// Who waits for a task, and who has looked for one in vain.
    pub idle: Arc<Idle>,
    /// Versions of tables that are being built.
    pub versions: SingleFlight<Version>,
    /// The right to build one.
    pub assembling: Semaphore,
    /// Tables whose rows are brought up to date for a reader.
    pub deriving: SingleFlight<()>,
    /// Changes when a request may have got further.
    pub progress: watch::Sender<()>,
    /// The ops of the database, ready to use. Changes that add ops run alone, so each sees those of the one before.
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
    /// All known ops, as of now.
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

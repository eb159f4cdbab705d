//! What predictions share: the indexes of the versions that were asked about last, and the right to work on estimates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use latlas_predict::TableIndex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Indexes that are kept ready: a farm has few tables that are asked about at one time. What is learned for
/// estimates stays with them, up to 8 MB for an op.
const KEPT: usize = 8;

/// Predictions with estimates that work at one time: the first one of an op learns from its rows for some
/// seconds, on a processor of its own.
const ESTIMATING: usize = 2;

/// Predictions that wait for that; whoever comes then is told to come back.
const MOST_WAITING: usize = 64;

/// How long they wait.
const WAIT: Duration = Duration::from_secs(20);

/// The index of a version, made by the first who asks for it.
pub type Kept = Arc<OnceCell<Arc<TableIndex>>>;

/// What predictions share: the indexes of the versions that were asked about last, and the right to work on
/// estimates.
#[derive(Debug)]
pub struct Predictions {
    /// By version, the latest at the end.
    kept: Mutex<Vec<(String, Kept)>>,
    estimating: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Predictions {
    fn default() -> Predictions {
        Predictions {
            kept: Mutex::default(),
            estimating: Arc::new(Semaphore::new(ESTIMATING)),
            waiting: Semaphore::new(MOST_WAITING),
        }
    }
}

impl Predictions {
    /// The place of a version's index.
    pub fn index(&self, version: &str) -> Kept {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(of, _)| of == version);
        let entry = at.map_or_else(|| (version.to_owned(), Kept::default()), |at| kept.remove(at));
        let index = Arc::clone(&entry.1);
        kept.push(entry);
        if kept.len() > KEPT {
            kept.remove(0);
        }
        index
    }

    /// The right to work on estimates, held until it is dropped.
    /// None when too many wait for it already, or it takes too long.
    pub async fn may_estimate(&self) -> Option<OwnedSemaphorePermit> {
        let _waiting = self.waiting.try_acquire().ok()?;
        let permit = Arc::clone(&self.estimating).acquire_owned();
        tokio::time::timeout(WAIT, permit).await.ok()?.ok()
    }

    /// How often something was learned from the rows of a version that was asked about.
    #[cfg(test)]
    pub fn times_learned(&self, version: &str) -> usize {
        self.index(version).get().unwrap().times_learned()
    }

    /// Keeps estimates from being worked on for as long as this is held.
    #[cfg(test)]
    pub fn hold(&self) -> OwnedSemaphorePermit {
        let all = u32::try_from(ESTIMATING).unwrap();
        Arc::clone(&self.estimating).try_acquire_many_owned(all).unwrap()
    }
}

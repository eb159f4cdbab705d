//! Shared state of predictions: the indexes of recently used versions, and the permits for estimates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use latlas_predict::TableIndex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// Number of indexes that are cached: few tables of a farm are in use at one time. Models learned for estimates are
/// kept with them, up to 8 MB for an op.
const KEPT: usize = 8;

/// Number of predictions that may compute estimates at one time. The first estimate of an op learns from its rows for
/// some seconds, on its own processor.
const ESTIMATING: usize = 2;

/// Number of predictions that may wait for a permit; further ones are told to retry later.
const MOST_WAITING: usize = 64;

/// The longest wait for a permit.
const WAIT: Duration = Duration::from_secs(20);

/// The index of a version, built by the first caller.
pub type Kept = Arc<OnceCell<Arc<TableIndex>>>;

/// Shared state of predictions: the indexes of recently used versions, and the permits for estimates.
#[derive(Debug)]
pub struct Predictions {
    /// By version, the most recently used at the end.
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
    /// The cache entry of a version's index.
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

    /// A permit for estimates, held until it is dropped. None if too many wait for one already, or the wait takes too
    /// long.
    pub async fn may_estimate(&self) -> Option<OwnedSemaphorePermit> {
        let _waiting = self.waiting.try_acquire().ok()?;
        let permit = Arc::clone(&self.estimating).acquire_owned();
        tokio::time::timeout(WAIT, permit).await.ok()?.ok()
    }

    /// The number of models learned from the rows of a cached version.
    #[cfg(test)]
    pub fn times_learned(&self, version: &str) -> usize {
        self.index(version).get().unwrap().times_learned()
    }

    /// Blocks estimates as long as the permit is held.
    #[cfg(test)]
    pub fn hold(&self) -> OwnedSemaphorePermit {
        let all = u32::try_from(ESTIMATING).unwrap();
        Arc::clone(&self.estimating).try_acquire_many_owned(all).unwrap()
    }
}

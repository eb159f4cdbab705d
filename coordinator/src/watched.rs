//! The requests whose progress somebody watches.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use latlas_shared::api::RequestStatus;
use tokio::sync::watch;
use uuid::Uuid;

/// The requests that somebody watches. Each has one task that reads its status, for all who watch it.
#[derive(Debug, Default)]
pub struct Watched {
    requests: Mutex<Requests>,
    /// Held while a status is read, so that watchers keep no more than one of the database's readers busy.
    pub reading: tokio::sync::Mutex<()>,
}

/// Their channels, which the tasks hold: one that has ended can't be listened to.
pub type Requests = HashMap<Uuid, Weak<watch::Sender<RequestStatus>>>;

impl Watched {
    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.requests().len()
    }

    /// The requests, locked. The lock is a leaf.
    pub fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

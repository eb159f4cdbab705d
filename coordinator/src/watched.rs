//! The requests whose progress is watched.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use latlas_shared::api::RequestStatus;
use tokio::sync::watch;
use uuid::Uuid;

/// The watched requests. Each has one task that reads its status, for all its watchers.
#[derive(Debug, Default)]
pub struct Watched {
    requests: Mutex<Requests>,
    /// Locked while a status is read, so that watchers use at most one of the database's reading connections.
    pub reading: tokio::sync::Mutex<()>,
}

/// Their channels. The tasks own them: a channel whose task has ended can't be subscribed to.
pub type Requests = HashMap<Uuid, Weak<watch::Sender<RequestStatus>>>;

impl Watched {
    /// The number of watched requests.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.requests().len()
    }

    /// The requests, locked. The lock is a leaf.
    pub fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Work on a table that runs once at a time, in a task of its own, for all who wait for it. It runs to its end whether
//! anybody still waits for it or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::store::error::StoreError;
use crate::store::table::TableId;

/// Work that runs, for all who wait for it.
type Pending<T> = Shared<BoxFuture<'static, Result<T, StoreError>>>;

type ByTable<T> = HashMap<TableId, Pending<T>>;

/// The work that runs, by table.
#[derive(Debug)]
pub struct SingleFlight<T: Clone>(Arc<Mutex<ByTable<T>>>);

impl<T: Clone> Default for SingleFlight<T> {
    fn default() -> SingleFlight<T> {
        SingleFlight(Arc::default())
    }
}

/// Takes a table off the list, also when its work panics.
struct UnderWay<T: Clone>(Arc<Mutex<ByTable<T>>>, TableId);

impl<T: Clone> Drop for UnderWay<T> {
    fn drop(&mut self) {
        locked(&self.0).remove(&self.1);
    }
}

fn locked<T: Clone>(pending: &Mutex<ByTable<T>>) -> MutexGuard<'_, ByTable<T>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// What comes of work that begins after this call.
    pub async fn fresh<W>(&self, table: TableId, work: impl Fn() -> W) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (pending, begun_here) = self.join(table, &work);
        let joined = pending.await;
        if begun_here {
            return joined;
        }
        // It may have begun before the last measurement was stored. One that begins after its end has not.
        self.join(table, &work).0.await
    }

    /// The work that runs, and whether this call has begun it.
    fn join<W>(&self, table: TableId, work: impl Fn() -> W) -> (Pending<T>, bool)
    where
        W: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let mut pending = locked(&self.0);
        if let Some(running) = pending.get(&table) {
            return (running.clone(), false);
        }
        let (work, under_way) = (work(), UnderWay(Arc::clone(&self.0), table));
        let task = tokio::spawn(async move {
            let _under_way = under_way;
            work.await
        });
        let ended = |_| Err(StoreError::Ended("the work on a table"));
        let running = task.map(move |done| done.unwrap_or_else(ended)).boxed().shared();
        pending.insert(table, running.clone());
        (running, true)
    }

    /// Tables whose work runs.
    #[cfg(test)]
    pub fn under_way(&self) -> usize {
        locked(&self.0).len()
    }
}

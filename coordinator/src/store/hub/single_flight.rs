//! Work on a table that runs once at a time, in its own task, for all waiting callers. It runs to its end even if no
//! caller waits any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::store::error::StoreError;
use crate::store::table::TableId;

/// Running work, for all waiting callers.
type Pending<T> = Shared<BoxFuture<'static, Result<T, StoreError>>>;

type ByTable<T> = HashMap<TableId, Pending<T>>;

/// The running work, by table.
#[derive(Debug)]
pub struct SingleFlight<T: Clone>(Arc<Mutex<ByTable<T>>>);

impl<T: Clone> Default for SingleFlight<T> {
    fn default() -> SingleFlight<T> {
        SingleFlight(Arc::default())
    }
}

/// Removes a table from the list, also if its work panics.
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
    /// The result of work that begins after this call.
    pub async fn fresh<W>(&self, table: TableId, work: impl Fn() -> W) -> Result<T, StoreError>
    where
        W: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (pending, begun_here) = self.join(table, &work);
        let joined = pending.await;
        if begun_here {
            return joined;
        }
        // The running work may have begun before the last measurement was stored. Work that begins after its end has
        // not.
        self.join(table, &work).0.await
    }

    /// The running work, and whether this call has started it.
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

    /// The number of tables with running work.
    #[cfg(test)]
    pub fn under_way(&self) -> usize {
        locked(&self.0).len()
    }
}

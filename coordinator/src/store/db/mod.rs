//! The database: connections that read, and the one task that writes.
//!
//! It knows nothing of agents that wait or of anybody who watches: what follows from a change is handed to
//! `after_commit`, by the task that commits.

mod group;

use futures_util::future::BoxFuture;
use sqlx::{Sqlite, SqlitePool, Transaction};

use self::group::Queue;
use super::effects::Effects;
use super::{StoreError, error::Retryable};

/// A transaction.
pub(super) type Tx = Transaction<'static, Sqlite>;

/// A handle on the database; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Db {
    /// Only the task that commits begins transactions here.
    writer: SqlitePool,
    pub readers: SqlitePool,
    queue: Queue,
}

impl Db {
    /// The database behind these connections. `after_commit` gets the effects of each transaction, before
    /// whoever made the change hears of it and before the next transaction begins.
    pub fn start(
        writer: SqlitePool,
        readers: SqlitePool,
        after_commit: impl Fn(Effects) + Send + 'static,
    ) -> Db {
        let queue = Queue::start(writer.clone(), after_commit);
        Db { writer, readers, queue }
    }

    /// A transaction that reads: all its queries see the same moment.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        Ok(self.readers.begin().await?)
    }

    /// Makes a change in a transaction that others may share. When it returns, the change is on the disk and
    /// its effects have run; when it fails, nothing of it is. It runs to its end even if the caller is
    /// dropped on the way.
    ///
    /// `work` may run several times (see [`group`]), so it only borrows `data`.
    pub async fn change<D, T, E, W>(&self, data: D, work: W) -> Result<T, E>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
        E: Retryable,
        W: for<'t> Fn(&'t D, &'t mut Tx) -> BoxFuture<'t, Result<(T, Effects), E>>
            + Send
            + Sync
            + 'static,
    {
        self.queue.commit(data, work, false).await
    }

    /// The same in a transaction of its own, for a change that is long, or that has to see the effects of
    /// every change before it.
    pub async fn change_alone<D, T, E, W>(&self, data: D, work: W) -> Result<T, E>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
        E: Retryable,
        W: for<'t> Fn(&'t D, &'t mut Tx) -> BoxFuture<'t, Result<(T, Effects), E>>
            + Send
            + Sync
            + 'static,
    {
        self.queue.commit(data, work, true).await
    }

    /// A change without effects.
    pub async fn write<D, T, W>(&self, data: D, work: W) -> Result<T, StoreError>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'t> Fn(&'t D, &'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        self.without_effects(data, work, false).await
    }

    /// A long change without effects.
    pub async fn write_alone<D, T, W>(&self, data: D, work: W) -> Result<T, StoreError>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'t> Fn(&'t D, &'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        self.without_effects(data, work, true).await
    }

    async fn without_effects<D, T, W>(&self, data: D, work: W, alone: bool) -> Result<T, StoreError>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
        W: for<'t> Fn(&'t D, &'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>>
            + Send
            + Sync
            + 'static,
    {
        self.queue
            .commit(
                (data, work),
                |(data, work), tx| {
                    Box::pin(async move { Ok((work(data, tx).await?, Effects::none())) })
                },
                alone,
            )
            .await
    }

    /// Closes the connections, after what they are doing.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// The connection that writes.
    #[cfg(test)]
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }
}

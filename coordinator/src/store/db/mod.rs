//! The database: connections for reading, and the only task that writes.
//!
//! This module does not know about waiting agents or watchers. The task that commits passes the effects of a change to
//! `after_commit`.

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
    /// Only the task that commits begins transactions on this connection.
    writer: SqlitePool,
    pub readers: SqlitePool,
    queue: Queue,
}

impl Db {
    /// The database on these connections. `after_commit` gets the effects of each transaction, before the author of the
    /// change gets its answer and before the next transaction begins.
    pub fn start(
        writer: SqlitePool,
        readers: SqlitePool,
        after_commit: impl Fn(Effects) + Send + 'static,
    ) -> Db {
        let queue = Queue::start(writer.clone(), after_commit);
        Db { writer, readers, queue }
    }

    /// A read transaction: all its queries see the same state.
    pub async fn read(&self) -> Result<Tx, StoreError> {
        Ok(self.readers.begin().await?)
    }

    /// Makes a change in a transaction that other changes may share. When it returns, the change is on disk and its
    /// effects have run. If it fails, no part of it is stored. It runs to its end even if its caller is dropped.
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

    /// The same in a separate transaction, for a change that is long, or that has to see the effects of all earlier
    /// changes.
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
        self.change((data, work), |(data, work), tx| {
            Box::pin(async move { Ok((work(data, tx).await?, Effects::none())) })
        })
        .await
    }

    /// Closes the connections once they are idle.
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

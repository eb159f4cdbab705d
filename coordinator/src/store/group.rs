//! Group commit: changes that come while another one is on its way to the disk share the next transaction,
//! and with it one wait for the disk.
//!
//! Each change is still whole: it runs inside a savepoint of its own, so one that fails leaves the others
//! alone, and none is answered before the commit that has it. The task that commits also runs the effects
//! of the change, so that they don't depend on a caller who may have gone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::effects::Effects;
use super::{Shared, Store, StoreError};

/// A group takes no more members once it has been open for this long.
const LONGEST: Duration = Duration::from_millis(40);

/// Changes that wait for their group; whoever comes after them waits for a place.
const MOST_WAITING: usize = 1024;

type Outcome = Result<(), StoreError>;

type Work = Box<
    dyn for<'t> FnOnce(
            &'t mut Transaction<'static, Sqlite>,
        ) -> BoxFuture<'t, Result<Effects, StoreError>>
        + Send,
>;

/// A change that waits for its group.
pub(super) struct Member {
    work: Work,
    committed: oneshot::Sender<Outcome>,
}

/// Where changes wait.
#[derive(Clone)]
pub(super) struct Queue(mpsc::Sender<Member>);

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl Queue {
    /// Starts the task that commits what comes; it ends with the last clone of the queue.
    pub(super) fn start(writer: SqlitePool, shared: Arc<Shared>) -> Queue {
        let (sender, mut waiting) = mpsc::channel(MOST_WAITING);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                commit_group(&writer, &shared, first, &mut waiting).await;
            }
        });
        Queue(sender)
    }
}

impl Store {
    /// Makes a change in a transaction that others may share. When it returns, the change is on the disk and
    /// its effects have run; when it fails, nothing of it is. It runs to its end even if the caller is
    /// dropped on the way.
    pub(super) async fn change<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'t> FnOnce(
                &'t mut Transaction<'static, Sqlite>,
            ) -> BoxFuture<'t, Result<(T, Effects), StoreError>>
            + Send
            + 'static,
    {
        let (value_sender, value) = oneshot::channel();
        let (committed_sender, committed) = oneshot::channel();
        let work: Work = Box::new(move |tx| {
            async move {
                let (value, effects) = work(tx).await?;
                // Nobody waits for it when the caller was dropped.
                let _ = value_sender.send(value);
                Ok(effects)
            }
            .boxed()
        });
        let ended = |_| StoreError::Database("the task that commits has ended".into());
        let member = Member { work, committed: committed_sender };
        self.queue.0.send(member).await.map_err(|_| ended(()))?;
        committed.await.map_err(|_| ended(()))??;
        value.await.map_err(|_| ended(()))
    }

    /// The same for a change without effects, whose end only its caller waits for.
    pub(super) async fn write<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'t> FnOnce(
                &'t mut Transaction<'static, Sqlite>,
            ) -> BoxFuture<'t, Result<T, StoreError>>
            + Send
            + 'static,
    {
        self.change(|tx| async move { Ok((work(tx).await?, Effects::none())) }.boxed()).await
    }

    /// Makes a change in a transaction of its own: one that is rare, or may be refused for reasons of its own.
    /// It too runs to its end, effects included, even if the caller is dropped on the way.
    pub(super) async fn change_alone<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        W: for<'t> FnOnce(
                &'t mut Transaction<'static, Sqlite>,
            ) -> BoxFuture<'t, Result<(T, Effects), E>>
            + Send
            + 'static,
    {
        let store = self.clone();
        let change = tokio::spawn(async move {
            let mut tx = store.begin().await?;
            let (value, effects) = work(&mut tx).await?;
            tx.commit().await.map_err(StoreError::from)?;
            store.shared.run(effects);
            Ok(value)
        });
        change.await.map_err(|e| StoreError::Database(e.to_string()))?
    }
}

async fn commit_group(
    writer: &SqlitePool,
    shared: &Shared,
    first: Member,
    waiting: &mut mpsc::Receiver<Member>,
) {
    let mut members = Vec::new();
    let outcome = run_group(writer, first, waiting, &mut members).await.map(|effects| {
        shared.run(effects);
    });
    for committed in members {
        // Nobody waits for it when the caller was dropped.
        let _ = committed.send(outcome.clone());
    }
}

/// Runs a change and those that came meanwhile, commits them, and gives their effects. `members` are told what came of it;
/// those that failed by themselves were told already.
async fn run_group(
    writer: &SqlitePool,
    first: Member,
    waiting: &mut mpsc::Receiver<Member>,
    members: &mut Vec<oneshot::Sender<Outcome>>,
) -> Result<Effects, StoreError> {
    let mut all = Effects::none();
    let opened = Instant::now();
    let mut next = Some(first);
    let mut tx = match writer.begin_with("BEGIN IMMEDIATE").await {
        Ok(tx) => tx,
        Err(error) => {
            members.extend(next.map(|member| member.committed));
            return Err(error.into());
        }
    };
    while let Some(Member { work, committed }) = next {
        match run_member(&mut tx, work).await {
            Ok(effects) => {
                all = all.and(effects);
                members.push(committed);
            }
            Err(Failed::Alone(error)) => {
                let _ = committed.send(Err(error));
            }
            Err(Failed::WithAll(error)) => {
                members.push(committed);
                return Err(error);
            }
        }
        next = if opened.elapsed() < LONGEST { waiting.try_recv().ok() } else { None };
    }
    tx.commit().await?;
    Ok(all)
}

enum Failed {
    /// Its savepoint took everything back.
    Alone(StoreError),
    /// The whole transaction is over, as SQLite ends one when the disk is full.
    WithAll(StoreError),
}

async fn run_member(tx: &mut Transaction<'static, Sqlite>, work: Work) -> Result<Effects, Failed> {
    let with_all = |error: sqlx::Error| Failed::WithAll(error.into());
    sqlx::query("SAVEPOINT member").execute(&mut **tx).await.map_err(with_all)?;
    let worked = AssertUnwindSafe(work(tx)).catch_unwind().await;
    let worked = worked.unwrap_or_else(|_| Err(StoreError::Database("a change panicked".into())));
    match worked {
        Ok(effects) => {
            sqlx::query("RELEASE member").execute(&mut **tx).await.map_err(with_all)?;
            Ok(effects)
        }
        Err(error) => match sqlx::query("ROLLBACK TO member").execute(&mut **tx).await {
            Ok(_) => Err(Failed::Alone(error)),
            Err(_) => Err(Failed::WithAll(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    async fn change(
        tx: &mut Transaction<'static, Sqlite>,
        name: &'static str,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO fingerprints VALUES (?1, 'a.cpu', '{}', 0)")
            .bind(name)
            .execute(&mut **tx)
            .await?;
        match name {
            "fails" => Err(StoreError::damaged("nothing", "on purpose")),
            "panics" => panic!("on purpose"),
            _ => Ok(()),
        }
    }

    async fn add(store: &Store, name: &'static str) -> Result<(), StoreError> {
        store.write(move |tx| change(tx, name).boxed()).await
    }

    #[tokio::test]
    async fn a_change_that_fails_fails_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("latlas.db")).await.unwrap();
        let (one, bad, worse, other) = tokio::join!(
            add(&store, "one"),
            add(&store, "fails"),
            add(&store, "panics"),
            add(&store, "other"),
        );
        one.unwrap();
        other.unwrap();
        assert!(bad.unwrap_err().to_string().contains("on purpose"));
        assert!(worse.unwrap_err().to_string().contains("panicked"));
        let names: Vec<String> = sqlx::query_scalar("SELECT digest FROM fingerprints ORDER BY 1")
            .fetch_all(&store.readers)
            .await
            .unwrap();
        assert_eq!(names, ["one", "other"]);
        // A caller that has gone does not take its change with it.
        let gone = add(&store, "gone");
        tokio::select! { biased; _ = gone => {}, () = std::future::ready(()) => {} }
        add(&store, "last").await.unwrap();
        let kept: i64 =
            sqlx::query_scalar("SELECT count(*) FROM fingerprints WHERE digest = 'gone'")
                .fetch_one(&store.readers)
                .await
                .unwrap();
        assert_eq!(kept, 1);
        store.close().await;
        assert!(add(&store, "late").await.is_err());
    }
}

//! Group commit: changes that arrive while another one is written to disk share the next transaction, and so one wait
//! for the disk.
//!
//! Each change is still atomic. It runs inside its own savepoint, so a failed change does not affect the others. No
//! change is answered before its commit. The task that commits also runs the effects of the change, so they don't
//! depend on the caller, which may be gone.
//!
//! A transaction that fails with a retryable error, in one change or in the commit, is run again as a whole, with the
//! same changes in the same order. A database may refuse the commit of a transaction that collides with another one.
//! Then nothing that the transaction has read is certain, so no change of the group can be kept. [`MOST_RUNS`] limits
//! the runs. The beginning of a transaction is not retried: it has waited for other processes already.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};

use super::Tx;
use crate::chain::Chain;
use crate::store::StoreError;
use crate::store::effects::Effects;
use crate::store::error::Retryable;

/// A group takes no more members once it has been open for this long.
const LONGEST: Duration = Duration::from_millis(40);

/// Changes that may wait for their group; further callers wait for a place.
const MOST_WAITING: usize = 1024;

/// How often a transaction is run if it fails with a retryable error each time.
const MOST_RUNS: u32 = 3;

/// The result of a change, for its caller.
type Answer<T, E> = Arc<Mutex<Option<Result<T, E>>>>;

/// A change with its data.
struct Change<D, W, T, E> {
    data: D,
    work: W,
    answer: Answer<T, E>,
}

/// A change of any type.
trait Run: Send + Sync {
    /// Runs the change, and keeps its last result.
    fn run<'t>(&'t self, tx: &'t mut Tx) -> BoxFuture<'t, Result<Effects, Refused>>;
}

/// A change that has returned an error.
struct Refused {
    retryable: bool,
}

impl<D, W, T, E> Run for Change<D, W, T, E>
where
    D: Send + Sync,
    T: Send,
    E: Retryable,
    W: for<'t> Fn(&'t D, &'t mut Tx) -> BoxFuture<'t, Result<(T, Effects), E>> + Send + Sync,
{
    fn run<'t>(&'t self, tx: &'t mut Tx) -> BoxFuture<'t, Result<Effects, Refused>> {
        async move {
            let (answer, outcome) = match (self.work)(&self.data, tx).await {
                Ok((value, effects)) => (Ok(value), Ok(effects)),
                Err(error) => {
                    let retryable = error.is_retryable();
                    (Err(error), Err(Refused { retryable }))
                }
            };
            *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            outcome
        }
        .boxed()
    }
}

/// A change that waits for its group, or is a member of it.
struct Member {
    change: Box<dyn Run>,
    /// Whether it must have its own transaction.
    alone: bool,
    state: State,
    /// Notified when the answer is final.
    ended: oneshot::Sender<Result<(), StoreError>>,
}

/// The state of a member after a run of the transaction.
enum State {
    /// It is in the transaction, or not yet run.
    In,
    /// It has returned an error, and its savepoint was rolled back.
    Refused,
    /// It panicked, and its savepoint was rolled back.
    Panicked,
}

/// The queue of changes.
#[derive(Clone)]
pub(super) struct Queue(mpsc::Sender<Member>);

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl Queue {
    /// Starts the task that commits changes; it ends with the last clone of the queue.
    pub fn start(writer: SqlitePool, after_commit: impl Fn(Effects) + Send + 'static) -> Queue {
        let (sender, waiting) = mpsc::channel(MOST_WAITING);
        tokio::spawn(async move {
            let mut waiting = Waiting { waiting, next: None };
            while let Some(first) = waiting.first().await {
                let mut members = vec![first];
                match commit_group(&writer, &mut members, &mut waiting).await {
                    Ok(effects) => {
                        after_commit(effects);
                        members.into_iter().for_each(|member| member.end(Ok(())));
                    }
                    Err(error) => {
                        members.into_iter().for_each(|member| member.end(Err(error.clone())));
                    }
                }
            }
        });
        Queue(sender)
    }

    /// Commits a change, and returns its result.
    pub async fn commit<D, T, E, W>(&self, data: D, work: W, alone: bool) -> Result<T, E>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
        E: Retryable,
        W: for<'t> Fn(&'t D, &'t mut Tx) -> BoxFuture<'t, Result<(T, Effects), E>>
            + Send
            + Sync
            + 'static,
    {
        let (sender, ended) = oneshot::channel();
        let answer: Answer<T, E> = Arc::default();
        let change = Box::new(Change { data, work, answer: Arc::clone(&answer) });
        let member = Member { change, alone, state: State::In, ended: sender };
        let gone = || E::from(StoreError::Ended("the task that commits"));
        self.0.send(member).await.map_err(|_| gone())?;
        ended.await.map_err(|_| gone())??;
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.ok_or_else(gone)?
    }
}

/// The receiving end of the queue.
struct Waiting {
    waiting: mpsc::Receiver<Member>,
    /// A change that was received, but must not join the last group.
    next: Option<Member>,
}

impl Waiting {
    async fn first(&mut self) -> Option<Member> {
        match self.next.take() {
            Some(next) => Some(next),
            None => self.waiting.recv().await,
        }
    }

    /// The next waiting change, if it can share the transaction.
    fn companion(&mut self) -> Option<Member> {
        let next = self.waiting.try_recv().ok()?;
        if next.alone {
            self.next = Some(next);
            return None;
        }
        Some(next)
    }
}

impl Member {
    /// Reports the outcome of the group to the caller. A member that failed itself reports its own error.
    fn end(self, outcome: Result<(), StoreError>) {
        let outcome = match self.state {
            State::In => outcome,
            State::Refused => Ok(()),
            State::Panicked => Err(StoreError::Ended("a change, by a panic,")),
        };
        // If the caller was dropped, nobody waits for it.
        let _ = self.ended.send(outcome);
    }
}

/// Commits changes and those that arrive meanwhile, and returns their effects.
async fn commit_group(
    writer: &SqlitePool,
    members: &mut Vec<Member>,
    waiting: &mut Waiting,
) -> Result<Effects, StoreError> {
    let opened = Instant::now();
    for _ in 1..MOST_RUNS {
        let tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        match run_group(tx, members, waiting, opened, true).await {
            Err(error) if error.is_retryable() => {
                tracing::warn!(
                    "a transaction of {} changes runs again: {}",
                    members.len(),
                    Chain(&error)
                );
            }
            done => return done,
        }
    }
    let tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    run_group(tx, members, waiting, opened, false).await
}

/// Runs changes and those that arrive meanwhile in a transaction, and commits it. With `again`, a retryable error of
/// one member counts for the whole transaction; without, only for the member.
async fn run_group(
    mut tx: Tx,
    members: &mut Vec<Member>,
    waiting: &mut Waiting,
    opened: Instant,
    again: bool,
) -> Result<Effects, StoreError> {
    let mut all = Effects::none();
    let mut at = 0;
    while let Some(member) = members.get_mut(at) {
        all = all.and(run_member(&mut tx, member, again).await?);
        at += 1;
        if at == members.len() && !members[0].alone && opened.elapsed() < LONGEST {
            members.extend(waiting.companion());
        }
    }
    tx.commit().await?;
    Ok(all)
}

/// Runs a change inside a savepoint. An error means that the whole transaction has ended, as in SQLite when the disk is
/// full.
async fn run_member(tx: &mut Tx, member: &mut Member, again: bool) -> Result<Effects, StoreError> {
    sqlx::query("SAVEPOINT member").execute(&mut **tx).await?;
    let worked = AssertUnwindSafe(member.change.run(tx)).catch_unwind().await;
    member.state = match worked {
        Ok(Ok(effects)) => {
            sqlx::query("RELEASE member").execute(&mut **tx).await?;
            member.state = State::In;
            return Ok(effects);
        }
        Ok(Err(Refused { retryable: true })) if again => return Err(StoreError::Collided),
        Ok(Err(Refused { .. })) => State::Refused,
        Err(_) => State::Panicked,
    };
    sqlx::query("ROLLBACK TO member").execute(&mut **tx).await?;
    Ok(Effects::none())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::store::Store;

    async fn insert(tx: &mut Tx, name: &str) -> Result<(), StoreError> {
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
        store.db.write(name, |name, tx| insert(tx, name).boxed()).await
    }

    /// Adds a name in a transaction that collides with others this many times; returns how often the change ran.
    async fn add_after(
        store: &Store,
        name: &'static str,
        collisions: u32,
    ) -> Result<u32, StoreError> {
        let data = (name, AtomicU32::new(0));
        let ran = store.db.write(data, move |(name, runs), tx| {
            async move {
                insert(tx, name).await?;
                let runs = runs.fetch_add(1, Ordering::Relaxed) + 1;
                if runs > collisions { Ok(runs) } else { Err(StoreError::Collided) }
            }
            .boxed()
        });
        ran.await
    }

    async fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("latlas.db")).await.unwrap();
        (dir, store)
    }

    async fn names(store: &Store) -> Vec<String> {
        let names = sqlx::query_scalar("SELECT digest FROM fingerprints ORDER BY 1");
        names.fetch_all(&store.db.readers).await.unwrap()
    }

    #[tokio::test]
    async fn a_change_that_fails_fails_alone() {
        let (_dir, store) = open().await;
        let (one, bad, worse, other) = tokio::join!(
            add(&store, "one"),
            add(&store, "fails"),
            add(&store, "panics"),
            add(&store, "other"),
        );
        one.unwrap();
        other.unwrap();
        assert!(matches!(bad.unwrap_err(), StoreError::Damaged { .. }));
        assert!(worse.unwrap_err().to_string().contains("panic"));
        assert_eq!(names(&store).await, ["one", "other"]);
        // A change survives its dropped caller.
        let gone = add(&store, "gone");
        tokio::select! { biased; _ = gone => {}, () = std::future::ready(()) => {} }
        add(&store, "last").await.unwrap();
        assert!(names(&store).await.contains(&"gone".to_owned()));
        store.close().await;
        assert!(add(&store, "late").await.is_err());
    }

    #[tokio::test]
    async fn a_transaction_that_collides_runs_again_as_a_whole() {
        let (_dir, store) = open().await;
        let most = MOST_RUNS - 1;
        let (one, late, other) = tokio::join!(
            add_after(&store, "one", 0),
            add_after(&store, "late", most),
            add_after(&store, "other", 0),
        );
        // The first change ran before the collision, and again each time.
        assert_eq!((one.unwrap(), late.unwrap()), (MOST_RUNS, MOST_RUNS));
        other.unwrap();
        assert_eq!(names(&store).await, ["late", "one", "other"]);
    }

    #[tokio::test]
    async fn a_change_that_collides_each_time_fails_alone() {
        let (_dir, store) = open().await;
        let (one, never, other) = tokio::join!(
            add(&store, "one"),
            add_after(&store, "never", u32::MAX),
            add(&store, "other"),
        );
        one.unwrap();
        other.unwrap();
        assert!(matches!(never.unwrap_err(), StoreError::Collided));
        assert_eq!(names(&store).await, ["one", "other"]);
    }
}

//! The invariants of a farm under all faults, from `docs/faults.md`: they compare what a coordinator has on disk with
//! what its callers were told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Row as _, SqlitePool};
use uuid::Uuid;

/// A stored task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEntry {
    /// Its number.
    pub id: i64,
    /// `queued`, `leased`, `done` or `failed`.
    pub state: String,
    /// Failed attempts.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Option<String>,
}

/// A stored request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestEntry {
    /// Its id.
    pub id: String,
    /// The number of its tasks.
    pub total: u32,
    /// The number of its finished tasks.
    pub over: u32,
    /// Failures with a reason.
    pub failed: u32,
    /// Failures without a reason.
    pub failed_without_reason: u32,
}

/// The contents of a coordinator's database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// The tasks, by number.
    pub tasks: Vec<TaskEntry>,
    /// The number of leases.
    pub leases: usize,
    /// The ids of all measurements.
    pub measurements: Vec<Uuid>,
    /// The requests.
    pub requests: Vec<RequestEntry>,
    /// All derived data, in a fixed order.
    pub derived: Vec<String>,
}

/// What the callers know: what a coordinator has told them, and what they have measured.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Measurements that the coordinator has acknowledged.
    pub acknowledged: BTreeSet<Uuid>,
    /// Measurements that were made, if that is known.
    pub made: Option<BTreeSet<Uuid>>,
    /// Refused measurements that their agents keep.
    pub refused: BTreeSet<Uuid>,
    /// Requests that the coordinator has acknowledged, if that is known.
    pub requests: Option<usize>,
    /// How often each task was handed out since it was last requested, if that is known exactly.
    pub handed_out: BTreeMap<i64, u32>,
}

impl Books {
    /// Reads a database without changing it. A coordinator may have it open.
    ///
    /// # Errors
    /// When it is not the database of a coordinator.
    pub async fn read(database: &Path) -> Result<Books, sqlx::Error> {
        let options = SqliteConnectOptions::new().filename(database);
        let pool = SqlitePool::connect_with(options).await?;
        let books = Books::of(&pool).await;
        pool.close().await;
        books
    }

    async fn of(pool: &SqlitePool) -> Result<Books, sqlx::Error> {
        // One transaction, so that all data are of one moment.
        let mut tx = pool.begin().await?;
        let tasks = sqlx::query("SELECT id, state, attempts, reason FROM tasks ORDER BY id")
            .fetch_all(&mut *tx)
            .await?;
        let tasks = tasks.iter().map(|row| TaskEntry {
            id: row.get(0),
            state: row.get(1),
            attempts: row.get(2),
            reason: row.get(3),
        });
        let leases: i64 =
            sqlx::query_scalar("SELECT count(*) FROM leases").fetch_one(&mut *tx).await?;
        let measurements: Vec<String> =
            sqlx::query_scalar("SELECT uuid FROM measurements ORDER BY uuid")
                .fetch_all(&mut *tx)
                .await?;
        let requests = sqlx::query(
            "SELECT uuid, count(task_id), count(outcome), count(*) FILTER (WHERE outcome = 'failed'),
                    count(*) FILTER (WHERE outcome = 'failed' AND coalesce(request_tasks.reason, '') = '')
             FROM requests LEFT JOIN request_tasks ON request_id = requests.id
             GROUP BY requests.id ORDER BY requests.id",
        )
        .fetch_all(&mut *tx)
        .await?;
        let requests = requests.iter().map(|row| RequestEntry {
            id: row.get(0),
            total: row.get(1),
            over: row.get(2),
            failed: row.get(3),
            failed_without_reason: row.get(4),
        });
        let derived = sqlx::query_scalar(
            "SELECT * FROM (
                 SELECT json_array('row', table_id, op_id, key, latency_micros, energy_mj, row) AS entry
                 FROM table_rows
                 UNION ALL SELECT json_array('network', table_id, network_id, network) FROM table_networks
                 UNION ALL SELECT json_array('fingerprint', table_id, digest) FROM table_fingerprints)
             ORDER BY entry",
        )
        .fetch_all(&mut *tx)
        .await?;
        Ok(Books {
            tasks: tasks.collect(),
            leases: usize::try_from(leases).unwrap_or(usize::MAX),
            measurements: measurements.iter().filter_map(|id| id.parse().ok()).collect(),
            requests: requests.collect(),
            derived,
        })
    }

    /// Unfinished tasks.
    pub fn open_tasks(&self) -> usize {
        self.tasks.iter().filter(|task| !is_over(task)).count()
    }

    /// The number of tasks in a state.
    pub fn count(&self, state: &str) -> usize {
        self.tasks.iter().filter(|task| task.state == state).count()
    }
}

fn is_over(task: &TaskEntry) -> bool {
    task.state == "done" || task.state == "failed"
}

/// The invariants that must hold at every moment, also right after a crash. Returns a sentence for each violation; none
/// if all hold.
pub fn always(books: &Books, ledger: &Ledger, max_attempts: u32) -> Vec<String> {
    let mut broken = kept(books, ledger);
    broken.extend(attempts(books, ledger, max_attempts));
    broken
}

/// The additional invariants after all agents had the time to finish.
pub fn finally(books: &Books, ledger: &Ledger) -> Vec<String> {
    let mut broken = Vec::new();
    for task in books.tasks.iter().filter(|task| !is_over(task)) {
        broken.push(format!("ends: task {} is still {}", task.id, task.state));
    }
    if books.leases > 0 {
        broken.push(format!("leases: {} are still held", books.leases));
    }
    for request in books.requests.iter().filter(|request| request.over < request.total) {
        let RequestEntry { id, total, over, .. } = request;
        broken.push(format!("requests: {id} has {over} of {total} tasks over"));
    }
    let stored: BTreeSet<&Uuid> = books.measurements.iter().collect();
    for id in ledger.made.iter().flatten() {
        if !stored.contains(id) && !ledger.refused.contains(id) {
            broken.push(format!("dropped: {id} was measured and is nowhere"));
        }
    }
    broken
}

/// Derived data must be equal to a rebuild from the measurements.
pub fn rebuilt(before: &Books, after: &Books) -> Vec<String> {
    if before.derived == after.derived {
        return Vec::new();
    }
    let of = |books: &Books| books.derived.iter().cloned().collect::<BTreeSet<_>>();
    let (before, after) = (of(before), of(after));
    let changed = before.symmetric_difference(&after).next();
    vec![format!("rebuild: it changes what was derived, e.g. {changed:?}")]
}

/// The names of agents that may work.
///
/// # Errors
/// When it is not the database of a coordinator.
pub async fn active_agents(database: &Path) -> Result<Vec<String>, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(database);
    let pool = SqlitePool::connect_with(options).await?;
    let names = sqlx::query_scalar("SELECT name FROM agents WHERE state = 'active' ORDER BY name")
        .fetch_all(&pool)
        .await;
    pool.close().await;
    names
}

/// The damage that SQLite finds in a file, if any.
pub async fn damage(database: &Path) -> Option<String> {
    let options = SqliteConnectOptions::new().filename(database);
    let found = async {
        let pool = SqlitePool::connect_with(options).await?;
        let found: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&pool).await?;
        let foreign = sqlx::query("PRAGMA foreign_key_check").fetch_all(&pool).await?;
        pool.close().await;
        Ok::<_, sqlx::Error>((found, foreign.len()))
    };
    match found.await {
        Ok((found, 0)) if found == "ok" => None,
        Ok((found, foreign)) => Some(format!("{found}; {foreign} broken references")),
        Err(error) => Some(error.to_string()),
    }
}

/// Acknowledged measurements are stored exactly once, and every stored measurement was made.
fn kept(books: &Books, ledger: &Ledger) -> Vec<String> {
    let mut broken = Vec::new();
    let mut count: BTreeMap<&Uuid, u32> = BTreeMap::new();
    for id in &books.measurements {
        *count.entry(id).or_default() += 1;
    }
    for id in &ledger.acknowledged {
        if !count.contains_key(id) {
            broken.push(format!("kept: {id} was acknowledged and is not stored"));
        }
    }
    for (id, n) in count {
        if n > 1 {
            broken.push(format!("once: {id} is stored {n} times"));
        }
        if ledger.made.as_ref().is_some_and(|made| !made.contains(id)) {
            broken.push(format!("invented: {id} is stored and nobody has measured it"));
        }
    }
    if ledger.requests.is_some_and(|asked| asked != books.requests.len()) {
        broken.push(format!(
            "requests: {:?} were acknowledged and {} are stored",
            ledger.requests,
            books.requests.len()
        ));
    }
    for request in books.requests.iter().filter(|request| request.failed_without_reason > 0) {
        broken.push(format!("reasons: {} has failures that say nothing", request.id));
    }
    broken
}

fn attempts(books: &Books, ledger: &Ledger, max_attempts: u32) -> Vec<String> {
    let mut broken = Vec::new();
    for TaskEntry { id, state, attempts, reason } in &books.tasks {
        if *attempts > max_attempts {
            broken.push(format!("attempts: task {id} has {attempts}, the cap is {max_attempts}"));
        }
        if !matches!(state.as_str(), "done" | "failed") && *attempts >= max_attempts {
            broken.push(format!("attempts: task {id} is {state} after {attempts}"));
        }
        if let Some(most) = ledger.handed_out.get(id).filter(|most| attempts > most) {
            broken.push(format!("attempts: task {id} counts {attempts}, handed out {most} times"));
        }
        if state == "failed" && reason.as_deref().unwrap_or_default().is_empty() {
            broken.push(format!("reasons: task {id} failed and does not say why"));
        }
    }
    broken
}

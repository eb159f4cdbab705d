//! Parts of the store for tests only: its queries and their plans, the cost of work, the settings of the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;

use super::{Store, StoreError};
use super::{canaries, expiry, farm, metrics, queue, requests, results, tasks};

/// The most canaries that one is compared with.
pub const MOST_COMPARED: i64 = canaries::MOST_COMPARED;

/// A query that runs often.
pub struct Query {
    pub name: &'static str,
    pub sql: &'static str,
    /// Whether its results come in the order of an index, without sorting.
    pub ordered: bool,
}

/// The frequent queries on tables that grow.
pub const QUERIES: [Query; 13] = [
    Query { name: "canaries of its own", sql: canaries::OWN, ordered: true },
    Query { name: "canaries of others", sql: canaries::OTHERS, ordered: true },
    Query { name: "earlier canaries", sql: canaries::PAST, ordered: true },
    Query { name: "the farm", sql: farm::TABLES, ordered: false },
    Query { name: "failures", sql: farm::FAILURES, ordered: false },
    Query { name: "leases that are over", sql: expiry::DUE, ordered: true },
    Query { name: "the queue", sql: queue::QUEUE, ordered: true },
    Query { name: "metrics of tasks", sql: metrics::TASKS, ordered: false },
    Query { name: "metrics of requests", sql: metrics::OLDEST, ordered: true },
    Query { name: "counts of requests", sql: requests::COUNTS, ordered: false },
    Query { name: "running tasks of requests", sql: requests::RUNNING, ordered: false },
    Query { name: "fingerprints", sql: results::FINGERPRINTS, ordered: true },
    Query { name: "tasks of leases", sql: tasks::OF_LEASES, ordered: false },
];

impl Store {
    /// The steps of SQLite's plan for a query.
    pub async fn plan(&self, sql: &str) -> Vec<String> {
        let explained = format!("EXPLAIN QUERY PLAN {sql}");
        let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(explained))
            .fetch_all(&self.db.readers)
            .await
            .unwrap();
        steps.into_iter().map(|(_, _, _, step)| step).collect()
    }

    /// Tens of steps that the writing connection takes for some work.
    pub async fn steps_of(&self, work: impl Future<Output = ()>) -> u64 {
        let steps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let mut writer = self.db.writer().acquire().await.unwrap();
        writer.lock_handle().await.unwrap().set_progress_handler(10, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            true
        });
        drop(writer);
        work.await;
        let mut writer = self.db.writer().acquire().await.unwrap();
        writer.lock_handle().await.unwrap().remove_progress_handler();
        steps.load(Ordering::Relaxed)
    }

    /// Adds this many earlier copies of each stored canary. The newer half is marked as not counting, as in a long
    /// quarantine.
    pub async fn repeat_canaries(&self, copies: u32) {
        sqlx::query(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
             INSERT INTO measurements (uuid, table_id, agent_id, op_id, key, fingerprint, status, finished_at,
                                       received_at, measurement, canary, set_aside)
             SELECT hex(randomblob(16)), table_id, agent_id, op_id, key, fingerprint, status, finished_at,
                    received_at - n, measurement, 1, iif(n < ?1 / 2, 'on purpose', NULL)
             FROM n, (SELECT * FROM measurements WHERE canary = 1)",
        )
        .bind(copies)
        .execute(self.db.writer())
        .await
        .unwrap();
    }

    /// Journal mode, synchronous level and foreign keys of the connection that writes.
    pub async fn durability(&self) -> Result<(String, i64, bool), StoreError> {
        let journal = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(self.db.writer()).await?;
        let synchronous =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(self.db.writer()).await?;
        let keys = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(self.db.writer()).await?;
        Ok((journal, synchronous, keys))
    }

    /// Lets the database grow by at most this many pages, as on a disk with limited space.
    pub async fn leave_room(&self, pages: i64) -> Result<(), StoreError> {
        self.db
            .write((), move |(), tx| {
                async move {
                    let used: i64 =
                        sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut **tx).await?;
                    let most = format!("PRAGMA max_page_count = {}", used + pages);
                    sqlx::query(sqlx::AssertSqlSafe(most)).execute(&mut **tx).await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }
}

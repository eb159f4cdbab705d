//! Counts of the farm, for its metrics.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::columns::StoredTime;
use super::{Store, StoreError};

/// The farm at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FarmCounts {
    /// Tasks: hardware id, state, number.
    pub tasks: Vec<(String, String, i64)>,
    /// Agents: hardware id, state as in `GET /farm`, number.
    pub agents: Vec<(String, String, i64)>,
    /// Open incidents: kind, number.
    pub incidents: Vec<(String, i64)>,
    /// Number of leases.
    pub leases: i64,
    /// When the oldest request with a queued task was made.
    pub oldest_queued: Option<Timestamp>,
    /// Stale rows and measured networks.
    pub dirty: i64,
    /// Measurements that this version can't read.
    pub unreadable: i64,
    /// Size of the database's files.
    pub database_bytes: i64,
}

/// Tasks by hardware and state, counted in an index that contains only these two columns.
pub(super) const TASKS: &str = "
    SELECT hardware_id, state, sum(number) FROM
        (SELECT table_id, state, count(*) AS number FROM tasks GROUP BY table_id, state)
    JOIN tables ON tables.id = table_id GROUP BY hardware_id, state";

/// When the oldest request with a queued task was made.
pub(super) const OLDEST: &str = "
    SELECT created_at FROM requests WHERE EXISTS
        (SELECT 1 FROM request_tasks JOIN tasks ON tasks.id = task_id
         WHERE request_id = requests.id AND outcome IS NULL AND state = 'queued')
    ORDER BY created_at LIMIT 1";

impl Store {
    /// Counts the farm. Reads only.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn farm_counts(&self, now: Timestamp) -> Result<FarmCounts, StoreError> {
        let tasks = sqlx::query_as(TASKS);
        let mut agents = BTreeMap::new();
        for one in self.agents_now(now).await? {
            *agents.entry((one.hardware_id, one.standing.state.name())).or_default() += 1;
        }
        let agents =
            agents.into_iter().map(|((hardware_id, state), n)| (hardware_id, state.to_owned(), n));
        // Finished requests have no pending outcome, which an index shows.
        let oldest: Option<StoredTime> =
            sqlx::query_scalar(OLDEST).fetch_optional(&self.db.readers).await?;
        let file: String =
            sqlx::query_scalar("SELECT file FROM pragma_database_list WHERE name = 'main'")
                .fetch_one(&self.db.readers)
                .await?;
        Ok(FarmCounts {
            tasks: tasks.fetch_all(&self.db.readers).await?,
            agents: agents.collect(),
            incidents: sqlx::query_as(
                "SELECT coalesce(incident ->> 'kind', 'unreadable') AS kind, count(*)
                 FROM incidents WHERE resolved_at IS NULL GROUP BY kind ORDER BY kind",
            )
            .fetch_all(&self.db.readers)
            .await?,
            leases: sqlx::query_scalar("SELECT count(*) FROM leases")
                .fetch_one(&self.db.readers)
                .await?,
            oldest_queued: oldest.map(|at| at.0),
            dirty: sqlx::query_scalar("SELECT count(*) FROM dirty")
                .fetch_one(&self.db.readers)
                .await?,
            unreadable: sqlx::query_scalar("SELECT count(*) FROM unreadable")
                .fetch_one(&self.db.readers)
                .await?,
            database_bytes: size(&file).await + size(&format!("{file}-wal")).await,
        })
    }
}

/// The size of a file; 0 if there is none.
async fn size(path: &str) -> i64 {
    let data = tokio::fs::metadata(path).await;
    data.map_or(0, |data| i64::try_from(data.len()).unwrap_or(i64::MAX))
}

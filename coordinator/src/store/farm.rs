//! An overview of the farm.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use latlas_shared::HardwareId;
use latlas_shared::api::{FarmEntry, Page};
use sqlx::types::Text;

use super::columns::StoredTime;
use super::db::Tx;
use super::lists::After;
use super::{Store, StoreError, count, to_json};

/// The most failure reasons that are listed for a table.
const MOST_REASONS: i64 = 5;

/// Tables with the counts of their tasks and rows.
pub(super) const TABLES: &str = "
    SELECT id, hardware_id, config_id,
            (SELECT count(*) FROM tasks WHERE table_id = tables.id AND state = 'queued') AS queued,
            (SELECT count(*) FROM tasks WHERE table_id = tables.id AND state = 'leased') AS running,
            (SELECT count(*) FROM tasks WHERE table_id = tables.id AND state = 'failed') AS failed,
            (SELECT min(created_at) FROM requests WHERE requests.table_id = tables.id AND EXISTS (
                SELECT 1 FROM request_tasks
                WHERE request_id = requests.id AND outcome IS NULL)) AS oldest,
            (SELECT count(*) FROM table_rows WHERE table_id = tables.id) AS rows,
            (SELECT max(measured_at) FROM table_rows WHERE table_id = tables.id) AS measured_at
     FROM tables WHERE id > ?1 ORDER BY id LIMIT ?2";

/// The most frequent reasons of failures, by table.
pub(super) const FAILURES: &str = "
    SELECT table_id, reason, n FROM (
        SELECT table_id, reason, count(*) AS n, row_number() OVER (
            PARTITION BY table_id ORDER BY count(*) DESC, reason) AS place
        FROM tasks
        WHERE state = 'failed' AND table_id IN (SELECT value FROM json_each(?1))
        GROUP BY table_id, reason)
    WHERE place <= ?2";

#[derive(sqlx::FromRow)]
struct FarmRow {
    id: i64,
    hardware_id: Text<HardwareId>,
    config_id: String,
    queued: i64,
    running: i64,
    failed: i64,
    oldest: Option<StoredTime>,
    rows: i64,
    measured_at: Option<StoredTime>,
}

/// Named counts, by table.
type Counts = HashMap<i64, BTreeMap<String, u32>>;

impl Store {
    /// Every class of device under each run config: its agents, its queue and its table, in the order of creation. The
    /// rows may be slightly stale.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn farm(
        &self,
        after: &After<i64>,
        now: Timestamp,
    ) -> Result<Page<FarmEntry>, StoreError> {
        let mut tx = self.db.read().await?;
        let found: Vec<FarmRow> = sqlx::query_as(TABLES)
            .bind(after.cursor.unwrap_or(0))
            .bind(after.fetch())
            .fetch_all(&mut *tx)
            .await?;
        let ids: Vec<i64> = found.iter().map(|table| table.id).collect();
        let mut agents = Counts::new();
        for one in self.agents_of(&mut tx, &ids, now).await? {
            let states = agents.entry(one.table).or_default();
            *states.entry(one.standing.state.name().to_owned()).or_default() += 1;
        }
        let mut failures = failures(&mut tx, &ids).await?;
        let entries = found
            .into_iter()
            .map(|table| {
                let agents = agents.remove(&table.id).unwrap_or_default();
                let failures = failures.remove(&table.id).unwrap_or_default();
                (table.id.to_string(), entry(table, agents, failures))
            })
            .collect();
        Ok(after.page(entries))
    }
}

fn entry(
    table: FarmRow,
    agents: BTreeMap<String, u32>,
    failures: BTreeMap<String, u32>,
) -> FarmEntry {
    FarmEntry {
        hardware_id: table.hardware_id.0,
        config: table.config_id,
        agents,
        queued: count(table.queued),
        running: count(table.running),
        oldest_waiting: table.oldest.map(|at| at.0),
        failed: count(table.failed),
        failures,
        rows: count(table.rows),
        measured_at: table.measured_at.map(|at| at.0),
    }
}

async fn failures(tx: &mut Tx, tables: &[i64]) -> Result<Counts, StoreError> {
    let found: Vec<(i64, String, i64)> = sqlx::query_as(FAILURES)
        .bind(to_json(&tables))
        .bind(MOST_REASONS)
        .fetch_all(&mut **tx)
        .await?;
    Ok(by_table(found))
}

fn by_table(found: Vec<(i64, String, i64)>) -> Counts {
    let mut counts = Counts::new();
    for (table, name, n) in found {
        counts.entry(table).or_default().insert(name, count(n));
    }
    counts
}

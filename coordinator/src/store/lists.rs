//! Lists, one page at a time. A page starts after a cursor, which is the sort key of the last entry of the previous
//! page. So entries that are added or removed shift nothing.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use latlas_shared::api::{HardwareEntry, OpEntry, Page, RequestStatus, TableEntry};
use ops_catalog::OpDigest;
use sqlx::types::{Json, Text};

use super::table::table_ref;
use super::{Served, Store, StoreError, count, from_json, readable, requests};
use crate::chain::Chain;

/// How long a list waits in total for tables that are being updated.
const LIST_WAITS: Duration = Duration::from_secs(2);

/// Selects a page of a list.
#[derive(Debug, Clone)]
pub struct After<C> {
    /// The key of the last entry of the previous page; none for the first page.
    pub cursor: Option<C>,
    /// The most entries, at least 1.
    pub limit: u32,
}

impl<C> After<C> {
    /// One more than the page has, to find out whether there is another page.
    pub(super) fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// A page from up to `limit + 1` entries with their keys.
    pub(super) fn page<T>(&self, mut found: Vec<(String, T)>) -> Page<T> {
        let more = found.len() > self.limit as usize;
        found.truncate(self.limit as usize);
        let next_cursor = found.last().filter(|_| more).map(|(key, _)| key.clone());
        Page { items: found.into_iter().map(|(_, item)| item).collect(), next_cursor }
    }
}

impl Store {
    /// Classes of devices, by id.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_hardware(
        &self,
        after: &After<String>,
    ) -> Result<Page<HardwareEntry>, StoreError> {
        let found: Vec<(String, i64, Json<Vec<String>>)> = sqlx::query_as(
            "SELECT hardware_id,
                    (SELECT count(*) FROM agents JOIN tables AS own ON own.id = table_id
                     WHERE own.hardware_id = tables.hardware_id AND removed_at IS NULL),
                    (SELECT json_group_array(config_id) FROM (
                        SELECT config_id FROM tables AS own
                        WHERE own.hardware_id = tables.hardware_id ORDER BY own.id))
             FROM tables WHERE ?1 IS NULL OR hardware_id > ?1
             GROUP BY hardware_id ORDER BY hardware_id LIMIT ?2",
        )
        .bind(&after.cursor)
        .bind(after.fetch())
        .fetch_all(&self.db.readers)
        .await?;
        let mut entries = Vec::with_capacity(found.len());
        for (id, agents, Json(configs)) in found {
            let hardware_id = id.parse().map_err(|e| StoreError::damaged("a hardware id", e))?;
            entries.push((id, HardwareEntry { hardware_id, agents: count(agents), configs }));
        }
        Ok(after.page(entries))
    }

    /// The ops with a current name, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_ops(&self, after: &After<String>) -> Result<Page<OpEntry>, StoreError> {
        let found: Vec<(String, Text<OpDigest>, bool, String)> = sqlx::query_as(
            "SELECT name, digest, builtin, definition FROM ops
             WHERE current = 1 AND (?1 IS NULL OR name > ?1) ORDER BY name LIMIT ?2",
        )
        .bind(&after.cursor)
        .bind(after.fetch())
        .fetch_all(&self.db.readers)
        .await?;
        let mut entries = Vec::with_capacity(found.len());
        for (name, digest, builtin, definition) in found {
            let what = format!("the definition of op {name}");
            let definition = readable(&what, &definition);
            let Text(digest) = digest;
            let entry = definition.map(|definition| OpEntry { digest, builtin, definition });
            entries.push((name, entry));
        }
        let Page { items, next_cursor } = after.page(entries);
        Ok(Page { items: items.into_iter().flatten().collect(), next_cursor })
    }

    /// Requests, the newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_requests(
        &self,
        after: &After<i64>,
        now: Timestamp,
    ) -> Result<Page<RequestStatus>, StoreError> {
        let mut tx = self.db.read().await?;
        let ids: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM requests WHERE id < ?1 ORDER BY id DESC LIMIT ?2")
                .bind(after.cursor.unwrap_or(i64::MAX))
                .bind(after.fetch())
                .fetch_all(&mut *tx)
                .await?;
        let mut entries = Vec::with_capacity(ids.len());
        for (id, status) in ids.iter().zip(requests::statuses(&mut tx, &ids).await?) {
            let status = self.with_attendance(&mut tx, status, now).await?;
            entries.push((id.to_string(), status));
        }
        Ok(after.page(entries))
    }

    /// Tables with their latest versions, in the order of creation. A table that can't be updated soon is listed with
    /// its last version.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn list_tables(
        &self,
        after: &After<i64>,
        now: Timestamp,
    ) -> Result<Page<TableEntry>, StoreError> {
        let found: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT id, hardware_id, run_config FROM tables WHERE id > ?1 ORDER BY id LIMIT ?2",
        )
        .bind(after.cursor.unwrap_or(0))
        .bind(after.fetch())
        .fetch_all(&self.db.readers)
        .await?;
        let found = found.into_iter().map(|table| (table.0.to_string(), table)).collect();
        let Page { items, next_cursor } = after.page(found);
        let entries = items.into_iter().map(async |(id, hardware_id, run_config)| {
            let table = from_json("a run config", &run_config)
                .and_then(|run_config| table_ref(id, &hardware_id, run_config))
                .inspect_err(|e| {
                    tracing::error!(
                        "table {id} of {hardware_id} is left out of the list: {}",
                        Chain(&e)
                    );
                })
                .ok()?;
            let served = self.latest_version_within(&table, now, LIST_WAITS).await;
            let (version, stale) = match served {
                Ok(Served { version, stale }) => (Some(version), stale),
                Err(error) => (None, Some(error.stale())),
            };
            Some(TableEntry {
                hardware_id: table.hardware_id,
                config: table.run_config.id(),
                rows: version.as_ref().map_or(0, |version| version.rows),
                created_at: version.as_ref().map(|version| version.created_at),
                version: version.map(|version| version.version),
                stale,
            })
        });
        let items = join_all(entries).await.into_iter().flatten().collect();
        Ok(Page { items, next_cursor })
    }
}

//! Table versions: created when a changed table is read, and never changed afterwards.
//!
//! A version is built by a separate task, one per table at a time, which stores the version even if no reader waits any
//! more. Readers wait for it for a limited time. They get the last version, marked as stale, if building takes longer
//! or the version can't be stored: reading never depends on writing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_predict::TableContent;
use latlas_shared::Fingerprint;
use ops_catalog::Catalog;
use serde::de::DeserializeOwned;

use super::columns::StoredTime;
use super::db::Tx;
use super::rows::{self, Place, What};
use super::table::{READER_WAITS, Served, TableId, TableRef, Version};
use super::{Store, StoreError, count, networks, to_json};
use crate::chain::Chain;
use crate::op_book::OpId;
use crate::rules::retention;

/// Compression of stored tables: zstd's default, which reduces them to about 10%.
const ZSTD_LEVEL: i32 = 3;

/// Number of versions that are dropped in one change: other writers wait meanwhile.
const DROPPED_AT_ONCE: usize = 64;

/// The last version, compared with the current state of the database.
struct Latest {
    version: Version,
    /// Derived data has not changed since.
    same_rows: bool,
    /// All measurements are derived.
    clean: bool,
}

/// A table at one count of changes, not yet parsed.
struct Snapshot {
    changes: i64,
    rows: Vec<(i64, String, Vec<u8>)>,
    networks: Vec<(networks::NetworkId, Vec<u8>)>,
    fingerprints: Vec<(String, Vec<u8>)>,
}

impl Store {
    /// The version of a table with every measurement that was stored before the call. If that version takes too long or
    /// can't be stored, the last existing version.
    ///
    /// # Errors
    /// When there is no version at all, or the store can't be read.
    pub async fn latest_version(
        &self,
        table: &TableRef,
        now: Timestamp,
    ) -> Result<Served, StoreError> {
        self.latest_version_within(table, now, READER_WAITS).await
    }

    /// The same with another waiting time.
    ///
    /// # Errors
    /// See [`Store::latest_version`].
    pub async fn latest_version_within(
        &self,
        table: &TableRef,
        now: Timestamp,
        wait: Duration,
    ) -> Result<Served, StoreError> {
        let error = match tokio::time::timeout(wait, self.fresh_version(table, now)).await {
            Ok(Ok(version)) => return Ok(Served { version, stale: None }),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Unfinished,
        };
        match self.last_version(table).await? {
            Some(Latest { version, .. }) => Ok(Served { version, stale: Some(error.stale()) }),
            None => Err(error),
        }
    }

    /// A version with every measurement that was stored before the call.
    async fn fresh_version(&self, table: &TableRef, now: Timestamp) -> Result<Version, StoreError> {
        let current = |latest: &Latest| latest.same_rows && latest.clean;
        if let Some(latest) = self.last_version(table).await?.filter(current) {
            return Ok(latest.version);
        }
        let make = || self.clone().assemble_logged(table.clone(), now);
        self.hub.versions.fresh(table.id, make).await
    }

    /// [`Store::assemble`] for a separate task: failures are logged even if no caller waits any more.
    async fn assemble_logged(self, table: TableRef, now: Timestamp) -> Result<Version, StoreError> {
        self.assemble(&table, now).await.inspect_err(|error| {
            let (hardware_id, error) = (&table.hardware_id, Chain(error));
            tracing::error!("the table of {hardware_id} can't be brought up to date: {error}");
        })
    }

    /// Builds the next version and stores it.
    async fn assemble(&self, table: &TableRef, now: Timestamp) -> Result<Version, StoreError> {
        self.derive_table(table.id).await?;
        let current = |latest: &Latest| latest.same_rows;
        if let Some(latest) = self.last_version(table).await?.filter(current) {
            return Ok(latest.version);
        }
        let ended = |_| StoreError::Ended("the building of versions");
        let _permit = self.hub.assembling.acquire().await.map_err(ended)?;
        let (changes, content) = self.content(table).await?;
        let ops = self.ops();
        let made = tokio::task::spawn_blocking(move || document(content, ops.catalog(), now));
        let made = made
            .await
            .map_err(|e| StoreError::damaged("a table", e))?
            .map_err(|e| StoreError::damaged("a table", e))?;
        let (id, version) = (table.id, made.0.clone());
        self.db.write(made, move |made, tx| insert(tx, id, changes, made, now).boxed()).await?;
        // Content that existed before keeps its first creation time.
        let stored = self.version(table.hardware_id.as_str(), &version.version).await?;
        Ok(stored.unwrap_or(version))
    }

    /// The current content of a table, and its count of changes. Entries that were written by another version of this
    /// program and are unreadable are derived again.
    async fn content(&self, table: &TableRef) -> Result<(i64, TableContent), StoreError> {
        let mut again = true;
        loop {
            let snapshot = self.snapshot(table).await?;
            let changes = snapshot.changes;
            let of = table.clone();
            let parsed = tokio::task::spawn_blocking(move || snapshot.parse(&of));
            let (content, unreadable) =
                parsed.await.map_err(|e| StoreError::damaged("a table", e))?;
            if unreadable.is_empty() || !again {
                return Ok((changes, content));
            }
            again = false;
            self.db
                .write(unreadable, |unreadable, tx| rows::refresh(tx, unreadable).boxed())
                .await?;
        }
    }

    async fn snapshot(&self, table: &TableRef) -> Result<Snapshot, StoreError> {
        let mut tx = self.db.read().await?;
        let changes = sqlx::query_scalar("SELECT changes FROM tables WHERE id = ?1")
            .bind(table.id.0)
            .fetch_one(&mut *tx)
            .await?;
        let rows = sqlx::query_as(
            "SELECT op_id, key, CAST(row AS BLOB) FROM table_rows WHERE table_id = ?1",
        )
        .bind(table.id.0)
        .fetch_all(&mut *tx)
        .await?;
        let fingerprints = sqlx::query_as(
            "SELECT digest, CAST(fingerprint AS BLOB)
             FROM table_fingerprints JOIN fingerprints USING (digest) WHERE table_id = ?1",
        )
        .bind(table.id.0)
        .fetch_all(&mut *tx)
        .await?;
        let networks = networks::measured(&mut tx, table.id).await?;
        Ok(Snapshot { changes, rows, networks, fingerprints })
    }

    async fn last_version(&self, table: &TableRef) -> Result<Option<Latest>, StoreError> {
        let found: Option<(String, StoredTime, i64, bool, bool)> = sqlx::query_as(
            "SELECT table_versions.version, table_versions.created_at, rows, changes = version_changes,
                    NOT EXISTS (SELECT 1 FROM dirty WHERE dirty.table_id = tables.id)
             FROM tables JOIN table_versions ON table_versions.version = tables.version
             WHERE tables.id = ?1",
        )
        .bind(table.id.0)
        .fetch_optional(&self.db.readers)
        .await?;
        let latest = |(version, created_at, rows, same_rows, clean)| Latest {
            version: version_from((version, created_at, rows)),
            same_rows,
            clean,
        };
        Ok(found.map(latest))
    }

    /// A version of a table of this class of device; none if it was never served or is no longer kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn version(
        &self,
        hardware_id: &str,
        version: &str,
    ) -> Result<Option<Version>, StoreError> {
        let found: Option<(String, StoredTime, i64)> = sqlx::query_as(
            "SELECT table_versions.version, table_versions.created_at, rows
             FROM table_versions JOIN tables ON tables.id = table_id
             WHERE table_versions.version = ?1 AND hardware_id = ?2",
        )
        .bind(version)
        .bind(hardware_id)
        .fetch_optional(&self.db.readers)
        .await?;
        Ok(found.map(version_from))
    }

    /// The JSON document of a version; none if it is not kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn document(&self, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let body: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT body FROM table_versions WHERE version = ?1")
                .bind(version)
                .fetch_optional(&self.db.readers)
                .await?;
        let Some(body) = body else { return Ok(None) };
        // A large table keeps a processor busy for longer than other calls should wait.
        let work = tokio::task::spawn_blocking(move || zstd::decode_all(body.as_slice()));
        let document = work.await.map_err(|e| StoreError::damaged("a table", e))?;
        document.map(Some).map_err(|e| StoreError::damaged("a table", e))
    }

    /// Drops the versions that [`crate::rules::retention`] no longer keeps, and returns their number.
    ///
    /// # Errors
    /// When the store fails; some may be dropped then.
    pub async fn thin_versions(&self, now: Timestamp) -> Result<u64, StoreError> {
        let tables: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM tables").fetch_all(&self.db.readers).await?;
        let mut dropped = 0;
        for table in tables {
            let kept: Vec<(String, StoredTime, bool)> = sqlx::query_as(
                "SELECT version, latest_at,
                        EXISTS (SELECT 1 FROM tables WHERE tables.version = table_versions.version)
                        OR EXISTS (SELECT 1 FROM version_tags
                                   WHERE version_tags.version = table_versions.version)
                 FROM table_versions WHERE table_id = ?1",
            )
            .bind(table)
            .fetch_all(&self.db.readers)
            .await?;
            let versions = kept
                .into_iter()
                .map(|(version, latest_at, pinned)| retention::Kept {
                    version,
                    latest_at: latest_at.0,
                    pinned,
                })
                .collect::<Vec<_>>();
            let gone = retention::dropped(&versions, now);
            for piece in gone.chunks(DROPPED_AT_ONCE) {
                let piece = to_json(&piece);
                dropped +=
                    self.db.write(piece, |piece, tx| drop_versions(tx, piece).boxed()).await?;
            }
        }
        Ok(dropped)
    }

    /// Blocks the building of versions as long as the permit is held.
    #[cfg(test)]
    pub async fn hold_versions(&self) -> tokio::sync::SemaphorePermit<'_> {
        let all = u32::try_from(super::hub::ASSEMBLING).unwrap();
        self.hub.assembling.acquire_many(all).await.unwrap()
    }

    /// Number of tables whose next version is being built.
    #[cfg(test)]
    pub fn versions_under_way(&self) -> usize {
        self.hub.versions.under_way()
    }
}

/// Drops some versions (a JSON array). Each is checked again: it may have become the latest one in the meantime.
async fn drop_versions(tx: &mut Tx, versions: &str) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "DELETE FROM table_versions WHERE version IN (SELECT value FROM json_each(?1))
           AND NOT EXISTS (SELECT 1 FROM tables WHERE tables.version = table_versions.version)
           AND NOT EXISTS (SELECT 1 FROM version_tags
                           WHERE version_tags.version = table_versions.version)",
    )
    .bind(versions)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

/// Stores a version with its document, and makes it the table's latest version unless a later one was stored meanwhile.
async fn insert(
    tx: &mut Tx,
    table: TableId,
    changes: i64,
    (version, body): &(Version, Vec<u8>),
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO table_versions (version, table_id, created_at, rows, body, latest_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (version) DO UPDATE SET latest_at = excluded.latest_at",
    )
    .bind(&version.version)
    .bind(table.0)
    .bind(StoredTime(version.created_at))
    .bind(version.rows)
    .bind(body)
    .bind(StoredTime(now))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "UPDATE tables SET version = ?1, version_changes = ?2
         WHERE id = ?3 AND (version_changes IS NULL OR version_changes < ?2)",
    )
    .bind(&version.version)
    .bind(changes)
    .bind(table.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn version_from((version, created_at, rows): (String, StoredTime, i64)) -> Version {
    Version { version, created_at: created_at.0, rows: count(rows) }
}

impl Snapshot {
    /// The content of a table, and the places whose entries are unreadable and left out.
    fn parse(self, table: &TableRef) -> (TableContent, BTreeSet<Place>) {
        let mut unreadable = BTreeSet::new();
        let rows = self.rows.into_iter().filter_map(|(op, key, text)| {
            parsed("a row", &text).or_else(|| {
                let what = What::Row { op: OpId(op), key };
                unreadable.insert(Place { table: table.id, what });
                None
            })
        });
        let rows = rows.collect();
        let networks = self.networks.into_iter().filter_map(|(network, text)| {
            parsed("a measured network", &text).or_else(|| {
                unreadable.insert(Place { table: table.id, what: What::Network(network) });
                None
            })
        });
        let networks = networks.collect();
        // Fingerprints describe boxes and are not part of a version's content.
        let fingerprint = |(digest, text): (String, Vec<u8>)| {
            Some((digest, parsed::<Fingerprint>("a fingerprint", &text)?))
        };
        let fingerprints: BTreeMap<_, _> =
            self.fingerprints.into_iter().filter_map(fingerprint).collect();
        let content = TableContent {
            hardware_id: table.hardware_id.clone(),
            run_config: table.run_config.clone(),
            fingerprints,
            rows,
            networks,
        };
        (content, unreadable)
    }
}

/// A parsed JSON text; none, with a line in the log, if this version can't read it.
fn parsed<T: DeserializeOwned>(what: &str, text: &[u8]) -> Option<T> {
    serde_json::from_slice(text)
        .inspect_err(|error| {
            tracing::error!("the database holds {what} that can't be read: {error}")
        })
        .ok()
}

/// The version hash of a content, and its compressed document.
fn document(
    content: TableContent,
    catalog: &Catalog,
    now: Timestamp,
) -> anyhow::Result<(Version, Vec<u8>)> {
    let table = latlas_predict::assemble(content, catalog, now)?;
    let body = zstd::encode_all(to_json(&table).as_bytes(), ZSTD_LEVEL)?;
    let rows = u32::try_from(table.rows.len()).unwrap_or(u32::MAX);
    Ok((Version { version: table.version, created_at: now, rows }, body))
}

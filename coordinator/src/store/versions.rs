//! Table versions: made when a changed table is read, and never changed after.

use std::collections::BTreeMap;

use jiff::Timestamp;
use latlas_shared::{Fingerprint, Table, TableContent};
use ops_catalog::Catalog;
use sqlx::{Sqlite, Transaction};

use super::{Store, StoreError, TableRef, count, from_json, micros, networks, time, to_json};

/// Compression of stored tables: zstd's default, which makes them about a tenth.
const ZSTD_LEVEL: i32 = 3;

/// A version of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Hash of its content.
    pub version: String,
    /// When it came to be.
    pub created_at: Timestamp,
    /// Its rows.
    pub rows: u32,
}

/// A table as it stood at one count of changes.
struct Snapshot {
    changes: i64,
    content: TableContent,
}

impl Store {
    /// The version of a table as it is now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn latest_version(
        &self,
        table: &TableRef,
        now: Timestamp,
    ) -> Result<Version, StoreError> {
        self.derive().await?;
        if let Some(version) = self.current_version(table).await? {
            return Ok(version);
        }
        let _one_at_a_time = self.shared.versioning.lock().await;
        if let Some(version) = self.current_version(table).await? {
            return Ok(version);
        }
        let Snapshot { changes, content } = self.snapshot(table).await?;
        let ops = self.ops();
        let made = tokio::task::spawn_blocking(move || document(content, ops.catalog(), now));
        let (version, body) = made
            .await
            .map_err(|e| StoreError::damaged("a table", e))?
            .map_err(|e| StoreError::damaged("a table", format!("{e:#}")))?;
        self.insert_version(table, changes, &version, &body).await?;
        // A content that was there before keeps the time at which it came to be first.
        let stored = self.version(table.hardware_id.as_str(), &version.version).await?;
        Ok(stored.unwrap_or(version))
    }

    /// A version of a table of this class of device; none when it was never served.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn version(
        &self,
        hardware_id: &str,
        version: &str,
    ) -> Result<Option<Version>, StoreError> {
        let found: Option<(String, i64, i64)> = sqlx::query_as(
            "SELECT table_versions.version, table_versions.created_at, rows
             FROM table_versions JOIN tables ON tables.id = table_id
             WHERE table_versions.version = ?1 AND hardware_id = ?2",
        )
        .bind(version)
        .bind(hardware_id)
        .fetch_optional(&self.readers)
        .await?;
        found.map(version_from).transpose()
    }

    /// The JSON document of a version.
    ///
    /// # Errors
    /// When the store fails, or there is no such version.
    pub async fn document(&self, version: &str) -> Result<Vec<u8>, StoreError> {
        let body: Vec<u8> =
            sqlx::query_scalar("SELECT body FROM table_versions WHERE version = ?1")
                .bind(version)
                .fetch_one(&self.readers)
                .await?;
        zstd::decode_all(body.as_slice()).map_err(|e| StoreError::damaged("a table", e))
    }

    async fn current_version(&self, table: &TableRef) -> Result<Option<Version>, StoreError> {
        let found: Option<(String, i64, i64)> = sqlx::query_as(
            "SELECT table_versions.version, table_versions.created_at, rows
             FROM tables JOIN table_versions ON table_versions.version = tables.version
             WHERE tables.id = ?1 AND changes = version_changes",
        )
        .bind(table.id.0)
        .fetch_optional(&self.readers)
        .await?;
        found.map(version_from).transpose()
    }

    async fn snapshot(&self, table: &TableRef) -> Result<Snapshot, StoreError> {
        let mut tx = self.readers.begin().await?;
        let changes = sqlx::query_scalar("SELECT changes FROM tables WHERE id = ?1")
            .bind(table.id.0)
            .fetch_one(&mut *tx)
            .await?;
        let rows: Vec<String> =
            sqlx::query_scalar("SELECT row FROM table_rows WHERE table_id = ?1")
                .bind(table.id.0)
                .fetch_all(&mut *tx)
                .await?;
        let rows = rows.iter().map(|row| from_json("a row", row)).collect::<Result<_, _>>()?;
        let content = TableContent {
            hardware_id: table.hardware_id.clone(),
            run_config: table.run_config.clone(),
            fingerprints: fingerprints(&mut tx, table).await?,
            rows,
            networks: networks::measured(&mut tx, table.id).await?,
        };
        Ok(Snapshot { changes, content })
    }

    async fn insert_version(
        &self,
        table: &TableRef,
        changes: i64,
        version: &Version,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO table_versions (version, table_id, created_at, rows, body)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        )
        .bind(&version.version)
        .bind(table.id.0)
        .bind(micros(version.created_at))
        .bind(version.rows)
        .bind(body)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE tables SET version = ?1, version_changes = ?2
             WHERE id = ?3 AND (version_changes IS NULL OR version_changes < ?2)",
        )
        .bind(&version.version)
        .bind(changes)
        .bind(table.id.0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

fn version_from((version, created_at, rows): (String, i64, i64)) -> Result<Version, StoreError> {
    Ok(Version { version, created_at: time(created_at)?, rows: count(rows) })
}

async fn fingerprints(
    tx: &mut Transaction<'static, Sqlite>,
    table: &TableRef,
) -> Result<BTreeMap<String, Fingerprint>, StoreError> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT digest, fingerprint FROM table_fingerprints JOIN fingerprints USING (digest)
         WHERE table_id = ?1",
    )
    .bind(table.id.0)
    .fetch_all(&mut **tx)
    .await?;
    found
        .into_iter()
        .map(|(digest, text)| Ok((digest, from_json("a fingerprint", &text)?)))
        .collect()
}

/// The version of a content, and its compressed document.
fn document(
    content: TableContent,
    catalog: &Catalog,
    now: Timestamp,
) -> anyhow::Result<(Version, Vec<u8>)> {
    let table = Table::assemble(content, catalog, now)?;
    let body = zstd::encode_all(to_json(&table).as_bytes(), ZSTD_LEVEL)?;
    let rows = u32::try_from(table.rows.len()).unwrap_or(u32::MAX);
    Ok((Version { version: table.version, created_at: now, rows }, body))
}

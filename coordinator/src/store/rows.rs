//! Rows: what the measurements of a key come to. Derived, and rebuilt at will.

use std::collections::BTreeSet;

use sqlx::{Sqlite, Transaction};

use super::{Store, StoreError, TableId, from_json, micros, to_json};
use crate::merge::{Observation, merge};
use crate::op_book::OpId;

/// Where a row stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub table: TableId,
    pub op: OpId,
    pub key: String,
}

impl Store {
    /// Computes everything that is derived from measurements again, from nothing, and gives the number of
    /// rows. Versions that were served stay as they are.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub async fn rebuild(&self) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM table_rows").execute(&mut *tx).await?;
        sqlx::query("DELETE FROM table_fingerprints").execute(&mut *tx).await?;
        let places: Vec<(i64, i64, String)> = sqlx::query_as(
            "SELECT DISTINCT table_id, op_id, key FROM measurements WHERE op_id IS NOT NULL",
        )
        .fetch_all(&mut *tx)
        .await?;
        let places: BTreeSet<Place> = places
            .into_iter()
            .map(|(table, op, key)| Place { table: TableId(table), op: OpId(op), key })
            .collect();
        refresh(&mut tx, &places).await?;
        tx.commit().await?;
        Ok(places.len() as u64)
    }
}

/// Brings the rows at these places, and what hangs on them, in line with the measurements.
pub(super) async fn refresh(
    tx: &mut Transaction<'static, Sqlite>,
    places: &BTreeSet<Place>,
) -> Result<(), StoreError> {
    for place in places {
        refresh_row(tx, place).await?;
    }
    let tables: BTreeSet<TableId> = places.iter().map(|place| place.table).collect();
    for table in tables {
        sqlx::query("UPDATE tables SET changes = changes + 1 WHERE id = ?1")
            .bind(table.0)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn refresh_row(
    tx: &mut Transaction<'static, Sqlite>,
    place: &Place,
) -> Result<(), StoreError> {
    let observations = observations(tx, place).await?;
    let Some(row) = merge(&observations) else { return Ok(()) };
    sqlx::query(
        "INSERT INTO table_rows
            (table_id, op_id, key, op_type, batch, input_h, input_w, channels_in, channels_out, stride,
             latency_micros, energy_mj, measured_at, row)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (table_id, op_id, key) DO UPDATE SET
             latency_micros = excluded.latency_micros, energy_mj = excluded.energy_mj,
             measured_at = excluded.measured_at, row = excluded.row",
    )
    .bind(place.table.0)
    .bind(place.op.0)
    .bind(&place.key)
    .bind(&row.op_type)
    .bind(row.batch)
    .bind(row.input_h)
    .bind(row.input_w)
    .bind(row.channels_in)
    .bind(row.channels_out)
    .bind(row.stride)
    .bind(row.latency_micros)
    .bind(row.energy_mj)
    .bind(micros(row.measured_at))
    .bind(to_json(&row))
    .execute(&mut **tx)
    .await?;
    let fingerprints: BTreeSet<&str> =
        observations.iter().map(|o| o.measurement.fingerprint.as_str()).collect();
    for digest in fingerprints {
        sqlx::query(
            "INSERT INTO table_fingerprints (table_id, digest) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )
        .bind(place.table.0)
        .bind(digest)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// The measurements that can matter for a row: of each agent, the one that [`merge`] prefers, so that a
/// long history is not read again and again.
async fn observations(
    tx: &mut Transaction<'static, Sqlite>,
    place: &Place,
) -> Result<Vec<Observation>, StoreError> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT agent, measurement FROM (
             SELECT agents.uuid AS agent, measurement, row_number() OVER (
                 PARTITION BY agent_id
                 ORDER BY status = 'failed', finished_at DESC, measurements.uuid DESC) AS place
             FROM measurements JOIN agents ON agents.id = agent_id
             WHERE measurements.table_id = ?1 AND op_id = ?2 AND key = ?3)
         WHERE place = 1",
    )
    .bind(place.table.0)
    .bind(place.op.0)
    .bind(&place.key)
    .fetch_all(&mut **tx)
    .await?;
    found
        .into_iter()
        .map(|(agent, measurement)| {
            let agent = agent.parse().map_err(|e| StoreError::damaged("an agent's id", e))?;
            Ok(Observation { agent, measurement: from_json("a measurement", &measurement)? })
        })
        .collect()
}

//! Rows and measured networks: what the measurements of a key or a network come to. Derived, and rebuilt
//! at will.

use std::collections::BTreeSet;

use latlas_shared::merge::{Observation, merge_network, merge_row};
use latlas_shared::{MeasuredNetwork, Row};
use sqlx::{Sqlite, Transaction};

use super::networks::NetworkId;
use super::{Store, StoreError, TableId, from_json, micros, to_json};
use crate::op_book::OpId;

/// Where the measurements of one thing come together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub table: TableId,
    pub what: What,
}

/// What is measured there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// An op at a shape.
    Row { op: OpId, key: String },
    /// A whole network.
    Network(NetworkId),
}

/// What a rebuild has computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows.
    pub rows: u64,
    /// Whole networks.
    pub networks: u64,
}

impl Store {
    /// Computes everything that is derived from measurements again, from nothing. Versions that were served stay as they are.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub async fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM table_rows").execute(&mut *tx).await?;
        sqlx::query("DELETE FROM table_networks").execute(&mut *tx).await?;
        sqlx::query("DELETE FROM table_fingerprints").execute(&mut *tx).await?;
        let rows: Vec<(i64, i64, String)> = sqlx::query_as(
            "SELECT DISTINCT table_id, op_id, key FROM measurements
             WHERE op_id IS NOT NULL AND canary = 0 AND set_aside IS NULL",
        )
        .fetch_all(&mut *tx)
        .await?;
        let networks: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT DISTINCT table_id, network_id FROM measurements
             WHERE network_id IS NOT NULL AND canary = 0 AND set_aside IS NULL",
        )
        .fetch_all(&mut *tx)
        .await?;
        let rebuilt = Rebuilt { rows: rows.len() as u64, networks: networks.len() as u64 };
        let rows =
            rows.into_iter().map(|(table, op, key)| (table, What::Row { op: OpId(op), key }));
        let networks =
            networks.into_iter().map(|(table, network)| (table, What::Network(NetworkId(network))));
        let places: BTreeSet<Place> = rows
            .chain(networks)
            .map(|(table, what)| Place { table: TableId(table), what })
            .collect();
        refresh(&mut tx, &places).await?;
        tx.commit().await?;
        Ok(rebuilt)
    }
}

/// Brings what stands at these places, and what hangs on it, in line with the measurements.
pub(super) async fn refresh(
    tx: &mut Transaction<'static, Sqlite>,
    places: &BTreeSet<Place>,
) -> Result<(), StoreError> {
    for place in places {
        refresh_place(tx, place).await?;
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

async fn refresh_place(
    tx: &mut Transaction<'static, Sqlite>,
    place: &Place,
) -> Result<(), StoreError> {
    let observations = observations(tx, place).await?;
    match &place.what {
        What::Row { op, key } => {
            let Some(row) = merge_row(&observations) else { return Ok(()) };
            put_row(tx, place.table, *op, key, &row).await?;
        }
        What::Network(network) => {
            let Some(measured) = merge_network(&observations) else { return Ok(()) };
            put_network(tx, place.table, *network, &measured).await?;
        }
    }
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

async fn put_network(
    tx: &mut Transaction<'static, Sqlite>,
    table: TableId,
    network: NetworkId,
    measured: &MeasuredNetwork,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO table_networks (table_id, network_id, measured_at, network)
         VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (table_id, network_id) DO UPDATE SET
             measured_at = excluded.measured_at, network = excluded.network",
    )
    .bind(table.0)
    .bind(network.0)
    .bind(micros(measured.measured_at))
    .bind(to_json(measured))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn put_row(
    tx: &mut Transaction<'static, Sqlite>,
    table: TableId,
    op: OpId,
    key: &str,
    row: &Row,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO table_rows
            (table_id, op_id, key, op_type, batch, input_h, input_w, channels_in, channels_out, stride,
             latency_micros, energy_mj, measured_at, row)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (table_id, op_id, key) DO UPDATE SET
             latency_micros = excluded.latency_micros, energy_mj = excluded.energy_mj,
             measured_at = excluded.measured_at, row = excluded.row",
    )
    .bind(table.0)
    .bind(op.0)
    .bind(key)
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
    .bind(to_json(row))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The measurements that can matter: of each agent, the one that the merge prefers, so that a long
/// history is not read again and again.
async fn observations(
    tx: &mut Transaction<'static, Sqlite>,
    place: &Place,
) -> Result<Vec<Observation>, StoreError> {
    // Null is nowhere equal to anything, so one of the two conditions holds nowhere.
    let (op, key, network) = match &place.what {
        What::Row { op, key } => (Some(op.0), Some(key), None),
        What::Network(network) => (None, None, Some(network.0)),
    };
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT agent, measurement FROM (
             SELECT agents.uuid AS agent, measurement, row_number() OVER (
                 PARTITION BY agent_id
                 ORDER BY status = 'failed', finished_at DESC, measurements.uuid DESC) AS place
             FROM measurements JOIN agents ON agents.id = agent_id
             WHERE ((measurements.table_id = ?1 AND op_id = ?2 AND key = ?3)
                OR (measurements.table_id = ?1 AND network_id = ?4))
               AND canary = 0 AND set_aside IS NULL)
         WHERE place = 1",
    )
    .bind(place.table.0)
    .bind(op)
    .bind(key)
    .bind(network)
    .fetch_all(&mut **tx)
    .await?;
    found
        .into_iter()
        .map(|(agent, measurement)| {
            Ok(Observation { agent, measurement: from_json("a measurement", &measurement)? })
        })
        .collect()
}

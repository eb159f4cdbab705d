//! Rows and measured networks: what the measurements of a key or a network come to. Derived, and rebuilt
//! at will.

use std::collections::{BTreeMap, BTreeSet};

use latlas_shared::merge::{Observation, merge_network, merge_row};
use latlas_shared::{MeasuredNetwork, Measurement, Row};
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::networks::NetworkId;
use super::{StoreError, TableId, from_json, micros, pieces, time, to_json};
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

/// Places that are computed at once; a rebuild has any number of them.
const AT_ONCE: usize = 512;

/// Places as a query reads them: table, op, key and network, of which the last or the two before it are
/// null. Null is nowhere equal to anything.
pub(super) fn as_json(places: &[&Place]) -> String {
    type Columns<'p> = (i64, Option<i64>, Option<&'p str>, Option<i64>);
    let columns: Vec<Columns> = places
        .iter()
        .map(|place| match &place.what {
            What::Row { op, key } => (place.table.0, Some(op.0), Some(key.as_str()), None),
            What::Network(network) => (place.table.0, None, None, Some(network.0)),
        })
        .collect();
    to_json(&columns)
}

/// The place that a query calls by its number in [`as_json`].
pub(super) fn nth<'p>(places: &[&'p Place], number: i64) -> Result<&'p Place, StoreError> {
    let place = usize::try_from(number).ok().and_then(|number| places.get(number).copied());
    place.ok_or_else(|| StoreError::damaged("a place", number))
}

/// Brings what stands at these places, and what hangs on it, in line with the measurements.
pub(super) async fn refresh(
    tx: &mut Transaction<'static, Sqlite>,
    places: &BTreeSet<Place>,
) -> Result<(), StoreError> {
    let all: Vec<&Place> = places.iter().collect();
    for places in all.chunks(AT_ONCE) {
        refresh_some(tx, places).await?;
    }
    let tables: BTreeSet<i64> = places.iter().map(|place| place.table.0).collect();
    if tables.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE tables SET changes = changes + 1 WHERE id IN (SELECT value FROM json_each(?1))",
    )
    .bind(to_json(&tables))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn refresh_some(
    tx: &mut Transaction<'static, Sqlite>,
    places: &[&Place],
) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    let mut networks = Vec::new();
    let mut fingerprints: BTreeSet<(i64, String)> = BTreeSet::new();
    for (place, observations) in observations(tx, places).await? {
        match &place.what {
            What::Row { op, key } => {
                let Some(row) = merge_row(&observations) else { continue };
                rows.push((place.table, *op, key.as_str(), row));
            }
            What::Network(network) => {
                let Some(measured) = merge_network(&observations) else { continue };
                networks.push((place.table, *network, measured));
            }
        }
        let digests = observations.into_iter().map(|o| (place.table.0, o.measurement.fingerprint));
        fingerprints.extend(digests);
    }
    put_rows(tx, &rows).await?;
    put_networks(tx, &networks).await?;
    sqlx::query(
        "INSERT INTO table_fingerprints (table_id, digest)
         SELECT value ->> 0, value ->> 1 FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(to_json(&fingerprints))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn put_networks(
    tx: &mut Transaction<'static, Sqlite>,
    networks: &[(TableId, NetworkId, MeasuredNetwork)],
) -> Result<(), StoreError> {
    for piece in pieces(networks) {
        let mut query = QueryBuilder::new(
            "INSERT INTO table_networks (table_id, network_id, measured_at, network) ",
        );
        query.push_values(piece, |mut values, (table, network, measured)| {
            values
                .push_bind(table.0)
                .push_bind(network.0)
                .push_bind(micros(measured.measured_at))
                .push_bind(to_json(measured));
        });
        query.push(
            " ON CONFLICT (table_id, network_id) DO UPDATE SET
                 measured_at = excluded.measured_at, network = excluded.network",
        );
        query.build().execute(&mut **tx).await?;
    }
    Ok(())
}

async fn put_rows(
    tx: &mut Transaction<'static, Sqlite>,
    rows: &[(TableId, OpId, &str, Row)],
) -> Result<(), StoreError> {
    for piece in pieces(rows) {
        let mut query = QueryBuilder::new(
            "INSERT INTO table_rows
                (table_id, op_id, key, op_type, batch, input_h, input_w, channels_in, channels_out,
                 stride, latency_micros, energy_mj, measured_at, row) ",
        );
        query.push_values(piece, |mut values, (table, op, key, row)| {
            values
                .push_bind(table.0)
                .push_bind(op.0)
                .push_bind(*key)
                .push_bind(&row.op_type)
                .push_bind(row.batch)
                .push_bind(row.input_h)
                .push_bind(row.input_w)
                .push_bind(row.channels_in)
                .push_bind(row.channels_out)
                .push_bind(row.stride)
                .push_bind(row.latency_micros)
                .push_bind(row.energy_mj)
                .push_bind(micros(row.measured_at))
                .push_bind(to_json(row));
        });
        query.push(
            " ON CONFLICT (table_id, op_id, key) DO UPDATE SET
                 latency_micros = excluded.latency_micros, energy_mj = excluded.energy_mj,
                 measured_at = excluded.measured_at, row = excluded.row",
        );
        query.build().execute(&mut **tx).await?;
    }
    Ok(())
}

/// The measurements that can matter at each place: of each agent, the one that the merge prefers. They are
/// found by steps through an index, from agent to agent, so that a long history is not read again and
/// again.
async fn observations<'p>(
    tx: &mut Transaction<'static, Sqlite>,
    places: &[&'p Place],
) -> Result<BTreeMap<&'p Place, Vec<Observation>>, StoreError> {
    let found: Vec<(i64, String, i64, String)> =
        sqlx::query_as(OBSERVATIONS).bind(as_json(places)).fetch_all(&mut **tx).await?;
    let mut observations: BTreeMap<&Place, Vec<Observation>> = BTreeMap::new();
    for (place, agent, measured_at, measurement) in found {
        let mut measurement: Measurement = from_json("a measurement", &measurement)?;
        // Rows are dated by our clock.
        measurement.finished_at = time(measured_at)?;
        let observation = Observation { agent, measurement };
        observations.entry(nth(places, place)?).or_default().push(observation);
    }
    Ok(observations)
}

const OBSERVATIONS: &str = "
WITH RECURSIVE
place (number, table_id, op_id, key, network_id) AS MATERIALIZED (
    SELECT key, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1)
),
of_rows (number, table_id, op_id, key, agent_id) AS (
    SELECT number, table_id, op_id, key,
           (SELECT min(agent_id) FROM measurements AS m
            WHERE m.table_id = place.table_id AND m.op_id = place.op_id AND m.key = place.key)
    FROM place WHERE op_id IS NOT NULL
    UNION ALL
    SELECT number, table_id, op_id, key,
           (SELECT min(agent_id) FROM measurements AS m
            WHERE m.table_id = of_rows.table_id AND m.op_id = of_rows.op_id AND m.key = of_rows.key
              AND m.agent_id > of_rows.agent_id)
    FROM of_rows WHERE agent_id IS NOT NULL
),
of_networks (number, table_id, network_id, agent_id) AS (
    SELECT number, table_id, network_id,
           (SELECT min(agent_id) FROM measurements AS m
            WHERE m.table_id = place.table_id AND m.network_id = place.network_id)
    FROM place WHERE network_id IS NOT NULL
    UNION ALL
    SELECT number, table_id, network_id,
           (SELECT min(agent_id) FROM measurements AS m
            WHERE m.table_id = of_networks.table_id AND m.network_id = of_networks.network_id
              AND m.agent_id > of_networks.agent_id)
    FROM of_networks WHERE agent_id IS NOT NULL
),
chosen (number, agent_id, id) AS (
    SELECT number, agent_id,
           (SELECT id FROM measurements AS m
            WHERE m.table_id = of_rows.table_id AND m.op_id = of_rows.op_id AND m.key = of_rows.key
              AND m.agent_id = of_rows.agent_id AND canary = 0 AND set_aside IS NULL
            ORDER BY (status = 'failed'), generation DESC, id DESC LIMIT 1)
    FROM of_rows WHERE agent_id IS NOT NULL
    UNION ALL
    SELECT number, agent_id,
           (SELECT id FROM measurements AS m
            WHERE m.table_id = of_networks.table_id AND m.network_id = of_networks.network_id
              AND m.agent_id = of_networks.agent_id AND canary = 0 AND set_aside IS NULL
            ORDER BY (status = 'failed'), generation DESC, id DESC LIMIT 1)
    FROM of_networks WHERE agent_id IS NOT NULL
)
SELECT number, agents.uuid, coalesce(measured_at, finished_at), measurement
FROM chosen CROSS JOIN measurements ON measurements.id = chosen.id
            CROSS JOIN agents ON agents.id = chosen.agent_id";

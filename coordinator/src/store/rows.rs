//! Rows and measured networks: the merged measurements of a key or a network. They are derived, and can be rebuilt at
//! any time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use latlas_predict::merge::{Observation, merge_network, merge_row};
use latlas_shared::{MeasuredNetwork, Measurement, Row, RowStatus, Subject};
use ops_catalog::{OpDigest, OpKey};
use sqlx::QueryBuilder;
use sqlx::error::BoxDynError;

use super::columns::StoredTime;
use super::db::Tx;
use super::networks::NetworkId;
use super::{StoreError, TableId, chunks, micros, to_json};
use crate::chain::Chain;
use crate::op_book::OpId;

/// The key or network of a table under which measurements are merged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub table: TableId,
    pub what: What,
}

/// The subject of measurements at a place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// An op at a shape.
    Row { op: OpId, key: String },
    /// A whole network.
    Network(NetworkId),
}

/// A place in the form of `dirty` and `unreadable`: table, op, key and network, with 0 or an empty text for missing
/// parts.
pub(super) type PlaceColumns = (i64, i64, String, i64);

impl Place {
    pub(super) fn columns(&self) -> PlaceColumns {
        match &self.what {
            What::Row { op, key } => (self.table.0, op.0, key.clone(), 0),
            What::Network(network) => (self.table.0, 0, String::new(), network.0),
        }
    }

    pub(super) fn from_columns((table, op, key, network): PlaceColumns) -> Place {
        let what = match network {
            0 => What::Row { op: OpId(op), key },
            _ => What::Network(NetworkId(network)),
        };
        Place { table: TableId(table), what }
    }
}

/// The readable measurements of the agents at one place.
#[derive(Default)]
struct Found {
    observations: Vec<Observation>,
    unreadable: Vec<Unreadable>,
}

/// A stored measurement that this version can't read.
struct Unreadable {
    measurement: i64,
    measured_at: i64,
    /// For the database and the log.
    cause: String,
}

/// Number of places that are computed at once; a rebuild has any number of them.
const AT_ONCE: usize = 512;

/// Places in the form for queries: table, op, key and network. Either the network is null, or op and key are. Null is
/// not equal to anything.
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

/// The place with a number in [`as_json`].
pub(super) fn nth<'p>(places: &[&'p Place], number: i64) -> Result<&'p Place, StoreError> {
    let place = usize::try_from(number).ok().and_then(|number| places.get(number).copied());
    place.ok_or_else(|| StoreError::damaged("a place", format!("there is no number {number}")))
}

/// Updates the rows and networks at these places, and the data that depends on them, with the measurements.
pub(super) async fn refresh(tx: &mut Tx, places: &BTreeSet<Place>) -> Result<(), StoreError> {
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

async fn refresh_some(tx: &mut Tx, places: &[&Place]) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    let mut networks = Vec::new();
    let mut without_truth = Vec::new();
    let mut unreadable = Vec::new();
    let mut fingerprints: BTreeSet<(i64, String)> = BTreeSet::new();
    for (place, found) in observations(tx, places).await? {
        let note = note(&found);
        match &place.what {
            What::Row { op, key } => {
                let row = match merge_row(&found.observations) {
                    Some(row) => Some(Row { reason: noted(row.reason, note), ..row }),
                    None => row_without_number(tx, *op, key, &found, note).await?,
                };
                rows.extend(row.map(|row| (place.table, *op, key.as_str(), row)));
            }
            What::Network(network) => match merge_network(&found.observations) {
                Some(measured) => {
                    let reason = noted(measured.reason, note);
                    let measured = MeasuredNetwork { reason, ..measured };
                    networks.push((place.table, *network, measured));
                }
                None => without_truth.push((place.table.0, network.0)),
            },
        }
        let of_place = found.observations.into_iter().map(|o| o.measurement.fingerprint);
        fingerprints.extend(of_place.map(|digest| (place.table.0, digest)));
        unreadable.extend(found.unreadable.into_iter().map(|bad| (place, bad)));
    }
    put_rows(tx, &rows).await?;
    put_networks(tx, &networks).await?;
    // Measurements that were readable before an older version was installed may be unreadable now.
    sqlx::query(
        "DELETE FROM table_networks WHERE (table_id, network_id) IN
             (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
    )
    .bind(to_json(&without_truth))
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO table_fingerprints (table_id, digest)
         SELECT value ->> 0, value ->> 1 FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING",
    )
    .bind(to_json(&fingerprints))
    .execute(&mut **tx)
    .await?;
    mark_unreadable(tx, places, &unreadable).await
}

/// A note of a row or network about unreadable measurements that are left out.
fn note(found: &Found) -> Option<String> {
    let left_out = found.unreadable.len();
    let all = left_out + found.observations.len();
    (left_out > 0).then(|| {
        format!(
            "{left_out} of {all} measurements can't be read by this version of the coordinator and count \
             for nothing here: its log says why"
        )
    })
}

/// The reason of an entry, with that note.
fn noted(reason: Option<String>, note: Option<String>) -> Option<String> {
    match (reason, note) {
        (Some(reason), Some(note)) => Some(format!("{reason}; {note}")),
        (reason, note) => reason.or(note),
    }
}

/// The row of a key whose measurements are all unreadable. It is a failure with that reason, since a missing row would
/// look like an unmeasured key. None if there are no measurements.
async fn row_without_number(
    tx: &mut Tx,
    op: OpId,
    key: &str,
    found: &Found,
    note: Option<String>,
) -> Result<Option<Row>, StoreError> {
    let Some(measured_at) = found.unreadable.iter().map(|bad| bad.measured_at).max() else {
        return Ok(None);
    };
    let digest: Option<String> = sqlx::query_scalar("SELECT digest FROM ops WHERE id = ?1")
        .bind(op.0)
        .fetch_optional(&mut **tx)
        .await?;
    let digest = digest.and_then(|digest| digest.parse::<OpDigest>().ok());
    let (Some(op_digest), Ok(key), Ok(measured_at)) =
        (digest, key.parse::<OpKey>(), Timestamp::from_microsecond(measured_at))
    else {
        tracing::error!(
            "{key} of op {} has no row: its key, op or time can't be read either",
            op.0
        );
        return Ok(None);
    };
    Ok(Some(Row {
        op_type: key.op,
        input_h: key.shape.input_h,
        input_w: key.shape.input_w,
        channels_in: key.shape.channels_in,
        channels_out: key.shape.channels_out,
        stride: key.shape.stride,
        latency_micros: None,
        energy_mj: None,
        batch: key.shape.batch,
        op_digest,
        status: RowStatus::Failed,
        reason: note,
        ci95_rel: None,
        median_micros: None,
        samples: 0,
        agents: 0,
        between_agents: None,
        measured_at,
        curve: Vec::new(),
    }))
}

/// Stores which measurements of these places are unreadable, and removes those that are readable again. One line in the
/// log reports new ones.
async fn mark_unreadable(
    tx: &mut Tx,
    places: &[&Place],
    unreadable: &[(&Place, Unreadable)],
) -> Result<(), StoreError> {
    let columns: Vec<PlaceColumns> = places.iter().map(|place| place.columns()).collect();
    let marked: Vec<i64> = sqlx::query_scalar(
        "DELETE FROM unreadable WHERE (table_id, op_id, key, network_id) IN
             (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1))
         RETURNING measurement_id",
    )
    .bind(to_json(&columns))
    .fetch_all(&mut **tx)
    .await?;
    let marked: HashSet<i64> = marked.into_iter().collect();
    let new: Vec<_> =
        unreadable.iter().filter(|(_, bad)| !marked.contains(&bad.measurement)).collect();
    if let Some((place, Unreadable { measurement, cause, .. })) = new.first() {
        tracing::error!(
            "{} stored measurements can't be read and are left out of their tables until the next start tries \
             them again: a newer version may have written them. The first is number {measurement}, of \
             {place:?}: {cause}",
            new.len()
        );
    }
    for (place, Unreadable { measurement, cause, .. }) in unreadable {
        let (table, op, key, network) = place.columns();
        sqlx::query(
            "INSERT INTO unreadable (table_id, op_id, key, network_id, measurement_id, cause)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(table)
        .bind(op)
        .bind(key)
        .bind(network)
        .bind(measurement)
        .bind(cause)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

async fn put_networks(
    tx: &mut Tx,
    networks: &[(TableId, NetworkId, MeasuredNetwork)],
) -> Result<(), StoreError> {
    for piece in chunks(networks) {
        let mut query = QueryBuilder::new(
            "INSERT INTO table_networks (table_id, network_id, measured_at, network) ",
        );
        query.push_values(piece, |mut values, (table, network, measured)| {
            values
                .push_bind(table.0)
                .push_bind(network.0)
                .push_bind(StoredTime(measured.measured_at))
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

async fn put_rows(tx: &mut Tx, rows: &[(TableId, OpId, &str, Row)]) -> Result<(), StoreError> {
    for piece in chunks(rows) {
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
                .push_bind(StoredTime(row.measured_at))
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

/// The measurements that can matter at each place: for each agent, the one that the merge prefers. They are found by
/// index steps from agent to agent, so that a long history is not read repeatedly.
async fn observations<'p>(
    tx: &mut Tx,
    places: &[&'p Place],
) -> Result<BTreeMap<&'p Place, Found>, StoreError> {
    let chosen: Vec<(i64, String, i64, i64, Vec<u8>)> =
        sqlx::query_as(OBSERVATIONS).bind(as_json(places)).fetch_all(&mut **tx).await?;
    let mut all: BTreeMap<&Place, Found> = BTreeMap::new();
    for (place, agent, measurement, measured_at, text) in chosen {
        let place = nth(places, place)?;
        let found = all.entry(place).or_default();
        match read(place, &text) {
            Ok(mut measurement) => {
                // Rows are dated by the coordinator's clock.
                if micros(measurement.finished_at) != measured_at {
                    let at = Timestamp::from_microsecond(measured_at);
                    measurement.finished_at = at.map_err(|e| StoreError::damaged("a time", e))?;
                }
                found.observations.push(Observation { agent, measurement });
            }
            Err(cause) => {
                let cause = Chain(cause.as_ref()).to_string();
                found.unreadable.push(Unreadable { measurement, measured_at, cause });
            }
        }
    }
    Ok(all)
}

/// A stored measurement of a place. It was checked when it arrived, but another version of this program or a failing
/// disk may have changed it since.
fn read(place: &Place, text: &[u8]) -> Result<Measurement, BoxDynError> {
    let measurement: Measurement = serde_json::from_slice(text)?;
    measurement.check_result()?;
    let belongs = match (&place.what, &measurement.subject) {
        (What::Row { key, .. }, Subject::Op { key: own, .. }) => *key == own.to_string(),
        (What::Network(_), Subject::Network(_)) => true,
        _ => false,
    };
    if belongs { Ok(measurement) } else { Err("it is of something else".into()) }
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
SELECT number, agents.uuid, measurements.id, coalesce(measured_at, finished_at), CAST(measurement AS BLOB)
FROM chosen CROSS JOIN measurements ON measurements.id = chosen.id
            CROSS JOIN agents ON agents.id = chosen.agent_id";

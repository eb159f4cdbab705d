//! Whole networks that were requested or measured.

use std::collections::BTreeSet;

use jiff::Timestamp;
use latlas_shared::api::Stale;
use latlas_shared::{MeasuredNetwork, WholeNetwork};

use super::columns::StoredTime;
use super::db::Tx;
use super::table::READER_WAITS;
use super::{Store, StoreError, TableId, TableRef, to_json};
use crate::chain::Chain;

/// The number of a network inside the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NetworkId(pub i64);

impl Store {
    /// The measured networks of a table, by digest: up to date, or stale with the reason. Sustained runs are not among
    /// them, because predictions are not compared with them.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn measured_networks(
        &self,
        table: &TableRef,
    ) -> Result<(Vec<MeasuredNetwork>, Option<Stale>), StoreError> {
        let stale = match tokio::time::timeout(READER_WAITS, self.derive_apart(table.id)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                tracing::error!(
                    "the measured networks of {} are stale: {error}",
                    table.hardware_id,
                    error = Chain(&error)
                );
                Some(error.stale())
            }
            Err(_) => Some(Stale::Behind),
        };
        let mut tx = self.db.read().await?;
        let stored = measured(&mut tx, table.id).await?;
        let read = |(network, text): &(NetworkId, Vec<u8>)| match serde_json::from_slice(text) {
            Ok(measured) => Some(measured).filter(|m: &MeasuredNetwork| !m.network.is_sustained()),
            Err(error) => {
                let number = network.0;
                tracing::error!("measured network {number} can't be read and is left out: {error}");
                None
            }
        };
        Ok((stored.iter().filter_map(read).collect(), stale))
    }
}

/// The measured networks of a table as JSON, by digest.
pub(super) async fn measured(
    tx: &mut Tx,
    table: TableId,
) -> Result<Vec<(NetworkId, Vec<u8>)>, StoreError> {
    let found: Vec<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT network_id, CAST(network AS BLOB)
         FROM table_networks JOIN networks ON networks.id = network_id
         WHERE table_id = ?1 ORDER BY digest",
    )
    .bind(table.0)
    .fetch_all(&mut **tx)
    .await?;
    Ok(found.into_iter().map(|(network, text)| (NetworkId(network), text)).collect())
}

/// The name that lists show. A sustained run has one in any case, so that it is not taken for the network itself.
fn name_of(network: &WholeNetwork) -> Option<String> {
    match network.is_sustained() {
        true => Some(network.to_string()),
        false => network.spec.name.clone(),
    }
}

/// The number of a network, which is stored if it is new. The network was checked.
pub(super) async fn find_or_add(
    tx: &mut Tx,
    network: &WholeNetwork,
    now: Timestamp,
) -> Result<NetworkId, StoreError> {
    let known: Option<i64> = sqlx::query_scalar("SELECT id FROM networks WHERE digest = ?1")
        .bind(network.digest.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    if let Some(id) = known {
        return Ok(NetworkId(id));
    }
    let plan = network.plan().map_err(|e| StoreError::damaged("a network", e))?;
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO networks (digest, name, definition, created_at)
         VALUES (?1, ?2, ?3, ?4) RETURNING id",
    )
    .bind(network.digest.as_str())
    .bind(name_of(network))
    .bind(to_json(network))
    .bind(StoredTime(now))
    .fetch_one(&mut **tx)
    .await?;
    let nodes = plan.steps.iter().flat_map(|step| &step.op.def().nodes);
    let primitives: BTreeSet<&str> = nodes.map(|node| node.apply.name()).collect();
    for primitive in primitives {
        sqlx::query("INSERT INTO network_primitives (network_id, primitive) VALUES (?1, ?2)")
            .bind(id)
            .bind(primitive)
            .execute(&mut **tx)
            .await?;
    }
    Ok(NetworkId(id))
}

//! Rows, measured networks and the fingerprints behind them follow the measurements: a moment later, and
//! many measurements at once.
//!
//! An answer to an agent waits for its measurements to be on the disk and not for what follows from them,
//! which is more work, and less of it when a row that several boxes measure is merged once for all of them.
//! Whoever reads a table brings it up to date first, so nobody sees one without what was acknowledged.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use sqlx::{Sqlite, Transaction};

use super::networks::NetworkId;
use super::rows::{self, Place, What};
use super::{Store, StoreError, TableId};
use crate::op_book::OpId;

/// Places that are merged in one change: others wait for the writer meanwhile.
const AT_ONCE: usize = 128;

/// Measurements that are followed in one go.
const MOST: i64 = 20_000;

/// What a rebuild has computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows.
    pub rows: u64,
    /// Whole networks.
    pub networks: u64,
}

impl Store {
    /// Brings everything that is derived up to date with the measurements that were stored before the call.
    /// Costs one small query when it is.
    ///
    /// # Errors
    /// When the store fails; then the next call goes on from there.
    pub async fn derive(&self) -> Result<(), StoreError> {
        if self.behind().await?.is_none() {
            return Ok(());
        }
        let _one_at_a_time = self.shared.deriving.lock().await;
        // Under a steady stream the end moves on; what came later is not waited for.
        let Some((_, end)) = self.behind().await? else { return Ok(()) };
        while let Some((done, stored)) = self.behind().await?
            && done < end
        {
            let up_to = stored.min(end).min(done + MOST);
            let mut tx = self.readers.begin().await?;
            let places = places(&mut tx, done, up_to).await?;
            drop(tx);
            let places: Vec<Place> = places.into_iter().collect();
            for piece in places.chunks(AT_ONCE) {
                let piece: BTreeSet<Place> = piece.iter().cloned().collect();
                self.write(move |tx| async move { rows::refresh(tx, &piece).await }.boxed())
                    .await?;
            }
            self.write(move |tx| async move { set_derived(tx, up_to).await }.boxed()).await?;
        }
        Ok(())
    }

    /// The measurement up to which everything is derived and the last one there is, when they differ.
    async fn behind(&self) -> Result<Option<(i64, i64)>, StoreError> {
        let (done, stored): (i64, i64) = sqlx::query_as(
            "SELECT up_to, (SELECT coalesce(max(id), 0) FROM measurements) FROM derived",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok((done < stored).then_some((done, stored)))
    }

    /// Computes everything that is derived from measurements again, from nothing. Versions that were served stay as they are.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub async fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        let _one_at_a_time = self.shared.deriving.lock().await;
        let mut tx = self.begin().await?;
        sqlx::query("DELETE FROM table_rows").execute(&mut *tx).await?;
        sqlx::query("DELETE FROM table_networks").execute(&mut *tx).await?;
        sqlx::query("DELETE FROM table_fingerprints").execute(&mut *tx).await?;
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM measurements")
            .fetch_one(&mut *tx)
            .await?;
        let places = places(&mut tx, 0, last).await?;
        rows::refresh(&mut tx, &places).await?;
        set_derived(&mut tx, last).await?;
        tx.commit().await?;
        let (rows, networks): (Vec<&Place>, Vec<&Place>) =
            places.iter().partition(|place| matches!(place.what, What::Row { .. }));
        Ok(Rebuilt { rows: rows.len() as u64, networks: networks.len() as u64 })
    }
}

/// Where measurements after `from` and up to `up_to` belong that count.
async fn places(
    tx: &mut Transaction<'static, Sqlite>,
    from: i64,
    up_to: i64,
) -> Result<BTreeSet<Place>, StoreError> {
    type Columns = (i64, Option<i64>, Option<String>, Option<i64>);
    let found: Vec<Columns> = sqlx::query_as(
        "SELECT DISTINCT table_id, op_id, key, network_id FROM measurements
         WHERE id > ?1 AND id <= ?2 AND canary = 0 AND set_aside IS NULL
           AND (op_id IS NOT NULL OR network_id IS NOT NULL)",
    )
    .bind(from)
    .bind(up_to)
    .fetch_all(&mut **tx)
    .await?;
    found
        .into_iter()
        .map(|(table, op, key, network)| {
            let what = match (op.zip(key), network) {
                (Some((op, key)), None) => What::Row { op: OpId(op), key },
                (None, Some(network)) => What::Network(NetworkId(network)),
                _ => return Err(StoreError::damaged("a measurement", "it is of no one thing")),
            };
            Ok(Place { table: TableId(table), what })
        })
        .collect()
}

async fn set_derived(tx: &mut Transaction<'static, Sqlite>, up_to: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE derived SET up_to = ?1").bind(up_to).execute(&mut **tx).await?;
    Ok(())
}

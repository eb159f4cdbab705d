//! Rows, measured networks and the fingerprints behind them follow the measurements: a moment later, and
//! many measurements at once.
//!
//! An answer to an agent waits for its measurements to be on the disk and not for what follows from them,
//! which is more work, and less of it when a row that several agents measure is merged once for all of them.
//! The table `dirty` has the places that are behind, so each place is brought up to date by itself: one that
//! can't be holds up no other, and a reader of one table does not wait for the others.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;

use super::db::Tx;
use super::rows::{self, Place, PlaceColumns, What};
use super::{Store, StoreError, TableId, to_json};

/// Places that are merged in one change: others wait for the writer meanwhile.
const AT_ONCE: i64 = 128;

/// What a rebuild has computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows.
    pub rows: u64,
    /// Whole networks.
    pub networks: u64,
    /// Measurements that this version can't read, which are left out.
    pub unreadable: u64,
}

impl Store {
    /// Brings everything that is derived up to date with the measurements that were stored before the call.
    /// Costs one small query when it is.
    ///
    /// # Errors
    /// The first failure. Tables behind the one that failed are brought up to date all the same, and the next
    /// call goes on with what is left.
    pub async fn derive(&self) -> Result<(), StoreError> {
        let tables: Vec<i64> = sqlx::query_scalar("SELECT DISTINCT table_id FROM dirty")
            .fetch_all(&self.db.readers)
            .await?;
        let mut outcome = Ok(());
        for table in tables {
            outcome = outcome.and(self.derive_table(TableId(table)).await);
        }
        outcome
    }

    /// The same for one table.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn derive_table(&self, table: TableId) -> Result<(), StoreError> {
        let behind: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM dirty WHERE table_id = ?1)")
                .bind(table.0)
                .fetch_one(&self.db.readers)
                .await?;
        if !behind {
            return Ok(());
        }
        // One pass in the order of places: what becomes dirty behind its back came later and is not waited for,
        // so a steady stream does not make it endless.
        let mut after: PlaceColumns = (table.0, -1, String::new(), -1);
        while let Some(last) =
            self.db.write(after, |after, tx| refresh_next(tx, after).boxed()).await?
        {
            after = last;
        }
        Ok(())
    }

    /// The same in a task of its own, for a reader who may not wait for its end. Readers of one table share it.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn derive_apart(&self, table: TableId) -> Result<(), StoreError> {
        let derive = || {
            let store = self.clone();
            async move { store.derive_table(table).await }
        };
        self.hub.deriving.fresh(table, derive).await
    }

    /// Has what could not be read tried again: the version that runs now may be able to.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn retry_unreadable(&self) -> Result<(), StoreError> {
        let any: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM unreadable)")
            .fetch_one(&self.db.readers)
            .await?;
        if !any {
            return Ok(());
        }
        self.db
            .write((), |(), tx| {
                async move {
                    sqlx::query(
                        "INSERT INTO dirty (table_id, op_id, key, network_id)
                         SELECT table_id, op_id, key, network_id FROM unreadable WHERE true
                         ON CONFLICT DO NOTHING",
                    )
                    .execute(&mut **tx)
                    .await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Computes everything that is derived from measurements again, from nothing. Versions that were served stay as
    /// they are.
    ///
    /// # Errors
    /// When the store fails; then nothing has changed.
    pub async fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        self.db.write_alone((), |(), tx| rebuild(tx).boxed()).await
    }
}

async fn rebuild(tx: &mut Tx) -> Result<Rebuilt, StoreError> {
    for derived in ["table_rows", "table_networks", "table_fingerprints", "dirty", "unreadable"] {
        let delete = format!("DELETE FROM {derived}");
        sqlx::query(sqlx::AssertSqlSafe(delete)).execute(&mut **tx).await?;
    }
    let places = measured_places(tx).await?;
    rows::refresh(tx, &places).await?;
    let unreadable: i64 =
        sqlx::query_scalar("SELECT count(*) FROM unreadable").fetch_one(&mut **tx).await?;
    let (rows, networks): (Vec<&Place>, Vec<&Place>) =
        places.iter().partition(|place| matches!(place.what, What::Row { .. }));
    Ok(Rebuilt {
        rows: rows.len() as u64,
        networks: networks.len() as u64,
        unreadable: unreadable.unsigned_abs(),
    })
}

/// Brings the next dirty places of a table up to date, and says which was the last of them; none when there
/// are no more.
async fn refresh_next(
    tx: &mut Tx,
    after: &PlaceColumns,
) -> Result<Option<PlaceColumns>, StoreError> {
    let (table, op, key, network) = after;
    let found: Vec<PlaceColumns> = sqlx::query_as(
        "SELECT table_id, op_id, key, network_id FROM dirty
         WHERE table_id = ?1 AND (op_id, key, network_id) > (?2, ?3, ?4)
         ORDER BY op_id, key, network_id LIMIT ?5",
    )
    .bind(table)
    .bind(op)
    .bind(key)
    .bind(network)
    .bind(AT_ONCE)
    .fetch_all(&mut **tx)
    .await?;
    let places: BTreeSet<Place> = found.iter().cloned().map(Place::from_columns).collect();
    rows::refresh(tx, &places).await?;
    sqlx::query(
        "DELETE FROM dirty WHERE (table_id, op_id, key, network_id) IN
             (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1))",
    )
    .bind(to_json(&found))
    .execute(&mut **tx)
    .await?;
    Ok(found.into_iter().last())
}

/// Every place with a measurement that counts.
async fn measured_places(tx: &mut Tx) -> Result<BTreeSet<Place>, StoreError> {
    let found: Vec<PlaceColumns> = sqlx::query_as(
        "SELECT DISTINCT table_id, coalesce(op_id, 0), coalesce(key, ''), coalesce(network_id, 0)
         FROM measurements
         WHERE canary = 0 AND set_aside IS NULL AND (op_id IS NOT NULL OR network_id IS NOT NULL)",
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(found.into_iter().map(Place::from_columns).collect())
}

//! Derived data: rows, measured networks and their fingerprints are updated shortly after the measurements, many at
//! once.
//!
//! An agent gets its answer once its measurements are on disk. Updating derived data takes longer, and is cheaper if a
//! row that several agents measure is merged once for all of them. The table `dirty` has the stale places, and each
//! place is updated separately. So a place that cannot be updated delays no other, and a reader of one table does not
//! wait for the others.

use std::collections::BTreeSet;

use futures_util::FutureExt as _;

use super::db::Tx;
use super::effects::Effects;
use super::rows::{self, Place, PlaceColumns, What};
use super::{Store, StoreError, TableId, to_json};

/// Number of places that are merged in one change: other writers wait meanwhile.
const AT_ONCE: i64 = 128;

/// The result of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows.
    pub rows: u64,
    /// Whole networks.
    pub networks: u64,
    /// Measurements that this version can't read and leaves out.
    pub unreadable: u64,
}

impl Store {
    /// Updates all derived data with the measurements that were stored before the call. If everything is up to date, it
    /// costs one small query.
    ///
    /// # Errors
    /// The first failure. Later tables are updated nevertheless, and the next call continues with the rest.
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
        // One pass in the order of places. A place that becomes dirty behind the current one is newer than the call and
        // is not waited for, so a steady stream does not make the pass endless.
        let mut after: PlaceColumns = (table.0, -1, String::new(), -1);
        while let Some(last) =
            self.db.write(after, |after, tx| refresh_next(tx, after).boxed()).await?
        {
            after = last;
        }
        Ok(())
    }

    /// The same in a separate task, for a reader that may stop waiting. Readers of one table share the task.
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

    /// Schedules a retry of unreadable measurements: the running version may be able to read them.
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

    /// Computes all derived data again from the measurements. Versions that were served stay unchanged.
    ///
    /// # Errors
    /// When the store fails; then nothing is changed.
    pub async fn rebuild(&self) -> Result<Rebuilt, StoreError> {
        self.db
            .change_alone((), |(), tx| async { Ok((rebuild(tx).await?, Effects::none())) }.boxed())
            .await
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

/// Updates the next dirty places of a table, and returns the last of them; none if there are no more.
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

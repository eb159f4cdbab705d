//! Op definitions.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use ops_catalog::{Catalog, Op, OpDef, OpDigest};
use serde_json::json;

use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::error::Retryable;
use super::{Actor, Store, StoreError, audit::audit, to_json};
use crate::chain::Chain;
use crate::op_book::{BookedOp, NotTaken, Novelty, OpBook, OpId};

/// The result of submitting a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Its digest.
    pub digest: OpDigest,
    /// Whether it was new.
    pub new: bool,
}

/// Why a definition was refused.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It is invalid, or collides with another op.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(sqlx::FromRow)]
struct StoredOp {
    id: i64,
    digest: String,
    name: String,
    definition: Vec<u8>,
    builtin: bool,
    current: bool,
}

impl Retryable for SubmitError {
    fn is_retryable(&self) -> bool {
        matches!(self, SubmitError::Store(error) if error.is_retryable())
    }
}

impl Store {
    /// Adds a definition.
    ///
    /// # Errors
    /// When it is invalid, its name means another definition, or it has another name already.
    pub async fn submit_op(
        &self,
        def: OpDef,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Submission, SubmitError> {
        let data = (self.clone(), def, actor.clone());
        self.db
            .change_alone(data, move |(store, def, actor), tx| {
                async move {
                    let (book, submission) = submit(tx, &store.ops(), def, actor, now).await?;
                    Ok((submission, Effects::ops(book)))
                }
                .boxed()
            })
            .await
    }

    /// Updates the stored ops with the catalog of this build, and reads them all.
    pub(super) async fn register_builtin_ops(&self, now: Timestamp) -> Result<(), StoreError> {
        self.db
            .change_alone((), move |(), tx| {
                async move {
                    let stored = read_all(tx).await?;
                    if !is_in_line(&stored) {
                        sqlx::query("UPDATE ops SET builtin = 0").execute(&mut **tx).await?;
                        for op in Catalog::builtin().ops() {
                            register_builtin(tx, op, now).await?;
                        }
                    }
                    let stored = read_all(tx).await?;
                    Ok(((), Effects::ops(Arc::new(book(stored)))))
                }
                .boxed()
            })
            .await
    }
}

/// Adds a definition, and returns the book that contains it. The change runs in a separate transaction, so no other op
/// comes between the book and the database.
pub(super) async fn submit(
    tx: &mut Tx,
    book: &Arc<OpBook>,
    def: &OpDef,
    actor: &Actor,
    now: Timestamp,
) -> Result<(Arc<OpBook>, Submission), SubmitError> {
    match book.novelty(def.clone())? {
        Novelty::Known(digest) => Ok((Arc::clone(book), Submission { digest, new: false })),
        Novelty::New(op) => {
            let id = insert(tx, &op, false, now).await?;
            let digest = op.digest().clone();
            let subject = format!("op {}", op.name());
            audit(tx, actor, "op.submit", &subject, &json!({"digest": digest}), now).await?;
            let book = book
                .with(BookedOp { id, op, builtin: false, current: true })
                .map_err(NotTaken::Invalid)?;
            Ok((Arc::new(book), Submission { digest, new: true }))
        }
    }
}

async fn read_all(tx: &mut Tx) -> Result<Vec<StoredOp>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT id, digest, name, CAST(definition AS BLOB) AS definition, builtin, current FROM ops ORDER BY id",
    );
    Ok(rows.fetch_all(&mut **tx).await?)
}

fn is_in_line(stored: &[StoredOp]) -> bool {
    let stored: HashMap<&str, &str> = stored
        .iter()
        .filter(|row| row.builtin && row.current && read(row).is_ok())
        .map(|row| (row.digest.as_str(), row.name.as_str()))
        .collect();
    let catalog: HashMap<&str, &str> =
        Catalog::builtin().ops().map(|op| (op.digest().as_str(), op.name())).collect();
    stored == catalog
}

async fn register_builtin(tx: &mut Tx, op: &Op, now: Timestamp) -> Result<(), StoreError> {
    // The catalog determines the meaning of a name; a definition that had the name keeps its rows.
    sqlx::query("UPDATE ops SET current = 0 WHERE name = ?1 AND digest <> ?2")
        .bind(op.name())
        .bind(op.digest().as_str())
        .execute(&mut **tx)
        .await?;
    let known = sqlx::query(
        "UPDATE ops SET builtin = 1, current = 1, name = ?1, definition = ?2 WHERE digest = ?3",
    )
    .bind(op.name())
    .bind(to_json(op.def()))
    .bind(op.digest().as_str())
    .execute(&mut **tx)
    .await?;
    if known.rows_affected() == 0 {
        insert(tx, op, true, now).await?;
    }
    Ok(())
}

async fn insert(tx: &mut Tx, op: &Op, builtin: bool, now: Timestamp) -> Result<OpId, StoreError> {
    // An unreadable definition may be submitted again.
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO ops (digest, name, definition, builtin, current, created_at)
         VALUES (?1, ?2, ?3, ?4, 1, ?5)
         ON CONFLICT (digest) DO UPDATE SET definition = excluded.definition RETURNING id",
    )
    .bind(op.digest().as_str())
    .bind(op.name())
    .bind(to_json(op.def()))
    .bind(builtin)
    .bind(StoredTime(now))
    .fetch_one(&mut **tx)
    .await?;
    for node in &op.def().nodes {
        sqlx::query(
            "INSERT INTO op_primitives (op_id, primitive) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )
        .bind(id)
        .bind(node.apply.name())
        .execute(&mut **tx)
        .await?;
    }
    Ok(OpId(id))
}

/// The readable ops. An unreadable op is unknown until the next start: its rows stay, and it is not measured.
fn book(stored: Vec<StoredOp>) -> OpBook {
    let mut entries = Vec::with_capacity(stored.len());
    let mut catalog = Catalog::builtin().clone();
    for row in stored {
        let op = match read(&row) {
            Ok(op) => op,
            Err(error) => {
                tracing::error!(
                    op = row.name,
                    "an op can't be read and is left out until the next start: {}",
                    Chain(&error)
                );
                continue;
            }
        };
        let mut current = row.current;
        if row.current && !row.builtin {
            match catalog.with_ops([op.def().clone()]) {
                Ok(wider) => catalog = wider,
                // An alias of the catalog of a later build may use the same name.
                Err(collision) => {
                    tracing::warn!(op = row.name, %collision, "a submitted op lost its name to an op of the catalog");
                    current = false;
                }
            }
        }
        let builtin = row.builtin;
        entries.push(BookedOp { id: OpId(row.id), op: Arc::new(op), builtin, current });
    }
    OpBook::new(catalog, entries)
}

fn read(row: &StoredOp) -> Result<Op, StoreError> {
    let what = format!("the definition of op {}", row.name);
    let damaged =
        |cause: Box<dyn std::error::Error + Send + Sync>| StoreError::damaged(&what, cause);
    let def: OpDef = serde_json::from_slice(&row.definition).map_err(|e| damaged(e.into()))?;
    let op = Op::new(def).map_err(|e| damaged(e.into()))?;
    if op.digest().as_str() != row.digest {
        return Err(damaged("its digest is another one".into()));
    }
    Ok(op)
}

//! The audit log: changes by people, written in the transaction of the change.

use jiff::Timestamp;
use latlas_shared::api::{AuditEntry, Page};
use serde_json::Value;
use sqlx::types::Json;

use super::columns::StoredTime;
use super::db::Tx;
use super::{After, Store, StoreError};

/// The author of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A user of the coordinator's own command line.
    CommandLine,
    /// The holder of a token.
    Token {
        /// Its number.
        id: i64,
        /// What it is for.
        label: String,
    },
}

/// Notes an action: `action` as `THING.VERB`, `subject` as `THING WHICH`, and details as a JSON object. Without
/// secrets.
pub(super) async fn audit(
    tx: &mut Tx,
    actor: &Actor,
    action: &str,
    subject: &str,
    detail: &Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (token, who) = match actor {
        Actor::CommandLine => (None, "command line"),
        Actor::Token { id, label } => (Some(*id), label.as_str()),
    };
    sqlx::query(
        "INSERT INTO audit (at, token_id, who, action, subject, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(StoredTime(now))
    .bind(token)
    .bind(who)
    .bind(action)
    .bind(subject)
    .bind(Json(detail))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store {
    /// Changes by people, the latest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_audit(&self, after: &After<i64>) -> Result<Page<AuditEntry>, StoreError> {
        type Columns = (i64, StoredTime, Option<i64>, String, String, String, Json<Value>);
        let found: Vec<Columns> = sqlx::query_as(
            "SELECT id, at, token_id, who, action, subject, detail FROM audit
             WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        )
        .bind(after.cursor.unwrap_or(i64::MAX))
        .bind(after.fetch())
        .fetch_all(&self.db.readers)
        .await?;
        let mut entries = Vec::with_capacity(found.len());
        for (id, StoredTime(at), token_id, who, action, subject, Json(detail)) in found {
            entries.push((
                id.to_string(),
                AuditEntry { id, at, who, token_id, action, subject, detail },
            ));
        }
        Ok(after.page(entries))
    }
}

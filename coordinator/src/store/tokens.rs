//! Tokens, by their hashes.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};

use super::{Agent, Store, StoreError, micros};
use crate::token::{Role, Token};

/// Who holds a token.
#[derive(Debug, Clone)]
pub struct Holder {
    /// What it may do.
    pub role: Role,
    /// The box, when the role is [`Role::Agent`].
    pub agent: Option<Agent>,
}

impl Store {
    /// Stores a token of a person.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn add_token(
        &self,
        token: &Token,
        role: Role,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        insert(&mut tx, token, role, None, now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whether anybody was ever given a token.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_tokens(&self) -> Result<bool, StoreError> {
        let any = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM tokens)");
        Ok(any.fetch_one(&self.readers).await?)
    }

    /// Who holds a token; none when it is unknown or revoked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn holder(&self, token: &Token) -> Result<Option<Holder>, StoreError> {
        let found: Option<(String, Option<i64>)> = sqlx::query_as(
            "SELECT role, agent_id FROM tokens WHERE hash = ?1 AND revoked_at IS NULL",
        )
        .bind(token.hash().as_slice())
        .fetch_optional(&self.readers)
        .await?;
        let Some((role, agent)) = found else { return Ok(None) };
        let role = role.parse().map_err(|e| StoreError::damaged("a token", e))?;
        let agent = match agent {
            Some(id) => Some(self.agent(id).await?),
            None => None,
        };
        Ok(Some(Holder { role, agent }))
    }
}

pub(super) async fn insert(
    tx: &mut Transaction<'static, Sqlite>,
    token: &Token,
    role: Role,
    agent: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO tokens (hash, role, agent_id, created_at) VALUES (?1, ?2, ?3, ?4)")
        .bind(token.hash().as_slice())
        .bind(role.name())
        .bind(agent)
        .bind(micros(now))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

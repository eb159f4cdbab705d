//! Names and labels of agents, and their removal.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use latlas_shared::api::{AgentChange, AgentEntry};
use serde_json::json;
use sqlx::types::Json;
use uuid::Uuid;

use super::audit::{Actor, audit};
use super::columns::StoredTime;
use super::db::Tx;
use super::effects::Effects;
use super::error::Retryable;
use super::{Store, StoreError, agents, leases};

/// The most labels of an agent.
const MOST_LABELS: usize = 32;

/// Why an agent was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The agent does not exist.
    #[error("there is no such agent")]
    Missing,
    /// Another agent has the name.
    #[error("agent {0} has this name already")]
    Taken(String),
    /// It would have too many labels.
    #[error("an agent has at most {MOST_LABELS} labels")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> ChangeError {
        ChangeError::Store(error.into())
    }
}

impl Retryable for ChangeError {
    fn is_retryable(&self) -> bool {
        matches!(self, ChangeError::Store(error) if error.is_retryable())
    }
}

impl Store {
    /// Gives an agent another name and other labels. The change was checked.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change_agent(
        &self,
        agent: Uuid,
        change: &AgentChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<AgentEntry, ChangeError> {
        let (change, actor) = (change.clone(), actor.clone());
        self.db
            .change((change, actor), move |(change, actor), tx| {
                async move {
                    rewrite(tx, agent, change, actor, now).await?;
                    Ok::<_, ChangeError>(((), Effects::progress()))
                }
                .boxed()
            })
            .await?;
        self.agent_entry(agent, now).await?.ok_or(ChangeError::Missing)
    }

    /// Removes an agent from the farm: its credential ends and its tasks go to others. Its measurements stay.
    /// False when there is no such agent.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove_agent(
        &self,
        agent: Uuid,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.db.change(actor.clone(), move |actor, tx| remove(tx, agent, actor, now).boxed()).await
    }
}

async fn rewrite(
    tx: &mut Tx,
    agent: Uuid,
    change: &AgentChange,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), ChangeError> {
    let id = agents::number(tx, agent).await?.ok_or(ChangeError::Missing)?;
    if let Some(name) = &change.name {
        let other: Option<String> = sqlx::query_scalar(
            "SELECT uuid FROM agents WHERE name = ?1 AND id <> ?2 AND removed_at IS NULL LIMIT 1",
        )
        .bind(name)
        .bind(id)
        .fetch_optional(&mut **tx)
        .await?;
        if let Some(other) = other {
            return Err(ChangeError::Taken(other));
        }
    }
    let (was, Json(mut labels)): (String, Json<BTreeMap<String, String>>) =
        sqlx::query_as("SELECT name, labels FROM agents WHERE id = ?1")
            .bind(id)
            .fetch_one(&mut **tx)
            .await?;
    for (key, value) in &change.labels {
        match value {
            Some(value) => labels.insert(key.clone(), value.clone()),
            None => labels.remove(key),
        };
    }
    if labels.len() > MOST_LABELS {
        return Err(ChangeError::TooMany);
    }
    sqlx::query("UPDATE agents SET name = coalesce(?1, name), labels = ?2 WHERE id = ?3")
        .bind(&change.name)
        .bind(Json(&labels))
        .bind(id)
        .execute(&mut **tx)
        .await?;
    let subject = format!("agent {agent}");
    if let Some(name) = &change.name {
        let detail = json!({"name": name, "was": was});
        audit(tx, actor, "agent.name", &subject, &detail, now).await?;
    }
    if !change.labels.is_empty() {
        let detail = json!({"labels": change.labels});
        audit(tx, actor, "agent.label", &subject, &detail, now).await?;
    }
    Ok(())
}

async fn remove(
    tx: &mut Tx,
    agent: Uuid,
    actor: &Actor,
    now: Timestamp,
) -> Result<(bool, Effects), StoreError> {
    let Some(id) = agents::number(tx, agent).await? else { return Ok((false, Effects::none())) };
    let released = leases::release_all(tx, id).await?;
    sqlx::query("UPDATE agents SET removed_at = ?1 WHERE id = ?2")
        .bind(StoredTime(now))
        .bind(id)
        .execute(&mut **tx)
        .await?;
    sqlx::query("UPDATE tokens SET revoked_at = ?1 WHERE agent_id = ?2 AND revoked_at IS NULL")
        .bind(StoredTime(now))
        .bind(id)
        .execute(&mut **tx)
        .await?;
    let name: String = sqlx::query_scalar("SELECT name FROM agents WHERE id = ?1")
        .bind(id)
        .fetch_one(&mut **tx)
        .await?;
    let detail = json!({"name": name});
    audit(tx, actor, "agent.remove", &format!("agent {agent}"), &detail, now).await?;
    Ok((true, released.and(Effects::left(id, now)).and(Effects::progress())))
}

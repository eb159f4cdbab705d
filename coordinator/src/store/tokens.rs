//! Tokens by their hashes: their holders and their terms.

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{Page, TokenEntry};
use serde_json::json;
use sqlx::types::Text;
use uuid::Uuid;

use super::audit::{Actor, audit};
use super::columns::StoredTime;
use super::db::Tx;
use super::{After, Agent, Store, StoreError, agents};
use crate::token::{Role, Terms, Token};

/// A use is noted if the last noted use is this old: a token in use causes one write per hour.
const USES_NOTED_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// The columns of a [`TokenEntry`]. For an agent's token, the name is the agent's name, and the last use is the agent's
/// last heartbeat.
const ENTRY: &str = "SELECT tokens.id, role, iif(agent_id IS NULL, label, agents.name) AS label,
        agents.uuid AS agent, tokens.created_at, iif(agent_id IS NULL, used_at, agents.seen_at) AS used_at,
        expires_at, uses_left, revoked_at
     FROM tokens LEFT JOIN agents ON agents.id = agent_id";

/// The holder of a valid token.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The token's number.
    pub id: i64,
    /// What it is for.
    pub label: String,
    /// The holder's role.
    pub role: Role,
    /// The agent, when the role is [`Role::Agent`].
    pub agent: Option<Agent>,
}

impl Holder {
    /// The holder as an author in the audit log.
    pub fn actor(&self) -> Actor {
        Actor::Token { id: self.id, label: self.label.clone() }
    }
}

/// The state of a token that somebody sent.
#[derive(Debug, Clone)]
pub enum Found {
    /// It was never a token of this farm.
    Unknown,
    /// It was revoked, has expired or was used up.
    Ended,
    /// It is valid.
    InForce(Box<Holder>),
}

/// A new token for a person.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The holder's role.
    pub role: Role,
    /// What it is for.
    pub label: String,
    /// Its validity and number of uses.
    pub terms: Terms,
}

#[derive(sqlx::FromRow)]
struct StoredToken {
    id: i64,
    label: String,
    role: Text<Role>,
    agent_id: Option<i64>,
    expires_at: Option<StoredTime>,
    uses_left: Option<u32>,
    revoked_at: Option<StoredTime>,
    used_at: Option<StoredTime>,
    #[sqlx(flatten)]
    holder: agents::AgentColumns,
}

#[derive(sqlx::FromRow)]
struct TokenColumns {
    id: i64,
    role: String,
    label: String,
    agent: Option<Text<Uuid>>,
    created_at: StoredTime,
    used_at: Option<StoredTime>,
    expires_at: Option<StoredTime>,
    uses_left: Option<u32>,
    revoked_at: Option<StoredTime>,
}

impl Store {
    /// Stores a person's token, and returns its number.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn add_token(
        &self,
        token: &Token,
        new: &NewToken,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let data = (token.clone(), new.clone(), actor.clone());
        self.db
            .write(data, move |(token, new, actor), tx| add(tx, token, new, actor, now).boxed())
            .await
    }

    /// Revokes a token permanently, including an agent's credential, and returns its new entry; none if there is no
    /// token with this number. A revoked token stays as it is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke_token(
        &self,
        id: i64,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<TokenEntry>, StoreError> {
        self.db.write(actor.clone(), move |actor, tx| revoke(tx, id, actor, now).boxed()).await
    }

    /// All tokens, without their secrets, in the order of creation.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_tokens(&self, after: &After<i64>) -> Result<Page<TokenEntry>, StoreError> {
        let sql = format!("{ENTRY} WHERE tokens.id > ?1 ORDER BY tokens.id LIMIT ?2");
        let found: Vec<TokenColumns> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(after.cursor.unwrap_or(0))
            .bind(after.fetch())
            .fetch_all(&self.db.readers)
            .await?;
        let entries = found.into_iter().map(|row| (row.id.to_string(), entry(row)));
        Ok(after.page(entries.collect()))
    }

    /// Whether any token was ever created.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_tokens(&self) -> Result<bool, StoreError> {
        let any = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM tokens)");
        Ok(any.fetch_one(&self.db.readers).await?)
    }

    /// The state of a token at this moment.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find_token(&self, token: &Token, now: Timestamp) -> Result<Found, StoreError> {
        let found: Option<StoredToken> = sqlx::query_as(
            "SELECT tokens.id, label, role, agent_id, expires_at, uses_left, revoked_at, used_at,
                    uuid, name, primitives, table_id, hardware_id, run_config
             FROM tokens LEFT JOIN agents ON agents.id = agent_id
                         LEFT JOIN tables ON tables.id = table_id
             WHERE hash = ?1",
        )
        .bind(token.hash().as_slice())
        .fetch_optional(&self.db.readers)
        .await?;
        let Some(stored) = found else { return Ok(Found::Unknown) };
        let expires_at = stored.expires_at.map(|at| at.0);
        let terms = Terms { expires_at, uses_left: stored.uses_left };
        if stored.revoked_at.is_some() || !terms.hold(now) {
            return Ok(Found::Ended);
        }
        let Text(role) = stored.role;
        let agent = match stored.agent_id {
            Some(id) => Some(stored.holder.agent(id)?),
            None => {
                self.remember_use(&stored, now);
                None
            }
        };
        Ok(Found::InForce(Box::new(Holder { id: stored.id, label: stored.label, role, agent })))
    }

    /// Noted in memory, so that a read-only call does not wait for a writer.
    fn remember_use(&self, token: &StoredToken, now: Timestamp) {
        let noted = token.used_at.map(|at| at.0);
        if noted.is_none_or(|noted| now.duration_since(noted) >= USES_NOTED_EVERY) {
            self.hub.unwritten.used(token.id, now);
        }
    }
}

async fn add(
    tx: &mut Tx,
    token: &Token,
    new: &NewToken,
    actor: &Actor,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let id = insert(tx, token, new, None, now).await?;
    let detail = json!({
        "role": new.role.name(), "label": new.label, "expires_at": new.terms.expires_at,
        "uses": new.terms.uses_left,
    });
    audit(tx, actor, "token.create", &format!("token {id}"), &detail, now).await?;
    Ok(id)
}

async fn revoke(
    tx: &mut Tx,
    id: i64,
    actor: &Actor,
    now: Timestamp,
) -> Result<Option<TokenEntry>, StoreError> {
    let revoked =
        sqlx::query("UPDATE tokens SET revoked_at = ?1 WHERE id = ?2 AND revoked_at IS NULL")
            .bind(StoredTime(now))
            .bind(id)
            .execute(&mut **tx)
            .await?;
    let found: Option<TokenColumns> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{ENTRY} WHERE tokens.id = ?1")))
            .bind(id)
            .fetch_optional(&mut **tx)
            .await?;
    let entry = found.map(entry);
    if let Some(entry) = entry.as_ref().filter(|_| revoked.rows_affected() > 0) {
        let detail = json!({"role": entry.role, "label": entry.label, "agent_id": entry.agent_id});
        audit(tx, actor, "token.revoke", &format!("token {id}"), &detail, now).await?;
    }
    Ok(entry)
}

/// Takes one of a token's uses, if they are limited; false if the token has ended since the call began.
pub(super) async fn take_use(
    tx: &mut Tx,
    actor: &Actor,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Actor::Token { id, .. } = actor else { return Ok(true) };
    let taken = sqlx::query(
        "UPDATE tokens SET uses_left = uses_left - 1, used_at = ?1
         WHERE id = ?2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?1)
           AND (uses_left IS NULL OR uses_left > 0)",
    )
    .bind(StoredTime(now))
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(taken.rows_affected() > 0)
}

pub(super) async fn insert(
    tx: &mut Tx,
    token: &Token,
    new: &NewToken,
    agent: Option<i64>,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let id = sqlx::query_scalar(
        "INSERT INTO tokens (hash, role, label, agent_id, expires_at, uses_left, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id",
    )
    .bind(token.hash().as_slice())
    .bind(new.role.name())
    .bind(&new.label)
    .bind(agent)
    .bind(new.terms.expires_at.map(StoredTime))
    .bind(new.terms.uses_left)
    .bind(StoredTime(now))
    .fetch_one(&mut **tx)
    .await?;
    Ok(id)
}

fn entry(row: TokenColumns) -> TokenEntry {
    TokenEntry {
        id: row.id,
        role: row.role,
        label: row.label,
        agent_id: row.agent.map(Text::into_inner),
        created_at: row.created_at.0,
        last_used_at: row.used_at.map(|at| at.0),
        expires_at: row.expires_at.map(|at| at.0),
        uses_left: row.uses_left,
        revoked_at: row.revoked_at.map(|at| at.0),
    }
}

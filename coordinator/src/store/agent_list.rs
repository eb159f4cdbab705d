//! Agents as lists show them.

use std::collections::HashMap;

use jiff::Timestamp;
use latlas_shared::api::{AgentEntry, AgentLease, Page};
use sqlx::types::Text;
use uuid::Uuid;

use super::attendance::{AGENTS, AgentRow, COLUMNS};
use super::columns::StoredTime;
use super::db::Tx;
use super::lists::After;
use super::{Store, StoreError, count, readable, to_json};

#[derive(sqlx::FromRow)]
struct Listed {
    #[sqlx(flatten)]
    known: AgentRow,
    enrolled_at: StoredTime,
    canary_at: Option<StoredTime>,
    labels: String,
}

impl Store {
    /// An agent as lists show it; none if there is no such agent.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn agent_entry(
        &self,
        agent: Uuid,
        now: Timestamp,
    ) -> Result<Option<AgentEntry>, StoreError> {
        let only = After { cursor: None, limit: 1 };
        Ok(self.agents(&only, Some(agent), now).await?.items.pop())
    }

    /// Agents, in the order of their enrolment.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_agents(
        &self,
        after: &After<i64>,
        now: Timestamp,
    ) -> Result<Page<AgentEntry>, StoreError> {
        self.agents(after, None, now).await
    }

    /// A page of agents, or the agent with an id.
    async fn agents(
        &self,
        after: &After<i64>,
        only: Option<Uuid>,
        now: Timestamp,
    ) -> Result<Page<AgentEntry>, StoreError> {
        let mut tx = self.db.read().await?;
        let sql = format!(
            "SELECT {}, enrolled_at, canary_at, labels {}
             AND agents.id > ?1 AND (?3 IS NULL OR agents.uuid = ?3) ORDER BY agents.id LIMIT ?2",
            COLUMNS, AGENTS
        );
        let found: Vec<Listed> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(after.cursor.unwrap_or(0))
            .bind(after.fetch())
            .bind(only.map(Text))
            .fetch_all(&mut *tx)
            .await?;
        let ids: Vec<i64> = found.iter().map(|agent| agent.known.id).collect();
        let mut leases = self.leases_of(&mut tx, &ids).await?;
        let entries = found
            .into_iter()
            .map(|agent| {
                let id = agent.known.id;
                let leases = leases.remove(&id).unwrap_or_default();
                Ok((id.to_string(), self.entry(agent, leases, now)?))
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(after.page(entries))
    }

    fn entry(
        &self,
        agent: Listed,
        leases: Vec<AgentLease>,
        now: Timestamp,
    ) -> Result<AgentEntry, StoreError> {
        let unfit = self.hub.presence.unfit(agent.known.id);
        let ahead = self.hub.presence.clock_ahead(agent.known.id);
        let clock_ahead_seconds = ahead.map(|ahead| ahead.as_secs_f64());
        let is = self.agent_now(agent.known, now)?;
        Ok(AgentEntry {
            agent_id: is.agent_id,
            name: is.name,
            hardware_id: is
                .hardware_id
                .parse()
                .map_err(|e| StoreError::damaged("a hardware id", e))?,
            config: is.config,
            enrolled_at: agent.enrolled_at.0,
            seen_at: is.seen_at,
            standing: is.standing,
            presence: is.presence,
            labels: readable("an agent's labels", &agent.labels).unwrap_or_default(),
            unfit,
            clock_ahead_seconds,
            canary_at: agent.canary_at.map(|at| at.0),
            leases,
        })
    }

    /// The leases of some agents, by agent.
    async fn leases_of(
        &self,
        tx: &mut Tx,
        agents: &[i64],
    ) -> Result<HashMap<i64, Vec<AgentLease>>, StoreError> {
        type Columns = (i64, Text<Uuid>, bool, StoredTime, StoredTime, i64, i64);
        let found: Vec<Columns> = sqlx::query_as(
            "SELECT agent_id, id, canary, created_at, deadline, tasks,
                    (SELECT count(*) FROM tasks WHERE lease_id = leases.id)
             FROM leases WHERE agent_id IN (SELECT value FROM json_each(?1)) ORDER BY created_at, id",
        )
        .bind(to_json(&agents))
        .fetch_all(&mut **tx)
        .await?;
        let mut leases: HashMap<i64, Vec<AgentLease>> = HashMap::new();
        for (agent, Text(id), canary, since, deadline, tasks, left) in found {
            let pace = self.hub.presence.pace(id);
            leases.entry(agent).or_default().push(AgentLease {
                id,
                canary,
                since: since.0,
                deadline: deadline.0,
                tasks: count(tasks),
                left: (!canary).then(|| count(left)),
                visits: pace.map(|pace| pace.visits),
                moved_at: pace.map(|pace| pace.moved_at),
            });
        }
        Ok(leases)
    }
}

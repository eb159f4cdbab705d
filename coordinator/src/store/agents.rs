//! Agents in the database.

use latlas_shared::{HardwareId, RunConfig};
use sqlx::types::Json;
use sqlx::types::Text;
use uuid::Uuid;

use super::db::Tx;
use super::error::StoreError;
use super::table::{TableId, TableRef};

/// An enrolled agent.
#[derive(Debug, Clone)]
pub struct Agent {
    pub(super) id: i64,
    /// Its identity in the farm.
    pub uuid: Uuid,
    /// Its name, for people.
    pub name: String,
    /// The table that it measures for.
    pub table: TableRef,
    /// The primitives that the agent can run, as a JSON array.
    pub(super) primitives: String,
}

/// The stored columns of an agent; nothing if a join found none.
#[derive(sqlx::FromRow)]
pub(super) struct AgentColumns {
    uuid: Option<Text<Uuid>>,
    name: Option<String>,
    primitives: Option<String>,
    table_id: Option<i64>,
    hardware_id: Option<Text<HardwareId>>,
    run_config: Option<Json<RunConfig>>,
}

impl AgentColumns {
    /// The agent with this number.
    pub fn agent(self, id: i64) -> Result<Agent, StoreError> {
        let missing = || StoreError::damaged("an agent", "it is not there");
        let Text(uuid) = self.uuid.ok_or_else(missing)?;
        let (name, primitives) = self.name.zip(self.primitives).ok_or_else(missing)?;
        let (table, class) = self.table_id.zip(self.hardware_id).ok_or_else(missing)?;
        let run_config = self.run_config.ok_or_else(missing)?.0;
        let table = TableRef { id: TableId(table), hardware_id: class.0, run_config };
        Ok(Agent { id, uuid, name, table, primitives })
    }
}

/// The agent with this number.
pub(super) async fn agent(tx: &mut Tx, id: i64) -> Result<Agent, StoreError> {
    let found: AgentColumns = sqlx::query_as(
        "SELECT uuid, name, primitives, table_id, hardware_id, run_config
         FROM agents JOIN tables ON tables.id = agents.table_id WHERE agents.id = ?1",
    )
    .bind(id)
    .fetch_one(&mut **tx)
    .await?;
    found.agent(id)
}

/// The number of an agent that belongs to the farm.
pub(super) async fn number(tx: &mut Tx, agent: Uuid) -> Result<Option<i64>, StoreError> {
    let found = sqlx::query_scalar("SELECT id FROM agents WHERE uuid = ?1 AND removed_at IS NULL")
        .bind(Text(agent))
        .fetch_optional(&mut **tx)
        .await?;
    Ok(found)
}

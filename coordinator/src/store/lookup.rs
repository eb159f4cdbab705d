//! Look-up of a requested table.

use latlas_shared::RunConfig;
use sqlx::types::Json;

use super::table::{TableRef, table_ref};
use super::{Store, StoreError};

/// The most hardware ids or run configs that a message lists.
const MOST_LISTED: i64 = 20;

/// Why a table was not found.
#[derive(Debug, thiserror::Error)]
pub enum Lookup {
    /// No agent of that class was enrolled.
    #[error("no agent of this hardware is enrolled")]
    UnknownHardware {
        /// The known classes, at most 20.
        known: Vec<String>,
    },
    /// No agent of that class measures under that run config.
    #[error("no agent of this hardware measures under this run config")]
    UnknownConfig {
        /// The class's run configs.
        known: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for Lookup {
    fn from(error: sqlx::Error) -> Lookup {
        Lookup::Store(error.into())
    }
}

impl Store {
    /// The table of a class of device, for a run config or for the default one.
    ///
    /// # Errors
    /// When there is no such class or run config; the error lists the existing ones.
    pub async fn table(&self, hardware_id: &str, config: Option<&str>) -> Result<TableRef, Lookup> {
        let found: Option<(i64, Json<RunConfig>)> = sqlx::query_as(
            "SELECT id, run_config FROM tables
             WHERE hardware_id = ?1 AND (?2 IS NULL OR config_id = ?2) ORDER BY id LIMIT 1",
        )
        .bind(hardware_id)
        .bind(config)
        .fetch_optional(&self.db.readers)
        .await?;
        if let Some((id, Json(run_config))) = found {
            return Ok(table_ref(id, hardware_id, run_config)?);
        }
        let configs: Vec<String> = sqlx::query_scalar(
            "SELECT config_id FROM tables WHERE hardware_id = ?1 ORDER BY id LIMIT ?2",
        )
        .bind(hardware_id)
        .bind(MOST_LISTED)
        .fetch_all(&self.db.readers)
        .await?;
        if !configs.is_empty() {
            return Err(Lookup::UnknownConfig { known: configs });
        }
        let known: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT hardware_id FROM tables ORDER BY hardware_id LIMIT ?1",
        )
        .bind(MOST_LISTED)
        .fetch_all(&self.db.readers)
        .await?;
        Err(Lookup::UnknownHardware { known })
    }
}

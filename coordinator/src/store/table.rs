//! Identities of tables, and what readers of a table get.

use std::time::Duration;

use jiff::Timestamp;
use latlas_shared::api::Stale;
use latlas_shared::{HardwareId, RunConfig};

use super::error::StoreError;

/// How long a reader waits for the next version.
pub(super) const READER_WAITS: Duration = Duration::from_secs(10);

/// The number of a table inside the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub(super) i64);

/// A table: a class of device under one run config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRef {
    /// Its number.
    pub id: TableId,
    /// The class of device.
    pub hardware_id: HardwareId,
    /// The run config.
    pub run_config: RunConfig,
}

pub(super) fn table_ref(
    id: i64,
    hardware_id: &str,
    run_config: RunConfig,
) -> Result<TableRef, StoreError> {
    Ok(TableRef {
        id: TableId(id),
        hardware_id: hardware_id.parse().map_err(|e| StoreError::damaged("a hardware id", e))?,
        run_config,
    })
}

/// A version of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Hash of its content.
    pub version: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its rows.
    pub rows: u32,
}

/// What a reader of a table gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The latest existing version.
    pub version: Version,
    /// Why it lacks stored measurements; none if it contains them all.
    pub stale: Option<Stale>,
}

//! What can go wrong in the store.

use latlas_shared::api::Stale;

/// Why a store method failed. Causes are kept as text, since one cause may end many calls at once.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database is busy: another process is writing, or too many are waiting. It may work later.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// There is no room left for it. Nothing of the change was kept; it works again when there is room.
    #[error("the disk of the database is full: {0}")]
    Full(String),
    /// Its file can't be read or written: a file system that became read-only, or a failing disk.
    #[error("the file of the database can't be used: {0}")]
    Unusable(String),
    /// The first version of a table is still being put together.
    #[error("the first version of this table is still being put together")]
    Unfinished,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(String),
    /// What it holds can't be read back.
    #[error("the database holds {what} that can't be read: {cause}")]
    Damaged {
        /// What can't be read.
        what: String,
        /// Why not.
        cause: String,
    },
}

impl StoreError {
    pub(super) fn damaged(what: &str, cause: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged { what: what.to_owned(), cause: cause.to_string() }
    }

    /// What a reader is told who gets an older version because of this.
    pub(super) fn stale(&self) -> Stale {
        match self {
            StoreError::Busy(_) | StoreError::Unfinished => Stale::Behind,
            StoreError::Full(_) => Stale::DiskFull,
            StoreError::Unusable(_) => Stale::DiskTrouble,
            StoreError::Database(_) | StoreError::Damaged { .. } => Stale::Failed,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        // Primary result codes of SQLite, in the low byte.
        const BUSY: i32 = 5;
        const LOCKED: i32 = 6;
        const READONLY: i32 = 8;
        const IOERR: i32 = 10;
        const FULL: i32 = 13;
        const CANTOPEN: i32 = 14;
        let code = error
            .as_database_error()
            .and_then(|e| e.code())
            .and_then(|code| code.parse::<i32>().ok())
            .map(|code| code & 0xff);
        let text = error.to_string();
        match (error, code) {
            (sqlx::Error::PoolTimedOut, _) | (_, Some(BUSY | LOCKED)) => StoreError::Busy(text),
            (_, Some(FULL)) => StoreError::Full(text),
            (_, Some(READONLY | IOERR | CANTOPEN)) => StoreError::Unusable(text),
            _ => StoreError::Database(text),
        }
    }
}

/// Why a table was not found.
#[derive(Debug, thiserror::Error)]
pub enum Lookup {
    /// No agent of that class was enrolled.
    #[error("no agent of this hardware is enrolled")]
    UnknownHardware {
        /// The classes that there are, at most 20.
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

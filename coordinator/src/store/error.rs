//! Errors of the store.

use std::sync::Arc;

use latlas_shared::api::Stale;

/// The cause of an error. It is shared, because one cause may end many calls at once.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a store method failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database is busy: another process is writing, or too many callers wait. A retry may succeed later.
    #[error("the database is busy")]
    Busy(#[source] Arc<sqlx::Error>),
    /// The change collided with another one. A retry may succeed.
    #[error("the change collided with another one")]
    Collided,
    /// The disk is full. No part of the change was kept. A retry succeeds once there is space again.
    #[error("the disk of the database is full")]
    Full(#[source] Arc<sqlx::Error>),
    /// The database file can't be read or written: the file system became read-only, or the disk fails.
    #[error("the file of the database can't be used")]
    Unusable(#[source] Arc<sqlx::Error>),
    /// The first version of a table is not finished yet.
    #[error("the first version of this table is still being put together")]
    Unfinished,
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// A task of this process ended before its work was done: it panicked, or the process stops.
    #[error("{0} ended before its work was done")]
    Ended(&'static str),
    /// The database contains something that can't be read.
    #[error("the database holds {what} that can't be read")]
    Damaged {
        /// What can't be read.
        what: String,
        /// Why it can't be read.
        #[source]
        cause: Cause,
    },
}

impl StoreError {
    pub(super) fn damaged(
        what: &str,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError::Damaged { what: what.to_owned(), cause: Arc::from(cause.into()) }
    }

    /// The reason that a reader gets together with an older version.
    pub(super) fn stale(&self) -> Stale {
        match self {
            StoreError::Busy(_) | StoreError::Collided | StoreError::Unfinished => Stale::Behind,
            StoreError::Full(_) => Stale::DiskFull,
            StoreError::Unusable(_) => Stale::DiskTrouble,
            StoreError::Database(_) | StoreError::Ended(_) | StoreError::Damaged { .. } => {
                Stale::Failed
            }
        }
    }
}

/// An error of a change: the change was refused for its own reasons, or the store failed.
pub(super) trait Retryable: From<StoreError> + Send + 'static {
    /// Whether the same change may succeed if it is retried at once, in a new transaction.
    fn is_retryable(&self) -> bool;
}

impl Retryable for StoreError {
    fn is_retryable(&self) -> bool {
        match self {
            StoreError::Busy(_) | StoreError::Collided => true,
            StoreError::Full(_)
            | StoreError::Unusable(_)
            | StoreError::Unfinished
            | StoreError::Database(_)
            | StoreError::Ended(_)
            | StoreError::Damaged { .. } => false,
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
        let error = match error {
            sqlx::Error::ColumnDecode { index, source } => {
                return StoreError::damaged(&format!("a value in column {index}"), source);
            }
            other => Arc::new(other),
        };
        match (&*error, code) {
            (sqlx::Error::PoolTimedOut, _) | (_, Some(BUSY | LOCKED)) => StoreError::Busy(error),
            (_, Some(FULL)) => StoreError::Full(error),
            (_, Some(READONLY | IOERR | CANTOPEN)) => StoreError::Unusable(error),
            _ => StoreError::Database(error),
        }
    }
}

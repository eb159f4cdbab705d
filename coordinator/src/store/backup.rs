//! Copies of a database: consistent, atomic, and made while a server continues to run.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use latlas_program::files::sync_name;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::error::Cause;
use super::open::{APPLICATION_ID, BUSY_TIMEOUT, OpenError, check_left_over, create_private};

/// The content of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Measurements.
    pub measurements: u64,
    /// Size of the file.
    pub bytes: u64,
}

/// Why there is no copy. Existing files stay unchanged.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The database does not exist.
    #[error("there is no database at {0}")]
    Missing(PathBuf),
    /// It is not a database of this program, or parts of it cannot be read.
    #[error("{path} is not a whole database of latlas-coordinator")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: Cause,
    },
    /// The target exists, and a copy never replaces a file.
    #[error("{0} exists already, and is not overwritten: move it away, or choose another name")]
    Exists(PathBuf),
    /// The log of another database exists in the place of the copy's log.
    #[error(transparent)]
    LeftOver(#[from] OpenError),
    /// It can't be written.
    #[error(
        "the copy {path} can't be written: look at the permissions of its directory and at the space on \
         its disk"
    )]
    Unwritable {
        /// The copy.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: Cause,
    },
}

fn not_ours(path: &Path, cause: impl Into<BoxDynError>) -> CopyError {
    CopyError::NotOurs { path: path.to_owned(), cause: Arc::from(cause.into()) }
}

fn unwritable(path: &Path, cause: impl Into<BoxDynError>) -> CopyError {
    CopyError::Unwritable { path: path.to_owned(), cause: Arc::from(cause.into()) }
}

/// Copies the database `from` to the new file `to`, as of one moment; others may continue to write to it. The copy gets
/// its name once it is completely on disk, readable only by its owner.
///
/// # Errors
/// See [`CopyError`].
pub async fn copy(from: &Path, to: &Path) -> Result<Copied, CopyError> {
    for path in [from, to] {
        // SQLite takes names as text, and would write to a different file.
        if path.to_str().is_none() {
            return Err(unwritable(to, format!("the name {} is not UTF-8", path.display())));
        }
    }
    if !from.is_file() {
        return Err(CopyError::Missing(from.to_owned()));
    }
    if to.exists() {
        return Err(CopyError::Exists(to.to_owned()));
    }
    check_left_over(to)?;
    let mut source = open(from).await?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let part = Part(to.with_file_name(format!(".{name}.{}.part", std::process::id())));
    create_private(&part.0).map_err(|e| unwritable(to, e))?;
    sqlx::query("VACUUM INTO ?1")
        .bind(part.0.to_string_lossy().into_owned())
        .execute(&mut source)
        .await
        .map_err(|e| unwritable(to, e))?;
    let _ = source.close().await;
    let measurements = read_through(&part.0).await?;
    let bytes = part.finish(to).map_err(|e| unwritable(to, e))?;
    Ok(Copied { measurements, bytes })
}

/// Opens a database for reading, after checking that it belongs to this program.
async fn open(path: &Path) -> Result<SqliteConnection, CopyError> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection =
        options.busy_timeout(BUSY_TIMEOUT).connect().await.map_err(|e| not_ours(path, e))?;
    let owner: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut connection)
        .await
        .map_err(|e| not_ours(path, e))?;
    if owner != APPLICATION_ID {
        return Err(not_ours(path, "it is another program's"));
    }
    Ok(connection)
}

/// Reads a whole database, and counts its measurements.
///
/// # Errors
/// When a part of it can't be read.
pub async fn read_through(path: &Path) -> Result<u64, CopyError> {
    let mut copy = open(path).await?;
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&mut copy)
        .await
        .map_err(|e| not_ours(path, e))?;
    if found != "ok" {
        return Err(not_ours(path, found));
    }
    let measurements: i64 = sqlx::query_scalar("SELECT count(*) FROM measurements")
        .fetch_one(&mut copy)
        .await
        .map_err(|e| not_ours(path, e))?;
    let _ = copy.close().await;
    Ok(measurements.unsigned_abs())
}

/// An incomplete file, which is deleted unless it is completed.
struct Part(PathBuf);

impl Part {
    /// Moves the file to its final place, durably. Returns its size.
    fn finish(self, to: &Path) -> io::Result<u64> {
        let file = File::open(&self.0)?;
        file.sync_all()?;
        fs::rename(&self.0, to)?;
        sync_name(to)?;
        Ok(file.metadata()?.len())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // The file no longer exists under this name if it was moved to its final place.
        let _ = fs::remove_file(&self.0);
    }
}

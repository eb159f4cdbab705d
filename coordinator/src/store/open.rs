//! Opening the database: connections, migrations, and checks of the file.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::error::BoxDynError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqlitePool};

use super::db::Db;
use super::error::Cause;
use super::hub::Hub;
use super::{Store, StoreError};
use crate::rules::lease::Policy;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The first migration: the whole schema as of the first release.
const FIRST: i64 = 16;

/// `PRAGMA application_id` of a database of this program; the first migration sets it.
pub(super) const APPLICATION_ID: i64 = 0x4c54_4c53;

/// How long a connection waits for another process that is writing.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request waits for a connection before the database counts as busy.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The writer's page cache; a negative number is in KiB.
const CACHE_KIB: &str = "-32768";

/// A checkpoint of the log runs when it has this many pages of 4 KiB: a page that changes often is then written to the
/// database once for many commits. A start after a crash reads this much.
const CHECKPOINT_PAGES: &str = "4000";

/// Number of connections for reading. Reads are short and mostly from memory, so more connections would not be faster.
const READERS: u32 = 4;

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not a database.
    #[error("{path} is not a database: move it away, or choose another directory with --data DIR")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// It is a database of another program.
    #[error(
        "{path} is the database of another program: move it away, or choose another directory with \
         --data DIR"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version of this program has migrated it.
    #[error(
        "{path} was written by a newer latlas-coordinator (its schema has migration {migration}, which \
         this version {} does not know): install that version or a later one",
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The unknown migration.
        migration: i64,
    },
    /// It is from a version before the first release.
    #[error(
        "{path} was made by a latlas-coordinator from before the first release, and this version {} does not \
         migrate it: export its tables with the version that made it, move it away, and start with a new one",
        env!("CARGO_PKG_VERSION")
    )]
    Unreleased {
        /// The file.
        path: PathBuf,
    },
    /// The database was moved away without its log, and a new database would use that log as its own.
    #[error(
        "{} left over from a database that was moved away from {path}. Move these files next to that database: \
         they may hold its last changes, and would damage a new database",
        names(.left)
    )]
    LeftOver {
        /// The missing database.
        path: PathBuf,
        /// The files that are left.
        left: Vec<PathBuf>,
    },
    /// It can't be opened, read or written.
    #[error(
        "the database {path} can't be opened: look at its permissions and at the space on its disk, or \
         choose another directory with --data DIR"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: Cause,
    },
}

fn unusable(path: &Path, cause: impl Into<BoxDynError>) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), cause: Arc::from(cause.into()) }
}

impl Store {
    /// Opens the database at `path` with the default policy, and creates or migrates it if needed.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: &Path) -> Result<Store, OpenError> {
        Store::open_with(path, Policy::default()).await
    }

    /// The same with another policy.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with(path: &Path, policy: Policy) -> Result<Store, OpenError> {
        check_left_over(path)?;
        create_private(path).or_else(existing).map_err(|e| unusable(path, e))?;
        let writer = connect_writer(path).await?;
        check_owner(path, &writer).await?;
        MIGRATIONS.run(&writer).await.map_err(|error| match error {
            MigrateError::VersionMissing(migration) if migration < FIRST => {
                OpenError::Unreleased { path: path.to_owned() }
            }
            MigrateError::VersionMissing(migration) => {
                OpenError::Newer { path: path.to_owned(), migration }
            }
            other => unusable(path, other),
        })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A connection to a file does not go stale, so testing it before each use is not needed.
            .test_before_acquire(false)
            .connect_with(options(path).read_only(true))
            .await
            .map_err(|e| unusable(path, e))?;
        let farm_id: String = sqlx::query_scalar("SELECT farm_id FROM farm_identity")
            .fetch_one(&writer)
            .await
            .map_err(|e| unusable(path, e))?;
        let farm_id =
            farm_id.parse().map_err(|e| unusable(path, StoreError::damaged("the farm's id", e)))?;
        let hub = Arc::new(Hub::default());
        let live = Arc::clone(&hub);
        let db = Db::start(writer, readers, move |effects| live.run(effects));
        let store = Store { db, hub, policy, farm_id };
        store.register_builtin_ops(Timestamp::now()).await.map_err(|e| unusable(path, e))?;
        Ok(store)
    }
}

/// Refuses to create a database where the log of another one exists. SQLite would treat the log as the new database's:
/// it deletes a log beside an empty file, and applies it to any other file.
///
/// # Errors
/// When such a log exists.
pub(super) fn check_left_over(path: &Path) -> Result<(), OpenError> {
    let ends: &[&str] = match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => return Ok(()),
        // An interrupted first start leaves an empty file with its own journal.
        Ok(_) => &["-wal"],
        Err(_) => &["-wal", "-shm", "-journal"],
    };
    let beside = ends.iter().map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    });
    let left: Vec<PathBuf> = beside.filter(|file| file.exists()).collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(OpenError::LeftOver { path: path.to_owned(), left })
}

fn names(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let are = if files.len() == 1 { "is" } else { "are" };
    format!("{} {are}", names.join(" and "))
}

/// Creates an empty file, readable only by its owner.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// An existing file is opened, and keeps its permissions.
fn existing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).foreign_keys(true).busy_timeout(BUSY_TIMEOUT)
}

async fn connect_writer(path: &Path) -> Result<SqlitePool, OpenError> {
    let options = options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", CACHE_KIB)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        // Rollback data of savepoints is kept in memory, not in a file.
        .pragma("temp_store", "MEMORY");
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // When the disk is full, SQLite ends a transaction itself, and there is nothing left to roll back. A connection
        // that still counts itself as inside a transaction would refuse all further statements.
        .before_acquire(|connection, _| {
            let usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(usable) })
        })
        .connect_with(options)
        .await;
    pool.map_err(|error| {
        // SQLITE_NOTADB
        let code = error.as_database_error().and_then(|e| e.code());
        if code.as_deref() == Some("26") {
            return OpenError::NotADatabase { path: path.to_owned() };
        }
        unusable(path, error)
    })
}

/// A new file may be initialized; a file with content must be a database of this program.
async fn check_owner(path: &Path, pool: &SqlitePool) -> Result<(), OpenError> {
    let read = async {
        let owner: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(pool).await?;
        // An interrupted start may have left only the table of migrations.
        let content: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'",
        )
        .fetch_one(pool)
        .await?;
        Ok::<_, sqlx::Error>((owner, content))
    };
    match read.await {
        Ok((APPLICATION_ID, _) | (0, 0)) => Ok(()),
        Ok(_) => Err(OpenError::Foreign { path: path.to_owned() }),
        Err(error) => Err(unusable(path, error)),
    }
}

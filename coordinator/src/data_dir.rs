//! The directory of all data of a coordinator.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use latlas_program::directories;

use crate::rules::lease::Policy;
use crate::store::{OpenError, Store};

/// Name of the database inside the data directory.
pub const DATABASE: &str = "latlas.db";

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// There is no default place for it.
    #[error(
        "there is no default data directory, since neither XDG_DATA_HOME nor HOME is set: say where \
         with --data DIR"
    )]
    NoDefault,
    /// It can't be created or written to.
    #[error(
        "the data directory {path} can't be written: make it writable for this user, or choose another one \
         with --data DIR"
    )]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// It contains no database.
    #[error(
        "there is no database at {}: give the data directory that `serve` uses with --data DIR. \
         `latlas-coordinator serve` starts a new farm",
        path.join(DATABASE).display()
    )]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// Another server uses it.
    #[error(
        "another latlas-coordinator is serving the data directory {path}: stop it first, or choose \
         another directory with --data DIR"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Its database can't be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
}

/// A data directory that exists and is writable.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

/// The exclusive right to serve a data directory, until it is dropped. When a process dies, the system releases the
/// lock, so no cleanup is needed.
#[derive(Debug)]
pub struct ServerLock {
    _file: File,
}

impl DataDir {
    /// The default data directory: `latlas` in the user's data home of the XDG base directory specification.
    ///
    /// # Errors
    /// When the environment does not define the user's home.
    pub fn default_path() -> Result<PathBuf, DataDirError> {
        let data_home = directories::data_home().ok_or(DataDirError::NoDefault)?;
        Ok(data_home.join("latlas"))
    }

    /// Creates the directory if it is missing, readable only by its owner.
    ///
    /// # Errors
    /// When it can't be created or written.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let unwritable = |cause| DataDirError::Unwritable { path: path.to_owned(), cause };
        if !path.is_dir() {
            create_private(path).map_err(unwritable)?;
        }
        let dir = DataDir { path: path.to_owned() };
        dir.lock_file("open.lock").map_err(unwritable)?;
        Ok(dir)
    }

    /// The path of the database.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Opens the database, and creates or migrates it if needed. Other processes may have it open too.
    ///
    /// # Errors
    /// When the file is not a database of this program, or is from a newer version of it.
    pub async fn open_store(&self) -> Result<Store, DataDirError> {
        self.open_store_with(Policy::default()).await
    }

    /// The same with another policy.
    ///
    /// # Errors
    /// The same.
    pub async fn open_store_with(&self, policy: Policy) -> Result<Store, DataDirError> {
        let unwritable = |cause| DataDirError::Unwritable { path: self.path.clone(), cause };
        // Two simultaneous migrations would collide.
        let lock = self.lock_file("open.lock").map_err(unwritable)?;
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
            .await
            .map_err(|e| unwritable(io::Error::other(e)))?
            .map_err(unwritable)?;
        let store = Store::open_with(&self.database(), policy).await?;
        drop(lock);
        Ok(store)
    }

    /// Locks this directory for the only server.
    ///
    /// # Errors
    /// When another process holds the lock.
    pub fn lock_for_serving(&self) -> Result<ServerLock, DataDirError> {
        let unwritable = |cause| DataDirError::Unwritable { path: self.path.clone(), cause };
        let file = self.lock_file("serve.lock").map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(ServerLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: self.path.clone() }),
            Err(TryLockError::Error(cause)) => Err(unwritable(cause)),
        }
    }

    fn lock_file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join(name))
    }
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

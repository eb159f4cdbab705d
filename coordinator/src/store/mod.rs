//! The store: all persistent data, in one SQLite file, and the only module with SQL. In addition, the live state in
//! memory.
//!
//! - `db` is the database. One task writes; a few connections read. A change of several statements is one transaction,
//!   and a change is on disk (`synchronous=FULL`) before its method returns. Changes share transactions, and may be run
//!   again (`db::group`).
//! - `hub` is the live state in memory. Its updates are effects of the commit of a change (`effects`).
//! - Two kinds of data are written later: when agents and tokens were last heard of (`heard`), and data derived from
//!   measurements (`derive`).
//! - Rules are elsewhere ([`crate::rules::lease`], [`latlas_predict::merge`], [`crate::rules::admission`]): methods
//!   here read, call the rules, and write. `now` is always an argument.
//! - Queries are checked at run time, not by sqlx's macros: those need a prepared database or generated files next to
//!   the code. Every query here is run by a test on a real file.

mod agent_list;
mod agent_state;
mod agents;
mod attendance;
mod audit;
mod backup;
mod canaries;
mod cancel;
mod columns;
mod db;
mod derive;
mod effects;
mod enrolment;
mod error;
mod expiry;
mod failures;
mod farm;
mod heard;
mod hub;
mod incidents;
mod incoming;
mod leases;
mod lists;
mod lookup;
mod metrics;
mod networks;
mod open;
mod ops;
mod queue;
mod registry;
mod requests;
mod results;
mod rows;
mod table;
mod tasks;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;
mod versions;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use self::db::Db;
use self::hub::Hub;
use crate::chain::Chain;
use crate::op_book::OpBook;
use crate::rules::lease::Policy;

pub use agents::Agent;
pub use audit::Actor;
pub use backup::{Copied, CopyError, copy, read_through};
pub use cancel::CancelError;
pub use derive::Rebuilt;
pub use enrolment::EnrolError;
pub use error::StoreError;
pub use hub::idle::Waiting;
pub use incoming::{Incoming, Refusal};
pub use lists::After;
pub use lookup::Lookup;
pub use metrics::FarmCounts;
pub use open::OpenError;
pub use ops::{Submission, SubmitError};
pub use registry::ChangeError;
pub use requests::{NewRequest, RequestError};
pub use table::{Served, TableId, TableRef, Version};
pub use tokens::{Found, Holder, NewToken};

/// The coordinator's data: the persistent part, and the live state in memory. Clones share both.
///
/// The two parts do not access each other. A method here reads or changes the database, and returns the effects of a
/// change on the hub.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    hub: Arc<Hub>,
    policy: Policy,
    /// The id of the farm.
    farm_id: Uuid,
}

impl Store {
    /// The parameters of the rules.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The id of the farm. It stays with the database when the database is moved.
    pub fn farm_id(&self) -> Uuid {
        self.farm_id
    }

    /// All currently known ops.
    pub fn ops(&self) -> Arc<OpBook> {
        self.hub.ops()
    }

    /// Registers an agent as waiting for work. Called before the query for work, so that work that is added later is
    /// not missed.
    pub fn wait_for_work(&self, agent: &Agent) -> Waiting {
        self.hub.idle.wait(agent)
    }

    /// Notified when a request may have progressed.
    pub fn progress(&self) -> watch::Receiver<()> {
        self.hub.progress.subscribe()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT count(*) FROM tables").execute(&self.db.readers).await?;
        Ok(())
    }

    /// Closes the connections once they are idle.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

/// A list cut into chunks of a few fixed lengths. So a statement on one chunk is prepared a few times, not once for
/// each list length.
fn chunks<T>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    const LENGTHS: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];
    std::iter::from_fn(move || {
        let length = LENGTHS.into_iter().find(|&length| length <= items.len())?;
        let (piece, rest) = items.split_at(length);
        items = rest;
        Some(piece)
    })
}

/// A time inside a JSON array for the database; for a column, see [`columns::StoredTime`].
fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// A stored JSON text.
fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::damaged(what, e))
}

/// The same where one unreadable record must not block others: the error is logged.
fn readable<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Option<T> {
    from_json(what, text)
        .inspect_err(|error| tracing::error!("a stored value is left out: {}", Chain(error)))
        .ok()
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data serializes to JSON")
}

/// A count in its serialized type.
fn count(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

//! The coordinator: it distributes work over a farm of agents, merges their measurements into latency tables, and
//! serves the tables.
//!
//! - `store` has all persistent data, and all SQL;
//! - `rules` has the decisions as pure functions: when a lease expires, which agents to trust, what to keep; the crate
//!   `latlas_predict` merges measurements;
//! - `http` is the interface: one file per resource, thin handlers;
//! - `server` and `tls` serve it, `token` has the roles of callers, and `limits` bounds their rates;
//! - `predictions` has the shared state of predictions, `export` the formats of a table, and `watched` the requests
//!   whose progress is watched;
//! - `metrics` has the coordinator's own metrics, and `alarm` tells the host about incidents;
//! - `app` combines the parts, and `serve` runs them;
//! - `op_book` has the known ops, `clock` the time, `data_dir` the data directory, and `chain` prints an error with
//!   its causes.
//!
//! It does not depend on libtorch. It never connects to an agent: agents call it.

pub mod alarm;
mod app;
mod chain;
mod clock;
mod data_dir;
pub mod export;
mod http;
pub mod limits;
mod metrics;
pub mod op_book;
mod predictions;
pub mod rules;
mod serve;
mod server;
pub mod store;
mod tls;
pub mod token;
mod watched;

#[cfg(test)]
mod tests;

pub use app::{App, Settings};
pub use data_dir::{DATABASE, DataDir, DataDirError, ServerLock};
pub use http::openapi;
pub use serve::{build_app, serve, tell_manager};
pub use tls::{Tls, TlsError};

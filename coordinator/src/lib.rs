//! The coordinator: it shares work out over a farm of boxes, merges what they measure into latency
//! tables, and serves those.
//!
//! - `store` has everything that lasts, and all SQL;
//! - `lease`, `admission`, `canary`, `failures`, `plausible`, `presence`, `standing` and `retention` are the rules, as pure functions; how
//!   measurements merge stands in `latlas_shared`;
//! - `http` is the interface: one file per resource, thin handlers;
//! - `server` and `tls` are what the interface is served with, `limits` how often somebody may call;
//! - `metrics` is what it counts of itself, and `alarm` what it tells the host without being asked;
//! - `clock`, `op_book`, `token`, `export` and `data_dir` are what their names say.
//!
//! It knows nothing of libtorch, and no box is ever connected to: agents dial in.

pub mod admission;
pub mod alarm;
mod app;
pub mod canary;
mod clock;
mod data_dir;
pub mod export;
pub mod failures;
mod http;
pub mod lease;
pub mod limits;
mod metrics;
pub mod op_book;
pub mod plausible;
pub mod presence;
pub mod retention;
mod server;
pub mod standing;
pub mod store;
mod tls;
pub mod token;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use app::{App, Settings, build_app, serve, tell_manager};
pub use data_dir::{DATABASE, DataDir, DataDirError, ServerLock};
pub use http::openapi;
pub use tls::{Tls, TlsError};

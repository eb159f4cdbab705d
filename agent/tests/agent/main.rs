//! The agent's parts with the real libtorch. One test program: linking one for each topic takes minutes.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod cuda;
mod energy;
mod runtime;
mod worker;

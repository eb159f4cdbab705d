//! The program `latlas-coordinator`, as its host meets it. One test program: linking one for each topic takes minutes.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod cli;
mod tls;

//! The program `latlas`, as users meet it. One test program: linking one for each topic takes minutes.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod accuracy;
mod arch;
mod common;
mod export;
mod farm;
mod help;
mod networks;
mod ops;
mod people;
mod predict;
mod presence;
mod prune;
mod space;
mod table_show;

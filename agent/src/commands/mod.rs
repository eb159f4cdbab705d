//! One file per command.

pub mod bench;
pub mod probe;
pub mod run;

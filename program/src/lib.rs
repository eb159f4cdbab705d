//! What the programs have in common: how a command line is read, and what is logged.

pub mod command_line;
pub mod log;

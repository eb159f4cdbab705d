//! Common parts of the programs: command lines, exit codes, logs, lists, and files.

pub mod command_line;
pub mod directories;
pub mod exit;
pub mod files;
pub mod log;
pub mod text_table;

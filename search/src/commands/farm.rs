//! `latlas farm`: for the host of a farm.

mod audit;
mod tokens;

use std::io::Write;

use anyhow::Result;
use jiff::Timestamp;

use crate::cli;

/// Runs the command.
///
/// # Errors
/// When the coordinator does not answer or refuses.
pub fn run(command: &cli::Farm, farm: &super::Farm, out: &mut dyn Write) -> Result<()> {
    match command {
        cli::Farm::Tokens(command) => tokens::run(command, farm, out),
        cli::Farm::Audit { last, json } => audit::run(*last, *json, farm, out),
    }
}

/// A time as lists have it.
fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

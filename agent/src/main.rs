//! `latlas-agent`: measures ops with libtorch, alone or for a coordinator.

mod cli;
mod commands;
mod engine;
mod explain;
mod farm;
mod options;
mod record;
mod references;
mod runtime;
mod spool;
mod system;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use latlas_program::command_line::without_empty_variables;
use latlas_program::exit;

fn main() -> ExitCode {
    let matches = without_empty_variables(cli::Cli::command()).get_matches();
    let cli = cli::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    exit::run(cli.log_format(), || cli.run())
}

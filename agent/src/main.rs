//! `latlas-agent`: measures ops with libtorch, alone or for a coordinator.

mod cli;
mod commands;
mod engine;
mod explain;
mod farm;
mod record;
mod references;
mod spool;
mod system;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use latlas_program::command_line::without_empty_variables;
use latlas_program::log;

fn main() -> ExitCode {
    let matches = without_empty_variables(cli::Cli::command()).get_matches();
    let cli = cli::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let format = cli.log_format();
    if let Err(problem) = log::start(format) {
        eprintln!("latlas-agent: {problem}");
        return ExitCode::from(2);
    }
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::say_why(format, "latlas-agent", &format!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

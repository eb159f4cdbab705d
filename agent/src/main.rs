//! `latlas-agent`: measures ops with libtorch, alone or for a coordinator.

mod cli;
mod commands;
mod engine;
mod explain;
mod farm;
mod lower;
mod record;
mod references;
mod spool;
mod system;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use latlas_shared::log;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
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

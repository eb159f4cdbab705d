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

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if let Err(problem) = latlas_shared::log::start(cli.log_format()) {
        eprintln!("latlas-agent: {problem}");
        return ExitCode::from(2);
    }
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("latlas-agent: {e:#}");
            ExitCode::FAILURE
        }
    }
}

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

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LATLAS_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("latlas-agent: {e:#}");
            ExitCode::FAILURE
        }
    }
}

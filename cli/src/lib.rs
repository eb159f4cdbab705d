//! The researcher's side of Latlas: latency tables, profiling requests, predictions of whole networks, and a filter
//! that judges candidates of an architecture search.
//!
//! Results go to stdout and everything else to stderr. I/O is in [`commands`], `files` and `progress`.
//! Decisions are pure functions: [`latlas_search::verdict::judge`], and the prediction in the crate `latlas_predict`.
//! This crate does not depend on libtorch.

pub mod cli;
pub mod commands;

mod chosen;
mod command_line;
mod files;
mod lines;
mod networks;
mod pick;
mod plot;
mod progress;
mod text;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use latlas_client::TlsFiles;
use latlas_program::exit;
use latlas_program::log::LogFormat;

pub use command_line::parse;

use crate::cli::{Cli, Command};
use crate::commands::{accuracy, arch, hardware, ops, predict, profile, prune, request, table};

/// Values from the environment, read once.
#[derive(Default)]
pub struct Environment {
    /// The credential for a coordinator.
    pub token: Option<String>,
}

/// Runs one command, and reports its error on stderr.
pub fn run(cli: Cli, environment: &Environment) -> ExitCode {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let tls = TlsFiles { ca: cli.ca_file, client_cert: cli.client_cert };
    let farm = commands::Coordinator::new(cli.coordinator, environment.token.clone(), tls);
    let result = match cli.command {
        Command::Ops(command) => ops::run(&command, &farm, &mut out),
        Command::Networks(command) => commands::networks::run(&command, &farm, &mut out),
        Command::Arch(command) => arch::run(&command, &farm, &mut out),
        Command::Space(command) => commands::space::run(&command, &mut out),
        Command::Farm(command) => commands::farm::run(&command, &farm, &mut out),
        Command::Hardware(command) => hardware::run(&command, &farm, &mut out),
        Command::Table(command) => table::run(&command, &farm, &mut out),
        Command::Profile(command) => profile::run(&command, &farm, &mut out),
        Command::Request(command) => request::run(&command, &farm, &mut out),
        Command::Predict(command) => predict::run(&command, &mut out),
        Command::Accuracy(command) => accuracy::run(&command, &farm, &mut out),
        Command::Prune(command) => prune::run(&command, &mut out),
    };
    let result = result.and_then(|()| Ok(out.flush()?));
    if result.as_ref().is_err_and(is_broken_pipe) {
        // The reader of the results, such as `head`, has stopped reading.
        return ExitCode::SUCCESS;
    }
    exit::code(result, LogFormat::Text)
}

/// Only writing to stdout returns a bare [`io::Error`] of this kind: the HTTP client has its own error types.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

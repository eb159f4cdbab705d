//! How a program ends: exit code 0 for success, 2 for wrong usage, 1 for everything else.

use std::io::Write as _;
use std::process::ExitCode;

use crate::log::{self, LogFormat};

/// The command line asks for something that the program does not do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The program failed, and has already said why.
#[derive(Debug, thiserror::Error)]
#[error("see above")]
pub struct Reported;

/// Starts logging, runs a program, and reports its error.
pub fn run(format: LogFormat, program: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    match log::start(format) {
        Ok(()) => code(program(), format),
        Err(error) => {
            // Without a log there is one way left to report it.
            let error = Usage(format!("{:#}", anyhow::Error::from(error)));
            code(Err(error.into()), LogFormat::Text)
        }
    }
}

/// Reports an error with its sources, and gives the exit code: to people on a line of its own that begins with
/// `error:`, to programs as a line of the log.
pub fn code(result: anyhow::Result<()>, format: LogFormat) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if !error.is::<Reported>() {
        match format {
            // Where stderr is closed, the exit code is all that is left.
            LogFormat::Text => drop(writeln!(std::io::stderr(), "error: {error:#}")),
            LogFormat::Json => tracing::error!("{error:#}"),
        }
    }
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

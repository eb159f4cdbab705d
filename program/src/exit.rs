//! Exit codes of a program: 0 for success, 2 for wrong usage, 1 for everything else.

use std::io::Write as _;
use std::process::ExitCode;

use crate::log::{self, LogFormat};

/// The command line asks for something that the program cannot do.
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
            // Without a log, stderr is the only way to report it.
            let error = Usage(format!("{:#}", anyhow::Error::from(error)));
            code(Err(error.into()), LogFormat::Text)
        }
    }
}

/// Reports an error with its sources, and returns the exit code: for people on a line that begins with `error:`, for
/// programs as a line of the log.
pub fn code(result: anyhow::Result<()>, format: LogFormat) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if !error.is::<Reported>() {
        match format {
            // If stderr is closed, only the exit code remains.
            LogFormat::Text => drop(writeln!(std::io::stderr(), "error: {error:#}")),
            LogFormat::Json => tracing::error!("{error:#}"),
        }
    }
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

//! How a command ends: 0 for success, 2 for wrong usage, 1 otherwise.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The command was asked for something that it does not do.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The command failed, and has said why already.
#[derive(Debug)]
pub(crate) struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("see above")
    }
}

impl std::error::Error for Failed {}

/// Says on stderr why a command failed, and gives its exit code.
pub(crate) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if is_broken_pipe(&error) {
        // Whoever reads the results, such as `head`, has enough of them.
        return ExitCode::SUCCESS;
    }
    if !error.is::<Failed>() {
        eprintln!("error: {error:#}");
    }
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Only writing to stdout gives a bare [`io::Error`] of this kind: the HTTP client's errors are its own.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

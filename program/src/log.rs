//! Logs of the long-running programs: on stderr, filtered by `LATLAS_LOG`, for people or for programs.
//!
//! Tokens are never logged: headers are left out, types that contain a token do not show it, and a test checks the logs
//! of a farm at the finest level.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Text, for people
    #[default]
    Text,
    /// One JSON object a line, for programs
    Json,
}

/// The variable `LATLAS_LOG` is not a filter.
#[derive(Debug, thiserror::Error)]
#[error("LATLAS_LOG is `{text}`, which is not a filter: write a level such as `debug`")]
pub struct FilterError {
    /// The value of the variable.
    text: String,
    /// What is wrong with it.
    #[source]
    cause: ParseError,
}

/// Starts logging. Called once, at the start of a program.
///
/// # Errors
/// When `LATLAS_LOG` is not a filter.
pub fn start(format: LogFormat) -> Result<(), FilterError> {
    let filter = match std::env::var("LATLAS_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|cause| FilterError { text, cause })?
        }
        _ => EnvFilter::new("info"),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log on a full disk cannot be written. A report of that would go to the same disk, and panic there.
        .log_internal_errors(false)
        .with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

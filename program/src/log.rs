//! What the long-running programs log: to stderr, filtered by `LATLAS_LOG`, for people or for programs.
//!
//! Tokens are no part of what is logged: headers are not, types that hold a token do not show it, and a
//! test runs a farm at the finest level and looks.

use std::io::{IsTerminal, Write as _};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is not known: write `text` or `json`")),
        }
    }
}

/// Starts logging. Called once, at the start of a program.
///
/// # Errors
/// When `LATLAS_LOG` is no filter, with an example of one.
pub fn start(format: LogFormat) -> Result<(), String> {
    let filter = match std::env::var("LATLAS_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|e| {
            format!(
                "LATLAS_LOG is `{text}`, which is no filter ({e}): write a level such as `debug`"
            )
        })?,
        _ => EnvFilter::new("info"),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log on a full disk can't be written; saying so would go to the same place, and panic there.
        .log_internal_errors(false)
        .with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Says why a program ends: to people on a line of its own, to programs as a line of the log.
pub fn say_why(format: LogFormat, program: &str, why: &str) {
    match format {
        // Where nobody can hear it, the exit code says it.
        LogFormat::Text => drop(writeln!(std::io::stderr(), "{program}: {why}")),
        LogFormat::Json => tracing::error!("{why}"),
    }
}

//! Runtimes other than libtorch: commands that the host of a box has configured. A command gets ONNX files and answers
//! with times. `docs/runtimes.md` is its documentation.

mod process;
mod protocol;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::worker::Fault;
pub use worker::{RuntimeSettings, RuntimeWorker};

/// The command of a runtime, as the host has configured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// The name of its section.
    name: String,
    /// The program and its arguments.
    command: Vec<String>,
    /// The file that has it.
    file: PathBuf,
}

impl fmt::Display for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Reasons of failures travel to the coordinator, so they do not have the arguments of the command.
        write!(f, "the runtime `{}` (in {})", self.name, self.file.display())
    }
}

/// A file of runtimes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Runtimes {
    runtime: BTreeMap<String, Section>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    command: Vec<String>,
}

impl Configured {
    /// The runtime of this name in a file.
    ///
    /// # Errors
    /// When the file cannot be read, or has no such runtime. The message names the file, and the runtimes that it has.
    pub fn read(file: &Path, name: &str) -> Result<Configured> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "--runtime {name}: there is no file {}: write `[runtime.{name}]` and `command = [\"PROGRAM\", \
                 \"ARGUMENT\"]` into it, or name another file with --runtimes (docs/runtimes.md)",
                file.display()
            ),
            text => text.with_context(|| file.display().to_string())?,
        };
        let mut runtimes: Runtimes =
            toml::from_str(&text).with_context(|| file.display().to_string())?;
        let Some(Section { command }) = runtimes.runtime.remove(name) else {
            let there_are: Vec<&str> = runtimes.runtime.keys().map(String::as_str).collect();
            bail!(
                "--runtime {name}: {} has no `[runtime.{name}]`, but: {}",
                file.display(),
                there_are.join(", ")
            );
        };
        if command.first().is_none_or(String::is_empty) {
            bail!("{}, [runtime.{name}]: `command` is empty: name a program", file.display());
        }
        Ok(Configured { name: name.to_owned(), command, file: file.to_owned() })
    }

    /// What is wrong, with the name of the runtime.
    fn problem(&self, error: &RuntimeError) -> String {
        format!("{self} {error}")
    }

    /// Why a visit returned no samples.
    fn fault(&self, error: &RuntimeError) -> Fault {
        match error {
            RuntimeError::Refused(reason) => Fault::Refused(format!("{}: {reason}", self.name)),
            RuntimeError::Silent { limit, .. } => {
                Fault::Hung { limit: *limit, worker: self.to_string() }
            }
            _ => Fault::Died(format!("of {}", self.problem(error))),
        }
    }
}

/// Why a command cannot be used. Each message goes on after the name of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such program.
    #[error("cannot be started: `{program}`: {source}. Correct its `command`")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// Its hello is not what is wanted.
    #[error("cannot be used: {0}")]
    Hello(String),
    /// It ended.
    #[error("{0}. What it wrote to stderr says more; docs/runtimes.md has the protocol")]
    Ended(String),
    /// It did not answer.
    #[error("did not answer `{request}` within {} s and was killed", limit.as_secs())]
    Silent {
        /// The word for the request.
        request: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// Its answer is not one.
    #[error("answered `{request}` wrongly: {problem}. docs/runtimes.md has the protocol")]
    Wrong {
        /// The word for the request.
        request: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// It refused this work.
    #[error("{0}")]
    Refused(String),
    /// Its version changed while the agent ran.
    #[error("was {before} when this agent began, and is {now} now: start the agent again")]
    Changed {
        /// Name and version in the run config.
        before: String,
        /// Name and version now.
        now: String,
    },
}

#[cfg(test)]
mod tests;

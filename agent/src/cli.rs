//! The command line.

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use latlas_program::log::LogFormat;

use crate::options::Execution;
use crate::{commands, worker};

/// Measures how long neural-network operations take on this machine.
#[derive(Debug, Parser)]
#[command(name = "latlas-agent", version, propagate_version = true)]
#[command(after_help = "Example:\n  latlas-agent bench --space quick --out quick.ndjson")]
pub struct Cli {
    /// How lines of the log are written to stderr: `text` or `json`. LATLAS_LOG sets what is logged,
    /// e.g. LATLAS_LOG=debug.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what this machine is: its hardware id, run config and fingerprint.
    #[command(after_help = "Example:\n  latlas-agent probe --json")]
    Probe {
        #[command(flatten)]
        execution: Execution,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measures ops or networks without a coordinator and prints measurements as NDJSON.
    #[command(after_help = "Examples:\n  latlas-agent bench --space quick --out quick.ndjson\n  \
                            latlas-agent bench --key MBConv6_3x3:n1-h56-w56-i24-o24-s1")]
    Bench(commands::bench::BenchArgs),
    /// Takes tasks from a coordinator, measures them, and reports.
    #[command(after_help = "Example:\n  latlas-agent run --coordinator http://127.0.0.1:8700 \
                            --enroll-token \"$TOKEN\" --once")]
    Run(commands::run::RunArgs),
    /// The process that runs ops for the other commands.
    #[command(hide = true)]
    Worker {
        /// Settings, as JSON.
        settings: String,
    },
}

impl Cli {
    /// How lines of the log are written.
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// Runs the command.
    ///
    /// # Errors
    /// What the user is told.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Probe { execution, json } => commands::probe::probe(&execution, json),
            Command::Bench(args) => {
                if let Some(why) = args.conflict() {
                    Cli::command().error(ErrorKind::ArgumentConflict, why).exit();
                }
                commands::bench::bench(&args)
            }
            Command::Run(args) => commands::run::run(args),
            Command::Worker { settings } => worker::serve(&serde_json::from_str(&settings)?),
        }
    }
}

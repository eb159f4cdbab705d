//! The command line.

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use latlas_program::log::LogFormat;

use crate::options::Execution;
use crate::{commands, worker};

/// Measure the latency of neural-network operations on this machine
#[derive(Debug, Parser)]
#[command(name = "latlas-agent", version, propagate_version = true)]
#[command(
    after_help = "Example:\n  latlas-agent bench --space quick --calibrate 5 --out quick.ndjson"
)]
pub struct Cli {
    /// Format of the log on stderr: `text` or `json`. LATLAS_LOG sets what is logged, e.g. LATLAS_LOG=debug
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the hardware id, run config and fingerprint of this machine
    #[command(after_help = "Example:\n  latlas-agent probe --json")]
    Probe {
        #[command(flatten)]
        execution: Execution,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Measure ops or networks without a coordinator, and print the measurements as NDJSON
    #[command(
        after_help = "Examples:\n  latlas-agent bench --space quick --calibrate 5 --out quick.ndjson\n  \
                            latlas-agent bench --key MBConv6_3x3:n1-h56-w56-i24-o24-s1"
    )]
    Bench(commands::bench::BenchArgs),
    /// Take tasks from a coordinator, measure them, and send the results
    #[command(after_help = "Example:\n  latlas-agent run --coordinator http://127.0.0.1:8700 \
                            --enroll-token-file enroll-token --once")]
    Run(commands::run::RunArgs),
    /// The process that runs ops for the other commands
    #[command(hide = true)]
    Worker {
        /// Settings as JSON
        settings: String,
    },
}

impl Cli {
    /// The format of the log.
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

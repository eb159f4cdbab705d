//! Commands, exit codes, and errors as a person reads them: 0 for success, 2 for wrong usage, 1 for
//! everything else. Results go to stdout, the rest to stderr.

mod backup;
mod rebuild;
mod serve;
mod token;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use latlas_coordinator::{DATABASE, DataDir, DataDirError};
use latlas_program::exit;
use latlas_program::log::LogFormat;

#[derive(Parser)]
#[command(
    name = "latlas-coordinator",
    version,
    about = "Distributes measurements over a farm of boxes, and serves the latency tables that result",
    after_help = "Example:\n  latlas-coordinator serve"
)]
struct Cli {
    /// Format of the log on stderr: `text` or `json`. LATLAS_LOG selects what is logged,
    /// e.g. LATLAS_LOG=debug
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    /// Create, list and revoke tokens. A token is shown once; only its hash is stored
    #[command(
        subcommand,
        after_help = "Example:\n  latlas-coordinator token create --role researcher"
    )]
    Token(token::Command),
    Backup(backup::BackupArguments),
    Restore(backup::RestoreArguments),
    Rebuild(rebuild::Arguments),
    /// Print the HTTP interface as an OpenAPI document
    #[command(
        name = "openapi",
        after_help = "Example:\n  latlas-coordinator openapi > openapi.json"
    )]
    OpenApi,
}

/// Where everything is kept.
#[derive(Args)]
struct DataArgument {
    /// The data directory [default: latlas in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long = "data", value_name = "DIR")]
    path: Option<PathBuf>,
}

impl DataArgument {
    fn path(&self) -> Result<PathBuf, DataDirError> {
        self.path.clone().map_or_else(DataDir::default_path, Ok)
    }

    /// The directory, made where it is missing.
    fn open(&self) -> Result<DataDir, DataDirError> {
        DataDir::open(&self.path()?)
    }

    /// A directory that has a database.
    fn existing(&self) -> Result<DataDir, DataDirError> {
        let path = self.path()?;
        if path.join(DATABASE).is_file() {
            DataDir::open(&path)
        } else {
            Err(DataDirError::Empty { path })
        }
    }
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    exit::run(cli.log_format, || run(cli.command))
}

fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Token(command) => token::run(command).await,
            Command::Backup(arguments) => backup::backup(arguments).await,
            Command::Restore(arguments) => backup::restore(arguments).await,
            Command::Rebuild(arguments) => rebuild::run(arguments).await,
            Command::OpenApi => {
                write!(io::stdout(), "{}", latlas_coordinator::openapi())?;
                Ok(())
            }
        }
    })
}

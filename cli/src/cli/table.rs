//! `latlas table`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use latlas_shared::HardwareId;

use super::values::version;

/// `latlas table`.
#[derive(Debug, Subcommand)]
pub enum Table {
    /// List the tables, each with its latest version
    #[command(after_help = "Example:\n  latlas table list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Download a table
    #[command(after_help = "\
Example:
  latlas table get amd-epyc-f25m1-2c-24gb.cpu -o table.json
  latlas table get amd-epyc-f25m1-2c-24gb.cpu --format csv | head")]
    Get(TableGet),
    /// Build a table from measurements, without a coordinator
    #[command(after_help = "\
The measurements come from `latlas-agent bench`, all of one class of device under one run config. Measured whole
networks give the table's accuracy. The same measurements give the same version here and in a coordinator.

Example:
  latlas table build rows.ndjson -o table.json
  latlas-agent bench --space quick --network demo_conv | latlas table build - -o table.json")]
    Build(TableBuild),
    /// List the rows of a downloaded table
    #[command(after_help = "\
LATENCY is the cost of the op inside a network: the 10th percentile of its samples (latency_micros; median_micros is
their median). us, ms and s are microseconds, milliseconds and seconds. INPUT is batch x height x width; 95% CI is
half the width of the latency's interval. FLOPs, where a command prints them, are multiply-accumulates (MACs).
All columns: docs/table.md

Example:\n  latlas table show table.json --op MBConv6_3x3")]
    Show(TableShow),
}

/// `latlas table build`.
#[derive(Debug, Args)]
pub struct TableBuild {
    /// Measurements, one JSON object a line; `-` is stdin
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// A file with definitions of ops that are not built in, as given to `latlas-agent bench --space`; repeatable
    #[arg(long, value_name = "FILE")]
    pub op_file: Vec<PathBuf>,
    /// A file with the output of `latlas-agent probe --json`, to be stored in the table; repeatable
    #[arg(long, value_name = "FILE")]
    pub probe: Vec<PathBuf>,
    /// Write to this file, which is replaced as a whole
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `latlas table show`.
#[derive(Debug, Args)]
pub struct TableShow {
    /// A table from `latlas table get` or `latlas table build`; `-` is stdin
    pub file: PathBuf,
    /// Only the rows of this op
    #[arg(long)]
    pub op: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `latlas table get`.
#[derive(Debug, Args)]
pub struct TableGet {
    /// The class of device
    pub hardware: HardwareId,
    /// Id of the run config; by default the first of the hardware
    #[arg(long)]
    pub config: Option<String>,
    /// A version, which determines the run config; by default the latest
    #[arg(long, value_parser = version, conflicts_with = "config")]
    pub version: Option<String>,
    /// Format of the table; `latlas predict` and `latlas prune` read json
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// Write to this file, which is replaced as a whole
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Formats of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The whole table
    Json,
    /// One row a line
    Ndjson,
    /// The columns of a row, for spreadsheets and data frames
    Csv,
}

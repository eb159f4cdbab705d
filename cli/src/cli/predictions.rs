//! `latlas predict`, `latlas accuracy` and `latlas prune`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use latlas_shared::{HardwareId, Missing};

use super::{NetworkChoice, OpFiles};

/// `latlas predict`.
#[derive(Debug, Args)]
#[command(after_help = "\
A network is a sequence, a graph or the short form. A file contains one network, as JSON or YAML, or many, one JSON
object a line. The prediction of one network is explained; several networks give a table with a line each. With --json
each network gives one line, in the order of the input: a prediction, or what is `missing` or `invalid`. The exit code
is 1 unless every network has a prediction.

Example:
  latlas predict --table table.json --network mobilenet_v2 --network mine.json
  latlas predict --table table.json --arch candidates.ndjson --json | jq .latency_micros")]
pub struct Predict {
    /// A table from `latlas table get` or `latlas table build`
    #[arg(long, value_name = "FILE")]
    pub table: PathBuf,
    /// The networks.
    #[command(flatten)]
    pub what: NetworkChoice,
    /// The user's own ops.
    #[command(flatten)]
    pub ops: OpFiles,
    /// Rule for ops whose row is missing: `error`, or `interpolate` between measured rows
    #[arg(long, value_name = "RULE", default_value = "error")]
    pub missing: Missing,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `latlas accuracy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each family of networks has a line: the numbers of measured and of predicted networks, the mean absolute error (MAPE)
and the mean signed error (BIAS, positive where predictions are too high), the share within ±5% and ±10%, Kendall's
tau between predictions and measurements, and the share of measured latencies inside the predicted intervals.

Example:
  latlas accuracy amd-epyc-f25m1-2c-24gb.cpu
  latlas accuracy --table table.json --plot accuracy.svg")]
pub struct Accuracy {
    /// Whose accuracy.
    #[command(flatten)]
    pub of: AccuracyOf,
    /// Id of the run config; by default the first of the hardware
    #[arg(long, conflicts_with = "table")]
    pub config: Option<String>,
    /// Plot predictions against measurements to this SVG file
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// The table that `latlas accuracy` is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct AccuracyOf {
    /// The class of device; the coordinator gives its latest table
    pub hardware: Option<HardwareId>,
    /// A table from `latlas table get` or `latlas table build`; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
}

/// `latlas prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Candidates are networks, one JSON object a line. Each line gives one verdict, a JSON object, in the same order:
accepted, rejected, unknown (a row is missing from the table) or invalid, with its reasons. The exit code is 0 if every
line was judged, whatever the verdicts.

The constraints are YAML. At least one is required:
  max_latency_ms: 25
  latency_bound: estimate      # or upper: the upper end of the interval is compared with the budget
  max_flops: 600e6
  max_params: 5e6
  max_layers: 50
  max_per_op: {Conv5x5: 5}

Example:
  latlas prune --table table.json --config limits.yaml < candidates.ndjson > verdicts.ndjson
  latlas prune --table table.json --config limits.yaml --space nas_bench_macro --all --format compact > verdicts.csv")]
pub struct Prune {
    /// A table from `latlas table get` or `latlas table build`
    #[arg(long, value_name = "FILE")]
    pub table: PathBuf,
    /// The file of constraints
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The file of candidates; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub arch: PathBuf,
    /// Candidates are genotypes of this space of architectures, one a line
    #[arg(long, value_name = "NAME|FILE")]
    pub space: Option<String>,
    /// Judge this many random genotypes of the space instead of a file
    #[arg(long, value_name = "N", requires = "space", conflicts_with_all = ["arch", "all"])]
    pub draw: Option<u64>,
    /// The seed of --draw
    #[arg(long, value_name = "N", default_value_t = 0, requires = "draw")]
    pub seed: u64,
    /// Judge every genotype of the space instead of a file
    #[arg(long, requires = "space", conflicts_with = "arch")]
    pub all: bool,
    /// Format of the verdicts
    #[arg(long, value_name = "FORMAT", default_value = "ndjson")]
    pub format: VerdictFormat,
    /// Write the verdicts on these candidates only
    #[arg(long, value_name = "VERDICT")]
    pub only: Option<Only>,
    /// Number of threads; without it, all processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// The user's own ops.
    #[command(flatten)]
    pub ops: OpFiles,
    /// Rule for ops whose row is missing: `error` makes the candidate unknown, `interpolate` estimates the row
    /// from measured rows
    #[arg(long, value_name = "RULE", default_value = "error")]
    pub missing: Missing,
}

impl Prune {
    /// The number of threads that judge.
    pub fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(all, usize::from)
    }
}

/// How verdicts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerdictFormat {
    /// One JSON object a line, with reasons in words
    Ndjson,
    /// CSV: line, verdict, latency, the sum of the codes of the reasons, candidate
    Compact,
}

/// Which verdicts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Only {
    /// Those of accepted candidates
    Accepted,
}

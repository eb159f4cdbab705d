//! The command line: names, help and examples. [`crate::commands`] has what the commands do.

mod arch;
mod farm;
mod networks;
mod predictions;
mod requests;
mod space;
mod table;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use arch::{Arch, ArchHash};
pub use farm::{AgentDecision, Farm, Tokens};
pub use networks::{
    ExportTo, NetworkCost, NetworkExport, NetworkImport, NetworkKeys, NetworkSource, Networks,
    OpExport, Ops,
};
pub use predictions::{Accuracy, AccuracyOf, Only, Predict, Prune, VerdictFormat};
pub use requests::{Profile, ProfileWhat, Request};
pub use space::Space;
pub use table::{Format, Table, TableBuild, TableGet, TableShow};
pub use values::Dims;

/// Latency tables of real devices, and predictions for whole networks.
#[derive(Debug, Parser)]
#[command(
    name = "latlas",
    version,
    arg_required_else_help = true,
    after_help = "\
Results go to stdout, everything else to stderr. The exit code is 0 for success, 2 for wrong usage, and 1 otherwise.
The environment variable LATLAS_TOKEN contains your token for the coordinator.

Example:
  latlas table list
  latlas table get amd-epyc-f25m1-2c-24gb.cpu -o table.json
  latlas accuracy --table table.json
  latlas predict --table table.json --network mobilenet_v2"
)]
pub struct Cli {
    /// Address of the coordinator
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LATLAS_COORDINATOR",
        hide_env_values = true,
        display_order = 900,
        default_value = "http://127.0.0.1:8700"
    )]
    pub coordinator: String,
    /// PEM file of certificates to trust in addition to the system's, for a coordinator with a self-signed
    /// certificate
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LATLAS_CA_FILE",
        hide_env_values = true,
        display_order = 901
    )]
    pub ca_file: Option<PathBuf>,
    /// PEM file of your own certificate and its private key, for a coordinator that requires one
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LATLAS_CLIENT_CERT",
        hide_env_values = true,
        display_order = 902
    )]
    pub client_cert: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List ops, show their definitions and costs, and export them
    #[command(subcommand, after_help = "Example:\n  latlas ops list")]
    Ops(Ops),
    /// List, draw, cost and export networks, and print their op keys
    #[command(subcommand, after_help = "Example:\n  latlas networks list")]
    Networks(Networks),
    /// Spaces of architectures: show, draw, decode and encode their networks
    #[command(subcommand, after_help = "Example:\n  latlas space show nas_bench_macro")]
    Space(Space),
    /// List the classes of devices in the farm
    #[command(subcommand, after_help = "Example:\n  latlas hardware list")]
    Hardware(Hardware),
    /// List, download, build and show latency tables
    #[command(subcommand, after_help = "Example:\n  latlas table list")]
    Table(Table),
    /// Ask a device to measure a space and whole networks
    Profile(Profile),
    /// List, show and cancel requests, which `latlas profile` makes
    #[command(subcommand, after_help = "Example:\n  latlas request list")]
    Request(Request),
    /// Predict the latency of whole networks from a table
    Predict(Predict),
    /// Show how well a table predicts the whole networks that were measured
    Accuracy(Accuracy),
    /// Judge candidate networks by latency, FLOPs, parameters and structure
    Prune(Prune),
    /// Hash architectures, so that one is known again
    #[command(subcommand, after_help = "Example:\n  latlas arch hash --network resnet18")]
    Arch(Arch),
    /// Host a farm: its status, agents, tokens and audit log
    #[command(subcommand, after_help = "Example:\n  latlas farm status")]
    Farm(Farm),
}

/// `latlas hardware`.
#[derive(Debug, Subcommand)]
pub enum Hardware {
    /// List the classes of devices, with their run configs
    #[command(after_help = "Example:\n  latlas hardware list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

/// Networks from files and built-in ones.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct NetworkChoice {
    /// A file of networks; `-` is stdin; repeatable
    #[arg(long, value_name = "FILE")]
    pub arch: Vec<PathBuf>,
    /// A network: the name of a built-in one, or a file (recognized by `/` or an extension); repeatable
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Vec<String>,
}

/// Ops that the catalog does not have.
#[derive(Debug, Args)]
pub struct OpFiles {
    /// A file with definitions of your own ops, which the networks use; repeatable
    #[arg(long, value_name = "FILE")]
    pub op_file: Vec<PathBuf>,
}

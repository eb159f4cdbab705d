//! The command line: names, help and examples. What the commands do stands in [`crate::commands`].

mod farm;
mod networks;
mod predictions;
mod requests;
mod table;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use farm::{AgentDecision, Farm, Tokens};
pub use networks::{NetworkKeys, Networks, Ops};
pub use predictions::{Accuracy, AccuracyOf, Predict, Prune};
pub use requests::{Profile, ProfileWhat, Request};
pub use table::{Format, Table, TableBuild, TableGet, TableShow};

/// Latency tables of real devices, and predictions for whole networks.
#[derive(Debug, Parser)]
#[command(
    name = "latlas",
    version,
    arg_required_else_help = true,
    after_help = "\
Results go to stdout, everything else to stderr. Exit code 0: success; 2: wrong usage; 1: anything else.
A coordinator asks for a token: put it into the environment variable LATLAS_TOKEN.

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
    /// Certificates to trust beside the system's, as a PEM file: for a coordinator whose certificate is of
    /// your own making
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LATLAS_CA_FILE",
        hide_env_values = true,
        display_order = 901
    )]
    pub ca_file: Option<PathBuf>,
    /// Your own certificate and its private key in one PEM file, for a coordinator that asks for one
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
    /// The ops that can be measured and networks are made of
    #[command(subcommand)]
    Ops(Ops),
    /// Whole networks: built-in ones, random ones, and the op keys that they are made of
    #[command(subcommand)]
    Networks(Networks),
    /// The classes of devices that can measure
    #[command(subcommand)]
    Hardware(Hardware),
    /// Latency tables
    #[command(subcommand)]
    Table(Table),
    /// Ask a device to measure a space and whole networks
    Profile(Profile),
    /// What was asked of devices, and how far it is
    #[command(subcommand)]
    Request(Request),
    /// Predict the latency of whole networks from a table
    Predict(Predict),
    /// Show how well a table predicts the whole networks that were measured
    Accuracy(Accuracy),
    /// Judge candidate networks by latency, FLOPs, params and structure
    Prune(Prune),
    /// Host a farm: its state, its boxes, who may use it, and what was changed
    #[command(subcommand)]
    Farm(Farm),
}

/// `latlas hardware`.
#[derive(Debug, Subcommand)]
pub enum Hardware {
    /// List them, with their run configs
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
    /// A file of networks; `-` is stdin; may be given several times
    #[arg(long, value_name = "FILE")]
    pub arch: Vec<PathBuf>,
    /// A network: the name of a built-in one, or a file (recognized by `/` or an extension); may be given
    /// several times
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Vec<String>,
}

/// Ops that networks have and the catalog does not.
#[derive(Debug, Args)]
pub struct OpFiles {
    /// A file that defines ops of your own, for the networks that have them; may be given several times
    #[arg(long, value_name = "FILE")]
    pub op_file: Vec<PathBuf>,
}

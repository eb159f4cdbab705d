//! `latlas profile` and `latlas request`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use latlas_program::command_line::networks_that_calibrate;
use latlas_shared::HardwareId;

use super::values::id;

/// `latlas profile`.
#[derive(Debug, Args)]
#[command(after_help = "\
A FILE is YAML: `name`, then `grids`, `keys` or `networks` to measure, and under `ops` the definitions of ops that the
catalog does not have. Whole networks are measured too: those that are asked for, and five that are made of the space's
own keys. They do not become rows of the table. They calibrate its predictions, and `latlas accuracy` compares the
predictions with them. The rows that predictions of your networks need are measured with --missing-rows. With --wait the
exit code is 1 if something could not be measured.

Example:
  latlas profile --hardware amd-epyc-f25m1-2c-24gb.cpu --space mobilenet --wait
  latlas profile --hardware amd-epyc-f25m1-2c-24gb.cpu --network mobilenet_v2 --arch mine.ndjson
  latlas profile --hardware amd-epyc-f25m1-2c-24gb.cpu --arch mine.ndjson --missing-rows --wait
  latlas profile --hardware amd-epyc-f25m1-2c-24gb.cpu --op-file my_block.yaml --wait
  latlas profile --hardware jetson-orin-nano-8gb.cuda.15w --space mobilenet --sustained")]
pub struct Profile {
    /// The class of device, as listed by `latlas hardware list`
    #[arg(long)]
    pub hardware: HardwareId,
    /// What to measure.
    #[command(flatten)]
    pub what: ProfileWhat,
    /// Also measure the rows that predictions of the networks lack, and only those
    #[arg(long)]
    pub missing_rows: bool,
    /// Id of the run config; by default the first of the hardware
    #[arg(long)]
    pub config: Option<String>,
    /// Whole networks, made of the space's own keys, that are measured too and calibrate the table's predictions: a
    /// number, or `none`, which is 0; 5 when not given. With --missing-rows they are made of the ops of the networks, and
    /// it is `none` when not given
    #[arg(long, value_name = "N|none", value_parser = networks_that_calibrate)]
    pub calibrate: Option<u32>,
    /// Also run up to three of the networks for ten minutes each without a pause: the ones that you ask for first, then
    /// those of --calibrate. The table then says how much slower the device is when it is hot
    #[arg(long)]
    pub sustained: bool,
    /// Measure again what is already measured
    #[arg(long)]
    pub remeasure: bool,
    /// Wait until everything is measured
    #[arg(long)]
    pub wait: bool,
    /// Print the request's state as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `latlas profile` measures.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ProfileWhat {
    /// A space: the name of a built-in one, or a file (recognized by `/` or an extension)
    #[arg(long, value_name = "NAME|FILE")]
    pub space: Option<String>,
    /// A file with definitions of new ops and the shapes to measure them at; together with --space, --network or
    /// --arch the shapes are optional
    #[arg(long, value_name = "FILE")]
    pub op_file: Option<PathBuf>,
    /// A whole network: the name of a built-in one, or a file (recognized by `/` or an extension); repeatable
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Vec<String>,
    /// A file of whole networks, one JSON object a line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub arch: Option<PathBuf>,
}

/// `latlas request`.
#[derive(Debug, Subcommand)]
pub enum Request {
    /// List the requests
    #[command(after_help = "Example:\n  latlas request list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show the progress of a request
    #[command(
        after_help = "Example:\n  latlas request show 0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7aa --wait"
    )]
    Show {
        /// Id of the request, as printed by `latlas profile`, or the beginning of the id
        #[arg(value_parser = id)]
        id: String,
        /// Wait until everything is measured
        #[arg(long)]
        wait: bool,
        /// Print the request's state as JSON
        #[arg(long)]
        json: bool,
    },
    /// Cancel a request
    #[command(after_help = "\
Tasks that no other request needs leave the queue, and agents drop them within ten seconds. Measurements stay. Needs
the token that made the request, or an admin token.

Example:
  latlas request cancel 0198c5f2")]
    Cancel {
        /// Id of the request, as printed by `latlas profile`, or the beginning of the id
        #[arg(value_parser = id)]
        id: String,
        /// Print the request's state as JSON
        #[arg(long)]
        json: bool,
    },
}

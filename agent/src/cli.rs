//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use latlas_program::log::LogFormat;
use latlas_shared::{
    Allocator, CONFIG_DEFAULT_REUSE_DISTANCE, Device, Dtype, MemoryFormat, RunConfig,
};

use crate::commands;
use crate::system::LIBTORCH_VERSION;
use crate::worker::{self, WorkerSettings};

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
        how: How,
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

/// The largest reuse distance that a worker can make: beyond the caches of any processor that it is
/// likely to meet.
const LARGEST_REUSE_DISTANCE: u64 = 64 << 20;

/// How ops are executed.
#[derive(Debug, Clone, Args)]
pub struct How {
    /// Where ops run: `cpu`, or `cuda:N`.
    #[arg(long, default_value = "cpu")]
    pub device: Device,
    /// Intra-op threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Element type: `f32`, `f16` or `bf16`.
    #[arg(long, default_value = "f32")]
    pub dtype: Dtype,
    /// Order of maps in memory: `contiguous` or `channels_last`.
    #[arg(long, default_value = "contiguous")]
    pub memory_format: MemoryFormat,
    /// What happens to freed memory: `retain` or `system`.
    #[arg(long, default_value = "retain")]
    pub allocator: Allocator,
    /// Bytes of other memory between two uses of an op's weights, at which the row's latency is read.
    #[arg(long, value_name = "BYTES", default_value_t = CONFIG_DEFAULT_REUSE_DISTANCE,
          value_parser = clap::value_parser!(u64).range(..=LARGEST_REUSE_DISTANCE))]
    pub reuse_distance: u64,
    /// Measures the energy of one call too, a few seconds more for each row; null where no sensor is.
    #[arg(long)]
    pub energy: bool,
}

impl How {
    /// The run config that these flags stand for.
    pub fn run_config(&self) -> RunConfig {
        RunConfig {
            dtype: self.dtype,
            memory_format: self.memory_format,
            threads: self.threads,
            allocator: self.allocator,
            reuse_distance_bytes: self.reuse_distance,
            ..RunConfig::libtorch_eager(LIBTORCH_VERSION)
        }
    }

    /// The worker that runs under these flags.
    ///
    /// # Errors
    /// When the device cannot be used, or there are fewer processors than threads.
    pub fn worker_settings(&self) -> Result<WorkerSettings> {
        if let Device::Cuda(index) = self.device {
            worker::check_cuda(index)?;
        }
        let allowed = worker::allowed_cpus()?.len();
        if self.threads as usize > allowed {
            anyhow::bail!(
                "--threads {} is more than the {allowed} processors that this process may use",
                self.threads
            );
        }
        let mut system = sysinfo::System::new().context("reading the memory of this machine")?;
        system.refresh_memory();
        Ok(WorkerSettings {
            device: self.device,
            dtype: self.dtype,
            memory_format: self.memory_format,
            threads: self.threads,
            allocator: self.allocator,
            largest_reuse_distance: LARGEST_REUSE_DISTANCE,
            // The rest of the machine goes on living.
            memory_limit: system.available_memory() / 2,
        })
    }
}

/// Where a long-lived agent keeps what must survive it.
pub fn default_state_dir() -> Result<PathBuf> {
    let state_home = latlas_program::directories::state_home()
        .context("there is no home directory: give --state DIR")?;
    Ok(state_home.join("latlas-agent"))
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
            Command::Probe { how, json } => commands::probe::probe(&how, json),
            Command::Bench(args) => commands::bench::bench(&args),
            Command::Run(args) => commands::run::run(args),
            Command::Worker { settings } => worker::serve(&serde_json::from_str(&settings)?),
        }
    }
}

//! Options that several commands have.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use latlas_lowering::LIBTORCH_VERSION;
use latlas_shared::{
    Allocator, CONFIG_DEFAULT_REUSE_DISTANCE, Device, Dtype, MemoryFormat, RunConfig,
};

use crate::record::Recorder;
use crate::worker::{self, WorkerSettings};

/// The largest reuse distance that a worker can make. It exceeds the caches of all common processors.
const LARGEST_REUSE_DISTANCE: u64 = 64 << 20;

/// Options of the execution of ops.
#[derive(Debug, Clone, Args)]
pub struct Execution {
    /// Device to measure: `cpu` or `cuda:N`
    #[arg(long, default_value = "cpu")]
    pub device: Device,
    /// Intra-op threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Element type: `f32`, `f16` or `bf16`
    #[arg(long, default_value = "f32")]
    pub dtype: Dtype,
    /// Order of maps in memory: `contiguous` or `channels_last`
    #[arg(long, default_value = "contiguous")]
    pub memory_format: MemoryFormat,
    /// Keep freed memory for reuse (`retain`), or return it to the system (`system`)
    #[arg(long, default_value = "retain")]
    pub allocator: Allocator,
    /// Reuse distance of the row's latency: bytes of other memory touched between two uses of an op's weights
    #[arg(long, value_name = "BYTES", default_value_t = CONFIG_DEFAULT_REUSE_DISTANCE,
          value_parser = clap::value_parser!(u64).range(..=LARGEST_REUSE_DISTANCE))]
    pub reuse_distance: u64,
    /// Also measure the energy per call. Adds a few seconds per row. The value is null without a sensor
    #[arg(long)]
    pub energy: bool,
}

impl Execution {
    /// The run config that these options stand for.
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

    /// A recorder of measurements under these options.
    ///
    /// # Errors
    /// When the box cannot be read.
    pub fn recorder(&self) -> Result<Recorder> {
        Recorder::new(self.device, self.run_config(), self.energy)
    }

    /// The worker that runs under these options.
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
            // The rest is left to other programs.
            memory_limit: system.available_memory() / 2,
        })
    }
}

/// The directory of an agent's identity, spool and history.
pub fn default_state_dir() -> Result<PathBuf> {
    let state_home = latlas_program::directories::state_home()
        .context("there is no home directory: give --state DIR")?;
    Ok(state_home.join("latlas-agent"))
}

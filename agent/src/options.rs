//! Options that several commands have.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use latlas_lowering::LIBTORCH_VERSION;
use latlas_shared::{
    Allocator, CONFIG_DEFAULT_REUSE_DISTANCE, Device, Dtype, MemoryFormat, RunConfig,
};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate};

use crate::record::Recorder;
use crate::system::System;
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
    /// When the device cannot be used, or there are fewer processors or less of their time than threads.
    pub fn worker_settings(&self) -> Result<WorkerSettings> {
        if let Device::Cuda(index) = self.device {
            worker::check_cuda(index)?;
        }
        let quota = System::at(Path::new("/")).processor_quota();
        check_threads(self.threads, worker::allowed_cpus()?.len(), quota)?;
        Ok(WorkerSettings {
            device: self.device,
            dtype: self.dtype,
            memory_format: self.memory_format,
            threads: self.threads,
            allocator: self.allocator,
            largest_reuse_distance: LARGEST_REUSE_DISTANCE,
            // The rest is left to other programs.
            memory_limit: available_memory()? / 2,
        })
    }
}

/// Bytes of memory that this process can still have: what is available on the machine, or in its control group where
/// that is less. The group's caches of files do not count, since the kernel gives them up.
fn available_memory() -> Result<u64> {
    let mut system = sysinfo::System::new().context("reading the memory of this machine")?;
    system.refresh_memory();
    let me = sysinfo::Pid::from_u32(std::process::id());
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[me]),
        false,
        ProcessRefreshKind::nothing(),
    );
    let group = system.process(me).and_then(sysinfo::Process::cgroup_limits);
    let of_group = group.map(|group| group.total_memory.saturating_sub(group.rss));
    Ok(system.available_memory().min(of_group.unwrap_or(u64::MAX)))
}

/// Checks that each thread can have a processor to itself. Under a quota that is too small, the kernel stops the threads
/// for a part of each period, and every sample would contain such stops.
fn check_threads(threads: u32, allowed: usize, quota: Option<f64>) -> Result<()> {
    if threads as usize > allowed {
        anyhow::bail!(
            "--threads {threads} is more than the {allowed} processors that this process may use"
        );
    }
    match quota {
        Some(quota) if quota < f64::from(threads) => anyhow::bail!(
            "--threads {threads} needs the time of {threads} processors, and the control group of this process allows \
             it that of {quota}: raise the limit (`docker run --cpus`, `CPUQuota=` of a systemd unit), or lower \
             --threads"
        ),
        _ => Ok(()),
    }
}

/// The directory of an agent's identity, spool and history.
pub fn default_state_dir() -> Result<PathBuf> {
    let state_home = latlas_program::directories::state_home()
        .context("there is no home directory: give --state DIR")?;
    Ok(state_home.join("latlas-agent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_a_processor_to_itself() {
        let refusal = |threads, allowed, quota| {
            check_threads(threads, allowed, quota).err().map(|error| error.to_string())
        };
        assert_eq!(refusal(1, 1, None), None);
        assert_eq!(refusal(2, 4, Some(2.0)), None);
        let processors = refusal(3, 2, None).unwrap();
        assert!(processors.contains("the 2 processors"), "{processors}");
        let quota = refusal(1, 4, Some(0.5)).unwrap();
        assert!(quota.contains("that of 0.5") && quota.contains("docker run --cpus"), "{quota}");
    }
}

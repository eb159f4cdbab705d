//! Options that several commands have.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use latlas_lowering::LIBTORCH_VERSION;
use latlas_shared::words::count;
use latlas_shared::{
    Allocator, CONFIG_DEFAULT_REUSE_DISTANCE, Device, Dtype, MemoryFormat, RunConfig,
};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate};

use crate::engine::Launch;
use crate::record::Recorder;
use crate::runtime::{Configured, RuntimeSettings};
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
    /// Element type: `f32`, `f16` or `bf16`; with --runtime also `int8`
    #[arg(long, default_value = "f32")]
    pub dtype: Dtype,
    /// Order of maps in memory: `contiguous` or `channels_last`
    #[arg(long, default_value = "contiguous", conflicts_with = "runtime")]
    pub memory_format: MemoryFormat,
    /// Keep freed memory for reuse (`retain`), or return it to the system (`system`)
    #[arg(long, default_value = "retain", conflicts_with = "runtime")]
    pub allocator: Allocator,
    /// Reuse distance of the row's latency: bytes of other memory touched between two uses of an op's weights
    /// [default: 8388608]
    #[arg(long, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(..=LARGEST_REUSE_DISTANCE))]
    pub reuse_distance: Option<u64>,
    /// Another runtime than libtorch: the name of its section in the file of runtimes (docs/runtimes.md)
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<String>,
    /// The file of runtimes. Default: latlas-agent/runtimes.toml in $XDG_CONFIG_HOME or ~/.config
    #[arg(long, value_name = "FILE", env = "LATLAS_RUNTIMES")]
    pub runtimes: Option<PathBuf>,
    /// Also measure the energy per call. Adds a few seconds per row. The value is null without a sensor
    #[arg(long)]
    pub energy: bool,
}

/// How workers are started and results recorded, as options have chosen it.
pub struct Chosen {
    /// How workers are started.
    pub launch: Launch,
    /// The recorder of their measurements.
    pub recorder: Recorder,
}

impl Execution {
    /// What these options stand for. Another runtime is started once, to hear what it is.
    ///
    /// # Errors
    /// When the device or the runtime cannot be used, there are fewer processors or less of their time than threads, or
    /// the box cannot be read.
    pub fn chosen(&self) -> Result<Chosen> {
        self.check_threads()?;
        self.described()
    }

    /// Checks that each thread can have a processor to itself.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_threads(&self) -> Result<()> {
        let quota = System::at(Path::new("/")).processor_quota();
        check_threads(self.threads, worker::allowed_cpus()?.len(), quota)
    }

    /// What these options stand for, even on a box that cannot measure under them for want of processors.
    ///
    /// # Errors
    /// As for [`Execution::chosen`].
    pub fn described(&self) -> Result<Chosen> {
        // The rest is left to other programs.
        let memory_limit = available_memory()? / 2;
        match &self.runtime {
            Some(name) => self.runtime(name, memory_limit),
            None => self.libtorch(memory_limit),
        }
    }

    fn libtorch(&self, memory_limit: u64) -> Result<Chosen> {
        if self.dtype == Dtype::Int8 {
            anyhow::bail!(
                "--dtype int8 needs a runtime that quantizes: name one with --runtime (docs/runtimes.md)"
            );
        }
        if let Device::Cuda(index) = self.device {
            worker::check_cuda(index)?;
        }
        let run_config = RunConfig {
            dtype: self.dtype,
            memory_format: self.memory_format,
            threads: self.threads,
            allocator: self.allocator,
            reuse_distance_bytes: self.reuse_distance.unwrap_or(CONFIG_DEFAULT_REUSE_DISTANCE),
            ..RunConfig::libtorch_eager(LIBTORCH_VERSION)
        };
        let libraries = worker::libraries(self.device);
        let recorder = Recorder::new(self.device, run_config, libraries)?.with_energy(self.energy);
        let launch = Launch::Libtorch(WorkerSettings {
            device: self.device,
            dtype: self.dtype,
            memory_format: self.memory_format,
            threads: self.threads,
            allocator: self.allocator,
            largest_reuse_distance: LARGEST_REUSE_DISTANCE,
            memory_limit,
        });
        Ok(Chosen { launch, recorder })
    }

    fn runtime(&self, name: &str, memory_limit: u64) -> Result<Chosen> {
        let file = self.runtimes.clone().map_or_else(default_runtimes, Ok)?;
        let wanted = (self.device, self.dtype, self.threads);
        let configured = Configured::read(&file, name)?;
        let settings =
            RuntimeSettings::of(configured, wanted, LARGEST_REUSE_DISTANCE, memory_limit)?;
        let hello = &settings.hello;
        if !hello.can_evict && self.reuse_distance.is_some_and(|distance| distance > 0) {
            anyhow::bail!(
                "--reuse-distance: the runtime {name} cannot evict weights from the caches, so it has 0 only"
            );
        }
        let usual = if hello.can_evict { CONFIG_DEFAULT_REUSE_DISTANCE } else { 0 };
        let run_config = RunConfig {
            dtype: self.dtype,
            memory_format: MemoryFormat::Contiguous,
            threads: self.threads,
            allocator: Allocator::System,
            reuse_distance_bytes: self.reuse_distance.unwrap_or(usual),
            runtime: hello.runtime.clone(),
            runtime_version: hello.version.clone(),
        };
        let recorder = Recorder::new(self.device, run_config, hello.facts.clone())?
            .with_energy(self.energy)
            .evicting(hello.can_evict);
        Ok(Chosen { launch: Launch::Runtime(settings), recorder })
    }
}

/// The file of runtimes of this user.
fn default_runtimes() -> Result<PathBuf> {
    let config_home = latlas_program::directories::config_home()
        .context("there is no home directory: give --runtimes FILE")?;
    Ok(config_home.join("latlas-agent/runtimes.toml"))
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
        Some(quota) if quota < f64::from(threads) => {
            // One thread is the fewest.
            let lower = if quota < 1.0 { "" } else { ", or lower --threads" };
            anyhow::bail!(
                "--threads {threads} needs the time of {}, and the control group of this process allows it that of \
                 {quota}: raise the limit (`docker run --cpus`, `CPUQuota=` of a systemd unit){lower}",
                count(threads as usize, "processor", "processors")
            )
        }
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
        assert!(quota.contains("of 1 processor, and"), "{quota}");
        assert!(quota.contains("that of 0.5") && quota.contains("docker run --cpus"), "{quota}");
        assert!(!quota.contains("lower"), "there are no fewer threads than one: {quota}");
        let lower = refusal(3, 4, Some(2.5)).unwrap();
        assert!(lower.contains("of 3 processors, and") && lower.ends_with("or lower --threads"));
    }
}

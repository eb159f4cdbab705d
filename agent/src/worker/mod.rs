//! The worker: the process that runs ops and reads the clock. It is a separate process for two reasons: an abort, a
//! hang or an out-of-memory kill costs only one row, and threads and allocator are set before libtorch starts.

mod backend;
mod busy;
mod cpu;
mod cuda;
pub(crate) mod disturbance;
mod faults;
mod plan;
mod process;
mod protocol;
mod ready;
mod recent;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use latlas_shared::{Allocator, Device, Dtype, MemoryFormat};
use serde::{Deserialize, Serialize};

pub use backend::Samples;
pub use cpu::{Watch, allowed_cpus, pin, processors_of_worker};
pub use cuda::check as check_cuda;
pub use disturbance::{MOST_BLOCK_RETAKES, MOST_RETAKES, retake};
pub use plan::{Budget, Plan};
pub use process::{Fault, WorkerProcess};
pub use protocol::{Pass, Visited, Work};
pub use ready::{peak_memory, reset_peak_memory, until_settled};
pub use recent::Recent;

use crate::system::energy::Busy;
use backend::Backend;
use latlas_lowering::Placement;
use protocol::{Reply, VisitRequest};
use ready::ReadyCache;

/// A process that runs work and reads the clock: one that calls libtorch, or the command of another runtime
/// ([`crate::runtime`]). After [`Fault::Died`] and [`Fault::Hung`] it is of no more use.
pub trait Worker: Send {
    /// Visits one piece of work: samples of each pass. `limit` is the time after which it counts as hung.
    ///
    /// # Errors
    /// The reason why there are no samples.
    fn visit(&mut self, work: &Work, passes: &[Pass], limit: Duration) -> Result<Visited, Fault>;

    /// Runs one piece of work repeatedly for the given number of seconds.
    ///
    /// # Errors
    /// As for [`Worker::visit`].
    fn keep_busy(
        &mut self,
        work: &Work,
        seconds: f64,
        limit: Duration,
    ) -> Result<Option<Busy>, Fault>;
}

/// The settings of a worker that calls libtorch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSettings {
    /// Where ops run.
    pub device: Device,
    /// Element type.
    pub dtype: Dtype,
    /// Order of maps in memory.
    pub memory_format: MemoryFormat,
    /// Intra-op threads.
    pub threads: u32,
    /// Allocator policy.
    pub allocator: Allocator,
    /// The largest reuse distance that will be used, in bytes.
    pub largest_reuse_distance: u64,
    /// Bytes of memory that weights and activations of one piece of work may need.
    pub memory_limit: u64,
}

impl WorkerSettings {
    fn placement(&self) -> Placement {
        Placement {
            device: match self.device {
                Device::Cpu => tch::Device::Cpu,
                Device::Cuda(index) => tch::Device::Cuda(index as usize),
            },
            kind: match self.dtype {
                Dtype::F32 => tch::Kind::Float,
                Dtype::F16 => tch::Kind::Half,
                Dtype::Bf16 => tch::Kind::BFloat16,
                // Eager libtorch has no int8, and the options refuse it.
                Dtype::Int8 => tch::Kind::Int8,
            },
            channels_last: self.memory_format == MemoryFormat::ChannelsLast,
        }
    }

    fn backend(&self) -> Result<Box<dyn Backend>> {
        match self.device {
            Device::Cpu => {
                Ok(Box::new(cpu::CpuBackend::new(self.largest_reuse_distance, self.threads)?))
            }
            Device::Cuda(index) => Ok(Box::new(cuda::open(index, self)?)),
        }
    }
}

/// The versions and settings of the libraries with which libtorch runs kernels. oneDNN is part of libtorch, and
/// libtorch's headers contain its version. cuDNN is queried if a GPU is used.
pub fn libraries(device: Device) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    if let Some(version) = latlas_lowering::ONEDNN_VERSION {
        versions.insert("onednn".to_owned(), version.to_owned());
    }
    if matches!(device, Device::Cuda(_)) && tch::Cuda::is_available() {
        versions.extend(cuda::facts());
        if tch::Cuda::cudnn_is_available() {
            versions.insert("cudnn".to_owned(), tch::utils::version_cudnn().to_string());
        }
    }
    versions
}

/// The worker's main loop: answers requests on standard input until it closes.
///
/// # Errors
/// When the settings cannot be applied, or the agent has ended.
pub fn serve(settings: &WorkerSettings) -> Result<()> {
    cpu::apply(settings)?;
    let faults = faults::Faults::from_env()?;
    let _no_grad = tch::no_grad_guard();
    let mut cache = ReadyCache::new(settings, settings.backend()?);
    let mut turns = (settings.device != Device::Cpu).then(cpu::Turns::new).transpose()?;
    let mut out = io::stdout().lock();
    send(&mut out, &Reply::Ready)?;
    for line in io::stdin().lock().lines() {
        let request: VisitRequest =
            serde_json::from_str(&line.context("reading a request")?).context("a request")?;
        turns.as_mut().map_or(Ok(()), cpu::Turns::turn)?;
        let struck = faults.strike(&request.work, settings.placement().device);
        let reply = match struck.and_then(|()| cache.visit(&request)) {
            Ok(visited) => Reply::Visited(visited),
            Err(e) => Reply::Refused { reason: format!("{e:#}") },
        };
        let refused = matches!(reply, Reply::Refused { .. });
        send(&mut out, &reply)?;
        if refused {
            // A kernel fault can destroy the whole GPU context. Only a new process gets a new context.
            cache.check_usable()?;
        }
    }
    Ok(())
}

fn send(out: &mut impl Write, reply: &Reply) -> Result<()> {
    serde_json::to_writer(&mut *out, reply)?;
    out.write_all(b"\n")?;
    out.flush().context("the agent has gone")
}

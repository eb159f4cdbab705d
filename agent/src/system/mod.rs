//! Fingerprint, state and energy sensors of this box. Sources: `/proc`, `/sys`, a few files of `/etc` and `/var`, and
//! the GPU's own library behind [`gpu::Gpu`]. All files lie below a root, which tests replace by a recorded tree.
//!
//! A fact that cannot be read is absent. No fact has a default, and no missing fact fails a measurement.

mod box_key;
mod cpu;
pub mod energy;
mod fingerprint;
mod fitness;
pub mod gpu;
mod jetson;
mod telemetry;
#[cfg(test)]
pub mod tests;
mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use latlas_shared::Device;

pub use fitness::{Hours, busy, unfit};
use gpu::Gpu;
use tree::Tree;

/// Everything that describes a box.
#[derive(Debug, Clone)]
pub struct System {
    tree: Tree,
    /// The GPU that ops run on, if its library answers.
    gpu: Option<Arc<dyn Gpu>>,
    /// Versions and settings of the libraries that run the kernels, by name.
    libraries: BTreeMap<String, String>,
    /// Whether libtorch runs the kernels.
    on_libtorch: bool,
}

impl System {
    /// This box, with the facts that concern ops on `device`. A query wakes a GPU, so a GPU is queried only if ops run
    /// on it. `libraries` are versions and settings of the libraries that run kernels.
    pub fn for_device(device: Device, libraries: BTreeMap<String, String>) -> System {
        let mut system = System::at(Path::new("/"));
        system.libraries = libraries;
        system.gpu = match device {
            Device::Cpu => None,
            Device::Cuda(index) => gpu::open(index),
        };
        system
    }

    /// A box whose `/proc`, `/sys`, `/etc` and `/var` lie below `root`, with no GPU library.
    pub fn at(root: &Path) -> System {
        System { tree: Tree::at(root), gpu: None, libraries: BTreeMap::new(), on_libtorch: true }
    }

    /// The same box, where another runtime than libtorch runs the kernels.
    pub fn without_libtorch(self) -> System {
        System { on_libtorch: false, ..self }
    }

    /// The same box with a GPU.
    #[cfg(test)]
    pub fn with_gpu(mut self, gpu: Arc<dyn Gpu>) -> System {
        self.gpu = Some(gpu);
        self
    }

    /// The processors' time that the control groups of this process leave to it, in processors; None without a limit.
    pub fn processor_quota(&self) -> Option<f64> {
        cpu::quota(&self.tree)
    }

    /// The kernel's random id of this boot; empty where there is none.
    pub fn boot_id(&self) -> String {
        self.tree.line("proc/sys/kernel/random/boot_id").unwrap_or_default()
    }

    /// The name of this host, for people.
    pub fn host_name(&self) -> String {
        self.tree.line("proc/sys/kernel/hostname").unwrap_or_else(|| "unnamed".to_owned())
    }
}

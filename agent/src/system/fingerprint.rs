//! The fingerprint: all facts about a box that change latency and survive a reboot.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use latlas_lowering::LIBTORCH_VERSION;
use latlas_shared::{Device, Fingerprint};

use super::gpu::GpuFacts;
use super::jetson::Jetson;
use super::tree::{Tree, field};
use super::{System, cpu};

impl System {
    /// All facts about this box that change latency and survive a reboot. Facts that change from boot to boot or from
    /// moment to moment belong to telemetry.
    ///
    /// # Errors
    /// When a file is missing that every Linux has.
    pub fn fingerprint(&self, device: Device) -> Result<Fingerprint> {
        let tree = &self.tree;
        let cpuinfo = tree.required("proc/cpuinfo")?;
        let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let jetson = Jetson::detect(tree);
        let gpu = self.gpu.as_ref().map(|gpu| gpu.facts()).unwrap_or_default();
        let on_gpu = matches!(device, Device::Cuda(_));
        let governor = cpu::governor(tree);
        let power_mode = match &jetson {
            Some(jetson) => jetson.power_mode(),
            None if on_gpu => gpu.power_limit_watts.map(|watts| format!("{watts}W")),
            None => governor.clone(),
        };
        let mut facts: BTreeMap<String, String> = self.libraries.clone();
        let mut note = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                facts.insert(name.to_owned(), value);
            }
        };
        // A governor that is not the power mode is a fact of its own.
        note("governor", governor.filter(|governor| Some(governor) != power_mode.as_ref()));
        for (name, value) in cpu::facts(tree, &cpuinfo) {
            note(name, value);
        }
        for (name, value) in jetson.iter().flat_map(Jetson::facts) {
            note(name, value);
        }
        facts.extend(gpu.more.clone());
        let name = jetson.as_ref().and_then(Jetson::name);
        let driver = driver(tree, jetson.as_ref(), &gpu);
        Ok(Fingerprint {
            device,
            arch: architecture(&cpuinfo).unwrap_or(std::env::consts::ARCH).to_owned(),
            cpu_model: name.clone().or_else(|| model(tree, &cpuinfo)),
            cpu_family: cpu::family(&cpuinfo),
            cpus: u32::try_from(cpus)?,
            memory_bytes: memory_bytes(tree)?,
            gpu: name.or(gpu.name).filter(|_| on_gpu),
            gpu_memory_bytes: gpu.memory_bytes,
            driver: driver.filter(|_| on_gpu || jetson.is_some()),
            power_mode,
            max_khz: cpu::max_khz(tree),
            kernel: tree.line("proc/sys/kernel/osrelease"),
            libtorch: if self.on_libtorch { LIBTORCH_VERSION } else { "none" }.to_owned(),
            facts,
        })
    }
}

/// Memory in bytes, rounded up to a whole GiB, because the kernel's own share, and with it `MemTotal`, differs by some
/// MiB from boot to boot.
fn memory_bytes(tree: &Tree) -> Result<u64> {
    let kib: u64 = field(&tree.required("proc/meminfo")?, "MemTotal")
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .context("proc/meminfo has no MemTotal")?;
    Ok(kib.div_ceil(1 << 20) << 30)
}

/// The architecture of a `cpuinfo`, if its fields show it.
fn architecture(cpuinfo: &str) -> Option<&'static str> {
    if field(cpuinfo, "CPU implementer").is_some() {
        return (field(cpuinfo, "CPU architecture") == Some("8")).then_some("aarch64");
    }
    field(cpuinfo, "flags")?.split_whitespace().any(|flag| flag == "lm").then_some("x86_64")
}

/// The name of the processor; on Arm boards, whose kernel has none, the name of the board.
fn model(tree: &Tree, cpuinfo: &str) -> Option<String> {
    tree.line("proc/device-tree/model").or_else(|| field(cpuinfo, "model name").map(str::to_owned))
}

/// Version of the GPU's driver: L4T on a Jetson, else from NVML, else from the kernel module.
fn driver(tree: &Tree, jetson: Option<&Jetson<'_>>, gpu: &GpuFacts) -> Option<String> {
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(super::tree::is_number);
    let module = || {
        let line = tree.line("proc/driver/nvidia/version")?;
        line.split_whitespace().find(is_version).map(str::to_owned)
    };
    match jetson {
        Some(jetson) => jetson.release(),
        None => gpu.driver.clone().or_else(module),
    }
}

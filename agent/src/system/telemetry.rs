//! The state of a box at one moment.

use latlas_shared::Telemetry;

use super::gpu::GpuState;
use super::jetson::Jetson;
use super::tree::Tree;
use super::{System, cpu};

/// Chips below `/sys/class/hwmon` that measure processors: Intel, AMD, and boards without thermal zones.
/// Disks and network cards have such files too.
const CPU_CHIPS: [&str; 5] = ["coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal"];

/// A thermal zone without a sensor: it shows 100 degrees on every Jetson of the JetPack 4 generation.
const NO_SENSOR: &str = "PMIC-Die";

impl System {
    /// The state of the box now.
    pub fn telemetry(&self) -> Telemetry {
        let tree = &self.tree;
        let jetson = Jetson::detect(tree);
        let gpu = self.gpu.as_ref().map(|gpu| gpu.state()).unwrap_or_default();
        Telemetry {
            load1: tree
                .line("proc/loadavg")
                .and_then(|line| line.split_whitespace().next()?.parse().ok()),
            khz: cpu::lowest_khz(tree),
            temperature_c: hottest(tree)
                .into_iter()
                .chain(gpu.temperature_c)
                .max_by(f64::total_cmp),
            cpu_pressure: cpu_pressure(tree),
            gpu_mhz: gpu.mhz.or_else(|| jetson.as_ref()?.gpu_mhz()),
            memory_mhz: gpu.memory_mhz.or_else(|| jetson.as_ref()?.emc_mhz()),
            throttle: throttle(tree, jetson.as_ref(), gpu),
        }
    }
}

/// Degrees Celsius of the hottest thermal zone or processor sensor.
fn hottest(tree: &Tree) -> Option<f64> {
    let zones = tree.entries("sys/class/thermal", |name| name.starts_with("thermal_zone"));
    let zones = zones
        .iter()
        .filter(|zone| tree.line(&format!("{zone}/type")).as_deref() != Some(NO_SENSOR))
        .map(|zone| format!("{zone}/temp"));
    let chips = tree.entries("sys/class/hwmon", |_| true);
    let sensors = chips
        .iter()
        .filter(|chip| {
            let name = tree.line(&format!("{chip}/name"));
            name.is_some_and(|name| CPU_CHIPS.contains(&name.as_str()))
        })
        .flat_map(|chip| {
            tree.entries(chip, |name| name.starts_with("temp") && name.ends_with("_input"))
        });
    zones
        .chain(sensors)
        .filter_map(|path| tree.line(&path)?.parse::<f64>().ok())
        .map(|millis| millis / 1000.0)
        // Sensors that are off show numbers such as -256 or 0.
        .filter(|celsius| (-40.0..150.0).contains(celsius) && *celsius != 0.0)
        .max_by(f64::total_cmp)
}

/// The kernel's `some avg10`: the share of the last ten seconds, in percent, during which a task waited for a
/// processor.
fn cpu_pressure(tree: &Tree) -> Option<f64> {
    let text = tree.text("proc/pressure/cpu")?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

/// Throttle reasons from all sources. Empty if at least one source reports that clocks are not held down; None if no
/// source can tell.
fn throttle(tree: &Tree, jetson: Option<&Jetson<'_>>, gpu: GpuState) -> Option<Vec<String>> {
    let said = [gpu.throttle, jetson.and_then(Jetson::throttles), cpu_throttle(tree)];
    let mut said = said.into_iter().flatten().peekable();
    said.peek()?;
    Some(said.flatten().collect())
}

/// Throttle reasons of the processor, from Intel's event counters. They count since the boot: zero means no throttling,
/// and a positive number says nothing about the present.
fn cpu_throttle(tree: &Tree) -> Option<Vec<String>> {
    let counts: Vec<u64> = tree
        .cpus()
        .iter()
        .flat_map(|cpu| {
            ["core_throttle_count", "package_throttle_count"]
                .map(|file| tree.number(&format!("{cpu}/thermal_throttle/{file}")))
        })
        .flatten()
        .collect();
    (!counts.is_empty() && counts.iter().all(|&count| count == 0)).then(Vec::new)
}

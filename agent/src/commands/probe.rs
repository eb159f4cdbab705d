//! `latlas-agent probe`.

use std::io::{self, Write as _};

use anyhow::Result;
use latlas_shared::{Device, Fingerprint, HardwareId, RunConfig, Telemetry};
use serde::Serialize;

use crate::options::Execution;
use crate::system::System;
use crate::worker::{self, WorkerProcess};

/// Shown for facts that could not be read.
const UNKNOWN: &str = "unknown";

#[derive(Serialize)]
struct Probe {
    hardware_id: HardwareId,
    run_config: RunConfig,
    run_config_id: String,
    fingerprint: Fingerprint,
    fingerprint_digest: String,
    telemetry: Telemetry,
    energy: EnergySensor,
}

/// The sensor that `--energy` would read.
#[derive(Serialize)]
struct EnergySensor {
    /// Its name and rails; null when there is none.
    source: Option<String>,
    /// Why there is none.
    reason: Option<String>,
}

/// Prints the hardware id, run config and fingerprint of this box.
///
/// # Errors
/// When the box cannot be read.
pub fn probe(execution: &Execution, json: bool) -> Result<()> {
    let settings = execution.worker_settings()?;
    if let Device::Cuda(_) = execution.device {
        // A worker runs a kernel when it starts.
        WorkerProcess::start(&settings)?;
    }
    let system = System::for_device(execution.device, worker::libraries(execution.device));
    let fingerprint = system.fingerprint(execution.device)?;
    let run_config = execution.run_config();
    let energy = match system.meter(execution.device) {
        Ok(meter) => EnergySensor { source: Some(meter.source()), reason: None },
        Err(e) => {
            EnergySensor { source: None, reason: Some(format!("{:#}", anyhow::Error::from(e))) }
        }
    };
    let probe = Probe {
        hardware_id: fingerprint.hardware_id(),
        run_config_id: run_config.id(),
        run_config,
        fingerprint_digest: fingerprint.digest(),
        fingerprint,
        telemetry: system.telemetry(),
        energy,
    };
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&probe)?)?;
    } else {
        write!(io::stdout(), "{}", readable(&probe))?;
    }
    Ok(())
}

/// The probe as lines for people.
fn readable(probe: &Probe) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        text += &format!("{name:<32}{}\n", value.unwrap_or_else(|| UNKNOWN.to_owned()));
    };
    line("hardware id", Some(probe.hardware_id.to_string()));
    line("run config", Some(probe.run_config_id.clone()));
    line("fingerprint", Some(probe.fingerprint_digest.clone()));
    for (name, value) in fingerprint_lines(&probe.fingerprint) {
        line(&format!("  {name}"), value);
    }
    for (name, value) in &probe.fingerprint.facts {
        line(&format!("  {name}"), Some(value.clone()));
    }
    line("now", Some(String::new()));
    for (name, value) in telemetry_lines(&probe.telemetry) {
        line(&format!("  {name}"), value);
    }
    let none = || probe.energy.reason.as_ref().map(|reason| format!("none: {reason}"));
    line("energy sensor", probe.energy.source.clone().or_else(none));
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn fingerprint_lines(f: &Fingerprint) -> Vec<(&'static str, Option<String>)> {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let mut lines = vec![
        ("device", Some(f.device.to_string())),
        ("architecture", Some(f.arch.clone())),
        ("processor", f.cpu_model.clone()),
        ("family", f.cpu_family.clone()),
        ("processors", Some(f.cpus.to_string())),
        ("memory, rounded up", Some(gib(f.memory_bytes))),
    ];
    if f.device != Device::Cpu {
        lines.push(("gpu", f.gpu.clone()));
        lines.push(("gpu memory", f.gpu_memory_bytes.map(gib)));
        lines.push(("driver", f.driver.clone()));
    }
    lines.extend([
        ("power mode", f.power_mode.clone()),
        ("highest clock", f.max_khz.map(mhz)),
        ("kernel", f.kernel.clone()),
        ("libtorch", Some(f.libtorch.clone())),
    ]);
    lines
}

fn telemetry_lines(t: &Telemetry) -> [(&'static str, Option<String>); 7] {
    let throttle = |reasons: &Vec<String>| match reasons.is_empty() {
        true => "no".to_owned(),
        false => reasons.join(", "),
    };
    [
        ("load", t.load1.map(|load| load.to_string())),
        ("waiting for a processor", t.cpu_pressure.map(|share| format!("{share}% of 10 s"))),
        ("lowest clock", t.khz.map(mhz)),
        ("hottest sensor", t.temperature_c.map(|c| format!("{c:.0} C"))),
        ("gpu clock", t.gpu_mhz.map(|mhz| format!("{mhz} MHz"))),
        ("memory clock", t.memory_mhz.map(|mhz| format!("{mhz} MHz"))),
        ("throttled", t.throttle.as_ref().map(throttle)),
    ]
}

fn mhz(khz: u64) -> String {
    format!("{} MHz", khz / 1000)
}

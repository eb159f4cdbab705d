//! `latlas-agent probe`.

use anyhow::Result;
use latlas_shared::{Fingerprint, HardwareId, RunConfig, Telemetry};
use serde::Serialize;

use crate::cli::How;
use crate::system::System;

#[derive(Serialize)]
struct Probe {
    hardware_id: HardwareId,
    run_config: RunConfig,
    run_config_id: String,
    fingerprint: Fingerprint,
    fingerprint_digest: String,
    telemetry: Telemetry,
}

/// Prints what this box is.
///
/// # Errors
/// When the box cannot be read.
pub fn probe(how: &How, json: bool) -> Result<()> {
    how.worker_settings()?;
    let system = System::here();
    let fingerprint = system.fingerprint(how.device)?;
    let run_config = how.run_config();
    let probe = Probe {
        hardware_id: fingerprint.hardware_id(),
        run_config_id: run_config.id(),
        run_config,
        fingerprint_digest: fingerprint.digest(),
        fingerprint,
        telemetry: system.telemetry(),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&probe)?);
        return Ok(());
    }
    println!("hardware id   {}", probe.hardware_id);
    println!("run config    {}", probe.run_config_id);
    println!("fingerprint   {}", probe.fingerprint_digest);
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let f = probe.fingerprint;
    let facts = [
        ("processor", known(f.cpu_model)),
        ("family", known(f.cpu_family)),
        ("processors", f.cpus.to_string()),
        ("memory", format!("{:.1} GiB", f.memory_bytes as f64 / f64::from(1 << 30))),
        ("power mode", known(f.power_mode)),
        ("highest clock", known(f.max_khz.map(|khz| format!("{} MHz", khz / 1000)))),
        ("kernel", known(f.kernel)),
        ("libtorch", f.libtorch),
        ("load", known(probe.telemetry.load1.map(|load| load.to_string()))),
        ("clock", known(probe.telemetry.khz.map(|khz| format!("{} MHz", khz / 1000)))),
        ("temperature", known(probe.telemetry.temperature_c.map(|c| format!("{c:.0} C")))),
    ];
    for (name, value) in facts {
        println!("  {name:<13} {value}");
    }
    Ok(())
}

//! `latlas-agent probe`.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use latlas_predict::stats;
use latlas_shared::{Device, Fingerprint, HardwareId, LIBTORCH_EAGER, RunConfig, Telemetry};
use ops_catalog::OpKey;
use serde::Serialize;

use crate::engine::{Launch, Protocol};
use crate::options::{Chosen, Execution};
use crate::record::Recorder;
use crate::references;
use crate::worker::Pass;

/// The op that a command is tried with.
const TRIED: &str = "Conv3x3:n1-h28-w28-i64-o64-s1";

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
    /// An op that was measured, where a command runs ops.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_call: Option<FirstCall>,
}

/// What a command answered when it was tried.
#[derive(Serialize)]
struct FirstCall {
    key: OpKey,
    /// The median of its calls, in microseconds.
    micros: f64,
    /// The time that it took to load the op, in seconds.
    preparing_seconds: f64,
}

/// Measures one op for a moment, which shows whether a command works.
fn first_call(launch: &Launch) -> Result<FirstCall> {
    let key: OpKey = TRIED.parse().expect("it is an op key");
    let work = references::builtin(&key)?;
    let limit = Protocol::for_ops(0).visit_limit;
    let visited = launch.worker()?.visit(&work, &[Pass::new(0, 10)], limit)?;
    let samples = visited.passes.first().context("the command gave no samples")?;
    let micros = stats::median(&samples.micros);
    Ok(FirstCall { key, micros, preparing_seconds: visited.preparing_micros / 1e6 })
}

/// The sensor that `--energy` would read.
#[derive(Serialize)]
struct EnergySensor {
    /// Its name and rails; null when there is none.
    source: Option<String>,
    /// Why there is none.
    reason: Option<String>,
}

/// Prints the hardware id, run config and fingerprint of this box. A box that is too small to measure has them too.
///
/// # Errors
/// When the box cannot be read.
pub fn probe(execution: &Execution, json: bool) -> Result<()> {
    if let Err(reason) = execution.check_threads() {
        eprintln!("bench and run refuse to measure here: {reason}");
    }
    let Chosen { launch, recorder } = execution.described()?;
    let first_call = match launch {
        Launch::Runtime(_) => Some(first_call(&launch)?),
        Launch::Libtorch(_) if execution.device == Device::Cpu => None,
        // A worker runs a kernel when it starts.
        Launch::Libtorch(_) => launch.worker().map(|_| None)?,
    };
    let system = recorder.system();
    let Recorder { fingerprint, run_config, .. } = &recorder;
    let energy = match system.meter(execution.device) {
        Ok(meter) => EnergySensor { source: Some(meter.source()), reason: None },
        Err(e) => {
            EnergySensor { source: None, reason: Some(format!("{:#}", anyhow::Error::from(e))) }
        }
    };
    let probe = Probe {
        hardware_id: fingerprint.hardware_id(),
        run_config_id: run_config.id(),
        run_config: run_config.clone(),
        fingerprint_digest: fingerprint.digest(),
        fingerprint: fingerprint.clone(),
        telemetry: system.telemetry(),
        energy,
        first_call,
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
    if let Some(FirstCall { key, micros, preparing_seconds }) = &probe.first_call {
        let took = format!("{key} in {micros:.1} us, after {preparing_seconds:.1} s to load it");
        line("tried", Some(took));
    }
    line("fingerprint", Some(probe.fingerprint_digest.clone()));
    for (name, value) in fingerprint_lines(&probe.fingerprint) {
        line(&format!("  {name}"), value);
    }
    let RunConfig { runtime, runtime_version, .. } = &probe.run_config;
    let library = if runtime == LIBTORCH_EAGER { "libtorch" } else { runtime };
    line(&format!("  {library}"), Some(runtime_version.clone()));
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

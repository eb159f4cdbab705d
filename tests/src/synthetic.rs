//! Boxes and measurements without hardware. Their hardware id begins with `simulated`, so that no number
//! of theirs is taken for a device's.

use jiff::Timestamp;
use latlas_shared::api::EnrolRequest;
use latlas_shared::{
    CurvePoint, Device, Fingerprint, Latency, MEASUREMENT_SCHEMA, Measurement, RunConfig, Status,
    Subject, Telemetry,
};
use ops_catalog::Catalog;
use uuid::Uuid;

/// A class of boxes that do not exist; the memory tells classes apart.
pub fn fingerprint(memory_gib: u64) -> Fingerprint {
    Fingerprint {
        device: Device::Cpu,
        arch: "x86_64".to_owned(),
        cpu_model: Some("simulated 1".to_owned()),
        cpu_family: None,
        cpus: 2,
        memory_bytes: memory_gib << 30,
        gpu: None,
        gpu_memory_bytes: None,
        driver: None,
        power_mode: None,
        max_khz: None,
        kernel: None,
        libtorch: "0.0.0".to_owned(),
        facts: std::collections::BTreeMap::new(),
    }
}

/// How they say that they run ops.
pub fn run_config() -> RunConfig {
    RunConfig::libtorch_eager("0.0.0")
}

/// What such a box says when it enrols: that it runs everything.
pub fn enrolment(name: &str, memory_gib: u64) -> EnrolRequest {
    let nodes = Catalog::builtin().ops().flat_map(|op| &op.def().nodes);
    let mut primitives: Vec<String> = nodes.map(|node| node.apply.name().to_owned()).collect();
    primitives.sort_unstable();
    primitives.dedup();
    EnrolRequest {
        name: name.to_owned(),
        fingerprint: fingerprint(memory_gib),
        run_config: run_config(),
        primitives,
        agent_version: "0.0.0".to_owned(),
        box_key: None,
        instance: None,
    }
}

/// What is particular to one synthetic measurement.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its id.
    pub id: Uuid,
    /// The task that it answers.
    pub task: Option<i64>,
    /// What was measured.
    pub subject: Subject,
    /// Whether there is a number; if not, why.
    pub result: Result<f64, String>,
    /// When it was finished, by the clock of its box.
    pub finished_at: Timestamp,
}

/// A measurement of a box of this class.
pub fn measurement(memory_gib: u64, observed: Observed) -> Measurement {
    let Observed { id, task, subject, result, finished_at } = observed;
    let fingerprint = fingerprint(memory_gib);
    let distance = match subject {
        Subject::Op { .. } => run_config().reuse_distance_bytes,
        Subject::Network(_) => 0,
    };
    let (status, latency, reason) = match result {
        Ok(micros) => (Status::Ok, Some(Latency { curve: vec![point(distance, micros)] }), None),
        Err(reason) => (Status::Failed, None, Some(reason)),
    };
    Measurement {
        schema: MEASUREMENT_SCHEMA,
        id,
        task,
        task_generation: None,
        hardware_id: fingerprint.hardware_id(),
        fingerprint: fingerprint.digest(),
        run_config: run_config(),
        subject,
        status,
        reason,
        failure_kind: None,
        latency,
        energy: None,
        peak_memory_bytes: None,
        rejected: 0,
        samples: None,
        started_at: finished_at,
        finished_at,
        before: Telemetry::default(),
        during: Telemetry::default(),
        after: Telemetry::default(),
        references: std::collections::BTreeMap::new(),
        agent_version: "0.0.0".to_owned(),
    }
}

fn point(reuse_distance_bytes: u64, micros: f64) -> CurvePoint {
    CurvePoint {
        reuse_distance_bytes,
        quiet_micros: micros,
        ci95_low_micros: micros * 0.99,
        ci95_high_micros: micros * 1.02,
        median_micros: micros * 1.1,
        samples: 100,
        visits: 10,
        calls_per_sample: 1,
        host_micros: None,
    }
}

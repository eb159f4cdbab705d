//! Values for tests, all made in one place: an agent that enrols, and what it measures.

use jiff::Timestamp;
use latlas_shared::api::EnrolRequest;
use latlas_shared::{
    CurvePoint, Device, Fingerprint, Latency, MEASUREMENT_SCHEMA, Measurement, RunConfig, Status,
    Subject, Telemetry, WholeNetwork,
};
use ops_catalog::{Catalog, OpKey};
use uuid::Uuid;

/// A box with this much memory, in GiB: the memory is part of the hardware id, so it tells classes apart.
pub fn fingerprint(memory_gib: u64) -> Fingerprint {
    Fingerprint {
        device: Device::Cpu,
        arch: "x86_64".into(),
        cpu_model: Some("Test CPU 9000".into()),
        cpu_family: None,
        cpus: 2,
        memory_bytes: memory_gib << 30,
        gpu: None,
        gpu_memory_bytes: None,
        driver: None,
        power_mode: None,
        max_khz: None,
        kernel: None,
        libtorch: "2.13.0".into(),
        facts: std::collections::BTreeMap::new(),
    }
}

/// The run config of these tests; its reuse distance is 8 MiB.
pub fn run_config(threads: u32) -> RunConfig {
    RunConfig { threads, ..RunConfig::libtorch_eager("2.13.0") }
}

/// What a box that runs everything says when it enrols.
pub fn enrolment(name: &str, memory_gib: u64) -> EnrolRequest {
    let mut primitives: Vec<String> = Catalog::builtin()
        .ops()
        .flat_map(|op| op.def().nodes.iter().map(|node| node.apply.name().to_owned()))
        .collect();
    primitives.sort_unstable();
    primitives.dedup();
    EnrolRequest {
        name: name.into(),
        fingerprint: fingerprint(memory_gib),
        run_config: run_config(1),
        primitives,
        agent_version: "0.1.0".into(),
        box_key: None,
        instance: None,
    }
}

/// A measurement of a built-in op by a box of 8 GiB, with a curve of two points that starts at `micros`.
pub fn measurement(key: &str, micros: f64) -> Measurement {
    let key: OpKey = key.parse().expect("tests write keys that parse");
    let digest = Catalog::builtin().op(&key.op).expect("it is built in").digest().clone();
    let started_at = Timestamp::from_second(1_700_000_000).expect("a valid time");
    Measurement {
        schema: MEASUREMENT_SCHEMA,
        id: Uuid::new_v4(),
        task: None,
        task_generation: None,
        hardware_id: fingerprint(8).hardware_id(),
        fingerprint: fingerprint(8).digest(),
        run_config: run_config(1),
        subject: Subject::Op { key, digest },
        status: Status::Ok,
        reason: None,
        failure_kind: None,
        latency: Some(Latency {
            curve: vec![point(8 << 20, micros), point(64 << 20, micros * 1.5)],
        }),
        energy: None,
        peak_memory_bytes: None,
        rejected: 0,
        samples: None,
        started_at,
        finished_at: started_at,
        before: Telemetry::default(),
        during: Telemetry::default(),
        after: Telemetry::default(),
        references: Default::default(),
        agent_version: "0.1.0".into(),
    }
}

/// A measurement of a built-in network by a box of 8 GiB.
pub fn network_measurement(name: &str, micros: f64) -> Measurement {
    let network = WholeNetwork::builtin(name).expect("tests name networks that are built in");
    Measurement {
        subject: Subject::Network(Box::new(network)),
        latency: Some(Latency { curve: vec![point(0, micros)] }),
        ..measurement("Conv3x3:n1-h8-w8-i4-o4-s1", micros)
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

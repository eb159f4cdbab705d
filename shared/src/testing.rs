//! Boxes, measurements, rows and tables without hardware, for the tests of all crates.
//!
//! A test that needs another value writes `Row { samples: 5, ..row(&key, 10.0) }`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use ops_catalog::{Catalog, OpKey};
use uuid::Uuid;

use crate::api::EnrolRequest;
use crate::{
    CurvePoint, Device, Fingerprint, Latency, MEASUREMENT_SCHEMA, Measurement, Row, RowStatus,
    RunConfig, Status, Subject, Sustained, TABLE_SCHEMA, Table, Telemetry, WholeNetwork,
};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// The version of libtorch in all test data.
const LIBTORCH: &str = "2.13.0";

/// A box with this much memory, in GiB. The memory is part of the hardware id, so it distinguishes classes.
pub fn fingerprint(memory_gib: u64) -> Fingerprint {
    Fingerprint {
        device: Device::Cpu,
        arch: "x86_64".to_owned(),
        cpu_model: Some("Test CPU 9000".to_owned()),
        cpu_family: None,
        cpus: 2,
        memory_bytes: memory_gib << 30,
        gpu: None,
        gpu_memory_bytes: None,
        driver: None,
        power_mode: None,
        max_khz: None,
        kernel: None,
        libtorch: LIBTORCH.to_owned(),
        facts: BTreeMap::new(),
    }
}

/// The run config of test data; its reuse distance is 8 MiB.
pub fn run_config() -> RunConfig {
    RunConfig::libtorch_eager(LIBTORCH)
}

/// The primitives of all built-in ops.
pub fn primitives() -> Vec<String> {
    let nodes = Catalog::builtin().ops().flat_map(|op| &op.def().nodes);
    let mut primitives: Vec<String> = nodes.map(|node| node.apply.name().to_owned()).collect();
    primitives.sort_unstable();
    primitives.dedup();
    primitives
}

/// The enrolment of an agent that runs every primitive, on a box with this much memory, in GiB.
pub fn enrolment(name: &str, memory_gib: u64) -> EnrolRequest {
    EnrolRequest {
        name: name.to_owned(),
        fingerprint: fingerprint(memory_gib),
        run_config: run_config(),
        primitives: primitives(),
        agent_version: "0.1.0".to_owned(),
        box_key: None,
        instance: None,
    }
}

/// A point of a measured curve.
pub fn point(reuse_distance_bytes: u64, micros: f64) -> CurvePoint {
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
        host_ci95_low_micros: None,
        host_ci95_high_micros: None,
    }
}

/// The subject of a measurement of a built-in op.
pub fn subject(key: OpKey) -> Subject {
    let digest = Catalog::builtin().op(&key.op).unwrap().digest().clone();
    Subject::Op { key, digest }
}

/// A measurement by a box of 8 GiB. Each has its own id.
pub fn measured(subject: Subject, curve: Vec<CurvePoint>) -> Measurement {
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let fingerprint = fingerprint(8);
    Measurement {
        schema: MEASUREMENT_SCHEMA,
        id: Uuid::new_v4(),
        task: None,
        task_generation: None,
        hardware_id: fingerprint.hardware_id(),
        fingerprint: fingerprint.digest(),
        run_config: run_config(),
        subject,
        status: Status::Ok,
        reason: None,
        failure_kind: None,
        latency: Some(Latency { curve }),
        sustained: None,
        energy: None,
        peak_memory_bytes: None,
        rejected: 0,
        samples: None,
        started_at: at,
        finished_at: at,
        before: Telemetry::default(),
        during: Telemetry::default(),
        after: Telemetry::default(),
        references: BTreeMap::new(),
        agent_version: "0.1.0".to_owned(),
    }
}

/// A measurement of a built-in op, with a curve that starts at `micros`.
pub fn measurement(op_key: &str, micros: f64) -> Measurement {
    let curve = vec![point(8 * MIB, micros), point(64 * MIB, micros * 1.5)];
    measured(subject(key(op_key)), curve)
}

/// A measurement of a built-in network.
pub fn network_measurement(name: &str, micros: f64) -> Measurement {
    let network = WholeNetwork::builtin(name).unwrap();
    measured(Subject::Network(Box::new(network)), vec![point(0, micros)])
}

/// A sustained run of a built-in network for ten minutes, which makes it slower by a factor.
pub fn sustained_measurement(name: &str, micros: f64, over_burst: f64) -> Measurement {
    let seconds = 600;
    let network = WholeNetwork::builtin(name).unwrap().sustained(seconds).unwrap();
    let sustained_micros = micros * over_burst;
    Measurement {
        sustained: Some(Sustained { seconds, burst_micros: micros, sustained_micros }),
        ..measured(Subject::Network(Box::new(network)), vec![point(0, micros)])
    }
}

/// A row that takes `micros` at the reference distance, less at shorter distances and more at longer ones.
pub fn row(key: &OpKey, micros: f64) -> Row {
    let point = |distance, factor: f64| CurvePoint {
        ci95_low_micros: micros * factor * 0.98,
        ci95_high_micros: micros * factor * 1.03,
        median_micros: micros * factor * 1.05,
        samples: 60,
        visits: 12,
        ..point(distance, micros * factor)
    };
    let op = Catalog::builtin().op(&key.op).unwrap();
    Row {
        op_type: key.op.clone(),
        input_h: key.shape.input_h,
        input_w: key.shape.input_w,
        channels_in: key.shape.channels_in,
        channels_out: key.shape.channels_out,
        stride: key.shape.stride,
        latency_micros: Some(micros),
        energy_mj: None,
        batch: key.shape.batch,
        op_digest: op.digest().clone(),
        status: RowStatus::Ok,
        reason: None,
        ci95_rel: Some(0.025),
        median_micros: Some(micros * 1.05),
        samples: 60,
        agents: 1,
        between_agents: None,
        measured_at: Timestamp::UNIX_EPOCH,
        curve: vec![point(0, 0.8), point(8 * MIB, 1.0), point(64 * MIB, 1.4)],
    }
}

/// A row of something that failed.
pub fn failed(key: &OpKey, reason: &str) -> Row {
    Row {
        latency_micros: None,
        median_micros: None,
        ci95_rel: None,
        status: RowStatus::Failed,
        reason: Some(reason.to_owned()),
        curve: Vec::new(),
        ..row(key, 1.0)
    }
}

/// A table of these rows.
pub fn table(rows: Vec<Row>) -> Table {
    Table {
        schema: TABLE_SCHEMA,
        hardware_id: "test-box-2c.cpu".parse().unwrap(),
        run_config: run_config(),
        version: "0123456789abcdef0123456789abcdef".to_owned(),
        created_at: Timestamp::UNIX_EPOCH,
        fingerprints: BTreeMap::new(),
        accuracy: None,
        calibration: None,
        sustained: None,
        ops: Vec::new(),
        rows,
    }
}

/// An op key.
pub fn key(text: &str) -> OpKey {
    text.parse().unwrap()
}

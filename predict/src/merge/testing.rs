//! Measurements made of nothing, for tests.

use ops_catalog::Catalog;

use super::*;
use latlas_shared::testing::{MIB, table};
use latlas_shared::{MEASUREMENT_SCHEMA, Telemetry, WholeNetwork};

/// A measurement of a built-in op on the box of the test tables, with a curve that starts at `micros`.
pub(crate) fn measurement(key: &str, micros: f64) -> Measurement {
    let key: OpKey = key.parse().unwrap();
    let digest = Catalog::builtin().op(&key.op).unwrap().digest().clone();
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let table = table(Vec::new());
    Measurement {
        schema: MEASUREMENT_SCHEMA,
        id: Uuid::from_u128(7),
        task: None,
        task_generation: None,
        hardware_id: table.hardware_id,
        fingerprint: "f1".into(),
        run_config: table.run_config,
        subject: Subject::Op { key, digest },
        status: Status::Ok,
        reason: None,
        failure_kind: None,
        latency: Some(Latency {
            curve: vec![point(8 * MIB, micros), point(64 * MIB, micros * 1.5)],
        }),
        energy: None,
        peak_memory_bytes: None,
        rejected: 0,
        samples: None,
        started_at: at,
        finished_at: at,
        before: Telemetry::default(),
        during: Telemetry::default(),
        after: Telemetry::default(),
        references: Default::default(),
        agent_version: "0.1.0".into(),
    }
}

/// A measurement of a built-in network.
pub(crate) fn network(name: &str, micros: f64) -> Measurement {
    let whole = WholeNetwork::builtin(name).unwrap();
    Measurement {
        subject: Subject::Network(Box::new(whole)),
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

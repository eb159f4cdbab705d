//! Rows and tables made of nothing, for the tests of all crates.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use ops_catalog::{Catalog, OpKey};

use crate::{CurvePoint, Row, RowStatus, RunConfig, TABLE_SCHEMA, Table};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// A row that takes `micros` at the reference distance, less near and more far from it.
pub fn row(key: &OpKey, micros: f64) -> Row {
    let point = |reuse_distance_bytes, factor: f64| CurvePoint {
        reuse_distance_bytes,
        quiet_micros: micros * factor,
        ci95_low_micros: micros * factor * 0.98,
        ci95_high_micros: micros * factor * 1.03,
        median_micros: micros * factor * 1.05,
        samples: 60,
        visits: 12,
        calls_per_sample: 1,
        host_micros: None,
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
        run_config: RunConfig::libtorch_eager("2.13.0"),
        version: "0123456789abcdef0123456789abcdef".to_owned(),
        created_at: Timestamp::UNIX_EPOCH,
        fingerprints: BTreeMap::new(),
        accuracy: None,
        calibration: None,
        ops: Vec::new(),
        rows,
    }
}

/// An op key.
pub fn key(text: &str) -> OpKey {
    text.parse().unwrap()
}

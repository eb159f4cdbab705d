//! Predictions a second on one core, from a table in memory: sequences of 20 ops over the space
//! `mobilenet`, interval included, by the packed table and, beside it, one by one as `latlas predict` does.
//!
//! The latencies are made up, since only their look-up is timed.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use latlas_predict::{PackedOp, PackedTable, Predictor, TableIndex};
use latlas_shared::{
    CurvePoint, HardwareId, Missing, Row, RowStatus, RunConfig, TABLE_SCHEMA, Table,
};
use ops_catalog::{Catalog, Family, Network};

const OPS: usize = 20;
const SEQUENCES: usize = 100_000;
const ROUNDS: usize = 5;

fn row(key: &ops_catalog::OpKey, op: &ops_catalog::Op, rng: &mut fastrand::Rng) -> Row {
    let micros = 10.0 + 1000.0 * rng.f64();
    let point = |mib: u64| CurvePoint {
        reuse_distance_bytes: mib << 20,
        quiet_micros: micros * (1.0 + mib as f64 / 64.0),
        ci95_low_micros: 0.97 * micros * (1.0 + mib as f64 / 64.0),
        ci95_high_micros: 1.03 * micros * (1.0 + mib as f64 / 64.0),
        median_micros: micros * (1.0 + mib as f64 / 64.0),
        samples: 100,
        visits: 12,
        calls_per_sample: 1,
        host_micros: None,
    };
    let curve: Vec<CurvePoint> = [0, 2, 4, 8, 16, 32, 64].map(point).to_vec();
    Row {
        op_type: key.op.clone(),
        input_h: key.shape.input_h,
        input_w: key.shape.input_w,
        channels_in: key.shape.channels_in,
        channels_out: key.shape.channels_out,
        stride: key.shape.stride,
        latency_micros: Some(curve[3].quiet_micros),
        energy_mj: None,
        batch: key.shape.batch,
        op_digest: op.digest().clone(),
        status: RowStatus::Ok,
        reason: None,
        ci95_rel: Some(0.03),
        median_micros: Some(curve[3].quiet_micros),
        samples: 100,
        agents: 1,
        between_agents: None,
        measured_at: Timestamp::UNIX_EPOCH,
        curve,
    }
}

fn table(rng: &mut fastrand::Rng) -> Result<TableIndex> {
    let catalog = Catalog::builtin();
    let space = catalog.space("mobilenet")?.resolve(catalog)?;
    let rows = space.entries.iter().map(|(key, op)| row(key, op, rng)).collect();
    Ok(TableIndex::new(Table {
        schema: TABLE_SCHEMA,
        hardware_id: "made-up.cpu".parse::<HardwareId>().map_err(anyhow::Error::msg)?,
        run_config: RunConfig::libtorch_eager("2.13.0"),
        version: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        fingerprints: BTreeMap::new(),
        accuracy: None,
        calibration: None,
        ops: vec![],
        rows,
    })?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(1);
    let index = Arc::new(table(&mut rng)?);
    let predictor = Predictor::new(Arc::clone(&index), Missing::Error);
    let mut packed = PackedTable::new(Predictor::new(Arc::clone(&index), Missing::Error));
    let ops: Vec<PackedOp> = index
        .measured()
        .map(|(op, row)| packed.op(op, &row.shape()).map_err(anyhow::Error::msg))
        .collect::<Result<_>>()?;
    let sequences: Vec<PackedOp> =
        (0..SEQUENCES * OPS).map(|_| ops[rng.usize(..ops.len())]).collect();
    let catalog = Catalog::builtin();
    let plans: Vec<_> = Family::Mobilenet
        .draw(1)
        .take(1000)
        .map(|spec| Ok(Network::new(&spec, catalog)?.plan(catalog)?))
        .collect::<Result<_>>()?;
    let (mut fast, mut single) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for sequence in sequences.chunks_exact(OPS) {
            black_box(packed.predict(black_box(sequence), 0));
        }
        fast.push(SEQUENCES as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        for plan in &plans {
            black_box(predictor.predict_plan(black_box(plan)).is_ok());
        }
        single.push(plans.len() as f64 / start.elapsed().as_secs_f64());
    }
    println!("{} {}", median(fast), median(single));
    Ok(())
}

//! A space measured in the order that lowers the error of predictions fastest.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use latlas_predict::merge::merge_all;
use latlas_predict::profile_order::{Stop, batch_size, candidates, next_batch};
use latlas_predict::{TableContent, TableIndex};
use latlas_shared::Measurement;
use ops_catalog::{Catalog, Op, OpKey, Space};

use super::{Bench, op_job};

/// Batches without an improvement after which there will be none.
const PATIENCE: usize = 4;

/// Measures batch after batch, each chosen from what the rows so far say, and says after each how good the
/// table is by then. Stops at an expected error of `stop_at` percent, or when more rows do not help.
pub(super) fn measure(bench: &mut Bench, space: &Space, stop_at: f64) -> Result<()> {
    let candidates = candidates(space);
    let reference = bench.recorder.run_config.reuse_distance_bytes;
    let mut stop = Stop::new(stop_at / 100.0, PATIENCE);
    let start = Instant::now();
    let catalog = catalog(space)?;
    let mut measured: Vec<Measurement> = Vec::new();
    loop {
        let index = table(bench, &catalog, &measured)?;
        let batch = next_batch(&index, &candidates, batch_size(measured.len()));
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        let error = 100.0 * batch.expected_error;
        eprintln!("{minutes:.1} min, {} rows: expected error {error:.1}%", measured.len());
        if batch.keys.is_empty() {
            return Ok(());
        }
        if let Some(why) = stop.after(batch.expected_error) {
            let left = candidates.rows.len() - measured.len();
            eprintln!("stopped, {left} rows are not measured: {why}");
            return Ok(());
        }
        let entry = |key: &OpKey| space.entries.iter().find(|(other, _)| other == key).cloned();
        let jobs = batch.keys.iter().filter_map(entry).map(|entry| op_job(entry, reference));
        bench.measure(jobs.collect(), &mut |measurement| measured.push(measurement))?;
        if let Some(ended) = bench.ended() {
            let left = candidates.rows.len() - measured.len();
            eprintln!("{ended}, {left} rows are not measured");
            return Ok(());
        }
    }
}

/// What the names of the space's ops mean.
fn catalog(space: &Space) -> Result<Catalog> {
    let builtin = Catalog::builtin();
    let is_own = |op: &&Arc<Op>| builtin.op(op.name()).map_or(true, |b| b.digest() != op.digest());
    let mut own: Vec<&Arc<Op>> = space.entries.iter().map(|(_, op)| op).filter(is_own).collect();
    own.dedup_by_key(|op| op.digest());
    Ok(builtin.with_ops(own.into_iter().map(|op| op.def().clone()))?)
}

/// The table of what was measured so far.
fn table(bench: &Bench, catalog: &Catalog, measured: &[Measurement]) -> Result<TableIndex> {
    let (rows, networks) = merge_all(measured.to_vec());
    let content = TableContent {
        hardware_id: bench.recorder.hardware_id.clone(),
        run_config: bench.recorder.run_config.clone(),
        fingerprints: Default::default(),
        rows,
        networks,
    };
    Ok(TableIndex::new(latlas_predict::assemble(content, catalog, Timestamp::now())?)?)
}

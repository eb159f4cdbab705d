//! Predictions a second on one core, from a table in memory: sequences of 20 ops over the space
//! `mobilenet`, interval included, by the packed table and, beside it, one by one as `latlas predict` does.
//!
//! The latencies are made up, since only their look-up is timed.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use latlas_predict::{PackedOp, PackedTable, Predictor, TableIndex};
use latlas_shared::{Missing, Row, testing};
use ops_catalog::{Catalog, Family, Network, OpKey};

const OPS: usize = 20;
const SEQUENCES: usize = 100_000;
const ROUNDS: usize = 5;

fn row(key: &OpKey, rng: &mut fastrand::Rng) -> Row {
    let micros = 10.0 + 1000.0 * rng.f64();
    let at = |mib: u64| testing::point(mib << 20, micros * (1.0 + mib as f64 / 64.0));
    Row { curve: [0, 2, 4, 8, 16, 32, 64].map(at).to_vec(), ..testing::row(key, micros * 1.125) }
}

fn table(rng: &mut fastrand::Rng) -> Result<TableIndex> {
    let catalog = Catalog::builtin();
    let space = catalog.space("mobilenet")?.resolve(catalog)?;
    let rows = space.entries.iter().map(|(key, _)| row(key, rng)).collect();
    Ok(TableIndex::new(testing::table(rows))?)
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
    let ops: Vec<PackedOp> =
        index.measured().map(|(op, row)| packed.op(op, &row.shape())).collect::<Result<_, _>>()?;
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

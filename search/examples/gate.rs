//! What `scripts/bench prune` needs of the gate: a table for every row of a space, with made-up latencies (they do not
//! matter to the speed), random genotypes, and the speed of judgements in memory, on one thread.
//!
//! ```sh
//! cargo run --release --example gate -- SPACE COUNT FOLDER
//! ```

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use latlas_predict::{Predictor, TableIndex};
use latlas_search::constraints::Constraints;
use latlas_search::gate::{Scratch, SpaceGate};
use latlas_search::verdict::Decision;
use latlas_shared::Missing;
use latlas_shared::testing::{row, table};
use ops_catalog::OpKey;
use ops_catalog::arch_space::{CompiledSpace, builtin_spaces};

/// Rounds of each measurement. The fastest counts: others use the machine too.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [space, count, folder] = arguments.as_slice() else {
        return Err("usage: gate SPACE COUNT FOLDER".into());
    };
    let count: usize = count.parse()?;
    let folder = Path::new(folder);
    let compile = || builtin_spaces().find(|builtin| builtin.name == space).map(|b| b.compile());
    let space = Arc::new(compile().ok_or("there is no such space")?);
    let table = folder.join("table.json");
    let index = made_up(&space)?;
    fs::write(&table, serde_json::to_string(index.table())?)?;
    let candidates: Vec<Vec<u8>> = space.draws(1).take(count).collect();
    let mut lines = String::new();
    for letters in &candidates {
        writeln!(lines, "{}", std::str::from_utf8(letters)?)?;
    }
    fs::write(folder.join("genotypes.txt"), lines)?;
    let limits = fs::read_to_string(folder.join("limits.yaml"))?;
    let constraints = Constraints::from_yaml(&limits, space.catalog())?;
    let predictor = Predictor::new(index, Missing::Error);
    let gate = SpaceGate::new(Arc::clone(&space), constraints, predictor)?;
    let mut scratch = Scratch::default();
    let (mut judged, mut decided) = (f64::INFINITY, f64::INFINITY);
    let (mut accepted, mut high) = ([0, 0], 0.0);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        accepted[0] = 0;
        for letters in &candidates {
            let verdict = gate.judge(letters, &mut scratch);
            accepted[0] += usize::from(verdict.decision() == Decision::Accepted);
            high += verdict.latency.map_or(0.0, |latency| latency.high);
        }
        judged = judged.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        accepted[1] = 0;
        for letters in &candidates {
            accepted[1] += usize::from(gate.decide(letters, &mut scratch) == Decision::Accepted);
        }
        decided = decided.min(start.elapsed().as_secs_f64());
    }
    if accepted[0] != accepted[1] || !high.is_finite() {
        return Err(format!("the two ways accept {accepted:?} of {count}").into());
    }
    let million = count as f64 / 1e6;
    println!("{:.3} {:.3} {}", million / judged, million / decided, accepted[0]);
    Ok(())
}

/// A table of all rows of a space.
fn made_up(space: &CompiledSpace) -> Result<TableIndex, Box<dyn Error>> {
    let mut keys: Vec<OpKey> = space.keys().iter().map(|key| key.key()).collect();
    keys.sort();
    keys.dedup();
    let rows = keys.iter().enumerate();
    let rows = rows.map(|(place, key)| row(key, 20.0 + (place * 37 % 101) as f64));
    Ok(TableIndex::new(table(rows.collect()))?)
}

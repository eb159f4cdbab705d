//! The order in which the rows of a space that a table has would be profiled, most informative rows first:
//! for the benchmark of accuracy.
//!
//! Usage: `replay TABLE SPACE`. One line per batch: the error that is expected before it, then its keys. The
//! last line is `in-advance` and the keys in the order that is set without any measurement.

use std::collections::HashSet;
use std::io::{self, Write};

use latlas_predict::TableIndex;
use latlas_predict::profile_order::{batch_size, candidates, next_batch, order_in_advance};
use latlas_shared::Table;
use ops_catalog::{Catalog, OpKey};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, space] = arguments.as_slice() else {
        return Err("usage: replay TABLE SPACE".into());
    };
    let whole = Table::from_json(&std::fs::read_to_string(file)?)?;
    let catalog = Catalog::builtin();
    let mut candidates = candidates(&catalog.space(space)?.resolve(catalog)?);
    let measured: HashSet<OpKey> = whole.rows.iter().map(|row| row.key()).collect();
    candidates.rows.retain(|candidate| measured.contains(&candidate.key));
    let mut part = whole.clone();
    part.rows.clear();
    let mut out = io::stdout().lock();
    loop {
        let index = TableIndex::new(part.clone())?;
        let batch = next_batch(&index, &candidates, batch_size(part.rows.len()));
        write!(out, "{}", batch.expected_error)?;
        for key in &batch.keys {
            write!(out, " {key}")?;
        }
        writeln!(out)?;
        if batch.keys.is_empty() {
            break;
        }
        part.rows.extend(whole.rows.iter().filter(|row| batch.keys.contains(&row.key())).cloned());
    }
    write!(out, "in-advance")?;
    for row in order_in_advance(&candidates) {
        write!(out, " {}", row.key)?;
    }
    writeln!(out)?;
    Ok(())
}

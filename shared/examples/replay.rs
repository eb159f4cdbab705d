//! The order in which a space would be profiled, most informative rows first, from a table that has all of
//! its rows: for the benchmark of accuracy.
//!
//! Usage: `replay TABLE SPACE`. One line per batch: the error that is expected before it, then its keys.

use std::io::{self, Write};

use latlas_shared::profile_order::{batch_size, candidates, next_batch};
use latlas_shared::{Table, TableIndex};
use ops_catalog::Catalog;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, space] = arguments.as_slice() else {
        return Err("usage: replay TABLE SPACE".into());
    };
    let whole = Table::from_json(&std::fs::read_to_string(file)?)?;
    let catalog = Catalog::builtin();
    let candidates = candidates(&catalog.space(space)?.resolve(catalog)?);
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
            return Ok(());
        }
        let before = part.rows.len();
        part.rows.extend(whole.rows.iter().filter(|row| batch.keys.contains(&row.key())).cloned());
        if part.rows.len() == before {
            return Err("the table lacks rows of the space".into());
        }
    }
}

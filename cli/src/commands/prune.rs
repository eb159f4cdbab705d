//! `latlas prune`.

mod blocks;
mod lines;
mod pipeline;
mod report;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use latlas_predict::Predictor;
use latlas_search::constraints::Constraints;
use latlas_search::gate::{Gate, SpaceGate};
use ops_catalog::arch_space::CompiledSpace;

use crate::cli::Prune;
use crate::text::count;
use crate::{chosen, files};
use blocks::{drawn, every};
use lines::{Candidates, Judge};
use report::Tally;

/// Runs the command, in constant memory.
///
/// # Errors
/// When a file cannot be used, or there is no candidate. A candidate that is not a valid network gets a verdict.
pub fn run(command: &Prune, out: &mut dyn Write) -> Result<()> {
    let from_a_space = command.draw.is_some() || command.all;
    let mut named: Vec<&Path> = vec![&command.table, &command.config];
    if !from_a_space {
        named.push(&command.arch);
    }
    named.extend(command.ops.op_file.iter().map(PathBuf::as_path));
    files::one_stdin(&named)?;
    let index = files::read_table(&command.table)?;
    let text = files::read_text(&command.config)?;
    let catalog = chosen::with_op_files(index.catalog(), &command.ops.op_file)?;
    let space =
        command.space.as_deref().map(|name| chosen::arch_space(name, &catalog)).transpose()?;
    let known = space.as_ref().map_or(&catalog, CompiledSpace::catalog);
    let constraints = Constraints::from_yaml(&text, known)
        .map_err(|error| anyhow!("{}: {error}", files::name(&command.config)))?;
    let hardware = index.table().hardware_id.to_string();
    let predictor = Predictor::new(index, command.missing);
    let (candidates, source): (Candidates, Box<dyn Read + Send>) = match space {
        None => {
            let gate = Gate::new(constraints, predictor);
            (Candidates::Networks { gate, catalog }, Box::new(files::open_lines(&command.arch)?))
        }
        Some(space) => {
            let space = Arc::new(space);
            let source: Box<dyn Read + Send> = match command.draw {
                Some(count) => Box::new(drawn(Arc::clone(&space), count, command.seed)),
                None if command.all => Box::new(every(Arc::clone(&space))),
                None => Box::new(files::open_lines(&command.arch)?),
            };
            let gate = SpaceGate::new(space, constraints, predictor)
                .map_err(|error| anyhow!("{}: {error}", files::name(&command.table)))?;
            (Candidates::Genotypes { gate }, source)
        }
    };
    let judge = Arc::new(Judge { candidates, form: command.format, only: command.only });
    if let Some(header) = judge.header() {
        out.write_all(header)?;
    }
    let tally = pipeline::run(source, Arc::clone(&judge), command.threads(), out)
        .map_err(|error| error.explained(&command.arch))?;
    out.flush()?;
    if tally.total() == 0 {
        bail!("{}: it is empty, so there was nothing to judge", files::name(&command.arch));
    }
    eprintln!("{}", tally.summary());
    if tally.unknown > 0 {
        eprintln!("{}", advice(command, &judge.candidates, &tally, &hardware));
    }
    Ok(())
}

/// What to do about candidates that rows are missing for.
fn advice(command: &Prune, candidates: &Candidates, tally: &Tally, hardware: &str) -> String {
    let unknown = tally.unknown;
    let lack =
        count(unknown, "candidate is unknown for want of", "candidates are unknown for want of");
    match candidates {
        Candidates::Networks { .. } => {
            let rows = tally.missing.len();
            let archs = std::slice::from_ref(&command.arch);
            format!(
                "{lack} {} that the table lacks. {}",
                count(rows, "row", "rows"),
                chosen::how_to_measure(&[], archs, &command.ops.op_file, hardware, rows)
            )
        }
        Candidates::Genotypes { gate } => {
            let (missing, keys) = (gate.missing_keys(), gate.space().keys().len());
            let space = chosen::quoted(command.space.as_deref().unwrap_or(gate.space().name()));
            format!(
                "{lack} rows: the table lacks {missing} of the {keys} rows of the space. {}",
                chosen::how_to_measure_keys(
                    &format!("latlas space keys {space}"),
                    hardware,
                    missing
                )
            )
        }
    }
}

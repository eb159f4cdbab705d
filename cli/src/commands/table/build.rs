//! `latlas table build`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use latlas_predict::TableContent;
use latlas_predict::merge::merge_all;
use latlas_shared::{Fingerprint, MeasuredNetwork, Measurement, Status, Subject};
use ops_catalog::{Catalog, text};
use serde::Deserialize;

use super::write_to;
use crate::cli::TableBuild;
use crate::lines::Lines;
use crate::text::{count, plain};
use crate::{chosen, files};

/// Builds a table from files of measurements.
///
/// # Errors
/// Names the file and line of a measurement that cannot be used, or whose device or run config differs from the first.
pub(super) fn run(what: &TableBuild, out: &mut dyn Write) -> Result<()> {
    let all = what.files.iter().chain(&what.op_file).chain(&what.probe);
    files::one_stdin(&all.map(PathBuf::as_path).collect::<Vec<_>>())?;
    let catalog = chosen::with_op_files(Catalog::builtin(), &what.op_file)?;
    let mut gathered =
        Gathered { catalog: &catalog, measurements: Vec::new(), first: String::new() };
    for path in &what.files {
        gathered.read(path)?;
    }
    let measurements = gathered.measurements;
    let Some(first) = measurements.first() else {
        let names: Vec<String> = what.files.iter().map(|path| files::name(path)).collect();
        bail!("there is no measurement in {}", names.join(", "));
    };
    let (hardware_id, run_config) = (first.hardware_id.clone(), first.run_config.clone());
    let fingerprints = fingerprints(&what.probe, &measurements)?;
    let (rows, networks) = merge_all(measurements);
    for run in left_out(&networks) {
        eprintln!("{run}");
    }
    let content = TableContent { hardware_id, run_config, fingerprints, rows, networks };
    let networks = content.networks.len();
    let table = latlas_predict::assemble(content, &catalog, Timestamp::now())?;
    let text = serde_json::to_string(&table).context("the table cannot be written as JSON")?;
    let said = format!(
        "{}, {}, version {}",
        count(table.rows.len(), "row", "rows"),
        count(networks, "network", "networks"),
        table.version
    );
    write_to(what.output.as_deref(), text.as_bytes(), &said, out)
}

/// The sustained runs that the table's figure does not count, a line each.
fn left_out(networks: &[MeasuredNetwork]) -> Vec<String> {
    let runs = networks.iter().filter(|one| one.sustained.is_some() && one.status != Status::Ok);
    runs.map(|run| {
        let name = run.network.spec.name.as_deref().unwrap_or("a network");
        let reason =
            run.reason.as_deref().map_or_else(String::new, |why| format!(", {}", plain(why)));
        format!("a sustained run is left out: {}: {}{reason}", plain(name), run.status.name())
    })
    .collect()
}

struct Gathered<'a> {
    catalog: &'a Catalog,
    measurements: Vec<Measurement>,
    /// File and line of the first measurement.
    first: String,
}

impl Gathered<'_> {
    fn read(&mut self, path: &Path) -> Result<()> {
        let file = files::name(path);
        let mut lines = Lines::new(files::open_lines(path)?);
        while let Some((number, line)) =
            lines.next().map_err(|error| files::unreadable(path, &error))?
        {
            let place = format!("{file}, line {number}");
            let line = line.with_context(|| place.clone())?;
            if !line.trim().is_empty() {
                self.take(line, &place).with_context(|| place.clone())?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &str, place: &str) -> Result<()> {
        let measurement: Measurement = text::read_json(line)
            .context("this is not a measurement as `latlas-agent bench` writes it")?;
        measurement.check_result()?;
        self.check_subject(&measurement.subject)?;
        match self.measurements.first() {
            None => self.first = place.to_owned(),
            Some(first) => check_alike(first, &measurement, &self.first)?,
        }
        self.measurements.push(measurement);
        Ok(())
    }

    /// Checks that a row belongs to the local definition of its op. Otherwise no prediction could use the row.
    fn check_subject(&self, subject: &Subject) -> Result<()> {
        match subject {
            Subject::Op { key, digest } => {
                let op = self.catalog.op(&key.op).map_err(|unknown| {
                    anyhow!("{unknown}; name the file that defines it with --op-file")
                })?;
                if op.digest() != digest {
                    bail!(
                        "{} was measured with the definition {digest}, and here it is {}: name the file \
                         that defines it with --op-file, or measure it again",
                        key.op,
                        op.digest()
                    );
                }
                op.at(&key.shape)?;
            }
            Subject::Network(network) => {
                network.plan()?;
            }
        }
        Ok(())
    }
}

/// A table belongs to one hardware id and run config.
fn check_alike(first: &Measurement, other: &Measurement, place: &str) -> Result<()> {
    let remedy = "a table is of one class of device under one run config: make one table for each";
    if first.hardware_id != other.hardware_id {
        bail!("it is of {}, and {place} is of {}; {remedy}", other.hardware_id, first.hardware_id);
    }
    if first.run_config != other.run_config {
        bail!(
            "its run config is {}, and that of {place} is {}; {remedy}",
            other.run_config.id(),
            first.run_config.id()
        );
    }
    Ok(())
}

/// Fingerprints of the boxes, by digest. A measurement only has the digest.
fn fingerprints(
    probes: &[PathBuf],
    measurements: &[Measurement],
) -> Result<BTreeMap<String, Fingerprint>> {
    #[derive(Deserialize)]
    struct Probe {
        fingerprint: Fingerprint,
    }
    let seen: BTreeSet<&str> = measurements.iter().map(|m| m.fingerprint.as_str()).collect();
    let mut all = BTreeMap::new();
    for path in probes {
        let file = files::name(path);
        let Probe { fingerprint } =
            text::read_json(&files::read_text(path)?).with_context(|| {
                format!("{file}: this is not the output of `latlas-agent probe --json`")
            })?;
        let digest = fingerprint.digest();
        if !seen.contains(digest.as_str()) {
            bail!(
                "{file}: no measurement has this fingerprint, {digest}: the box has changed since, or it \
                 is another box"
            );
        }
        all.insert(digest, fingerprint);
    }
    Ok(all)
}

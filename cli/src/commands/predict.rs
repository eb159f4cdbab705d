//! `latlas predict`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use latlas_predict::{PredictError, Predictor, TableIndex};
use latlas_shared::{
    HardwareId, Missing, MissingOp, Origin, Prediction, Status, Table, Uncertainty,
};
use ops_catalog::{Catalog, ExternalId, Network, NetworkSpec, OpKey};
use serde::Serialize;

use super::write_json;
use crate::chosen::{self, names_a_file};
use crate::cli::Predict;
use crate::files;
use crate::networks::{Found, Label, NetworkFile};
use crate::text::{bytes, count, duration, percent, plain, quantity};
use latlas_program::exit::Reported;
use latlas_program::text_table::TextTable;

/// Number of ops in the listing of a prediction.
const SHOWN_OPS: usize = 5;

/// Runs the command.
///
/// # Errors
/// When a file cannot be used, or a network has no prediction. All missing rows are then listed.
pub fn run(command: &Predict, out: &mut dyn Write) -> Result<()> {
    let archs = command.what.arch.iter().map(PathBuf::as_path);
    let names = command.what.network.iter().map(Path::new);
    let op_files = command.ops.op_file.iter().map(PathBuf::as_path);
    let paths = archs.chain(names).chain(op_files).chain([command.table.as_path()]);
    files::one_stdin(&paths.collect::<Vec<_>>())?;
    let index = Arc::new(files::read_table(&command.table)?);
    let mut session = Session {
        catalog: chosen::with_op_files(index.catalog(), &command.ops.op_file)?,
        predictor: Predictor::new(Arc::clone(&index), command.missing),
        json: command.json,
        out,
        networks: 0,
        invalid: 0,
        incomplete: 0,
        predicted: Vec::new(),
        missing: BTreeMap::new(),
    };
    for name in &command.what.network {
        if names_a_file(name) {
            session.file(Path::new(name))?;
        } else {
            let spec = chosen::builtin_network(name, index.catalog())?;
            let label = Label { id: None, name: Some(name.clone()) };
            session.network(None, name, &label, &Network::new(spec, index.catalog())?)?;
        }
    }
    for path in &command.what.arch {
        session.file(path)?;
    }
    session.listing()?;
    session.out.flush()?;
    session.verdict(command)
}

/// A line of output: a prediction, or why there is none.
#[derive(Serialize)]
struct Line<'a> {
    line: Option<usize>,
    id: &'a Option<ExternalId>,
    name: &'a Option<String>,
    hardware_id: &'a str,
    table_version: &'a str,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Predicted(&'a Prediction),
    Missing { missing: &'a [MissingOp] },
    Invalid { invalid: &'a str },
}

struct Session<'a> {
    catalog: Catalog,
    predictor: Predictor,
    json: bool,
    out: &'a mut dyn Write,
    networks: usize,
    invalid: usize,
    incomplete: usize,
    /// Predictions in readable form, printed at the end: their form depends on their number.
    predicted: Vec<(String, Prediction)>,
    missing: BTreeMap<OpKey, String>,
}

impl Session<'_> {
    fn index(&self) -> &TableIndex {
        self.predictor.index()
    }

    /// One network in JSON or YAML, or one in each line.
    fn file(&mut self, path: &Path) -> Result<()> {
        let mut file = NetworkFile::open(path)?;
        while let Some(Found { line, place, spec }) = file.next(self.out)? {
            match spec {
                Ok(spec) => self.spec(line, &place, &spec)?,
                Err((label, problem)) => self.invalid(line, &place, &label, &problem)?,
            }
        }
        Ok(())
    }

    fn spec(&mut self, line: Option<usize>, place: &str, spec: &NetworkSpec) -> Result<()> {
        let label = Label::of(spec);
        match Network::new(spec, &self.catalog) {
            Ok(network) => self.network(line, place, &label, &network),
            Err(problem) => self.invalid(line, place, &label, &problem.to_string()),
        }
    }

    fn network(
        &mut self,
        line: Option<usize>,
        place: &str,
        label: &Label,
        network: &Network,
    ) -> Result<()> {
        let predicted = network
            .plan(&self.catalog)
            .map_err(PredictError::Network)
            .and_then(|plan| self.predictor.predict_plan(&plan).map_err(PredictError::Missing));
        match predicted {
            Ok(prediction) => {
                self.networks += 1;
                if self.json {
                    return self.write(line, label, Outcome::Predicted(&prediction));
                }
                self.predicted.push((title(label, place), prediction));
                Ok(())
            }
            Err(PredictError::Network(problem)) => {
                self.invalid(line, place, label, &problem.to_string())
            }
            Err(PredictError::Missing(missing)) => {
                self.networks += 1;
                self.incomplete += 1;
                if self.json {
                    self.write(line, label, Outcome::Missing { missing: &missing })?;
                }
                self.missing.extend(missing.into_iter().map(|op| (op.key, op.why)));
                Ok(())
            }
        }
    }

    fn invalid(
        &mut self,
        line: Option<usize>,
        place: &str,
        label: &Label,
        problem: &str,
    ) -> Result<()> {
        self.networks += 1;
        self.invalid += 1;
        eprintln!("error: {place}: {problem}");
        if self.json {
            self.write(line, label, Outcome::Invalid { invalid: problem })?;
        }
        Ok(())
    }

    fn write(&mut self, line: Option<usize>, label: &Label, outcome: Outcome) -> Result<()> {
        let table = self.predictor.index().table();
        let line = Line {
            line,
            id: &label.id,
            name: &label.name,
            hardware_id: table.hardware_id.as_str(),
            table_version: &table.version,
            outcome,
        };
        write_json(self.out, &line)
    }

    /// A single network is explained; several networks are listed, one per line.
    fn listing(&mut self) -> Result<()> {
        match (self.predicted.as_slice(), self.networks) {
            ([], _) => Ok(()),
            ([(title, prediction)], 1) => {
                let index = self.predictor.index();
                write_prediction(self.out, title, prediction, index)
            }
            (all, _) => {
                let index = self.predictor.index();
                write_predictions(self.out, all, index)
            }
        }
    }

    /// Success if every network has a prediction.
    fn verdict(&self, command: &Predict) -> Result<()> {
        if self.incomplete > 0 {
            bail!(self.missing_rows(command));
        }
        match (self.invalid, self.networks) {
            (0, _) => Ok(()),
            (1, 1) => Err(Reported.into()),
            (invalid, all) => bail!("{invalid} of {all} networks could not be used"),
        }
    }

    fn missing_rows(&self, command: &Predict) -> String {
        let whose = match (self.incomplete, self.networks) {
            (1, 1) => String::new(),
            (some, all) => format!(" for {some} of {all} networks"),
        };
        let missing = count(self.missing.len(), "row is", "rows are");
        let mut text = format!("{}: {missing} missing{whose}:", command.table.display());
        for (key, why) in &self.missing {
            text.push_str(&format!("\n  - {key}  # {}", plain(why)));
        }
        text.push('\n');
        text.push_str(&chosen::how_to_measure(
            &command.what.network,
            &command.what.arch,
            &command.ops.op_file,
            self.index().table().hardware_id.as_str(),
            self.missing.len(),
        ));
        // Suspect or failed rows: only a request with `--remeasure` measures them again.
        if self.index().table().rows.iter().any(|row| self.missing.contains_key(&row.key())) {
            text.push_str("\nAdd `--remeasure` to `latlas profile` for those that have a row.");
        }
        if command.missing == Missing::Error {
            text.push_str(
                "\nShapes between measured ones can be estimated with `--missing interpolate`.",
            );
        }
        text
    }
}

/// The basis of an estimate, in the words of `latlas accuracy`.
fn basis(prediction: &Prediction, table: &Table) -> String {
    let networks = match prediction.calibration_networks {
        0 => return "from the rows alone".to_owned(),
        n => format!("calibrated on {}", count(n as usize, "network", "networks")),
    };
    let used = table.accuracy.iter().flat_map(|accuracy| &accuracy.networks);
    match used.filter(|one| one.prediction.is_some() && one.status != Status::Ok).count() {
        0 => networks,
        poor => format!("{networks} ({poor} of them not ok)"),
    }
}

/// Why intervals are wide although the rows are good, and what to do about it.
fn wide(prediction: &Prediction, hardware: &HardwareId) -> Option<String> {
    (prediction.calibration_networks == 0).then(|| {
        format!(
            "intervals are wide, since no whole network was measured on this hardware; measure five that a space \
             is made of:\n  latlas profile --hardware {hardware} --space NAME --calibrate 5\nWithout a \
             coordinator:\n  latlas-agent bench --space NAME --calibrate 5 --out more.ndjson\n  \
             latlas table build rows.ndjson more.ndjson -o table.json"
        )
    })
}

fn write_predictions(
    out: &mut dyn Write,
    all: &[(String, Prediction)],
    index: &TableIndex,
) -> Result<()> {
    let table = index.table();
    // One table has one calibration.
    let basis = all.first().map(|(_, prediction)| basis(prediction, table)).unwrap_or_default();
    writeln!(out, "{}  table {}", table.hardware_id, table.version)?;
    writeln!(
        out,
        "{}, {basis}; FLOPs are multiply-accumulates",
        count(all.len(), "network", "networks")
    )?;
    let mut columns =
        TextTable::new(["NETWORK", "LATENCY", "INTERVAL", "FLOPS", "PARAMS", "MEASURED"]);
    for (title, prediction) in all {
        columns.push([
            title.clone(),
            duration(prediction.latency_micros),
            format!("{} to {}", duration(prediction.low_micros), duration(prediction.high_micros)),
            quantity(prediction.flops),
            quantity(prediction.params),
            percent(Some(prediction.measured_share)),
        ]);
    }
    columns.write(out)?;
    if let Some(wide) = all.first().and_then(|(_, prediction)| wide(prediction, &table.hardware_id))
    {
        writeln!(out, "{wide}")?;
    }
    Ok(())
}

/// The title of a network in a listing: its name, or its place in the input.
fn title(label: &Label, place: &str) -> String {
    match (&label.name, &label.id) {
        (Some(name), _) => plain(name),
        (None, Some(id)) => plain(&id.to_string()),
        (None, None) => place.to_owned(),
    }
}

fn write_prediction(
    out: &mut dyn Write,
    title: &str,
    prediction: &Prediction,
    index: &TableIndex,
) -> Result<()> {
    let table = index.table();
    let total = prediction.latency_micros;
    let measured = prediction.ops.iter().filter(|op| op.origin == Origin::Measured).count();
    writeln!(out, "{title}")?;
    writeln!(out, "  hardware   {}", table.hardware_id)?;
    writeln!(out, "  table      {}", table.version)?;
    writeln!(
        out,
        "  latency    {}  ({} to {}), {}",
        duration(total),
        duration(prediction.low_micros),
        duration(prediction.high_micros),
        basis(prediction, table)
    )?;
    let half = (prediction.high_micros - prediction.low_micros) / 2.0 / total;
    let Uncertainty { rows, calibration, model } = prediction.uncertainty;
    writeln!(
        out,
        "  interval   ±{:.1}%; standard deviations: rows {:.1}%, calibration {:.1}%, model {:.1}%",
        100.0 * half,
        100.0 * rows,
        100.0 * calibration,
        100.0 * model
    )?;
    writeln!(
        out,
        "  measured   {:.1}% of the latency, {measured} of {}",
        100.0 * prediction.measured_share,
        count(prediction.ops.len(), "op", "ops")
    )?;
    writeln!(out, "  FLOPs      {} (multiply-accumulates)", quantity(prediction.flops))?;
    writeln!(out, "  params     {}", quantity(prediction.params))?;
    writeln!(out, "  footprint  {}", bytes(prediction.reuse_distance_bytes))?;
    writeln!(out, "  most expensive")?;
    let sum: f64 = prediction.ops.iter().map(|op| op.latency_micros).sum();
    let mut ops: Vec<_> = prediction.ops.iter().collect();
    ops.sort_by(|a, b| b.latency_micros.total_cmp(&a.latency_micros));
    let mut columns = TextTable::new(["    SHARE", "LATENCY", "OP", "WHERE", ""]);
    for op in ops.iter().take(SHOWN_OPS) {
        columns.push([
            format!("    {:.1}%", 100.0 * op.latency_micros / sum),
            duration(op.latency_micros),
            op.key.to_string(),
            op.place.clone(),
            if op.origin == Origin::Interpolated { "interpolated" } else { "" }.to_owned(),
        ]);
    }
    columns.write(out)?;
    if let Some(wide) = wide(prediction, &table.hardware_id) {
        writeln!(out, "  {}", wide.replace('\n', "\n  "))?;
    }
    Ok(())
}

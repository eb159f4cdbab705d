//! `latlas prune`.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use latlas_predict::Predictor;
use ops_catalog::{Catalog, ExternalId, Network, OpKey};
use serde::Serialize;

use super::write_json;
use crate::cli::Prune;
use crate::lines::Lines;
use crate::networks::{self, Label};
use crate::text::count;
use crate::{chosen, files};
use latlas_search::constraints::Constraints;
use latlas_search::verdict::{Decision, Reason, Verdict, judge};

/// Runs the command: one candidate at a time, in constant memory.
///
/// # Errors
/// When a file cannot be used, or there is no candidate. A candidate that is not a valid network gets a verdict.
pub fn run(command: &Prune, out: &mut dyn Write) -> Result<()> {
    let named: [&Path; 3] = [&command.table, &command.config, &command.arch];
    let op_files = command.ops.op_file.iter().map(PathBuf::as_path);
    files::one_stdin(&named.into_iter().chain(op_files).collect::<Vec<_>>())?;
    let index = files::read_table(&command.table)?;
    let text = files::read_text(&command.config)?;
    let catalog = chosen::with_op_files(index.catalog(), &command.ops.op_file)?;
    let constraints = Constraints::from_yaml(&text, &catalog)
        .map_err(|error| anyhow!("{}: {error}", files::name(&command.config)))?;
    let predictor = Predictor::new(index, command.missing);
    let gate = Gate { constraints, predictor, catalog };
    let mut lines = Lines::new(files::open_lines(&command.arch)?);
    let mut counts = Counts::default();
    let mut missing = MissingRows::default();
    loop {
        if lines.would_wait() {
            out.flush()?;
        }
        let next = lines.next().map_err(|error| files::unreadable(&command.arch, &error))?;
        let Some((number, text)) = next else { break };
        let judged = match text {
            Ok(text) => gate.judge(text),
            Err(problem) => Judged::invalid(Label::default(), problem.to_string()),
        };
        counts.add(judged.verdict.decision);
        missing.add(&judged.verdict.reasons);
        write_json(out, &Line::new(number, &judged))?;
    }
    out.flush()?;
    if counts.total() == 0 {
        bail!("{}: it is empty, so there was nothing to judge", files::name(&command.arch));
    }
    eprintln!("{}", counts.summary());
    if counts.unknown > 0 {
        let hardware = gate.predictor.index().table().hardware_id.as_str();
        eprintln!("{}", missing.advice(command, counts.unknown, hardware));
    }
    Ok(())
}

struct Gate {
    constraints: Constraints,
    predictor: Predictor,
    catalog: Catalog,
}

/// A candidate and its verdict.
struct Judged {
    label: Label,
    verdict: Verdict,
    /// Lower end, estimate and upper end in microseconds.
    latency: Option<(f64, f64, f64)>,
    flops: Option<u64>,
    params: Option<u64>,
}

impl Judged {
    fn invalid(label: Label, problem: String) -> Judged {
        let verdict = Verdict::invalid(problem);
        Judged { label, verdict, latency: None, flops: None, params: None }
    }
}

impl Gate {
    fn judge(&self, line: &str) -> Judged {
        let spec = match networks::from_line(line) {
            Ok(spec) => spec,
            Err((label, problem)) => return Judged::invalid(label, problem),
        };
        let label = Label::of(&spec);
        let catalog = &self.catalog;
        let plan = match Network::new(&spec, catalog).and_then(|network| network.plan(catalog)) {
            Ok(plan) => plan,
            Err(problem) => return Judged::invalid(label, problem.to_string()),
        };
        let prediction = self.predictor.predict_plan(&plan);
        let verdict = judge(&self.constraints, &plan, prediction.as_ref().map_err(Vec::as_slice));
        let latency = prediction.ok().map(|p| (p.low_micros, p.latency_micros, p.high_micros));
        let (flops, params) = (Some(plan.cost.flops), Some(plan.cost.params));
        Judged { label, verdict, latency, flops, params }
    }
}

/// A line of output.
#[derive(Serialize)]
struct Line<'a> {
    line: usize,
    id: &'a Option<ExternalId>,
    name: &'a Option<String>,
    verdict: Decision,
    reasons: &'a [Reason],
    latency_micros: Option<f64>,
    low_micros: Option<f64>,
    high_micros: Option<f64>,
    flops: Option<u64>,
    params: Option<u64>,
}

impl<'a> Line<'a> {
    fn new(line: usize, judged: &'a Judged) -> Line<'a> {
        Line {
            line,
            id: &judged.label.id,
            name: &judged.label.name,
            verdict: judged.verdict.decision,
            reasons: &judged.verdict.reasons,
            latency_micros: judged.latency.map(|(_, estimate, _)| estimate),
            low_micros: judged.latency.map(|(low, _, _)| low),
            high_micros: judged.latency.map(|(_, _, high)| high),
            flops: judged.flops,
            params: judged.params,
        }
    }
}

/// The missing rows that prevent verdicts on candidates, up to a fixed number.
#[derive(Default)]
struct MissingRows {
    keys: HashSet<OpKey>,
}

impl MissingRows {
    /// The limit keeps memory constant.
    const MOST: usize = 100_000;

    fn add(&mut self, reasons: &[Reason]) {
        for reason in reasons {
            if let Reason::Missing { missing } = reason
                && self.keys.len() < MissingRows::MOST
            {
                self.keys.extend(missing.iter().cloned());
            }
        }
    }

    fn advice(&self, command: &Prune, unknown: usize, hardware: &str) -> String {
        let rows = self.keys.len();
        let archs = std::slice::from_ref(&command.arch);
        format!(
            "{} {} that the table lacks. {}",
            count(
                unknown,
                "candidate is unknown for want of",
                "candidates are unknown for want of"
            ),
            count(rows, "row", "rows"),
            chosen::how_to_measure(&[], archs, &command.ops.op_file, hardware, rows)
        )
    }
}

#[derive(Default)]
struct Counts {
    accepted: usize,
    rejected: usize,
    unknown: usize,
    invalid: usize,
}

impl Counts {
    fn add(&mut self, decision: Decision) {
        *match decision {
            Decision::Accepted => &mut self.accepted,
            Decision::Rejected => &mut self.rejected,
            Decision::Unknown => &mut self.unknown,
            Decision::Invalid => &mut self.invalid,
        } += 1;
    }

    fn total(&self) -> usize {
        self.accepted + self.rejected + self.unknown + self.invalid
    }

    fn summary(&self) -> String {
        format!(
            "{}: {} accepted, {} rejected, {} unknown, {} invalid",
            count(self.total(), "candidate", "candidates"),
            self.accepted,
            self.rejected,
            self.unknown,
            self.invalid
        )
    }
}

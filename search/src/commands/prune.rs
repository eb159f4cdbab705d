//! `latlas prune`.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Result, anyhow, bail};
use latlas_shared::{HardwareId, Missing, Predictor};
use ops_catalog::{Network, OpKey};
use serde::Serialize;
use serde_json::Value;

use super::write_json;
use crate::cli::Prune;
use crate::constraints::Constraints;
use crate::files;
use crate::lines::Lines;
use crate::networks::{self, Label};
use crate::text::count;
use crate::verdict::{Decision, Reason, Verdict, judge};

/// Runs the command: one candidate at a time, in constant memory.
///
/// # Errors
/// When a file cannot be used, or there is no candidate. A candidate that is no network is a verdict.
pub fn run(command: &Prune, out: &mut dyn Write) -> Result<()> {
    files::one_stdin(&[&command.table, &command.config, &command.arch])?;
    let index = files::read_table(&command.table)?;
    let text = files::read_text(&command.config)?;
    let constraints = Constraints::from_yaml(&text, index.catalog())
        .map_err(|error| anyhow!("{}: {error}", files::name(&command.config)))?;
    let gate = Gate { constraints, predictor: Predictor::new(&index, command.missing) };
    let mut lines = Lines::new(files::open(&command.arch)?);
    let mut counts = Counts::default();
    let mut lacking = Lacking::default();
    loop {
        if lines.would_wait() {
            out.flush()?;
        }
        let next = lines.next().map_err(|error| files::unreadable(&command.arch, &error))?;
        let Some((number, text)) = next else { break };
        let judged = match text {
            Ok(text) => gate.judge(text),
            Err(problem) => Judged::invalid(Label::default(), problem),
        };
        counts.add(judged.verdict.decision);
        lacking.note(&judged.verdict);
        write_json(out, &Line::new(number, &judged))?;
    }
    out.flush()?;
    if counts.total() == 0 {
        bail!("{}: it is empty, so there was nothing to judge", files::name(&command.arch));
    }
    eprintln!("{}", counts.summary());
    if counts.unknown > 0 {
        eprintln!("{}", lacking.next_step(command, &gate.predictor.index().table().hardware_id));
    }
    Ok(())
}

struct Gate<'a> {
    constraints: Constraints,
    predictor: Predictor<'a>,
}

/// What is known of a candidate and what becomes of it.
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

impl Gate<'_> {
    fn judge(&self, line: &str) -> Judged {
        let spec = match networks::from_line(line) {
            Ok(spec) => spec,
            Err((label, problem)) => return Judged::invalid(label, problem),
        };
        let label = Label::of(&spec);
        let catalog = self.predictor.index().catalog();
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
    id: &'a Option<Value>,
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

/// The most rows that are told apart, so that memory stays what it is however many candidates there are.
const MOST_ROWS: usize = 100_000;

/// The rows that candidates lack.
#[derive(Default)]
struct Lacking(BTreeSet<OpKey>);

impl Lacking {
    fn note(&mut self, verdict: &Verdict) {
        for reason in &verdict.reasons {
            if let Reason::Missing { missing } = reason
                && self.0.len() < MOST_ROWS
            {
                self.0.extend(missing.iter().cloned());
            }
        }
    }

    /// How they are measured.
    fn next_step(&self, command: &Prune, hardware: &HardwareId) -> String {
        let rows = match self.0.len() {
            n if n >= MOST_ROWS => format!("{MOST_ROWS} rows or more are"),
            n => count(n, "row is", "rows are"),
        };
        let file = match command.arch.as_os_str() == "-" {
            true => "CANDIDATES".to_owned(),
            false => files::name(&command.arch),
        };
        let mut text = format!(
            "{rows} missing for the unknown ones. To measure them: `latlas networks keys --arch {file} > \
             space.yaml`, then `latlas profile --hardware {hardware} --space space.yaml --wait`"
        );
        if command.missing == Missing::Error {
            text.push_str("; or estimate them between measured ones with `--missing interpolate`");
        }
        text
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

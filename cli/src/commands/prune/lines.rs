//! The verdict on one line of the input, as a line of the output.

use std::io::Write;

use latlas_search::gate::{Explained, Gate, Judged, Scratch, SpaceGate};
use latlas_search::verdict::{Codes, Decision, Reason};
use ops_catalog::{Catalog, ExternalId, Network};
use serde::Serialize;

use super::blocks::{self, Block};
use super::report::Tally;
use crate::cli::{Only, VerdictFormat};
use crate::lines::{MAX_LINE, text};
use crate::networks::{self, Label};

/// What the lines of the input are.
pub(super) enum Candidates {
    /// Networks in JSON.
    Networks { gate: Gate, catalog: Catalog },
    /// Genotypes of a space.
    Genotypes { gate: SpaceGate },
}

/// Turns lines of candidates into lines of verdicts.
pub(super) struct Judge {
    pub(super) candidates: Candidates,
    pub(super) form: VerdictFormat,
    pub(super) only: Option<Only>,
}

/// A candidate in words, with what identifies it.
struct Told {
    label: Label,
    explained: Explained,
}

/// A line of NDJSON.
#[derive(Serialize)]
struct Line<'a> {
    line: usize,
    id: &'a Option<ExternalId>,
    name: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    genotype: Option<&'a str>,
    verdict: Decision,
    reasons: &'a [Reason],
    latency_micros: Option<f64>,
    low_micros: Option<f64>,
    high_micros: Option<f64>,
    flops: Option<u64>,
    params: Option<u64>,
}

/// The codes of a verdict in words.
fn codes_of(explained: &Explained) -> Codes {
    let mut codes = Codes::default();
    for reason in &explained.verdict.reasons {
        let code = match reason {
            Reason::Broken(broken) => {
                let known = Codes::NAMES.iter().find(|(_, name)| *name == broken.constraint);
                known.map_or(Codes::INVALID, |(code, _)| *code)
            }
            Reason::Missing { .. } => Codes::MISSING,
            Reason::Invalid { .. } => Codes::INVALID,
        };
        codes.0 |= code.0;
    }
    codes
}

impl Judge {
    /// The first line of the output.
    pub(super) fn header(&self) -> Option<&'static [u8]> {
        (self.form == VerdictFormat::Compact)
            .then_some(b"line,verdict,latency_micros,reasons,candidate\n")
    }

    /// What a thread needs to judge.
    pub(super) fn memory(&self) -> Scratch {
        Scratch::default()
    }

    /// The verdicts on all lines of a block.
    pub(super) fn block(&self, block: &Block, memory: &mut Scratch) -> (Vec<u8>, Tally) {
        let mut out = Vec::with_capacity(2 * block.bytes.len() + 64);
        let mut tally = Tally::default();
        for (number, line) in blocks::lines(block) {
            self.line(number, line, memory, &mut out, &mut tally);
        }
        (out, tally)
    }

    fn line(
        &self,
        number: usize,
        line: &[u8],
        memory: &mut Scratch,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) {
        if let Candidates::Genotypes { gate } = &self.candidates
            && let Some(letters) = plain_letters(gate, line)
        {
            let judged = gate.judge(letters, memory);
            let genotype = str::from_utf8(letters).unwrap_or_default();
            return match self.form {
                VerdictFormat::Compact => {
                    tally.count(judged.codes);
                    self.compact(number, &judged, genotype, out);
                }
                VerdictFormat::Ndjson if judged.codes == Codes::default() => {
                    tally.count(judged.codes);
                    self.accepted(number, &judged, genotype, out);
                }
                VerdictFormat::Ndjson => {
                    let explained = gate.explain(letters, memory);
                    let told = Told { label: Label::default(), explained };
                    self.told(number, &told, Some(genotype), out, tally);
                }
            };
        }
        let (told, genotype) = self.slowly(line, memory);
        self.told(number, &told, genotype.as_deref(), out, tally);
    }

    /// A candidate that is not a plain genotype.
    fn slowly(&self, line: &[u8], memory: &mut Scratch) -> (Told, Option<String>) {
        let invalid =
            |label: Label, problem: String| Told { label, explained: Explained::invalid(problem) };
        let text = match text(line, MAX_LINE) {
            Ok(text) => text,
            Err(problem) => return (invalid(Label::default(), problem.to_string()), None),
        };
        match &self.candidates {
            Candidates::Networks { gate, catalog } => {
                let spec = match networks::from_line(text) {
                    Ok(spec) => spec,
                    Err((label, problem)) => return (invalid(label, problem), None),
                };
                let label = Label::of(&spec);
                let plan = Network::new(&spec, catalog).and_then(|network| network.plan(catalog));
                let told = match plan {
                    Ok(plan) => Told { label, explained: gate.judge(&plan) },
                    Err(problem) => invalid(label, problem.to_string()),
                };
                (told, None)
            }
            Candidates::Genotypes { gate } => match networks::genotype_from_line(text) {
                Ok((label, genotype)) => {
                    let explained = match gate.space().letters(&genotype) {
                        Ok(letters) => gate.explain(letters.as_bytes(), memory),
                        Err(problem) => Explained::invalid(problem.to_string()),
                    };
                    (Told { label, explained }, Some(genotype))
                }
                Err((label, problem)) => (invalid(label, problem), None),
            },
        }
    }

    fn told(
        &self,
        number: usize,
        told: &Told,
        genotype: Option<&str>,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) {
        let Told { label, explained } = told;
        let codes = codes_of(explained);
        tally.count(codes);
        tally.keep_missing(&explained.verdict.reasons);
        if self.form == VerdictFormat::Compact {
            let candidate = match (genotype, &label.id, &label.name) {
                (Some(genotype), ..) => genotype.to_owned(),
                (None, Some(id), _) => id.to_string(),
                (None, None, name) => name.clone().unwrap_or_default(),
            };
            let (flops, params) =
                (explained.flops.unwrap_or_default(), explained.params.unwrap_or_default());
            let judged = Judged { codes, latency: explained.latency, flops, params };
            return self.compact(number, &judged, &candidate, out);
        }
        self.json(number, label, genotype, explained, out);
    }

    fn accepted(&self, number: usize, judged: &Judged, genotype: &str, out: &mut Vec<u8>) {
        let explained = Explained {
            verdict: latlas_search::verdict::Verdict {
                decision: Decision::Accepted,
                reasons: Vec::new(),
            },
            latency: judged.latency,
            flops: Some(judged.flops),
            params: Some(judged.params),
        };
        self.json(number, &Label::default(), Some(genotype), &explained, out);
    }

    fn json(
        &self,
        number: usize,
        label: &Label,
        genotype: Option<&str>,
        explained: &Explained,
        out: &mut Vec<u8>,
    ) {
        if !self.wanted(explained.verdict.decision) {
            return;
        }
        let line = Line {
            line: number,
            id: &label.id,
            name: &label.name,
            genotype,
            verdict: explained.verdict.decision,
            reasons: &explained.verdict.reasons,
            latency_micros: explained.latency.map(|micros| micros.latency),
            low_micros: explained.latency.map(|micros| micros.low),
            high_micros: explained.latency.map(|micros| micros.high),
            flops: explained.flops,
            params: explained.params,
        };
        serde_json::to_writer(&mut *out, &line).expect("strings and numbers are written to memory");
        out.push(b'\n');
    }

    fn compact(&self, number: usize, judged: &Judged, candidate: &str, out: &mut Vec<u8>) {
        let decision = judged.decision();
        if !self.wanted(decision) {
            return;
        }
        let verdict = match decision {
            Decision::Accepted => "accepted",
            Decision::Rejected => "rejected",
            Decision::Unknown => "unknown",
            Decision::Invalid => "invalid",
        };
        write!(out, "{number},{verdict},").expect("memory can be written");
        if let Some(latency) = judged.latency {
            write!(out, "{:.3}", latency.latency).expect("memory can be written");
        }
        write!(out, ",{},", judged.codes).expect("memory can be written");
        field(candidate, out);
        out.push(b'\n');
    }

    fn wanted(&self, decision: Decision) -> bool {
        self.only.is_none() || decision == Decision::Accepted
    }
}

/// A field of CSV, quoted where it has to be (RFC 4180).
fn field(text: &str, out: &mut Vec<u8>) {
    if !text.contains([',', '"', '\n', '\r']) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

/// The letters of a line that is only letters: the usual line, which needs no parser.
fn plain_letters<'a>(gate: &SpaceGate, line: &'a [u8]) -> Option<&'a [u8]> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'.';
    (line.len() == gate.space().genes().len() && line.iter().all(plain)).then_some(line)
}

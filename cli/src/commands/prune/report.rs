//! What is said at the end of a run.

use std::collections::HashSet;

use latlas_search::verdict::{Codes, Decision, Reason};
use ops_catalog::OpKey;

use crate::text::count;

/// The most missing rows that are kept, so that memory stays constant.
const MOST_MISSING: usize = 100_000;

/// Counts of verdicts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: usize,
    pub(super) rejected: usize,
    pub(super) unknown: usize,
    pub(super) invalid: usize,
    /// How many candidates have each reason, in the order of [`Codes::NAMES`].
    reasons: [usize; Codes::NAMES.len()],
    /// The missing rows that prevent verdicts, up to a fixed number.
    pub(super) missing: HashSet<OpKey>,
}

impl Tally {
    /// Counts one candidate.
    pub(super) fn count(&mut self, codes: Codes) {
        *match codes.decision() {
            Decision::Accepted => &mut self.accepted,
            Decision::Rejected => &mut self.rejected,
            Decision::Unknown => &mut self.unknown,
            Decision::Invalid => &mut self.invalid,
        } += 1;
        if codes != Codes::default() {
            for (count, (code, _)) in self.reasons.iter_mut().zip(Codes::NAMES) {
                *count += usize::from(codes.contains(code));
            }
        }
    }

    /// Keeps the missing rows among the reasons of a verdict.
    pub(super) fn keep_missing(&mut self, reasons: &[Reason]) {
        for reason in reasons {
            if let Reason::Missing { missing } = reason
                && self.missing.len() < MOST_MISSING
            {
                self.missing.extend(missing.iter().cloned());
            }
        }
    }

    /// Adds the counts of another part of the candidates.
    pub(super) fn add(&mut self, other: Tally) {
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.unknown += other.unknown;
        self.invalid += other.invalid;
        self.reasons.iter_mut().zip(other.reasons).for_each(|(sum, count)| *sum += count);
        if self.missing.len() < MOST_MISSING {
            self.missing.extend(other.missing);
        }
    }

    pub(super) fn total(&self) -> usize {
        self.accepted + self.rejected + self.unknown + self.invalid
    }

    /// One line for people, and a second one with the counts by reason where a candidate is rejected.
    pub(super) fn summary(&self) -> String {
        let mut said = format!(
            "{}: {} accepted, {} rejected, {} unknown, {} invalid",
            count(self.total(), "candidate", "candidates"),
            self.accepted,
            self.rejected,
            self.unknown,
            self.invalid
        );
        if self.rejected > 0 {
            let limits = self.reasons.iter().zip(Codes::NAMES).filter(|(count, (code, _))| {
                **count > 0 && *code != Codes::MISSING && *code != Codes::INVALID
            });
            let by: Vec<String> =
                limits.map(|(count, (_, name))| format!("{count} by {name}")).collect();
            said.push_str(&format!("\nrejected {}", by.join(", ")));
        }
        said
    }
}

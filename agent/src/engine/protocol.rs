//! How a value is sampled and when there is enough of it: the numbers and the rules of the
//! measuring protocol, all pure.

use std::time::Duration;

use latlas_predict::stats::{self, QUIET, Visit};

use crate::worker::Pass;

const MIB: u64 = 1 << 20;

/// The largest share of a row's samples at the reference distance that may count although they were
/// disturbed. Disturbance makes samples slower: while half of them are good, the 10th percentile of all
/// still lies within the faster fifth of the good ones.
pub const MOST_DISTURBED: f64 = 0.5;

/// The widest interval, on each side over the value, at which a row may be done since the box cannot tell
/// apart more: a row that is less certain than this says so.
const WIDEST: f64 = 0.1;

/// Fewest calls of the smallest op to tell a box's resolution by.
const FEWEST_CALLS: usize = 20;

/// The numbers of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Protocol {
    /// Reuse distances of the curve, ascending, in bytes.
    pub curve: Vec<u64>,
    /// The one that is reported and that convergence is judged at.
    pub reference: u64,
    /// Most samples of one visit at the reference distance.
    pub reference_samples: u32,
    /// Other distances that every visit samples: those at which predictions read most rows, since a network's
    /// footprint is its weights and some MiB.
    pub read: Vec<u64>,
    /// Most samples of one visit at each of them.
    pub read_samples: u32,
    /// Most samples of one visit at each remaining distance that it samples.
    pub curve_samples: u32,
    /// How many of the remaining distances one visit samples; visits take turns. Once every distance has
    /// had three visits it is one: more visits are for the others then.
    pub curve_share: usize,
    /// How much time the samples of one visit at one distance may take, in microseconds, where fewer
    /// samples are possible.
    pub pass_micros: f64,
    /// Visits before convergence is first checked.
    pub first_check: u32,
    /// Factor from one check to the next: checking after each visit would stop on lucky streaks
    /// and cost coverage.
    pub check_growth: f64,
    /// The most visits.
    pub most_visits: u32,
    /// Half the width of the 95% interval, over the value, at which a row is done, unless the box's
    /// [`resolution`] ends it before.
    pub target: f64,
    /// The most time that one row may take.
    pub most_time: Duration,
    /// How long a visit may take before its worker counts as hung.
    pub visit_limit: Duration,
    /// Whether it is visited for as long as the other work of its run has [`OtherWork`] for it, converged or
    /// not.
    pub stays: bool,
    /// By which share all ops of this box move together between runs, in 95% of cases.
    pub between_runs: f64,
}

impl Protocol {
    /// The protocol for ops.
    pub fn for_ops(reference: u64) -> Protocol {
        let mut curve: Vec<u64> = [0, 2, 4, 8, 16, 32, 64].map(|m| m * MIB).to_vec();
        if !curve.contains(&reference) {
            curve.push(reference);
            curve.sort_unstable();
        }
        Protocol {
            curve,
            reference,
            read: [16, 32].map(|m| m * MIB).into_iter().filter(|&d| d != reference).collect(),
            reference_samples: 8,
            read_samples: 2,
            curve_samples: 2,
            curve_share: 2,
            pass_micros: 50_000.0,
            first_check: 6,
            check_growth: 1.5,
            most_visits: 60,
            target: 0.02,
            most_time: Duration::from_secs(60),
            visit_limit: Duration::from_secs(120),
            stays: false,
            between_runs: BETWEEN_RUNS,
        }
    }

    /// The protocol for whole networks: nothing is read between two inferences, since a network
    /// brings its own reuse distance. It stays while most of the run's rows are measured, and no longer:
    /// predictions from those rows are held against it, and the machine may be slower or faster before or
    /// after.
    pub fn for_networks() -> Protocol {
        Protocol {
            curve: vec![0],
            read: Vec::new(),
            reference_samples: 8,
            pass_micros: 200_000.0,
            stays: true,
            ..Protocol::for_ops(0)
        }
    }

    /// The protocol for ops that make no rows: a few samples at the reference distance, as long as the run goes on.
    pub fn for_gauges(reference: u64) -> Protocol {
        Protocol {
            curve: vec![reference],
            read: Vec::new(),
            reference_samples: 4,
            ..Protocol::for_ops(reference)
        }
    }

    /// For a device whose samples of an op are means over blocks of calls. They scatter less than single calls and
    /// take longer, so a visit takes fewer. Samples of networks are single calls everywhere.
    pub fn sample_blocks(&mut self) {
        if !self.stays {
            self.reference_samples = self.reference_samples.min(4);
            self.read_samples = 1;
            self.curve_samples = 1;
        }
    }

    /// For a runtime that cannot evict weights from the caches: the only distance is 0, which its run config has too.
    pub fn stay_hot(&mut self) {
        self.curve = vec![self.reference];
        self.read.clear();
    }

    /// What to sample in one visit, when one call takes about `micros` (unknown on the first visit):
    /// the reference distance and those that predictions read always, the others in turns, so that after `first_check`
    /// visits each has been visited at least twice. If the work is `host_bound` then, only the host's time is left to
    /// find out: it scatters from visit to visit while the device's times agree, so there are many short visits.
    pub fn passes(&self, visit: u32, micros: Option<f64>, host_bound: bool) -> Vec<Pass> {
        // A network's samples always have both times.
        if host_bound && !self.stays && visit >= self.first_check {
            let pass = Pass::new(self.reference, self.reference_samples);
            return vec![Pass { host_only: true, ..pass }];
        }
        let fitting = |most: u32| match micros {
            Some(micros) => ((self.pass_micros / micros) as u32).clamp(1, most),
            None => 1,
        };
        let always = |distance: &u64| *distance == self.reference || self.read.contains(distance);
        let others: Vec<u64> = self.curve.iter().copied().filter(|d| !always(d)).collect();
        let visit = visit as usize;
        // Visits up to here take full shares.
        let full = (3 * others.len()).div_ceil(self.curve_share);
        let (first, share) = match visit.checked_sub(full) {
            None => (visit * self.curve_share, self.curve_share),
            Some(later) => (full * self.curve_share + later, 1),
        };
        let turn = (first..first + share.min(others.len()))
            .map(|index| (others[index % others.len()], self.curve_samples));
        let read = self.read.iter().map(|&distance| (distance, self.read_samples));
        [(self.reference, self.reference_samples)]
            .into_iter()
            .chain(read)
            .chain(turn)
            .map(|(distance, most)| Pass::new(distance, fitting(most)))
            .collect()
    }

    /// Whether convergence is checked after this many visits.
    pub fn is_check(&self, visits: u32) -> bool {
        let mut check = f64::from(self.first_check);
        while check.round() < f64::from(visits) {
            check *= self.check_growth;
        }
        check.round() == f64::from(visits) || visits >= self.most_visits
    }

    /// Whether a row with these visits at the reference distance is done, on a box of this
    /// [`resolution`].
    pub fn decide(&self, visits: &[Visit], spent: Duration, resolution: f64) -> Decision {
        let enough = |quiet: Quiet| quiet.relative_width() <= self.enough(quiet.micros, resolution);
        if quiet(visits).is_some_and(enough) {
            return Decision::Converged;
        }
        if spent >= self.most_time || visits.len() >= self.most_visits as usize {
            return Decision::OutOfTime;
        }
        Decision::Continue
    }

    /// Half the width of the 95% interval, over the value, that is enough for a row of so many
    /// microseconds on a box of this [`resolution`].
    pub fn enough(&self, micros: f64, resolution: f64) -> f64 {
        self.target.max((resolution / micros).min(WIDEST))
    }
}

/// What one call on a box can tell apart, in microseconds: half the span in which half of its calls of the
/// smallest op lie. That op computes nothing, so the span is the box's own: its clock, its caches and what
/// else runs on it. 0 as long as there are too few calls to say.
pub fn resolution(calls: &[f64]) -> f64 {
    if calls.len() < FEWEST_CALLS {
        return 0.0;
    }
    let sorted = stats::sorted(calls);
    let [first, third] = [0.25, 0.75].map(|q| stats::quantile_of_sorted(&sorted, q));
    (third - first) / 2.0
}

/// What a machine does between two runs, minutes apart, that no statistic of one run can see: all ops
/// become faster or slower together. By so much, as a share, in 95% of cases on a shared two-core virtual
/// machine; what is assumed of a box as long as its own runs do not say.
pub const BETWEEN_RUNS: f64 = 0.035;

/// The interval that a row publishes: what its own samples say of a repetition, and the share by which
/// all ops move between runs. The two are independent, so their widths add up in squares.
pub fn published_interval(value: f64, (low, high): (f64, f64), between_runs: f64) -> (f64, f64) {
    let between = between_runs * value;
    let wider_low = value - (value - low).hypot(between);
    // Nothing takes no time, however wide the interval.
    (wider_low.max(value / 100.0), value + (high - value).hypot(between))
}

/// Visits between two visits to the reference ops: the length of a span.
pub const SPAN: usize = 10;

/// A span is suspect when its visits are slower than their own usual by more than this factor, at the
/// median.
const SUSPECT: f64 = 1.1;

/// Fewest visits with something to compare with, to say anything of a span.
const FEWEST_RATIOS: usize = 4;

/// Visits to a piece of work before its usual is known.
const USUAL_AFTER: usize = 3;

/// One span in so many may be made again, and one in any run.
const REDO_ONE_IN: u32 = 5;

/// How slow a visit was: its median over the median of the medians of the visits before it. None as
/// long as there are too few of those.
pub fn slowness(before: &[Visit], visit: &Visit) -> Option<f64> {
    let medians: Vec<f64> =
        before.iter().filter(|v| !v.is_empty()).map(|visit| stats::median(visit)).collect();
    (medians.len() >= USUAL_AFTER && !visit.is_empty())
        .then(|| stats::median(visit) / stats::median(&medians))
}

/// Whether the machine was disturbed during a span, from how slow its visits were ([`slowness`]), those
/// to the reference ops among them.
///
/// The measured ops themselves are the better part of the evidence: a neighbour who takes memory
/// bandwidth does not slow down a product of matrices in the cache, and all that an anchor says is how
/// the likes of it fared.
pub fn is_suspect(slowness: &[f64]) -> bool {
    slowness.len() >= FEWEST_RATIOS && stats::median(slowness) > SUSPECT
}

/// Fewest spans of a run of which it can be said how many were suspect.
const FEWEST_SPANS: u32 = 20;

/// A run is disturbed when more than one in so many of its spans were suspect.
const DISTURBED_ONE_IN: u32 = 8;

/// Whether the machine was disturbed all along a run. Single ops find quiet moments on such a machine. A whole network,
/// which takes longer, finds none, so the rows do not add up to it. (With two threads on two shared processors, 122 of
/// 657 spans were suspect in one hour and predictions were 20% too low; in another hour it was 4 of 618, and the error
/// 3%.)
pub fn is_disturbed_run(spans: u32, suspect: u32) -> bool {
    spans >= FEWEST_SPANS && suspect > spans / DISTURBED_ONE_IN
}

/// Whether one more span may be made again, of `spans` so far of which `redone` were.
pub fn may_redo(spans: u32, redone: u32) -> bool {
    redone <= spans / REDO_ONE_IN
}

/// The other work of a run, for work that [stays](Protocol::stays).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherWork {
    /// There was less of it than of the work that stays.
    Negligible,
    /// More than half of it is still being measured.
    Pending,
    /// At least half of it has ended. The rest may take much longer, under other conditions.
    MostlyDone,
}

/// The state of the other work of a run, by the number of jobs that stay, of others at the start, and of others
/// that are left. Fewer others than jobs that stay are negligible: a few rows that end at once must not end many
/// networks before they have converged.
pub fn other_work(staying: usize, others: usize, left: usize) -> OtherWork {
    if others == 0 || others < staying {
        OtherWork::Negligible
    } else if 2 * left > others {
        OtherWork::Pending
    } else {
        OtherWork::MostlyDone
    }
}

/// What to do with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// More visits.
    Continue,
    /// Its interval is narrow enough.
    Converged,
    /// Its interval is not, and there is no time left.
    OutOfTime,
}

/// The quiet quantile of some visits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quiet {
    /// Its value in microseconds.
    pub micros: f64,
    /// Half the width of its 95% interval in microseconds.
    pub half_width: f64,
}

impl Quiet {
    /// Half the width over the value.
    pub fn relative_width(self) -> f64 {
        self.half_width / self.micros
    }
}

/// The quiet quantile of visits, once there are two.
pub fn quiet(visits: &[Visit]) -> Option<Quiet> {
    let (low, high) = stats::quantile_interval(visits, QUIET)?;
    let micros = stats::quantile_of_sorted(&stats::sorted(&visits.concat()), QUIET);
    Some(Quiet { micros, half_width: (high - low) / 2.0 })
}

#[cfg(test)]
mod tests;

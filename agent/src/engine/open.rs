//! A job in progress: its visits so far, and its outcome.

use std::time::Duration;

use latlas_predict::stats::{self, QUIET, Visit};
use latlas_shared::samples::Samples;
use latlas_shared::{CurvePoint, Latency, Status};

use super::protocol::{self, Decision, OtherWork};
use super::{Halt, Job, MOST_DEATHS, Outcome};
use crate::worker::{Fault, Pass, Visited};

/// A job in progress.
pub(super) struct Open {
    pub(super) index: usize,
    pub(super) job: Job,
    /// Visits, per distance of the curve.
    samples: Vec<Vec<Visit>>,
    /// Visits of the host's times, over all distances: the host does not care where weights are. Empty where issuing
    /// and running are one.
    host: Vec<Visit>,
    /// The most calls of one sample, per distance.
    calls: Vec<u32>,
    pub(super) spent: Duration,
    deaths: u32,
    rejected: u32,
    /// Samples at the reference distance that count, and how many of them were disturbed.
    counted: u32,
    disturbed: u32,
    peak_memory_bytes: Option<u64>,
}

impl Open {
    pub(super) fn new((index, job): (usize, Job)) -> Open {
        let samples = vec![Vec::new(); job.protocol.curve.len()];
        Open {
            index,
            job,
            host: Vec::new(),
            calls: vec![1; samples.len()],
            samples,
            spent: Duration::ZERO,
            deaths: 0,
            rejected: 0,
            counted: 0,
            disturbed: 0,
            peak_memory_bytes: None,
        }
    }

    /// Discards a visit.
    pub(super) fn set_aside(&mut self, result: &Result<Visited, Fault>) {
        match result {
            Ok(visited) => {
                let samples = visited.passes.iter();
                let count: u32 = samples.map(|s| s.count() + s.rejected).sum();
                self.rejected = self.rejected.saturating_add(count);
            }
            // The death of the worker may have been the disturbance, so it counts.
            Err(Fault::Died(_)) => self.deaths += 1,
            Err(_) => {}
        }
    }

    /// Counts a visit, as disturbed if its span is suspect. Returns an outcome if it was the last visit.
    pub(super) fn settle(
        &mut self,
        passes: &[Pass],
        result: Result<Visited, Fault>,
        suspect: bool,
    ) -> Option<Outcome> {
        match result {
            Ok(mut visited) => {
                if suspect {
                    for samples in &mut visited.passes {
                        samples.disturbed = samples.count();
                    }
                }
                self.take(passes, visited);
            }
            Err(fault @ Fault::Died(_)) => {
                self.deaths += 1;
                if self.deaths >= MOST_DEATHS {
                    return Some(self.failed(&fault));
                }
            }
            Err(fault) => return Some(self.failed(&fault)),
        }
        None
    }

    /// The outcome, if the job ends now, on a box with this [`protocol::resolution`].
    pub(super) fn ending(
        &self,
        round: u32,
        other_work: OtherWork,
        resolution: f64,
    ) -> Option<Outcome> {
        if !self.job.protocol.is_check(round) && self.spent < self.job.protocol.most_time {
            return None;
        }
        let stays = self.job.protocol.stays;
        match self.decide(resolution) {
            Decision::Converged if stays && other_work == OtherWork::Pending => None,
            Decision::Converged => Some(self.measured(Status::Ok, None)),
            Decision::Continue if !(stays && other_work == OtherWork::MostlyDone) => None,
            decision @ (Decision::Continue | Decision::OutOfTime) => {
                let reason = match self.width(resolution) {
                    Some(width) => format!("after {}, {width}", self.limit(decision)),
                    None => "there was time for one visit only, so there is no interval".into(),
                };
                Some(self.measured(Status::NotConverged, Some(reason)))
            }
        }
    }

    pub(super) fn take(&mut self, passes: &[Pass], visited: Visited) {
        self.peak_memory_bytes = self.peak_memory_bytes.max(visited.peak_memory_bytes);
        self.host.extend(host_visit(&visited));
        for (pass, samples) in passes.iter().zip(visited.passes) {
            self.rejected += samples.rejected;
            if pass.reuse_distance_bytes == self.job.protocol.reference {
                self.counted += samples.count();
                self.disturbed += samples.disturbed;
            }
            if !pass.host_only {
                let place = self.place(pass.reuse_distance_bytes);
                self.calls[place] = self.calls[place].max(samples.calls);
                self.samples[place].push(samples.micros);
            }
        }
    }

    /// Index of a distance in the curve.
    fn place(&self, distance: u64) -> usize {
        let place = self.job.protocol.curve.iter().position(|&d| d == distance);
        place.expect("passes are made of the curve's distances")
    }

    /// The visits that it had when it ended without having converged, and why it had no more.
    fn limit(&self, decision: Decision) -> String {
        let (visits, protocol) = (self.bounding().len(), &self.job.protocol);
        if decision == Decision::Continue {
            format!("{visits} visits until most of the run's rows were done")
        } else if visits >= protocol.most_visits as usize {
            format!("{visits} visits, the most of a row")
        } else {
            format!("{visits} visits in {} s, the most time of a row", protocol.most_time.as_secs())
        }
    }

    /// How far it is from convergence; None where there is no interval.
    fn width(&self, resolution: f64) -> Option<String> {
        let quiet = protocol::quiet(self.bounding())?;
        Some(format!(
            "the 95% interval is still {:.1}% wide on each side, and {:.1}% is asked for",
            100.0 * quiet.relative_width(),
            100.0 * self.job.protocol.enough(quiet.micros, resolution)
        ))
    }

    /// The outcome in a run that was halted, if there is one.
    pub(super) fn halted(&self, halt: Halt, resolution: f64) -> Option<Outcome> {
        let protocol = &self.job.protocol;
        let checked = self.bounding().len() >= protocol.first_check as usize;
        let converged = checked && self.decide(resolution) == Decision::Converged;
        let ended = match halt {
            Halt::TimeOver => Some("the time of the run was over"),
            Halt::Stopped => Some("the run was stopped"),
            Halt::No | Halt::Interrupted => None,
        };
        if converged && (protocol.stays || ended.is_some()) {
            // It only stayed for the sake of other work, or would have ended at its next check.
            return Some(self.measured(Status::Ok, None));
        }
        let (ended, width) = (ended?, self.width(resolution)?);
        let reason = format!("{ended}: after {} visits {width}", self.bounding().len());
        Some(self.measured(Status::NotConverged, Some(reason)))
    }

    fn decide(&self, resolution: f64) -> Decision {
        self.job.protocol.decide(self.bounding(), self.spent, resolution)
    }

    /// The visits of the larger of the host's and the device's time at the reference distance: what a call costs.
    pub(super) fn bounding(&self) -> &[Visit] {
        if self.is_host_bound() { &self.host } else { self.at_reference() }
    }

    pub(super) fn is_host_bound(&self) -> bool {
        is_larger(&self.host.concat(), &self.at_reference().concat())
    }

    pub(super) fn at_reference(&self) -> &[Visit] {
        &self.samples[self.place(self.job.protocol.reference)]
    }

    pub(super) fn failed(&self, fault: &Fault) -> Outcome {
        Outcome {
            job: self.index,
            status: Status::Failed,
            reason: Some(fault.to_string()),
            failure_kind: Some(fault.kind()),
            latency: None,
            sustained: None,
            peak_memory_bytes: self.peak_memory_bytes,
            rejected: self.rejected,
            samples: self.packed(),
            energy: None,
            references: vec![],
        }
    }

    pub(super) fn measured(&self, status: Status, reason: Option<String>) -> Outcome {
        let share = f64::from(self.disturbed) / f64::from(self.counted);
        // Disturbed samples can converge to the disturbance instead of the op.
        let (status, reason) = if share > protocol::MOST_DISTURBED {
            let reason = format!(
                "{:.0}% of its samples were taken while the machine was disturbed, and no better ones came",
                100.0 * share
            );
            (Status::Degraded, Some(reason))
        } else {
            (status, reason)
        };
        let between_runs = self.job.protocol.between_runs;
        let host = (!self.host.is_empty()).then(|| interval(&self.host, between_runs));
        let curve = self
            .job
            .protocol
            .curve
            .iter()
            .enumerate()
            // A row that ran out of time early may have no visit at some distances.
            .filter(|&(place, _)| !self.samples[place].is_empty())
            .map(|(place, &distance)| {
                let point = point(distance, &self.samples[place], between_runs);
                let calls_per_sample = self.calls[place];
                CurvePoint { calls_per_sample, ..point }.with_host(host)
            })
            .collect();
        Outcome {
            job: self.index,
            status,
            reason,
            failure_kind: None,
            latency: Some(Latency { curve }),
            sustained: None,
            peak_memory_bytes: self.peak_memory_bytes,
            rejected: self.rejected,
            samples: self.packed(),
            energy: None,
            references: vec![],
        }
    }

    fn packed(&self) -> Samples {
        let curve = self.job.protocol.curve.iter().copied();
        Samples {
            micros: curve.zip(self.samples.iter().cloned()).collect(),
            host_micros: self.host.clone(),
        }
    }
}

/// The host's times of a visit; none where issuing and running are one.
fn host_visit(visited: &Visited) -> Option<Visit> {
    let times = visited.passes.iter().flat_map(|samples| samples.host_micros.iter().copied());
    Some(times.collect::<Visit>()).filter(|visit| !visit.is_empty())
}

/// Whether the host's times are larger than the device's. Where only one of them was sampled, that one is.
fn is_larger(host: &[f64], device: &[f64]) -> bool {
    !host.is_empty() && (device.is_empty() || stats::median(host) > stats::median(device))
}

/// What a call costs in a visit whose samples at the reference distance are these: the larger of the host's and the
/// device's times.
pub(super) fn cost_of(visited: &Visited, at_reference: &[f64]) -> Visit {
    host_visit(visited)
        .filter(|host| is_larger(host, at_reference))
        .unwrap_or_else(|| at_reference.to_vec())
}

/// The quiet quantile of some visits and its published interval: lower end, value, upper end.
fn interval(visits: &[Visit], between_runs: f64) -> (f64, f64, f64) {
    let pooled = stats::sorted(&visits.concat());
    let quiet = stats::quantile_of_sorted(&pooled, QUIET);
    // A single visit has its samples and no variation between visits.
    let own =
        stats::repetition_interval(visits, QUIET).unwrap_or((pooled[0], pooled[pooled.len() - 1]));
    let (low, high) = protocol::published_interval(quiet, own, between_runs);
    (low, quiet, high)
}

/// Summarizes the visits at one distance.
pub(super) fn point(reuse_distance_bytes: u64, visits: &[Visit], between_runs: f64) -> CurvePoint {
    let (low, quiet, high) = interval(visits, between_runs);
    let pooled = stats::sorted(&visits.concat());
    CurvePoint {
        reuse_distance_bytes,
        quiet_micros: quiet,
        ci95_low_micros: low,
        ci95_high_micros: high,
        median_micros: stats::quantile_of_sorted(&pooled, 0.5),
        samples: u32::try_from(pooled.len()).unwrap_or(u32::MAX),
        visits: u32::try_from(visits.len()).unwrap_or(u32::MAX),
        calls_per_sample: 1,
        host_micros: None,
        host_ci95_low_micros: None,
        host_ci95_high_micros: None,
    }
}

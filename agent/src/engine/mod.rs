//! The measuring engine: visits to many pieces of work, randomly interleaved over a whole run, until
//! each has an interval that is narrow enough.
//!
//! A machine that is shared is slow for seconds at a time. Samples that were taken in one go agree
//! with one another and are wrong together; so each piece of work is visited many times for a few
//! milliseconds, and convergence is judged between visits.

mod protocol;

use std::time::{Duration, Instant};

use anyhow::Result;
use latlas_shared::samples::Samples;
use latlas_shared::stats::{self, QUIET, Visit};
use latlas_shared::{CurvePoint, Energy, Latency, Status};

pub use protocol::{Protocol, relative_width};

use crate::system::energy::{self, Meter};
use crate::worker::{Fault, Pass, Visited, Work, WorkerProcess, WorkerSettings};
use protocol::Decision;

/// A worker that died may have been killed by somebody else: the row is tried once more.
const MOST_DEATHS: u32 = 2;

/// One piece of work to measure.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to run.
    pub work: Work,
    /// How to sample it.
    pub protocol: Protocol,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Index of the job.
    pub job: usize,
    /// How far the number can be trusted.
    pub status: Status,
    /// Why the status is not `ok`.
    pub reason: Option<String>,
    /// The number.
    pub latency: Option<Latency>,
    /// Most memory that the worker held while it ran this, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Samples that were set aside.
    pub rejected: u32,
    /// The samples that count.
    pub samples: Samples,
    /// Energy of one call, where something measured it.
    pub energy: Option<Energy>,
}

/// A job on its way.
struct Open {
    index: usize,
    job: Job,
    /// Per distance of the curve, the visits.
    samples: Vec<Vec<Visit>>,
    host_samples: Vec<Vec<Visit>>,
    spent: Duration,
    deaths: u32,
    rejected: u32,
    /// Samples at the reference distance that count although they were disturbed.
    disturbed: u32,
    peak_memory_bytes: Option<u64>,
    ops_micros: f64,
    reading_micros: f64,
}

/// Starts a worker; a seam for tests.
pub trait Visitor {
    /// Visits one piece of work.
    ///
    /// # Errors
    /// The outer error means that nothing can be measured at all, the inner one that this work gave
    /// no samples.
    fn visit(&mut self, job: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>>;

    /// The energy of one call, where something measures it. Asked once, of a job that has a latency.
    ///
    /// # Errors
    /// When nothing can be measured at all.
    fn energy(&mut self, _job: &Job) -> Result<Option<Energy>> {
        Ok(None)
    }
}

/// Worker processes, one at a time, started when needed.
pub struct Workers {
    settings: WorkerSettings,
    running: Option<WorkerProcess>,
    meter: Option<Box<dyn Meter>>,
}

impl Workers {
    /// Workers with these settings.
    pub fn new(settings: WorkerSettings) -> Workers {
        Workers { settings, running: None, meter: None }
    }

    /// The same, with a sensor that tells the energy of each row.
    pub fn with_meter(mut self, meter: Option<Box<dyn Meter>>) -> Workers {
        self.meter = meter;
        self
    }

    fn running(&mut self) -> Result<&mut WorkerProcess> {
        if self.running.is_none() {
            // A worker that is killed while it starts says nothing about the next one.
            let started = WorkerProcess::start(&self.settings)
                .or_else(|_| WorkerProcess::start(&self.settings))?;
            self.running = Some(started);
        }
        let Some(worker) = &mut self.running else { unreachable!("it was just started") };
        Ok(worker)
    }
}

impl Visitor for Workers {
    fn visit(&mut self, job: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>> {
        let worker = self.running()?;
        let result = worker.visit(&job.work, passes, job.protocol.visit_limit);
        if matches!(result, Err(Fault::Died(_) | Fault::Hung(_))) {
            self.running = None;
        }
        Ok(result)
    }

    fn energy(&mut self, job: &Job) -> Result<Option<Energy>> {
        let Some(mut meter) = self.meter.take() else { return Ok(None) };
        let worker = self.running()?;
        let energy = energy::run(&mut *meter, &energy::Plan::default(), |seconds| {
            Ok(worker.keep_busy(&job.work, seconds, job.protocol.visit_limit)?)
        });
        self.meter = Some(meter);
        // The row has its latency, and a fault now costs no more than its energy.
        Ok(energy.unwrap_or_else(|fault| {
            tracing::warn!("no energy: {fault}");
            self.running = None;
            None
        }))
    }
}

/// Where the time of a run went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// All of it.
    pub wall: Duration,
    /// In producers and ops, warm-up included.
    pub ops: Duration,
    /// In reading other memory between samples, which makes the reuse distance.
    pub reading: Duration,
}

impl Spent {
    fn percent(&self, part: Duration) -> f64 {
        100.0 * part.as_secs_f64() / self.wall.as_secs_f64()
    }
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rest = self.wall.saturating_sub(self.ops + self.reading);
        write!(
            f,
            "{:.1} s: {:.1}% running ops, {:.1}% reading memory to make the reuse distance, {:.1}% \
             the engine's own",
            self.wall.as_secs_f64(),
            self.percent(self.ops),
            self.percent(self.reading),
            self.percent(rest)
        )
    }
}

/// Measures jobs and hands over each outcome as soon as it is known.
///
/// `seed` fixes the order of visits. When `stop` says so the run ends before its next visit; what
/// had not ended by then is not handed over.
///
/// # Errors
/// When no worker can be started.
pub fn measure(
    jobs: Vec<Job>,
    visitor: &mut dyn Visitor,
    seed: u64,
    stop: &dyn Fn() -> bool,
    done: &mut dyn FnMut(Outcome),
) -> Result<Spent> {
    let start = Instant::now();
    let (mut ops_micros, mut reading_micros) = (0.0, 0.0);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut open: Vec<Open> = jobs.into_iter().enumerate().map(Open::new).collect();
    let mut round = 0;
    'run: while !open.is_empty() {
        round += 1;
        rng.shuffle(&mut open);
        let mut still_open = Vec::with_capacity(open.len());
        for mut job in open {
            if stop() {
                break 'run;
            }
            match job.visit(visitor, round)? {
                Some(mut outcome) => {
                    ops_micros += job.ops_micros;
                    reading_micros += job.reading_micros;
                    if outcome.latency.is_some() {
                        outcome.energy = visitor.energy(&job.job)?;
                    }
                    done(outcome);
                }
                None => still_open.push(job),
            }
        }
        open = still_open;
    }
    let of_micros = |micros: f64| Duration::from_secs_f64(micros / 1e6);
    Ok(Spent {
        wall: start.elapsed(),
        ops: of_micros(ops_micros),
        reading: of_micros(reading_micros),
    })
}

impl Open {
    fn new((index, job): (usize, Job)) -> Open {
        let samples = vec![Vec::new(); job.protocol.curve.len()];
        Open {
            index,
            job,
            host_samples: samples.clone(),
            samples,
            spent: Duration::ZERO,
            deaths: 0,
            rejected: 0,
            disturbed: 0,
            peak_memory_bytes: None,
            ops_micros: 0.0,
            reading_micros: 0.0,
        }
    }

    /// Makes one visit, and ends the job when it is time to.
    fn visit(&mut self, visitor: &mut dyn Visitor, round: u32) -> Result<Option<Outcome>> {
        let start = Instant::now();
        let typical = self.at_reference().last().map(|visit| stats::median(visit));
        let passes = self.job.protocol.passes(round - 1, typical);
        let result = visitor.visit(&self.job, &passes)?;
        self.spent += start.elapsed();
        match result {
            Ok(visited) => self.take(&passes, visited),
            Err(fault @ Fault::Died(_)) => {
                self.deaths += 1;
                if self.deaths >= MOST_DEATHS {
                    return Ok(Some(self.failed(&fault)));
                }
            }
            Err(fault) => return Ok(Some(self.failed(&fault))),
        }
        if !self.job.protocol.is_check(round) && self.spent < self.job.protocol.most_time {
            return Ok(None);
        }
        let protocol = &self.job.protocol;
        Ok(match protocol.decide(self.at_reference(), self.spent) {
            Decision::Continue => None,
            Decision::Converged => Some(self.measured(Status::Ok, None)),
            Decision::OutOfTime => {
                let width = relative_width(self.at_reference());
                let reason = match width {
                    Some(width) => format!(
                        "after {} visits the 95% interval is still {:.1}% wide on each side",
                        self.at_reference().len(),
                        100.0 * width
                    ),
                    None => "there was time for one visit only, so there is no interval".into(),
                };
                Some(self.measured(Status::NotConverged, Some(reason)))
            }
        })
    }

    fn take(&mut self, passes: &[Pass], visited: Visited) {
        self.peak_memory_bytes = self.peak_memory_bytes.max(visited.peak_memory_bytes);
        self.ops_micros += visited.ops_micros;
        self.reading_micros += visited.reading_micros;
        for (pass, samples) in passes.iter().zip(visited.passes) {
            self.rejected += samples.rejected;
            if pass.reuse_distance_bytes == self.job.protocol.reference {
                self.disturbed += samples.disturbed;
            }
            let place = self.place(pass.reuse_distance_bytes);
            self.samples[place].push(samples.micros);
            self.host_samples[place].push(samples.host_micros);
        }
    }

    /// Index of a distance in the curve.
    fn place(&self, distance: u64) -> usize {
        let place = self.job.protocol.curve.iter().position(|&d| d == distance);
        place.expect("passes are made of the curve's distances")
    }

    fn at_reference(&self) -> &[Visit] {
        &self.samples[self.place(self.job.protocol.reference)]
    }

    fn failed(&self, fault: &Fault) -> Outcome {
        Outcome {
            job: self.index,
            status: Status::Failed,
            reason: Some(fault.to_string()),
            latency: None,
            peak_memory_bytes: self.peak_memory_bytes,
            rejected: self.rejected,
            samples: self.packed(),
            energy: None,
        }
    }

    fn measured(&self, status: Status, reason: Option<String>) -> Outcome {
        let count = self.at_reference().iter().map(Vec::len).sum::<usize>();
        let share = f64::from(self.disturbed) / count as f64;
        // Converged on disturbed samples is not converged on the op.
        let (status, reason) = if share > protocol::MOST_DISTURBED {
            let reason = format!(
                "{:.0}% of its samples were disturbed by other processes, and no better ones came",
                100.0 * share
            );
            (Status::Degraded, Some(reason))
        } else {
            (status, reason)
        };
        let curve = self
            .job
            .protocol
            .curve
            .iter()
            .zip(self.samples.iter().zip(&self.host_samples))
            // A row that ran out of time early may not have come round to every distance.
            .filter(|(_, (visits, _))| !visits.is_empty())
            .map(|(&distance, (visits, host))| point(distance, visits, host))
            .collect();
        Outcome {
            job: self.index,
            status,
            reason,
            latency: Some(Latency { curve }),
            peak_memory_bytes: self.peak_memory_bytes,
            rejected: self.rejected,
            samples: self.packed(),
            energy: None,
        }
    }

    fn packed(&self) -> Samples {
        self.job.protocol.curve.iter().copied().zip(self.samples.iter().cloned()).collect()
    }
}

/// Summarizes the visits at one distance.
fn point(reuse_distance_bytes: u64, visits: &[Visit], host: &[Visit]) -> CurvePoint {
    let pooled = stats::sorted(&visits.concat());
    let quiet = stats::quantile_of_sorted(&pooled, QUIET);
    // With a single visit nothing is known but the samples themselves.
    let own =
        stats::repetition_interval(visits, QUIET).unwrap_or((pooled[0], pooled[pooled.len() - 1]));
    let (low, high) = protocol::published_interval(quiet, own);
    let host = stats::sorted(&host.concat());
    CurvePoint {
        reuse_distance_bytes,
        quiet_micros: quiet,
        ci95_low_micros: low,
        ci95_high_micros: high,
        median_micros: stats::quantile_of_sorted(&pooled, 0.5),
        samples: u32::try_from(pooled.len()).unwrap_or(u32::MAX),
        visits: u32::try_from(visits.len()).unwrap_or(u32::MAX),
        host_micros: (!host.is_empty()).then(|| stats::quantile_of_sorted(&host, QUIET)),
    }
}

#[cfg(test)]
mod tests;

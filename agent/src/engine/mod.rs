//! The measuring engine. It visits many pieces of work, randomly interleaved over a whole run, until the interval of
//! each is narrow enough.
//!
//! A shared machine is slow for seconds at a time. Samples that are taken without a break agree with one another and
//! are wrong together. So each piece of work is visited many times for a few milliseconds, and convergence is judged
//! between visits.
//!
//! Visits come in spans. Each span ends with a visit to each reference op and to the smallest op. A span whose visits
//! are slow together is made again, within bounds. If it is slow again, it counts as disturbed.

mod open;
mod protocol;
mod sustained;
mod workers;

use std::mem::take;
use std::time::{Duration, Instant};

use anyhow::Result;
use latlas_predict::stats::{self, QUIET};
use latlas_shared::samples::Samples;
use latlas_shared::{Energy, FailureKind, Latency, Status, Sustained};

pub use protocol::Protocol;
pub use sustained::REST;
pub use workers::{Launch, Workers};

use crate::system::energy::Busy;
use crate::worker::{Fault, Pass, Visited, Work};
use open::Open;
use protocol::OtherWork;

/// Another program may have killed a worker, so the row is tried once more.
const MOST_DEATHS: u32 = 2;

/// One piece of work to measure.
#[derive(Debug, Clone)]
pub struct Job {
    /// The op or network to run.
    pub work: Work,
    /// The rules of its sampling.
    pub protocol: Protocol,
    /// How long it runs without a pause, in seconds. Such a job is not visited: it runs alone, after all others.
    pub sustained_seconds: Option<u32>,
}

impl Job {
    /// A job that is visited.
    pub fn new(work: Work, protocol: Protocol) -> Job {
        Job { work, protocol, sustained_seconds: None }
    }
}

/// The result of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Index of the job.
    pub job: usize,
    /// How far the number can be trusted.
    pub status: Status,
    /// Why the status is not `ok`.
    pub reason: Option<String>,
    /// The kind of failure, if there is no number.
    pub failure_kind: Option<FailureKind>,
    /// The number.
    pub latency: Option<Latency>,
    /// The latency at both ends of a sustained run.
    pub sustained: Option<Sustained>,
    /// Peak memory of the worker while it ran this job, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Samples that were set aside.
    pub rejected: u32,
    /// The samples that count.
    pub samples: Samples,
    /// Energy of one call, if it was measured.
    pub energy: Option<Energy>,
    /// The quiet quantile of each reference op so far, in microseconds; None for one with too few visits.
    pub references: Vec<Option<f64>>,
}

/// Ops that are visited throughout a run and make no rows.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Reference ops, which show the state of the machine.
    pub references: Vec<Job>,
    /// An op that computes nothing. The differences between its calls are the resolution of the box.
    pub smallest: Option<Job>,
}

/// A source of samples: worker processes, or the script of a test.
pub trait Sampler {
    /// Visits one piece of work.
    ///
    /// # Errors
    /// The outer error means that nothing can be measured at all, the inner one that this work gave no samples.
    fn visit(&mut self, job: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>>;

    /// The energy of one call, if there is a sensor. Called once for each job that has a latency.
    ///
    /// # Errors
    /// When nothing can be measured at all.
    fn energy(&mut self, _job: &Job) -> Result<Option<Energy>> {
        Ok(None)
    }

    /// Runs one piece of work repeatedly for about this many seconds.
    ///
    /// # Errors
    /// As for [`Sampler::visit`].
    fn keep_busy(&mut self, _job: &Job, _seconds: f64) -> Result<Result<Busy, Fault>> {
        Ok(Err(Fault::Refused("this device makes no sustained runs".to_owned())))
    }

    /// Whether the device may be warm from other work.
    fn is_warm(&self) -> bool {
        true
    }

    /// Lets the device rest.
    fn rest(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The time of a run, by purpose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// The whole run.
    pub wall: Duration,
    /// Making of weights and inputs.
    pub preparing: Duration,
    /// Producers and ops, warm-up included.
    pub ops: Duration,
    /// Reading of other memory between samples, which makes the reuse distance.
    pub reading: Duration,
    /// Number of spans.
    pub spans: u32,
    /// Number of spans that were made again after a disturbance.
    pub redone: u32,
}

impl Spent {
    fn percent(&self, part: Duration) -> f64 {
        100.0 * part.as_secs_f64() / self.wall.as_secs_f64()
    }
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rest = self.wall.saturating_sub(self.preparing + self.ops + self.reading);
        write!(
            f,
            "{:.1} s: {:.1}% preparing ops, {:.1}% running them, {:.1}% reading memory to make the reuse distance, \
             {:.1}% the engine's own; {} of {} spans made again",
            self.wall.as_secs_f64(),
            self.percent(self.preparing),
            self.percent(self.ops),
            self.percent(self.reading),
            self.percent(rest),
            self.redone,
            self.spans
        )
    }
}

/// Fewest visits to a reference op from which its quiet quantile is computed.
const REFERENCE_VISITS: usize = 6;

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// It does.
    No,
    /// It ends now. An unfinished job has no outcome.
    Interrupted,
    /// Its time is over. An unfinished job has the outcome of its visits so far, if there are two.
    TimeOver,
    /// A person has stopped it, and waits. Outcomes are as for [`Halt::TimeOver`], without energy.
    Stopped,
}

/// Measures jobs and passes each outcome to `done` as soon as it is known.
///
/// Sustained jobs run alone after all others, since their heat would disturb these.
///
/// `gauges` are visited along with the jobs. `seed` fixes the order of visits. `halt` is called before each visit.
///
/// # Errors
/// When no worker can be started.
pub fn measure(
    jobs: Vec<Job>,
    gauges: Gauges,
    sampler: &mut dyn Sampler,
    seed: u64,
    halt: &dyn Fn() -> Halt,
    done: &mut dyn FnMut(Outcome),
) -> Result<Spent> {
    let open_jobs = |jobs: Vec<Job>| jobs.into_iter().enumerate().map(Open::new).collect();
    let mut run = Run {
        references: open_jobs(gauges.references),
        smallest: gauges.smallest.map(|job| Open::new((0, job))),
        sampler,
        halt,
        halted: Halt::No,
        spans: 0,
        suspect_spans: 0,
        redone: 0,
        preparing_micros: 0.0,
        ops_micros: 0.0,
        reading_micros: 0.0,
    };
    let start = Instant::now();
    let mut rng = fastrand::Rng::with_seed(seed);
    let (sustained, jobs): (Vec<Open>, Vec<Open>) =
        open_jobs(jobs).into_iter().partition(|open: &Open| open.job.sustained_seconds.is_some());
    let mut open: Vec<Open> = jobs;
    let others = |open: &[Open]| open.iter().filter(|job| !job.job.protocol.stays).count();
    let (all, all_others) = (open.len(), others(&open));
    let mut round = 0;
    while run.halted == Halt::No && !open.is_empty() {
        round += 1;
        let other_work = protocol::other_work(all - all_others, all_others, others(&open));
        rng.shuffle(&mut open);
        let mut due = open.into_iter();
        let mut still_open = Vec::with_capacity(due.len());
        while due.len() > 0 && run.halted == Halt::No {
            let mut span: Vec<Open> = due.by_ref().take(protocol::SPAN).collect();
            let Some(outcomes) = run.span(&mut span, round, other_work)? else {
                still_open.extend(span);
                continue;
            };
            for (job, outcome) in span.into_iter().zip(outcomes) {
                match outcome {
                    Some(outcome) => done(run.completed(&job, outcome)?),
                    None => still_open.push(job),
                }
            }
        }
        still_open.extend(due);
        open = still_open;
    }
    let resolution = run.resolution();
    for job in open {
        if let Some(outcome) = job.halted(run.halted, resolution) {
            done(run.completed(&job, outcome)?);
        }
    }
    for job in sustained {
        run.sustained(&job, done)?;
    }
    Ok(run.spent(start.elapsed()))
}

/// The state that all spans of a run share.
struct Run<'a> {
    references: Vec<Open>,
    smallest: Option<Open>,
    sampler: &'a mut dyn Sampler,
    halt: &'a dyn Fn() -> Halt,
    halted: Halt,
    spans: u32,
    suspect_spans: u32,
    redone: u32,
    preparing_micros: f64,
    ops_micros: f64,
    reading_micros: f64,
}

/// A visit that does not count yet.
type Pending = (Vec<Pass>, Result<Visited, Fault>);

impl Run<'_> {
    /// Visits each job of a span and the reference ops, again if the machine was disturbed. Returns the outcome of each
    /// job that has ended. None if the run has to stop.
    fn span(
        &mut self,
        jobs: &mut [Open],
        round: u32,
        other_work: OtherWork,
    ) -> Result<Option<Vec<Option<Outcome>>>> {
        self.spans += 1;
        let Some(mut pending) = self.visits(jobs, round)? else { return Ok(None) };
        let mut suspect = self.is_suspect(jobs, &pending);
        self.suspect_spans += u32::from(suspect);
        if suspect && protocol::may_redo(self.spans, self.redone) {
            self.redone += 1;
            for (job, (_, result)) in jobs.iter_mut().zip(&pending) {
                job.set_aside(result);
            }
            let Some(again) = self.visits(jobs, round)? else { return Ok(None) };
            pending = again;
            suspect = self.is_suspect(jobs, &pending);
        }
        let resolution = self.resolution();
        Ok(Some(
            jobs.iter_mut()
                .zip(pending)
                .map(|(job, (passes, result))| {
                    job.settle(&passes, result, suspect)
                        .or_else(|| job.ending(round, other_work, resolution))
                })
                .collect(),
        ))
    }

    fn visits(&mut self, jobs: &mut [Open], round: u32) -> Result<Option<Vec<Pending>>> {
        let mut pending = Vec::with_capacity(jobs.len());
        for job in jobs {
            if self.halts() {
                return Ok(None);
            }
            pending.push(self.visit(job, round)?);
        }
        let (mut references, mut smallest) = (take(&mut self.references), self.smallest.take());
        let visited = self.read(references.iter_mut().chain(&mut smallest), round);
        (self.references, self.smallest) = (references, smallest);
        Ok(visited?.map(|()| pending))
    }

    /// Visits the gauges. None if the run has to stop.
    fn read<'b>(
        &mut self,
        gauges: impl Iterator<Item = &'b mut Open>,
        round: u32,
    ) -> Result<Option<()>> {
        for gauge in gauges {
            if self.halts() {
                return Ok(None);
            }
            let (passes, result) = self.visit(gauge, round)?;
            // A gauge that this device cannot run is left out, and nothing else depends on it.
            if let Ok(visited) = result {
                gauge.take(&passes, visited);
            }
        }
        Ok(Some(()))
    }

    fn halts(&mut self) -> bool {
        self.halted = (self.halt)();
        self.halted != Halt::No
    }

    fn visit(&mut self, job: &mut Open, round: u32) -> Result<Pending> {
        let start = Instant::now();
        let typical = job.at_reference().last().map(|visit| stats::median(visit));
        let passes = job.job.protocol.passes(round - 1, typical, job.is_host_bound());
        let result = self.sampler.visit(&job.job, &passes)?;
        let preparing = result.as_ref().map_or(0.0, |visited| visited.preparing_micros / 1e6);
        // Some runtimes build a model for minutes, which is no time for samples.
        job.spent += start.elapsed().saturating_sub(Duration::from_secs_f64(preparing));
        if let Ok(visited) = &result {
            self.preparing_micros += visited.preparing_micros;
            self.ops_micros += visited.ops_micros;
            self.reading_micros += visited.reading_micros;
        }
        Ok((passes, result))
    }

    fn is_suspect(&self, jobs: &[Open], pending: &[Pending]) -> bool {
        let of_jobs = jobs.iter().zip(pending).filter_map(|(job, (passes, result))| {
            let visited = result.as_ref().ok()?;
            let (_, samples) = passes
                .iter()
                .zip(&visited.passes)
                .find(|(pass, _)| pass.reuse_distance_bytes == job.job.protocol.reference)?;
            protocol::slowness(job.bounding(), &open::cost_of(visited, &samples.micros))
        });
        let of_references = self.references.iter().filter_map(|reference| {
            let (last, before) = reference.bounding().split_last()?;
            protocol::slowness(before, last)
        });
        protocol::is_suspect(&of_jobs.chain(of_references).collect::<Vec<f64>>())
    }

    /// An outcome with its energy and the references of this moment.
    fn completed(&mut self, job: &Open, mut outcome: Outcome) -> Result<Outcome> {
        if outcome.latency.is_some() {
            // Its measurement takes seconds.
            if self.halted != Halt::Stopped {
                outcome.energy = self.sampler.energy(&job.job)?;
            }
            if protocol::is_disturbed_run(self.spans, self.suspect_spans) {
                outcome.status = Status::Degraded;
                outcome.reason = Some(format!(
                    "the machine was disturbed in {} of {} spans of the run",
                    self.suspect_spans, self.spans
                ));
            }
        }
        outcome.references = self.quiet_references();
        Ok(outcome)
    }

    fn resolution(&self) -> f64 {
        let calls = self.smallest.as_ref().map(|smallest| smallest.bounding().concat());
        protocol::resolution(&calls.unwrap_or_default())
    }

    fn quiet_references(&self) -> Vec<Option<f64>> {
        let quiet = |reference: &Open| {
            let visits = reference.bounding();
            (visits.len() >= REFERENCE_VISITS)
                .then(|| stats::quantile_of_sorted(&stats::sorted(&visits.concat()), QUIET))
        };
        self.references.iter().map(quiet).collect()
    }

    fn spent(&self, wall: Duration) -> Spent {
        let of_micros = |micros: f64| Duration::from_secs_f64(micros / 1e6);
        Spent {
            wall,
            preparing: of_micros(self.preparing_micros),
            ops: of_micros(self.ops_micros),
            reading: of_micros(self.reading_micros),
            spans: self.spans,
            redone: self.redone,
        }
    }
}

#[cfg(test)]
mod tests;

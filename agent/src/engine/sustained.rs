//! Sustained runs: one network without a pause, alone on the box, so that the device becomes as hot as it gets.
//!
//! The run consists of chunks of a second, each of which gives the mean of its calls. Between chunks the run can stop,
//! and the clock of the calls does not count.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Result;
use latlas_predict::stats;
use latlas_shared::samples::Samples;
use latlas_shared::{CurvePoint, Latency, Status, Sustained};

use super::open::{self, Open};
use super::{Halt, Outcome, Run, Sampler};
use crate::worker::{Fault, Work, disturbance};

/// How long a warm device rests before a sustained run, and after one.
pub const REST: Duration = Duration::from_secs(120);

/// Time between two checks whether to stop, during a rest.
const STEP: Duration = Duration::from_secs(1);

/// About the duration of a chunk, in seconds.
const CHUNK_SECONDS: f64 = 1.0;

/// The beginning of a run, and the shortest end of it, in seconds.
const END_SECONDS: f64 = 10.0;

/// A run says nothing about heat if other processes used more than this many processors at one of its ends, or more
/// than this share of all.
const MOST_OTHERS: f64 = 0.25;
const MOST_SHARE: f64 = 0.1;

/// Some calls without a pause. Times are seconds since the run began.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Chunk {
    start: f64,
    end: f64,
    calls: u64,
    /// The mean of its calls.
    micros: f64,
    /// Processors that others used.
    others: f64,
}

impl Chunk {
    fn middle(&self) -> f64 {
        f64::midpoint(self.start, self.end)
    }
}

/// The chunks at both ends of a run: the first ten seconds, and the last tenth but at least ten seconds. Of a run of
/// less than 20 seconds each end is a half. The first and the last chunk count in any case.
fn ends(chunks: &[Chunk]) -> Option<(&[Chunk], &[Chunk])> {
    let whole = chunks.last()?.end;
    let first = END_SECONDS.min(whole / 2.0);
    let last = END_SECONDS.max(whole / 10.0).min(whole / 2.0);
    let burst = chunks.iter().take_while(|chunk| chunk.middle() < first).count();
    let hot = chunks.iter().rev().take_while(|chunk| chunk.middle() > whole - last).count();
    Some((&chunks[..burst.max(1)], &chunks[chunks.len() - hot.max(1)..]))
}

fn median_micros(chunks: &[Chunk]) -> f64 {
    stats::median(&chunks.iter().map(|chunk| chunk.micros).collect::<Vec<f64>>())
}

/// Processors that others used at the busier end of a run.
fn others(burst: &[Chunk], hot: &[Chunk]) -> f64 {
    let mean = |chunks: &[Chunk]| {
        let times: f64 = chunks.iter().map(|chunk| chunk.end - chunk.start).sum();
        chunks.iter().map(|chunk| chunk.others * (chunk.end - chunk.start)).sum::<f64>() / times
    };
    mean(burst).max(mean(hot))
}

/// Why a run says nothing about heat, if others used so many of the machine's processors.
fn disturbed(others: f64, processors: usize) -> Option<String> {
    (others > MOST_OTHERS.max(MOST_SHARE * processors as f64)).then(|| {
        format!(
            "other processes used {others:.1} processors at the beginning or at the end of the run: repeat it on a \
             quiet box"
        )
    })
}

fn name(work: &Work) -> &str {
    match work {
        Work::Network { spec, .. } => spec.name.as_deref().unwrap_or("a network"),
        Work::Op { .. } => "an op",
    }
}

/// Lets a device rest; false if the run has to stop.
fn rest(sampler: &mut dyn Sampler, halt: &dyn Fn() -> Halt) -> bool {
    let mut rested = Duration::ZERO;
    while rested < REST {
        if halt() != Halt::No {
            return false;
        }
        sampler.rest(STEP);
        rested += STEP;
    }
    true
}

/// Runs work without a pause for so many seconds. None if the run has to stop.
fn chunks(
    open: &Open,
    seconds: u32,
    sampler: &mut dyn Sampler,
    halt: &dyn Fn() -> Halt,
) -> Result<Option<Result<Vec<Chunk>, Fault>>> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut began = None;
    while chunks.last().is_none_or(|chunk| chunk.end < f64::from(seconds)) {
        if halt() != Halt::No {
            return Ok(None);
        }
        let busy = match sampler.keep_busy(&open.job, CHUNK_SECONDS)? {
            Ok(busy) => busy,
            Err(fault) => return Ok(Some(Err(fault))),
        };
        let began = *began.get_or_insert(busy.start);
        chunks.push(Chunk {
            start: busy.start - began,
            end: busy.end - began,
            calls: busy.calls,
            micros: 1e6 * (busy.end - busy.start) / busy.calls as f64,
            others: busy.others.map_or(0.0, |seconds| seconds / (busy.end - busy.start)),
        });
    }
    Ok(Some(Ok(chunks)))
}

/// The processors of the machine.
fn processors() -> usize {
    fs::read_to_string("/proc/stat").map_or(1, |stat| disturbance::online_cpus(&stat))
}

/// The outcome of a run that has come to its end.
fn outcome(open: &Open, seconds: u32, chunks: &[Chunk]) -> Option<Outcome> {
    let (burst, hot) = ends(chunks)?;
    let (burst_micros, sustained_micros) = (median_micros(burst), median_micros(hot));
    let visits =
        |chunks: &[Chunk]| chunks.iter().map(|chunk| vec![chunk.micros]).collect::<Vec<_>>();
    let reason = disturbed(others(burst, hot), processors());
    let calls = burst.iter().map(|chunk| chunk.calls).max().unwrap_or(1);
    let point = CurvePoint {
        calls_per_sample: u32::try_from(calls).unwrap_or(u32::MAX),
        ..open::point(0, &visits(burst), open.job.protocol.between_runs)
    };
    Some(Outcome {
        job: open.index,
        status: if reason.is_none() { Status::Ok } else { Status::Degraded },
        reason,
        failure_kind: None,
        latency: Some(Latency { curve: vec![point] }),
        sustained: Some(Sustained { seconds, burst_micros, sustained_micros }),
        peak_memory_bytes: None,
        rejected: 0,
        samples: Samples { micros: BTreeMap::from([(0, visits(chunks))]), ..Samples::default() },
        energy: None,
        references: vec![],
    })
}

impl Run<'_> {
    /// Makes the sustained run of a job, on a device that has rested. Without an outcome if the run has to stop.
    ///
    /// # Errors
    /// When nothing can be measured at all.
    pub(super) fn sustained(&mut self, open: &Open, done: &mut dyn FnMut(Outcome)) -> Result<()> {
        let Some(seconds) = open.job.sustained_seconds else { return Ok(()) };
        if self.sampler.is_warm() {
            tracing::info!("resting for {} s before a sustained run", REST.as_secs());
            if !rest(self.sampler, self.halt) {
                return Ok(());
            }
        }
        tracing::info!("running {} for {seconds} s without a pause", name(&open.job.work));
        let Some(chunks) = chunks(open, seconds, self.sampler, self.halt)? else { return Ok(()) };
        let outcome = match &chunks {
            Ok(chunks) => outcome(open, seconds, chunks),
            Err(fault) => Some(open.failed(fault)),
        };
        let references = self.quiet_references();
        self.ops_micros += chunks.iter().flatten().map(|c| 1e6 * (c.end - c.start)).sum::<f64>();
        outcome
            .into_iter()
            .for_each(|outcome| done(Outcome { references: references.clone(), ..outcome }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use latlas_shared::{FailureKind, WholeNetwork};

    use super::*;
    use crate::engine::{Gauges, Job, Protocol, measure};
    use crate::system::energy::Busy;
    use crate::worker::{Pass, Visited};

    /// A device that becomes 30% slower as it heats up, on a clock of its own. Both take minutes.
    struct Hot {
        now: f64,
        /// 0 when cool, towards 1 when busy.
        heat: f64,
        cool_micros: f64,
        warm: bool,
        /// What it did: `r` for a second of rest, `v` for a visit, `b` for a chunk.
        log: String,
        dies_at: f64,
    }

    const MINUTES_TO_HEAT: f64 = 2.0;

    impl Hot {
        fn new() -> Hot {
            let (log, dies_at) = (String::new(), f64::INFINITY);
            Hot { now: 1000.0, heat: 0.0, cool_micros: 20_000.0, warm: false, log, dies_at }
        }

        /// Lets time pass, in which the heat approaches its end.
        fn pass(&mut self, seconds: f64, end: f64) {
            self.now += seconds;
            self.heat = end + (self.heat - end) * (-seconds / 60.0 / MINUTES_TO_HEAT).exp();
        }

        fn micros(&self) -> f64 {
            self.cool_micros * (1.0 + 0.3 * self.heat)
        }
    }

    impl Sampler for Hot {
        fn visit(&mut self, _: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>> {
            self.log.push('v');
            self.warm = true;
            self.pass(1.0, 1.0);
            let samples = |pass: &Pass| crate::worker::Samples {
                micros: vec![self.micros(); pass.samples as usize],
                calls: 1,
                ..crate::worker::Samples::default()
            };
            let passes = passes.iter().map(samples).collect();
            Ok(Ok(Visited { passes, ..Visited::default() }))
        }

        fn keep_busy(&mut self, _: &Job, seconds: f64) -> Result<Result<Busy, Fault>> {
            if self.now >= self.dies_at {
                return Ok(Err(Fault::Died("ended with signal: 9".to_owned())));
            }
            self.log.push('b');
            self.warm = true;
            let start = self.now;
            let calls = (1e6 * seconds / self.micros()).ceil().max(1.0);
            let micros = self.micros();
            self.pass(calls * micros / 1e6, 1.0);
            Ok(Ok(Busy { calls: calls as u64, start, end: self.now, others: None }))
        }

        fn is_warm(&self) -> bool {
            self.warm
        }

        fn rest(&mut self, time: Duration) {
            self.log.push('r');
            self.pass(time.as_secs_f64(), 0.0);
        }
    }

    fn job(sustained_seconds: Option<u32>) -> Job {
        let network = WholeNetwork::builtin("demo_conv").unwrap();
        let work = Work::Network { spec: network.spec, ops: network.ops };
        Job { sustained_seconds, ..Job::new(work, Protocol::for_networks()) }
    }

    fn run(jobs: Vec<Job>, device: &mut Hot, halt: &dyn Fn() -> Halt) -> Vec<Outcome> {
        let mut outcomes = vec![];
        measure(jobs, Gauges::default(), device, 7, halt, &mut |o| outcomes.push(o)).unwrap();
        outcomes
    }

    /// The order of what a device did, without the numbers: `vrb`.
    fn phases(device: &Hot) -> String {
        let mut letters: Vec<char> = device.log.chars().collect();
        letters.dedup();
        letters.into_iter().collect()
    }

    #[test]
    fn a_device_that_becomes_slower_has_a_ratio() {
        let mut device = Hot::new();
        let outcome = run(vec![job(Some(600))], &mut device, &|| Halt::No).remove(0);
        assert_eq!((outcome.status, phases(&device).as_str()), (Status::Ok, "b"), "it was cool");
        let sustained = outcome.sustained.unwrap();
        assert_eq!(sustained.seconds, 600);
        assert!((20_000.0..20_500.0).contains(&sustained.burst_micros), "{sustained:?}");
        assert!((1.27..1.30).contains(&sustained.over_burst()), "{sustained:?}");
        let latency = outcome.latency.unwrap();
        assert!(latency.is_sound());
        assert_eq!(latency.curve[0].median_micros, sustained.burst_micros);
        assert!(latency.curve[0].calls_per_sample > 40, "{latency:?}");
        let all = &outcome.samples.micros[&0];
        assert!((590..=600).contains(&all.len()), "{}", all.len());
        assert!(device.now - 1000.0 < 602.0);
    }

    #[test]
    fn a_run_beside_other_load_says_nothing_about_heat() {
        let chunk = |second: u32, others: f64| {
            let start = f64::from(second);
            Chunk { start, end: start + 1.0, calls: 1, micros: 1e6, others }
        };
        // A compiler that starts in the last minute of ten.
        let chunks: Vec<Chunk> =
            (0..600).map(|second| chunk(second, if second < 540 { 0.02 } else { 1.0 })).collect();
        let (burst, hot) = ends(&chunks).unwrap();
        let used = others(burst, hot);
        assert!((used - 1.0).abs() < 1e-9);
        assert_eq!(
            disturbed(used, 2).unwrap(),
            "other processes used 1.0 processors at the beginning or at the end of the run: repeat it on a quiet box"
        );
        assert_eq!(disturbed(used, 64), None, "a small share of a large machine");
        // In the middle it makes no difference to the ratio.
        let chunks: Vec<Chunk> = (0..600)
            .map(|second| chunk(second, if (100..500).contains(&second) { 1.0 } else { 0.02 }))
            .collect();
        let (burst, hot) = ends(&chunks).unwrap();
        assert_eq!(disturbed(others(burst, hot), 2), None);
    }

    #[test]
    fn a_device_that_stays_cool_has_no_difference() {
        let mut device = Hot::new();
        device.cool_micros = 1000.0;
        device.pass(1e6, 1.0);
        let outcome = run(vec![job(Some(30))], &mut device, &|| Halt::No).remove(0);
        assert!((outcome.sustained.unwrap().over_burst() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn sustained_runs_come_last_and_each_begins_cool() {
        let mut device = Hot::new();
        let jobs = vec![job(Some(600)), job(None), job(Some(600)), job(None)];
        let outcomes = run(jobs, &mut device, &|| Halt::No);
        assert_eq!(phases(&device), "vrbrb");
        assert_eq!(device.log.matches('r').count(), 240);
        let order: Vec<usize> = outcomes.iter().map(|outcome| outcome.job).collect();
        assert_eq!(order[2..], [0, 2]);
        assert!(outcomes[..2].iter().all(|outcome| outcome.sustained.is_none()));
        for outcome in &outcomes[2..] {
            let ratio = outcome.sustained.unwrap().over_burst();
            assert!((1.1..1.3).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn a_run_stops_between_chunks_and_during_a_rest() {
        for (warm, stops_after, done) in [(false, 5, "bbbbb"), (true, 3, "rrr")] {
            let mut device = Hot { warm, ..Hot::new() };
            let checks = Cell::new(0);
            let over = || checks.replace(checks.get() + 1) >= stops_after;
            let halt = || if over() { Halt::Interrupted } else { Halt::No };
            assert_eq!(run(vec![job(Some(600)), job(Some(600))], &mut device, &halt), []);
            assert_eq!(device.log, done);
        }
    }

    #[test]
    fn whoever_watches_hears_of_each_second() {
        let mut device = Hot { warm: true, ..Hot::new() };
        let heard = RefCell::new(0);
        run(vec![job(Some(30))], &mut device, &|| {
            *heard.borrow_mut() += 1;
            Halt::No
        });
        assert_eq!(heard.into_inner(), device.log.len());
    }

    #[test]
    fn a_worker_that_dies_ends_the_run_with_a_reason() {
        let mut device = Hot { dies_at: 1100.0, ..Hot::new() };
        let outcomes = run(vec![job(Some(600)), job(Some(600))], &mut device, &|| Halt::No);
        assert_eq!(outcomes.len(), 2);
        let first = &outcomes[0];
        assert_eq!(
            (first.status, first.failure_kind),
            (Status::Failed, Some(FailureKind::WorkerDied))
        );
        assert!(first.sustained.is_none() && first.latency.is_none());
    }

    /// Chunks of one second, whose times are their numbers.
    fn seconds(count: u32) -> Vec<Chunk> {
        let chunk = |n: u32| {
            let start = f64::from(n);
            Chunk { start, end: start + 1.0, calls: 50, micros: start + 1.0, others: 0.0 }
        };
        (0..count).map(chunk).collect()
    }

    #[test]
    fn the_ends_of_a_run_are_ten_seconds_and_a_tenth() {
        for (all, burst, hot) in [
            (600, 10, 60),
            (3600, 10, 360),
            (60, 10, 10),
            (20, 10, 10),
            (4, 2, 2),
            (3, 1, 1),
            (1, 1, 1),
        ] {
            let chunks = seconds(all);
            let (first, last) = ends(&chunks).unwrap();
            assert_eq!((first.len(), last.len()), (burst, hot), "{all} s");
            assert_eq!((first[0], last[hot - 1]), (chunks[0], chunks[all as usize - 1]));
        }
        assert!(ends(&[]).is_none());
    }

    #[test]
    fn a_network_that_takes_a_minute_has_ends_too() {
        let chunk = |n: u32| Chunk {
            start: 60.0 * f64::from(n),
            end: 60.0 * f64::from(n + 1),
            calls: 1,
            micros: 6e7,
            others: 0.0,
        };
        let chunks: Vec<Chunk> = (0..10).map(chunk).collect();
        let (first, last) = ends(&chunks).unwrap();
        assert_eq!((first, last), (&chunks[..1], &chunks[9..]));
    }
}

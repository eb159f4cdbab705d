//! The engine on scripted visits.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use latlas_shared::{Energy, Status};
use ops_catalog::{Catalog, Shape};

use super::{Gauges, Halt, Job, Outcome, Protocol, Sampler, measure};
use crate::worker::{Fault, Pass, Samples, Visited, Work};

const SHAPE: Shape =
    Shape { batch: 1, input_h: 8, input_w: 8, channels_in: 8, channels_out: 8, stride: 1 };

fn jobs(count: u32) -> Vec<Job> {
    let def = Catalog::builtin().op("Conv3x3").unwrap().def().clone();
    (0..count)
        .map(|index| {
            let shape = Shape { input_h: 8 + index, ..SHAPE };
            Job::new(Work::Op { def: def.clone(), shape }, Protocol::for_ops(8 << 20))
        })
        .collect()
}

fn which(job: &Job) -> u32 {
    match &job.work {
        Work::Op { shape, .. } => shape.input_h - 8,
        Work::Network { .. } => unreachable!(),
    }
}

/// A sampler whose answer depends on the job and on the number of its visits.
struct Script<F> {
    answer: F,
    visits: Vec<u32>,
}

impl<F: FnMut(u32, u32) -> Result<f64, Fault>> Sampler for Script<F> {
    fn visit(&mut self, job: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>> {
        let index = which(job);
        self.visits.push(index);
        let nth = self.visits.iter().filter(|&&v| v == index).count() as u32;
        Ok((self.answer)(index, nth).map(|value| {
            let pass = |p: &Pass| Samples {
                micros: vec![value; p.samples as usize],
                calls: nth,
                ..Samples::default()
            };
            Visited {
                passes: passes.iter().map(pass).collect(),
                peak_memory_bytes: Some(1 << 20),
                ..Visited::default()
            }
        }))
    }
}

fn run(count: u32, answer: impl FnMut(u32, u32) -> Result<f64, Fault>) -> (Vec<Outcome>, Vec<u32>) {
    let mut script = Script { answer, visits: vec![] };
    let mut outcomes = vec![];
    measure(jobs(count), Gauges::default(), &mut script, 7, &|| Halt::No, &mut |outcome| {
        outcomes.push(outcome)
    })
    .unwrap();
    outcomes.sort_by_key(|outcome| outcome.job);
    (outcomes, script.visits)
}

#[test]
fn steady_work_converges_at_the_first_check() {
    let (outcomes, visits) = run(3, |index, _| Ok(100.0 + f64::from(index)));
    assert_eq!(visits.len(), 3 * 6);
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.status, Status::Ok);
        let latency = outcome.latency.as_ref().unwrap();
        assert!(latency.is_sound());
        let reference = latency.at(8 << 20).unwrap();
        assert_eq!(reference.quiet_micros, 100.0 + index as f64);
        assert_eq!(reference.calls_per_sample, 6, "the most of its visits");
        assert_eq!(latency.curve.len(), 7);
    }
}

#[test]
fn visits_to_one_key_are_spread_over_the_run() {
    let (_, visits) = run(10, |_, _| Ok(5.0));
    for round in visits.chunks(10) {
        let mut sorted = round.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<u32>>());
    }
    assert_ne!(visits[..10], visits[10..20], "the order changes from round to round");
}

#[test]
fn work_that_jumps_between_visits_does_not_count_as_converged() {
    let (outcomes, visits) = run(1, |_, nth| Ok(100.0 + 10.0 * f64::from(nth * 7 % 60)));
    assert_eq!(outcomes[0].status, Status::NotConverged);
    assert!(outcomes[0].reason.as_ref().unwrap().contains("after 60 visits"));
    assert!(outcomes[0].latency.as_ref().unwrap().is_sound());
    assert_eq!(visits.len(), 60);
}

/// A device that runs each op in 2, behind a host whose times are given by visit.
struct Behind<H> {
    host: H,
    visits: u32,
    /// Visits that sampled the device's times too.
    whole: u32,
    disturbed: bool,
}

impl<H: Fn(u32) -> f64> Sampler for Behind<H> {
    fn visit(&mut self, _: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>> {
        self.visits += 1;
        self.whole += u32::from(!passes[0].host_only);
        let pass = |p: &Pass| Samples {
            micros: vec![2.0; if p.host_only { 0 } else { p.samples as usize }],
            host_micros: vec![(self.host)(self.visits); p.samples as usize],
            calls: 32,
            disturbed: if self.disturbed { p.samples } else { 0 },
            ..Samples::default()
        };
        let passes = passes.iter().map(pass).collect();
        Ok(Ok(Visited { passes, ..Visited::default() }))
    }
}

impl<H: Fn(u32) -> f64> Behind<H> {
    fn new(host: H) -> Behind<H> {
        Behind { host, visits: 0, whole: 0, disturbed: false }
    }

    fn run(&mut self) -> Outcome {
        let mut outcomes = vec![];
        measure(jobs(1), Gauges::default(), self, 7, &|| Halt::No, &mut |o| outcomes.push(o))
            .unwrap();
        outcomes.remove(0)
    }
}

fn run_behind(host: impl Fn(u32) -> f64) -> (Outcome, u32) {
    let mut sampler = Behind::new(host);
    (sampler.run(), sampler.visits)
}

#[test]
fn the_device_s_time_of_a_host_bound_op_is_not_sampled_for_ever() {
    let mut sampler = Behind::new(|nth| 10.0 + f64::from(nth * 7 % 60));
    let outcome = sampler.run();
    assert_eq!((sampler.whole, sampler.visits), (6, 60));
    assert_eq!(outcome.samples.host_micros.len(), 60);
    assert!(outcome.reason.unwrap().contains("after 60 visits"));
    for visits in outcome.samples.micros.values() {
        assert!(visits.len() >= 2 && visits.iter().all(|visit| !visit.is_empty()), "{visits:?}");
    }
    // Its disturbed samples count all the same.
    let mut sampler = Behind { disturbed: true, ..Behind::new(|nth| 10.0 + f64::from(nth % 60)) };
    assert_eq!(sampler.run().status, Status::Degraded);
}

#[test]
fn a_host_bound_op_converges_when_its_host_time_does() {
    let (steady, visits) = run_behind(|_| 10.0);
    assert_eq!((steady.status, visits), (Status::Ok, 6));
    for point in &steady.latency.unwrap().curve {
        let (low, value, high) = point.host_interval().unwrap();
        assert!(low < 10.0 && value == 10.0 && high > 10.0, "{point:?}");
    }
    // The device's time is as steady, and nobody waits for it.
    let (jumping, visits) = run_behind(|nth| 10.0 + f64::from(nth * 7 % 60));
    assert_eq!((jumping.status, visits), (Status::NotConverged, 60));
    let (hidden, visits) = run_behind(|nth| 1.0 + 0.001 * f64::from(nth * 7 % 60));
    assert_eq!((hidden.status, visits), (Status::Ok, 6));
}

#[test]
fn a_refusal_costs_its_row_only() {
    let (outcomes, visits) = run(2, |index, _| match index {
        0 => Err(Fault::Refused("no".into())),
        _ => Ok(10.0),
    });
    assert_eq!(outcomes[0].status, Status::Failed);
    assert_eq!(outcomes[0].reason.as_deref(), Some("no"));
    assert_eq!(outcomes[0].latency, None);
    assert_eq!(outcomes[1].status, Status::Ok);
    assert_eq!(visits.iter().filter(|&&v| v == 0).count(), 1);
}

#[test]
fn a_worker_that_was_killed_once_is_forgiven() {
    let (outcomes, _) =
        run(1, |_, nth| if nth == 2 { Err(Fault::Died("signal: 9".into())) } else { Ok(10.0) });
    assert_eq!(outcomes[0].status, Status::Ok);
}

#[test]
fn work_that_kills_its_worker_again_fails() {
    let (outcomes, visits) = run(2, |index, _| match index {
        0 => Err(Fault::Died("ended with signal: 6".into())),
        _ => Ok(10.0),
    });
    assert_eq!(outcomes[0].status, Status::Failed);
    assert!(outcomes[0].reason.as_ref().unwrap().contains("signal: 6"));
    assert_eq!(outcomes[1].status, Status::Ok);
    assert_eq!(visits.iter().filter(|&&v| v == 0).count(), 2);
}

#[test]
fn a_hang_is_not_tried_again() {
    let (outcomes, visits) = run(1, |_, _| {
        Err(Fault::Hung { limit: Duration::from_secs(120), worker: "it".to_owned() })
    });
    assert_eq!(outcomes[0].status, Status::Failed);
    assert!(outcomes[0].reason.as_ref().unwrap().contains("within 120 s"));
    assert_eq!(visits.len(), 1);
}

#[test]
fn a_stopped_run_hands_over_only_what_had_ended() {
    let mut script = Script { answer: |_, _| Ok(10.0), visits: vec![] };
    assert!(halt_after(7, Halt::Interrupted, &mut script).is_empty());
    assert_eq!(script.visits.len(), 7);
}

#[test]
fn a_run_whose_time_is_over_hands_over_what_has_an_interval() {
    let answer = |index, nth| Ok(10.0 + f64::from(if index == 1 { nth } else { 0 }));
    for (halt, why) in [
        (Halt::TimeOver, "the time of the run was over: after 4 visits the 95% interval is"),
        (Halt::Stopped, "the run was stopped: after 4 visits the 95% interval is"),
    ] {
        let mut script = Script { answer, visits: vec![] };
        assert!(halt_after(3, halt, &mut script).is_empty(), "one visit each");
        script.visits.clear();
        let outcomes = halt_after(4 * 3 + 1, halt, &mut script);
        assert_eq!(outcomes.len(), 3);
        for outcome in outcomes {
            assert_eq!(outcome.status, Status::NotConverged);
            let reason = outcome.reason.unwrap();
            assert!(reason.contains(why), "{reason}");
            assert!(outcome.latency.unwrap().is_sound());
        }
    }
}

/// The outcomes of a run of three jobs that is halted after so many visits, by job.
fn halt_after(visits: usize, halt: Halt, sampler: &mut dyn Sampler) -> Vec<Outcome> {
    let asked = Cell::new(0);
    let halts = || {
        asked.set(asked.get() + 1);
        if asked.get() > visits { halt } else { Halt::No }
    };
    let mut outcomes = vec![];
    measure(jobs(3), Gauges::default(), sampler, 7, &halts, &mut |o| outcomes.push(o)).unwrap();
    outcomes.sort_by_key(|outcome| outcome.job);
    outcomes
}

/// Two jobs: one converges at once and stays, the other takes longer.
fn staying(stop: &dyn Fn(usize) -> bool) -> (Vec<Outcome>, Vec<u32>) {
    let mut all = jobs(2);
    all[0].protocol.stays = true;
    let visits = Cell::new(0);
    let answer = |index: u32, nth: u32| {
        visits.set(visits.get() + 1);
        Ok(if index == 1 && nth < 15 { 10.0 * f64::from(nth) } else { 500.0 })
    };
    let mut script = Script { answer, visits: vec![] };
    let mut outcomes = vec![];
    let halt = || if stop(visits.get()) { Halt::Interrupted } else { Halt::No };
    measure(all, Gauges::default(), &mut script, 7, &halt, &mut |outcome| outcomes.push(outcome))
        .unwrap();
    (outcomes, script.visits)
}

#[test]
fn work_that_stays_is_visited_all_along_the_run() {
    let (outcomes, visits) = staying(&|_| false);
    let of = |index: u32| visits.iter().filter(|&&v| v == index).count();
    assert!(of(1) >= 20, "{}", of(1));
    // It hears of the end of the other in the round after, and ends at the next check.
    assert!(of(0) > of(1), "{} {}", of(0), of(1));
    assert_eq!(outcomes.iter().map(|o| o.job).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(outcomes[1].status, Status::Ok);
}

#[test]
fn work_that_stays_ends_with_half_of_the_others() {
    let mut all = jobs(4);
    all[0].protocol.stays = true;
    // Neither it nor the last of the others ever converges.
    let wild = |index: u32, nth: u32| {
        let steady = [1, 2].contains(&index);
        Ok(if steady { 500.0 } else { 10.0 * f64::from(1 + nth % 7) })
    };
    let mut script = Script { answer: wild, visits: vec![] };
    let mut outcomes = vec![];
    measure(all, Gauges::default(), &mut script, 7, &|| Halt::No, &mut |o| outcomes.push(o))
        .unwrap();
    let of = |index: u32| script.visits.iter().filter(|&&v| v == index).count();
    // Two of three end at the first check, and it ends at the second. Some spans are made again.
    assert_eq!(of(0) - of(1), 3);
    assert!(of(3) >= 60, "{}", of(3));
    let stayed = outcomes.iter().find(|outcome| outcome.job == 0).unwrap();
    assert_eq!(stayed.status, Status::NotConverged);
    assert!(stayed.reason.as_deref().unwrap().contains("after 9 visits"), "{:?}", stayed.reason);
}

#[test]
fn a_stopped_run_hands_over_work_that_stayed() {
    let (outcomes, _) = staying(&|visits| visits == 20);
    assert_eq!(outcomes.len(), 1);
    assert_eq!((outcomes[0].job, outcomes[0].status), (0, Status::Ok));
}

/// The answer of a job at its nth visit.
type Answer = fn(u32, u32) -> Result<f64, Fault>;

/// A sampler whose every row costs some energy, which it counts.
struct WithSensor {
    script: Script<Answer>,
    asked: Vec<u32>,
}

impl Sampler for WithSensor {
    fn visit(&mut self, job: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>> {
        self.script.visit(job, passes)
    }

    fn energy(&mut self, job: &Job) -> Result<Option<Energy>> {
        self.asked.push(which(job));
        let source = "rapl package-0".to_owned();
        Ok(Some(Energy { gross_mj: 3.0, net_mj: 2.0, uncertainty_mj: 0.1, source }))
    }
}

#[test]
fn a_row_with_a_latency_gets_its_energy_once() {
    let answer: Answer = |index, _| match index {
        1 => Err(Fault::Refused("no".into())),
        _ => Ok(10.0),
    };
    let mut sampler = WithSensor { script: Script { answer, visits: vec![] }, asked: vec![] };
    let mut outcomes = vec![];
    measure(jobs(3), Gauges::default(), &mut sampler, 7, &|| Halt::No, &mut |outcome| {
        outcomes.push(outcome)
    })
    .unwrap();
    outcomes.sort_by_key(|outcome| outcome.job);
    let energies: Vec<bool> = outcomes.iter().map(|outcome| outcome.energy.is_some()).collect();
    assert_eq!(energies, [true, false, true]);
    sampler.asked.sort_unstable();
    assert_eq!(sampler.asked, [0, 2]);
}

/// So many jobs and two reference ops on a machine that is slow at some visits, by their number.
fn run_on(count: u32, slow: impl Fn(usize) -> bool) -> (Vec<Outcome>, super::Spent) {
    let visits = Cell::new(0);
    let answer = |index: u32, _| {
        visits.set(visits.get() + 1);
        let usual = 100.0 + f64::from(index);
        Ok(if slow(visits.get()) { 2.0 * usual } else { usual })
    };
    let mut script = Script { answer, visits: vec![] };
    let mut outcomes = vec![];
    let mut all = jobs(count + 2);
    let references = all.split_off(count as usize);
    let spent = measure(
        all,
        Gauges { references, smallest: None },
        &mut script,
        7,
        &|| Halt::No,
        &mut |o| outcomes.push(o),
    )
    .unwrap();
    outcomes.sort_by_key(|outcome| outcome.job);
    (outcomes, spent)
}

#[test]
fn a_span_in_which_all_is_slow_is_made_again() {
    // Ten jobs and two references are twelve visits a round: the fifth round is slow.
    let (outcomes, spent) = run_on(10, |visit| (49..=60).contains(&visit));
    assert_eq!((spent.spans, spent.redone), (6, 1));
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.status, Status::Ok);
        // 8 samples at the reference distance, 2 where predictions read and 2 at each of two others.
        assert_eq!(outcome.rejected, 16);
        let latency = outcome.latency.as_ref().unwrap();
        assert_eq!(latency.at(8 << 20).unwrap().median_micros, 100.0 + index as f64);
        assert_eq!(outcome.references, [Some(110.0), Some(111.0)]);
    }
}

#[test]
fn rows_of_a_run_that_is_disturbed_again_and_again_are_marked() {
    // Twelve visits are a span and four spans a round. From the fourth round on, each third span is slow, and the next
    // attempt is not.
    let (outcomes, spent) = run_on(40, |visit| visit > 3 * 48 && visit / 12 % 3 == 0);
    assert!(spent.redone >= 4, "{}", spent.redone);
    for outcome in outcomes {
        assert_eq!(outcome.status, Status::Degraded);
        assert!(outcome.reason.unwrap().contains("spans of the run"));
        assert!(outcome.latency.unwrap().is_sound());
    }
}

/// A worker that saw signs of disturbance in its first visits to each job.
struct Disturbed<F> {
    script: Script<F>,
    first: usize,
}

impl<F: FnMut(u32, u32) -> Result<f64, Fault>> Sampler for Disturbed<F> {
    fn visit(&mut self, job: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>> {
        let result = self.script.visit(job, passes)?;
        let nth = self.script.visits.iter().filter(|&&v| v == which(job)).count();
        Ok(result.map(|mut visited| {
            for samples in visited.passes.iter_mut().filter(|_| nth <= self.first) {
                samples.disturbed = samples.micros.len() as u32;
            }
            visited
        }))
    }
}

#[test]
fn rows_of_a_machine_that_stays_disturbed_are_marked() {
    for (first, status) in [(3, Status::Ok), (4, Status::Degraded), (6, Status::Degraded)] {
        let script = Script { answer: |_, _| Ok(100.0), visits: vec![] };
        let mut outcomes = vec![];
        let mut worker = Disturbed { script, first };
        measure(jobs(3), Gauges::default(), &mut worker, 7, &|| Halt::No, &mut |o| {
            outcomes.push(o)
        })
        .unwrap();
        assert_eq!(outcomes.len(), 3);
        for outcome in &outcomes {
            assert_eq!(outcome.status, status, "{first}: {:?}", outcome.reason);
            let reason = outcome.reason.as_deref().unwrap_or_default();
            assert_eq!(reason.contains("disturbed"), status == Status::Degraded);
        }
    }
}

#[test]
fn one_slow_row_is_no_disturbance() {
    let (outcomes, visits) =
        run(10, |index, nth| Ok(if index == 3 && nth % 2 == 0 { 200.0 } else { 100.0 }));
    assert!(outcomes.iter().all(|outcome| outcome.rejected == 0));
    assert_eq!(visits.iter().filter(|&&v| v == 0).count(), 6);
}

#[test]
fn a_reference_that_fails_costs_no_row() {
    let answer = |index, _| match index {
        2 => Err(Fault::Refused("no".into())),
        _ => Ok(10.0),
    };
    let mut script = Script { answer, visits: vec![] };
    let mut outcomes = vec![];
    let mut all = jobs(3);
    let references = all.split_off(2);
    measure(all, Gauges { references, smallest: None }, &mut script, 7, &|| Halt::No, &mut |o| {
        outcomes.push(o)
    })
    .unwrap();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|o| o.status == Status::Ok && o.references == [None]));
}

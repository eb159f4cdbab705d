//! The tasks of a lease. A separate thread measures them, while this one reports results and renews the lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use latlas_shared::api::{Lease, Task, TaskWork};
use latlas_shared::samples::Samples;
use latlas_shared::{FailureKind, Measurement, Status};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use super::service::Progress;
use super::{Farm, is_transient};
use crate::engine::{self, Halt, Job, Outcome, Protocol, Workers};
use crate::explain::describe;
use crate::record::{Recorder, Run};
use crate::references;
use crate::worker::Work;

/// Time between two heartbeats during measurements.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A visit that does not end within this time after a stop is dropped.
const LAST_VISIT: Duration = Duration::from_secs(5);

/// The last lease that was worked on.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastWork {
    /// When it ended.
    ended: Instant,
    /// Whether it had a sustained run.
    sustained: bool,
}

impl LastWork {
    /// Whether the device may be warm from it.
    fn is_warm(&self) -> bool {
        self.ended.elapsed() < engine::REST
    }
}

impl Farm {
    /// Whether the device is still hot from a sustained run, so that other rows would be measured as slower than they are.
    pub(super) fn is_hot(&self) -> bool {
        self.last_work.is_some_and(|last| last.sustained && last.is_warm())
    }

    /// Measures the tasks of a lease on a separate thread, while this one reports results and renews the lease.
    pub(super) async fn work_on(&mut self, lease: &Lease) -> Result<()> {
        let dropped = Arc::new(AtomicBool::new(false));
        let (sender, mut measured) = mpsc::unbounded_channel();
        let progress = Progress::default();
        let measuring = self.start_measuring(lease, Arc::clone(&dropped), progress.clone(), sender);
        let stop = self.stop.clone();
        let mut too_late = std::pin::pin!(async {
            stop.until_asked().await;
            sleep(LAST_VISIT).await;
        });
        let mut beat = interval(HEARTBEAT);
        let (mut done, total, mut steps) = (0, lease.tasks.len(), 0);
        let mut failure = None;
        loop {
            self.metrics.leased(total.saturating_sub(done));
            tokio::select! {
                measurement = measured.recv() => {
                    let Some(measurement) = measurement else { break };
                    done += 1;
                    tracing::info!("[{done}/{total}] {}", describe(&measurement));
                    self.outbox.add(measurement);
                    // Unsent results are sent together with the next result, or at the end.
                    if measured.is_empty() && let Err(e) = self.send().await {
                        tracing::warn!("{e:#}; the results are kept");
                        if self.outbox.is_blocked() || !is_transient(&e) {
                            dropped.store(true, Ordering::Relaxed);
                            failure.get_or_insert(e);
                        }
                    }
                }
                _ = beat.tick() => {
                    progress.feed(&mut steps);
                    let kept = tokio::select! {
                        kept = self.keep(lease, progress.steps()) => kept,
                        // A visit that hangs must not delay results until its time-out.
                        () = sleep(HEARTBEAT) => true,
                        () = stop.until_asked() => true,
                    };
                    if !kept {
                        tracing::warn!("lease {} is no longer ours: dropping its work", lease.id);
                        dropped.store(true, Ordering::Relaxed);
                    }
                }
                () = &mut too_late => {
                    tracing::warn!("a visit that does not end is dropped");
                    return Ok(());
                }
            }
        }
        let sustained = lease.tasks.iter().any(Task::is_sustained);
        self.last_work = Some(LastWork { ended: Instant::now(), sustained });
        measuring.await.context("the measuring thread ended badly")??;
        failure.map_or(Ok(()), Err)
    }

    fn start_measuring(
        &self,
        lease: &Lease,
        dropped: Arc<AtomicBool>,
        progress: Progress,
        sender: mpsc::UnboundedSender<Measurement>,
    ) -> tokio::task::JoinHandle<Result<()>> {
        let (tasks, refused) = split_unsupported(lease.tasks.clone());
        let recorder = self.recorder.clone();
        let state = self.state.clone();
        // It is not known what this box did before the agent started.
        let warm = self.last_work.is_none_or(|last| last.is_warm());
        let mut workers = Workers::new(self.launch.clone())
            .with_meter(self.recorder.meter())
            .on_warm_device(warm);
        let stop = self.stop.clone();
        tokio::task::spawn_blocking(move || {
            let reference = recorder.run_config.reuse_distance_bytes;
            let run = recorder.start(&state);
            // The channel is closed only when this agent ends because of an error.
            for (task, reason) in refused {
                let _ = sender.send(answer(&recorder, &run, &task, refusal(reason)));
            }
            let mut jobs: Vec<Job> = tasks.iter().map(|task| job(task, reference)).collect();
            run.prepare(&recorder, &mut jobs);
            // Called before each visit.
            let halt = || {
                progress.step();
                recorder.look(&run);
                match stop.asked() || dropped.load(Ordering::Relaxed) {
                    true => Halt::Interrupted,
                    false => Halt::No,
                }
            };
            let spent = engine::measure(
                jobs,
                references::gauges(reference)?,
                &mut workers,
                fastrand::u64(..),
                &halt,
                &mut |outcome| {
                    let task = &tasks[outcome.job];
                    let _ = sender.send(answer(&recorder, &run, task, outcome));
                },
            )?;
            run.end();
            tracing::info!("{spent}");
            Ok(())
        })
    }
}

/// Splits off the tasks that this build cannot measure, each with the reason. The digest of a network does not match if
/// this build has other definitions of its ops.
fn split_unsupported(tasks: Vec<Task>) -> (Vec<Task>, Vec<(Task, String)>) {
    let (mut measurable, mut refused) = (Vec::with_capacity(tasks.len()), Vec::new());
    for task in tasks {
        match &task.work {
            TaskWork::Network(network) => match network.plan() {
                Ok(_) => measurable.push(task),
                Err(invalid) => refused.push((task, invalid.to_string())),
            },
            TaskWork::Op { .. } => measurable.push(task),
        }
    }
    (measurable, refused)
}

/// The measurement to report for a task.
fn answer(recorder: &Recorder, run: &Run, task: &Task, outcome: Outcome) -> Measurement {
    let measurement = recorder.measurement(run, Some(task.id), task.subject(), outcome);
    Measurement { task_generation: Some(task.generation), ..measurement }
}

/// The outcome of a task that was not run.
fn refusal(reason: String) -> Outcome {
    Outcome {
        job: 0,
        status: Status::Failed,
        reason: Some(reason),
        failure_kind: Some(FailureKind::Unsupported),
        latency: None,
        sustained: None,
        peak_memory_bytes: None,
        rejected: 0,
        samples: Samples::default(),
        energy: None,
        references: vec![],
    }
}

fn job(task: &Task, reference: u64) -> Job {
    match &task.work {
        TaskWork::Op { key, definition, .. } => {
            let work = Work::Op { def: definition.clone(), shape: key.shape };
            Job::new(work, Protocol::for_ops(reference))
        }
        TaskWork::Network(network) => {
            let work = Work::Network { spec: network.spec.clone(), ops: network.ops.clone() };
            let sustained_seconds = network.sustained_seconds;
            Job { sustained_seconds, ..Job::new(work, Protocol::for_networks()) }
        }
    }
}

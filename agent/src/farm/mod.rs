//! The agent as a member of a farm: takes tasks, measures them, reports.

mod identity;
mod orders;
mod upload;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use latlas_shared::api::{Instance, Lease, LeaseAnswer, LeaseRequest, Task, TaskWork};
use latlas_shared::client::Client;
use latlas_shared::samples::Samples;
use latlas_shared::{Measurement, Status};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use crate::commands::bench::describe;
use crate::engine::{self, Job, Outcome, Protocol, Workers};
use crate::record::Recorder;
use crate::references;
use crate::spool::Spool;
use crate::worker::{Work, WorkerSettings};
use identity::Identity;
use orders::Advice;
use upload::{Backoff, upload};

/// Tasks of one lease: enough that visits to one key are spread over minutes.
const LEASE_TASKS: u32 = 64;
/// How long to wait for tasks before asking again, in seconds.
const LEASE_WAIT: u32 = 20;
/// Time between two signs of life while measuring.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// With `--once`, how often the coordinator is tried before giving up.
const ONCE_TRIES: u32 = 6;

/// What the agent is started with.
pub struct Settings {
    /// Address of the coordinator.
    pub coordinator: String,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Token to enrol with.
    pub enroll_token: Option<String>,
    /// Where identity and spool are kept.
    pub state: PathBuf,
    /// Whether to leave when there is no task left.
    pub once: bool,
    /// Percent of the time that tasks of this machine may wait for a processor, for it to take work.
    pub busy_limit: f64,
    /// How ops are run.
    pub worker: WorkerSettings,
}

/// An agent that has entered a farm.
pub struct Farm {
    client: Client,
    identity: Identity,
    spool: Spool,
    /// Where identity, spool and the references of earlier runs are.
    state: PathBuf,
    recorder: Recorder,
    worker: WorkerSettings,
    once: bool,
    busy_limit: f64,
    /// This process.
    instance: Instance,
    /// Raised when the process is asked to end.
    stop: Arc<AtomicBool>,
    /// Holds the state directory.
    _lock: File,
}

impl Farm {
    /// Enrols, or comes back with the identity of an earlier start.
    ///
    /// # Errors
    /// When the state directory cannot be used, or the coordinator does not answer or refuses.
    pub async fn enter(settings: Settings, recorder: Recorder) -> Result<Farm> {
        std::fs::create_dir_all(&settings.state)
            .with_context(|| format!("creating {}", settings.state.display()))?;
        let lock = orders::lock(&settings.state)?;
        let spool = Spool::open(&settings.state)?;
        let client = Client::trusting(settings.ca_file.as_deref(), &settings.coordinator, None)?;
        let identity =
            identity::identify(&client, &settings.state, settings.enroll_token, &recorder).await?;
        let client = client.with_token(identity.credential.clone());
        let stop = Arc::new(AtomicBool::new(false));
        Ok(Farm {
            client,
            identity,
            spool,
            state: settings.state,
            instance: orders::instance(recorder.system()),
            recorder,
            worker: settings.worker,
            once: settings.once,
            busy_limit: settings.busy_limit,
            stop,
            _lock: lock,
        })
    }

    /// Works until it is asked to stop, or with `--once` until there is no task left.
    ///
    /// # Errors
    /// When the coordinator refuses this agent, the spool cannot be written, or with `--once` the
    /// coordinator stays away.
    pub async fn work(self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = Arc::clone(&self.stop);
        // The task ends with the runtime.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping: the lease is given back, results are sent");
            stop.store(true, Ordering::Relaxed);
        });
        let mut backoff = Backoff::new();
        let mut failures = 0;
        let started = Instant::now();
        while !self.stopped() {
            match self.step().await {
                Ok(Step::Worked) => {
                    backoff = Backoff::new();
                    failures = 0;
                }
                Ok(Step::Leave) => break,
                Ok(Step::NoTask) if self.once => return Ok(()),
                Ok(Step::NoTask) => backoff = Backoff::new(),
                Err(e) => {
                    failures += 1;
                    let again = is_transient(&e) || orders::may_be_its_own_past(&e, started);
                    if !again || (self.once && failures >= ONCE_TRIES) {
                        return Err(e);
                    }
                    let wait = backoff.step();
                    tracing::warn!("{e:#}; trying again in {:.0} s", wait.as_secs_f64());
                    self.pause(wait).await;
                }
            }
        }
        upload(&self.client, &self.spool).await
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits, but not when asked to stop.
    async fn pause(&self, time: Duration) {
        let mut left = time;
        let slice = Duration::from_millis(200);
        while !left.is_zero() && !self.stopped() {
            let now = left.min(slice);
            sleep(now).await;
            left -= now;
        }
    }

    /// Sends what is waiting, then takes a lease and works on it.
    async fn step(&self) -> Result<Step> {
        upload(&self.client, &self.spool).await?;
        let advice = self.advice().await?;
        match advice {
            Advice::Leave => return Ok(Step::Leave),
            // Being unfit passes; `--once` leaves when there is no task, not when there is no time for one.
            Advice::Wait => {
                self.wait_slowly().await;
                return Ok(Step::Worked);
            }
            Advice::Ask | Advice::AskSlowly => {}
        }
        let request = LeaseRequest {
            max_tasks: LEASE_TASKS,
            wait_seconds: if self.once { 0 } else { LEASE_WAIT },
            instance: Some(self.instance.clone()),
        };
        let path = format!("v1/agents/{}/leases", self.identity.agent_id);
        let poll = self.client.post::<_, LeaseAnswer>(&path, &request);
        let answer = tokio::select! {
            answer = poll => answer?,
            // A long poll is dropped without harm: a lease that it may still bring runs out.
            () = self.until_stopped() => return Ok(Step::Worked),
        };
        let Some(lease) = answer.lease else {
            if matches!(advice, Advice::AskSlowly) && !self.once {
                self.wait_slowly().await;
            }
            return Ok(Step::NoTask);
        };
        tracing::info!("lease {} with {} tasks", lease.id, lease.tasks.len());
        self.work_on(&lease).await?;
        upload(&self.client, &self.spool).await?;
        let path = format!("v1/leases/{}/release", lease.id);
        match self.client.post::<_, ()>(&path, &serde_json::json!({})).await {
            Ok(()) => {}
            // Finished or expired leases need no release.
            Err(e) if matches!(e.status(), Some(404 | 409)) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(Step::Worked)
    }

    async fn until_stopped(&self) {
        while !self.stopped() {
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Measures the tasks of a lease on a thread of its own, while this one reports and keeps the
    /// lease alive.
    async fn work_on(&self, lease: &Lease) -> Result<()> {
        let dropped = Arc::new(AtomicBool::new(false));
        let visits = Arc::new(AtomicU64::new(0));
        let (sender, mut measured) = mpsc::unbounded_channel();
        let measuring =
            self.start_measuring(lease, Arc::clone(&dropped), Arc::clone(&visits), sender);
        let mut beat = interval(HEARTBEAT);
        let (mut done, total) = (0, lease.tasks.len());
        loop {
            tokio::select! {
                measurement = measured.recv() => {
                    let Some(measurement) = measurement else { break };
                    done += 1;
                    tracing::info!("[{done}/{total}] {}", describe(&measurement));
                    self.spool.add(&measurement).inspect_err(|_| dropped.store(true, Ordering::Relaxed))?;
                    // What cannot be sent now is sent with the next one, or at the end.
                    if measured.is_empty() && let Err(e) = upload(&self.client, &self.spool).await {
                        tracing::warn!("{e:#}; the results stay in the spool");
                    }
                }
                _ = beat.tick() => {
                    if !self.keep(lease, visits.load(Ordering::Relaxed)).await {
                        tracing::warn!("lease {} is no longer ours: dropping its work", lease.id);
                        dropped.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        measuring.await.context("the measuring thread ended badly")?
    }

    fn start_measuring(
        &self,
        lease: &Lease,
        dropped: Arc<AtomicBool>,
        visits: Arc<AtomicU64>,
        sender: mpsc::UnboundedSender<Measurement>,
    ) -> tokio::task::JoinHandle<Result<()>> {
        let (tasks, refused) = told_apart(lease.tasks.clone());
        let recorder = self.recorder.clone();
        let state = self.state.clone();
        let mut workers = Workers::new(self.worker.clone()).with_meter(self.recorder.meter());
        let stop = Arc::clone(&self.stop);
        tokio::task::spawn_blocking(move || {
            let reference = recorder.run_config.reuse_distance_bytes;
            let run = recorder.start(&state);
            // The other end is gone only when this agent is ending on an error.
            for (task, reason) in refused {
                let outcome = refusal(reason);
                let _ =
                    sender.send(recorder.measurement(&run, Some(task.id), task.subject(), outcome));
            }
            let mut jobs: Vec<Job> = tasks.iter().map(|task| job(task, reference)).collect();
            run.prepare(&mut jobs);
            // Asked before each visit.
            let stopped = || {
                visits.fetch_add(1, Ordering::Relaxed);
                recorder.look(&run);
                stop.load(Ordering::Relaxed) || dropped.load(Ordering::Relaxed)
            };
            let spent = engine::measure(
                jobs,
                references::jobs(reference)?,
                &mut workers,
                fastrand::u64(..),
                &stopped,
                &mut |outcome| {
                    let task = &tasks[outcome.job];
                    let measurement =
                        recorder.measurement(&run, Some(task.id), task.subject(), outcome);
                    let _ = sender.send(measurement);
                },
            )?;
            run.end();
            tracing::info!("{spent}");
            Ok(())
        })
    }
}

enum Step {
    Worked,
    NoTask,
    Leave,
}

/// Tasks that can be measured, and those that can't, with the reason: a network whose ops mean something
/// else in this build would be measured as what it is not.
fn told_apart(tasks: Vec<Task>) -> (Vec<Task>, Vec<(Task, String)>) {
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

/// What came of a task that was not run.
fn refusal(reason: String) -> Outcome {
    Outcome {
        job: 0,
        status: Status::Failed,
        reason: Some(reason),
        latency: None,
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
            Job { work, protocol: Protocol::for_ops(reference) }
        }
        TaskWork::Network(network) => {
            let work = Work::Network { spec: network.spec.clone(), ops: network.ops.clone() };
            Job { work, protocol: Protocol::for_networks() }
        }
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<latlas_shared::client::ClientError>()
        .is_some_and(latlas_shared::client::ClientError::is_transient)
}

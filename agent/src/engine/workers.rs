//! The workers of a run.

use anyhow::Result;
use latlas_shared::Energy;

use super::{Job, Sampler};
use crate::runtime::{RuntimeSettings, RuntimeWorker};
use crate::system::energy::{self, Busy, Meter};
use crate::worker::{Fault, Pass, Visited, Work, Worker, WorkerProcess, WorkerSettings};

/// How workers are started.
#[derive(Debug, Clone)]
pub enum Launch {
    /// A process that calls libtorch.
    Libtorch(WorkerSettings),
    /// The command of another runtime.
    Runtime(RuntimeSettings),
}

impl Launch {
    /// Starts a worker, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, or cannot do what is wanted.
    pub fn worker(&self) -> Result<Box<dyn Worker>> {
        Ok(match self {
            Launch::Libtorch(settings) => Box::new(WorkerProcess::start(settings)?),
            Launch::Runtime(settings) => Box::new(RuntimeWorker::start(settings)?),
        })
    }
}

/// Worker processes, started when needed; one of them works at a time.
///
/// Whole networks have a worker of their own, as they have a process of their own in deployment. So no op displaces a
/// network from the worker's cache of ready work: a network that is built anew at each visit is slower.
pub struct Workers {
    launch: Launch,
    for_ops: Option<Box<dyn Worker>>,
    for_networks: Option<Box<dyn Worker>>,
    meter: Option<Box<dyn Meter>>,
    /// Whether the device may be warm from other work.
    warm: bool,
}

impl Workers {
    /// Workers that are started so.
    pub fn new(launch: Launch) -> Workers {
        Workers { launch, for_ops: None, for_networks: None, meter: None, warm: false }
    }

    /// The same, on a device that may be warm from earlier work.
    pub fn on_warm_device(mut self, warm: bool) -> Workers {
        self.warm = warm;
        self
    }

    /// The same, with an energy sensor.
    pub fn with_meter(mut self, meter: Option<Box<dyn Meter>>) -> Workers {
        self.meter = meter;
        self
    }

    fn place(&mut self, job: &Job) -> &mut Option<Box<dyn Worker>> {
        match job.work {
            Work::Op { .. } => &mut self.for_ops,
            Work::Network { .. } => &mut self.for_networks,
        }
    }

    fn running(&mut self, job: &Job) -> Result<&mut Box<dyn Worker>> {
        self.warm = true;
        if self.place(job).is_none() {
            // A worker that is killed at its start does not mean that the next one will be.
            let started = self.launch.worker().or_else(|_| self.launch.worker())?;
            *self.place(job) = Some(started);
        }
        let Some(worker) = self.place(job) else { unreachable!("it was just started") };
        Ok(worker)
    }
}

impl Sampler for Workers {
    fn visit(&mut self, job: &Job, passes: &[Pass]) -> Result<Result<Visited, Fault>> {
        let worker = self.running(job)?;
        let result = worker.visit(&job.work, passes, job.protocol.visit_limit);
        if matches!(result, Err(Fault::Died(_) | Fault::Hung { .. })) {
            *self.place(job) = None;
        }
        Ok(result)
    }

    fn energy(&mut self, job: &Job) -> Result<Option<Energy>> {
        let Some(mut meter) = self.meter.take() else { return Ok(None) };
        let worker = self.running(job)?;
        let energy = energy::run(&mut *meter, &energy::Plan::default(), |seconds| {
            Ok(worker.keep_busy(&job.work, seconds, job.protocol.visit_limit)?)
        });
        self.meter = Some(meter);
        // The row has its latency, so a fault now costs only its energy.
        Ok(energy.unwrap_or_else(|fault| {
            tracing::warn!("no energy: {fault}");
            *self.place(job) = None;
            None
        }))
    }

    fn keep_busy(&mut self, job: &Job, seconds: f64) -> Result<Result<Busy, Fault>> {
        let worker = self.running(job)?;
        let result = worker.keep_busy(&job.work, seconds, job.protocol.visit_limit);
        if matches!(result, Err(Fault::Died(_) | Fault::Hung { .. })) {
            *self.place(job) = None;
        }
        let untimed = || Fault::Died("answered without times".to_owned());
        Ok(result.and_then(|busy| busy.ok_or_else(untimed)))
    }

    fn is_warm(&self) -> bool {
        self.warm
    }
}

//! Turns the engine's outcomes into measurements.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use latlas_shared::{
    Device, Fingerprint, HardwareId, LIBTORCH_EAGER, MEASUREMENT_SCHEMA, Measurement, RunConfig,
    Status, Subject, Telemetry,
};
use uuid::Uuid;

use crate::engine::{Job, Outcome};
use crate::references::{self, History, Values};
use crate::system::System;
use crate::system::energy::Meter;

/// The fields that all measurements of one run share.
#[derive(Debug, Clone)]
pub struct Recorder {
    system: System,
    /// Whether rows include energy.
    with_energy: bool,
    /// The box.
    pub fingerprint: Fingerprint,
    /// Its class.
    pub hardware_id: HardwareId,
    /// How ops are run.
    pub run_config: RunConfig,
    /// Whether the runtime makes reuse distances.
    evicts: bool,
}

/// Time between two telemetry readings during a run.
const LOOK: Duration = Duration::from_secs(5);

/// A run that has started.
#[derive(Debug)]
pub struct Run {
    at: Timestamp,
    /// The end of a measurement is its start plus the monotonic time since then. So a wall clock that is set back in
    /// between does not put the end before the start.
    monotonic: Instant,
    before: Telemetry,
    /// The time of the last telemetry reading, and the worst state so far.
    during: RefCell<(Instant, Telemetry)>,
    /// Earlier runs; None if they could not be read.
    history: Option<History>,
    /// The values of the references at the last row.
    references: RefCell<Values>,
}

impl Recorder {
    /// A recorder for this box. `libraries` are versions and settings of what runs kernels.
    ///
    /// # Errors
    /// When the box cannot be read.
    pub fn new(
        device: Device,
        run_config: RunConfig,
        libraries: BTreeMap<String, String>,
    ) -> Result<Recorder> {
        let system = System::for_device(device, libraries);
        let system = match run_config.runtime == LIBTORCH_EAGER {
            true => system,
            false => system.without_libtorch(),
        };
        let fingerprint = system.fingerprint(device)?;
        let hardware_id = fingerprint.hardware_id();
        let (with_energy, evicts) = (false, true);
        Ok(Recorder { system, with_energy, fingerprint, hardware_id, run_config, evicts })
    }

    /// The same, with the energy of each row if asked for.
    pub fn with_energy(self, with_energy: bool) -> Recorder {
        Recorder { with_energy, ..self }
    }

    /// The same, for a runtime that makes reuse distances or not.
    pub fn evicting(self, evicts: bool) -> Recorder {
        Recorder { evicts, ..self }
    }

    /// The box, for facts that are not recorded.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// The energy sensor, if rows include energy and the box has a sensor.
    pub fn meter(&self) -> Option<Box<dyn Meter>> {
        if !self.with_energy {
            return None;
        }
        self.system
            .meter(self.fingerprint.device)
            .map_err(anyhow::Error::from)
            .inspect_err(|reason| tracing::warn!("rows will have no energy: {reason:#}"))
            .ok()
    }

    /// Records the time and the state of the box. Reference values of earlier runs are in the state directory.
    pub fn start(&self, state: &Path) -> Run {
        let history = History::open(state, self.hardware_id.as_str(), &self.run_config.id());
        let before = self.system.telemetry();
        Run {
            at: Timestamp::now(),
            monotonic: Instant::now(),
            during: RefCell::new((Instant::now(), before.clone())),
            before,
            history: history
                .inspect_err(|e| tracing::warn!("{e:#}; this run is compared with no other"))
                .ok(),
            references: RefCell::default(),
        }
    }

    /// Reads the telemetry if the last reading is old enough. Called between visits, so that reading disturbs no
    /// sample.
    pub fn look(&self, run: &Run) {
        let mut during = run.during.borrow_mut();
        if during.0.elapsed() >= LOOK {
            let worst = std::mem::take(&mut during.1).worst(self.system.telemetry());
            *during = (Instant::now(), worst);
        }
    }

    /// A measurement with an id of its own.
    pub fn measurement(
        &self,
        run: &Run,
        task: Option<i64>,
        subject: Subject,
        outcome: Outcome,
    ) -> Measurement {
        let references: Values = references::keys()
            .into_iter()
            .zip(outcome.references)
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        run.references.replace(references.clone());
        let history = run.history.as_ref().map_or(&[][..], |history| &history.runs);
        let complaint = references::complaint(references::shift(&references, history));
        let (status, reason) = match (outcome.status, complaint) {
            (Status::Ok | Status::NotConverged, Some(complaint)) => {
                (Status::Degraded, Some(complaint))
            }
            _ => (outcome.status, outcome.reason),
        };
        let after = self.system.telemetry();
        Measurement {
            schema: MEASUREMENT_SCHEMA,
            id: Uuid::now_v7(),
            task,
            task_generation: None,
            hardware_id: self.hardware_id.clone(),
            fingerprint: self.fingerprint.digest(),
            run_config: self.run_config.clone(),
            subject,
            status,
            reason,
            failure_kind: outcome.failure_kind,
            latency: outcome.latency,
            sustained: outcome.sustained,
            energy: outcome.energy,
            peak_memory_bytes: outcome.peak_memory_bytes,
            rejected: outcome.rejected,
            samples: Some(latlas_shared::samples::pack(&outcome.samples)),
            started_at: run.at,
            finished_at: run.at + run.monotonic.elapsed(),
            before: run.before.clone(),
            during: run.during.borrow().1.clone().worst(after.clone()),
            after,
            references,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Run {
    /// Adapts the protocols of jobs to the device and the runtime. The published intervals then include the variation between runs of
    /// this box, as far as its earlier runs determine it.
    pub fn prepare(&self, recorder: &Recorder, jobs: &mut [Job]) {
        if let Device::Cuda(_) = recorder.fingerprint.device {
            jobs.iter_mut().for_each(|job| job.protocol.sample_blocks());
        }
        if !recorder.evicts {
            jobs.iter_mut().for_each(|job| job.protocol.stay_hot());
        }
        let history = self.history.as_ref().map_or(&[][..], |history| &history.runs);
        if let Some(between_runs) = references::between_runs(history) {
            jobs.iter_mut().for_each(|job| job.protocol.between_runs = between_runs);
        }
    }

    /// The worst state of the box so far.
    pub fn worst(&self) -> Telemetry {
        self.during.borrow().1.clone()
    }

    /// Stores the reference values for later runs.
    pub fn end(self) {
        let references = self.references.into_inner();
        if let Some(mut history) = self.history
            && !references.is_empty()
            && let Err(e) = history.add(references)
        {
            tracing::warn!("{e:#}; later runs will not know of this one");
        }
    }
}

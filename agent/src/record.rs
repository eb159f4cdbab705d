//! Turns the engine's outcomes into measurements.

use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use latlas_shared::{Fingerprint, HardwareId, Measurement, RunConfig, Subject, Telemetry};
use uuid::Uuid;

use crate::cli::How;
use crate::engine::Outcome;
use crate::system::System;
use crate::system::energy::Meter;

/// What all measurements of one run have in common.
#[derive(Debug, Clone)]
pub struct Recorder {
    system: System,
    /// Whether rows are to have their energy.
    with_energy: bool,
    /// The box.
    pub fingerprint: Fingerprint,
    /// Its class.
    pub hardware_id: HardwareId,
    /// How ops are run.
    pub run_config: RunConfig,
}

/// The beginning of a run.
#[derive(Debug, Clone)]
pub struct RunStart {
    at: Timestamp,
    /// The end is the beginning and what has passed since: a wall clock that is set back in between
    /// does not make a measurement end before it began.
    monotonic: Instant,
    before: Telemetry,
}

impl Recorder {
    /// A recorder for this box.
    ///
    /// # Errors
    /// When the box cannot be read.
    pub fn new(how: &How) -> Result<Recorder> {
        let system = System::for_device(how.device);
        let fingerprint = system.fingerprint(how.device)?;
        Ok(Recorder {
            system,
            with_energy: how.energy,
            hardware_id: fingerprint.hardware_id(),
            fingerprint,
            run_config: how.run_config(),
        })
    }

    /// The box, for what is not recorded.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// The sensor of energy, when rows are to have it and there is one.
    pub fn meter(&self) -> Option<Box<dyn Meter>> {
        if !self.with_energy {
            return None;
        }
        self.system
            .meter(self.fingerprint.device)
            .inspect_err(|reason| tracing::warn!("rows will have no energy: {reason}"))
            .ok()
    }

    /// Notes the time and the state of the box.
    pub fn start(&self) -> RunStart {
        RunStart {
            at: Timestamp::now(),
            monotonic: Instant::now(),
            before: self.system.telemetry(),
        }
    }

    /// A measurement with an id of its own.
    pub fn measurement(
        &self,
        start: &RunStart,
        task: Option<i64>,
        subject: Subject,
        outcome: Outcome,
    ) -> Measurement {
        Measurement {
            id: Uuid::now_v7(),
            task,
            hardware_id: self.hardware_id.clone(),
            fingerprint: self.fingerprint.digest(),
            run_config: self.run_config.clone(),
            subject,
            status: outcome.status,
            reason: outcome.reason,
            latency: outcome.latency,
            energy: outcome.energy,
            peak_memory_bytes: outcome.peak_memory_bytes,
            rejected: outcome.rejected,
            samples: Some(latlas_shared::samples::pack(&outcome.samples)),
            started_at: start.at,
            finished_at: start.at + start.monotonic.elapsed(),
            before: start.before.clone(),
            after: self.system.telemetry(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

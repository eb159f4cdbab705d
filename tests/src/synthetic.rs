//! Boxes and measurements without hardware. Their hardware id begins with `simulated`, so that none of their numbers is
//! mistaken for one of a device.

use jiff::Timestamp;
use latlas_shared::api::EnrolRequest;
use latlas_shared::{Fingerprint, Latency, Measurement, RunConfig, Status, Subject, testing};
use uuid::Uuid;

/// The version of libtorch and of the agent: no such version was ever released.
const NO_VERSION: &str = "0.0.0";

/// A class of boxes that do not exist; the memory distinguishes classes.
pub fn fingerprint(memory_gib: u64) -> Fingerprint {
    Fingerprint {
        cpu_model: Some("simulated 1".to_owned()),
        libtorch: NO_VERSION.to_owned(),
        ..testing::fingerprint(memory_gib)
    }
}

/// Their run config.
pub fn run_config() -> RunConfig {
    RunConfig::libtorch_eager(NO_VERSION)
}

/// The enrolment of such a box, which runs every primitive.
pub fn enrolment(name: &str, memory_gib: u64) -> EnrolRequest {
    EnrolRequest {
        fingerprint: fingerprint(memory_gib),
        run_config: run_config(),
        agent_version: NO_VERSION.to_owned(),
        ..testing::enrolment(name, memory_gib)
    }
}

/// The fields of one synthetic measurement.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its id.
    pub id: Uuid,
    /// The task that it answers.
    pub task: Option<i64>,
    /// What was measured.
    pub subject: Subject,
    /// The number, or the reason why there is none.
    pub result: Result<f64, String>,
    /// When it was finished, by the clock of its box.
    pub finished_at: Timestamp,
}

/// A measurement of a box of this class.
pub fn measurement(memory_gib: u64, observed: Observed) -> Measurement {
    let Observed { id, task, subject, result, finished_at } = observed;
    let fingerprint = fingerprint(memory_gib);
    let distance = match subject {
        Subject::Op { .. } => run_config().reuse_distance_bytes,
        Subject::Network(_) => 0,
    };
    let (status, latency, reason) = match result {
        Ok(micros) => {
            (Status::Ok, Some(Latency { curve: vec![testing::point(distance, micros)] }), None)
        }
        Err(reason) => (Status::Failed, None, Some(reason)),
    };
    Measurement {
        id,
        task,
        hardware_id: fingerprint.hardware_id(),
        fingerprint: fingerprint.digest(),
        run_config: run_config(),
        status,
        reason,
        latency,
        started_at: finished_at,
        finished_at,
        agent_version: NO_VERSION.to_owned(),
        ..testing::measured(subject, Vec::new())
    }
}

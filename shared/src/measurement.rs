//! What one agent observed for one task.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ops_catalog::{OpDigest, OpKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    CurveError, Energy, HardwareId, Latency, RunConfig, Sustained, Telemetry, WholeNetwork,
};

/// What was measured.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An op at a shape: it becomes a row of a table.
    Op {
        /// The row.
        key: OpKey,
        /// The definition that was run.
        digest: OpDigest,
    },
    /// A whole network: ground truth for predictions, never a row.
    Network(Box<WholeNetwork>),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Op { key, .. } => key.fmt(f),
            Subject::Network(network) => write!(f, "network {network}"),
        }
    }
}

/// How far the number of a measurement can be trusted.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// Measured to the precision that was asked for.
    Ok,
    /// The time allowed was over before the interval was narrow enough.
    NotConverged,
    /// Measured, but the machine was disturbed for more of the samples than may be set aside.
    Degraded,
    /// There is no number. The reason explains it.
    Failed,
}

impl Status {
    /// The name in tables and columns.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Kind of a failure. It distinguishes a fault of the box from a fault of the op.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FailureKind {
    /// The process that ran it died.
    WorkerDied,
    /// It did not return in time.
    TimedOut,
    /// It needs more memory than the limit of this box.
    OutOfMemory,
    /// The device or its driver reported an error of its own.
    Device,
    /// Its output has values that are not finite.
    NotFinite,
    /// It cannot be run: a definition that this build reads otherwise, or that libtorch refuses.
    Unsupported,
}

impl FailureKind {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether another box of the class may succeed.
    pub fn is_of_box(self) -> bool {
        match self {
            FailureKind::WorkerDied
            | FailureKind::TimedOut
            | FailureKind::OutOfMemory
            | FailureKind::Device => true,
            FailureKind::NotFinite | FailureKind::Unsupported => false,
        }
    }

    /// The kind of a failure that only has a reason, for example from an older agent. A reason that does not mention
    /// the box counts as a fault of the op.
    pub fn from_words(reason: &str) -> FailureKind {
        let words = reason.to_lowercase();
        let any = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
        if any(&["not finite"]) {
            FailureKind::NotFinite
        } else if any(&["of memory, and the limit", "out of memory", "can't allocate memory"]) {
            FailureKind::OutOfMemory
        } else if any(&["worker process", "starting a worker"]) {
            FailureKind::WorkerDied
        } else if any(&["did not return within", "timed out"]) {
            FailureKind::TimedOut
        } else if any(&["cuda error", "the device's context is lost"]) {
            FailureKind::Device
        } else {
            FailureKind::Unsupported
        }
    }
}

/// Version of a measurement's JSON. 2: the run config names its runtime, and digests their version.
pub const MEASUREMENT_SCHEMA: u32 = 2;

fn first_schema() -> u32 {
    1
}

/// Why the result of a measurement cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// It was written by a newer program.
    #[error(
        "its schema is version {schema}, and this program reads 1 to {MEASUREMENT_SCHEMA}: upgrade the older of the \
         two programs"
    )]
    Schema {
        /// The version that it names.
        schema: u32,
    },
    /// Its energy is impossible.
    #[error("its energy is not a positive number; what was not measured is null")]
    Energy,
    /// Its sustained run does not fit its subject, or is impossible.
    #[error(
        "its `sustained` does not fit: a network with `sustained_seconds` that was measured has it, for the same \
         seconds and with possible times, and nothing else has it"
    )]
    Sustained,
    /// It failed, and does not say why.
    #[error("it failed and gives no reason")]
    NoReason,
    /// It failed, and has a number all the same.
    #[error("it failed and has a latency")]
    FailedWithLatency,
    /// It has no number, and did not fail.
    #[error("it has no latency")]
    NoLatency,
    /// Its number cannot be used.
    #[error(transparent)]
    Curve(#[from] CurveError),
}

/// What one agent observed for one task. Immutable; its id is made on the agent, so that sending it
/// twice changes nothing.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// [`MEASUREMENT_SCHEMA`] of the writer; 1 where it is not written.
    #[serde(default = "first_schema")]
    pub schema: u32,
    /// Made where the measurement was made.
    pub id: Uuid,
    /// The coordinator's task that it answers; null outside a farm.
    pub task: Option<i64>,
    /// The generation of that task, as it was handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_generation: Option<u32>,
    /// The class of device.
    pub hardware_id: HardwareId,
    /// Digest of the box's fingerprint at that time.
    pub fingerprint: String,
    /// How it was run.
    pub run_config: RunConfig,
    /// What was measured.
    pub subject: Subject,
    /// How far the number can be trusted.
    pub status: Status,
    /// Why the status is not `ok`.
    pub reason: Option<String>,
    /// What kind of failure it is, where the status is `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_kind: Option<FailureKind>,
    /// The result; null when the status is `failed`.
    pub latency: Option<Latency>,
    /// The latency at both ends of a sustained run, for a network that was to run without a pause. `latency` is that of
    /// the beginning then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained: Option<Sustained>,
    /// Energy of one call; null where nothing measured it.
    pub energy: Option<Energy>,
    /// Most memory that the worker process held while it ran this, in bytes; on a GPU the GPU's. Null where unknown.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
    /// Samples that were set aside because the machine was disturbed while they were taken.
    #[serde(default)]
    pub rejected: u32,
    /// The samples themselves, for a better statistic later; see [`crate::samples`].
    #[serde(default)]
    pub samples: Option<String>,
    /// Start of the run that it comes from.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub started_at: Timestamp,
    /// End of it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub finished_at: Timestamp,
    /// The box before the run.
    pub before: Telemetry,
    /// The worst state of the box during the run, sampled every few seconds.
    #[serde(default)]
    pub during: Telemetry,
    /// The box after the run.
    pub after: Telemetry,
    /// How fast the reference ops ran in the same run: the quiet quantile in microseconds, by op key.
    /// The box runs them in every run, so they show whether the whole box was slow.
    #[serde(default)]
    pub references: BTreeMap<OpKey, f64>,
    /// Version of the agent.
    pub agent_version: String,
}

impl Measurement {
    /// The reuse distance at which its number is read: a network brings its own, so nothing is read
    /// between two inferences.
    pub fn reference_distance(&self) -> u64 {
        match self.subject {
            Subject::Op { .. } => self.run_config.reuse_distance_bytes,
            Subject::Network(_) => 0,
        }
    }

    /// The latency of one call, in microseconds; none when the measurement failed.
    pub fn micros(&self) -> Option<f64> {
        Some(self.latency.as_ref()?.at(self.reference_distance())?.latency_micros().1)
    }

    /// How long its network was to run without a pause, in seconds.
    fn sustained_seconds(&self) -> Option<u32> {
        match &self.subject {
            Subject::Op { .. } => None,
            Subject::Network(network) => network.sustained_seconds,
        }
    }

    /// Checks that status, reason, latency, sustained run and energy fit together and are possible.
    ///
    /// # Errors
    /// When they do not.
    pub fn check_result(&self) -> Result<(), ResultError> {
        if !(1..=MEASUREMENT_SCHEMA).contains(&self.schema) {
            return Err(ResultError::Schema { schema: self.schema });
        }
        if self.energy.as_ref().is_some_and(|energy| !energy.is_sound()) {
            return Err(ResultError::Energy);
        }
        let sustained_fits = match (&self.sustained, self.sustained_seconds()) {
            (Some(sustained), Some(seconds)) => {
                self.status != Status::Failed
                    && sustained.seconds == seconds
                    && sustained.is_sound()
            }
            (None, Some(_)) => self.status == Status::Failed,
            (sustained, None) => sustained.is_none(),
        };
        if !sustained_fits {
            return Err(ResultError::Sustained);
        }
        match (self.status, &self.latency) {
            (Status::Failed, None) if self.reason.is_some() => Ok(()),
            (Status::Failed, None) => Err(ResultError::NoReason),
            (Status::Failed, Some(_)) => Err(ResultError::FailedWithLatency),
            (_, None) => Err(ResultError::NoLatency),
            (_, Some(latency)) => Ok(latency.check(self.reference_distance())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_the_fault_of_a_box_from_that_of_an_op() {
        use FailureKind::{Device, NotFinite, OutOfMemory, TimedOut, Unsupported, WorkerDied};
        for (reason, kind, of_box) in [
            ("the worker process ended with signal: 9 (SIGKILL)", WorkerDied, true),
            ("starting a worker: it did not return within 120 s and was killed", WorkerDied, true),
            ("it did not return within 120 s and was killed", TimedOut, true),
            ("it needs up to 900 MiB of memory, and the limit is 500 MiB", OutOfMemory, true),
            ("CUDA out of memory. Tried to allocate 2.00 GiB", OutOfMemory, true),
            ("DefaultCPUAllocator: can't allocate memory: you tried to", OutOfMemory, true),
            ("CUDA error: an illegal memory access was encountered", Device, true),
            ("its output has values that are not finite", NotFinite, false),
            ("expected 4-dimensional input for 4-dimensional weight", Unsupported, false),
            ("", Unsupported, false),
        ] {
            assert_eq!(FailureKind::from_words(reason), kind, "{reason}");
            assert_eq!(kind.is_of_box(), of_box, "{kind:?}");
            // The name in the database is the serialized name.
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn a_sustained_run_fits_its_network() {
        use crate::testing::{network_measurement, sustained_measurement};
        let run = sustained_measurement("demo_conv", 100.0, 1.3);
        assert_eq!(run.check_result(), Ok(()));
        let sustained = run.sustained.unwrap();
        assert!((sustained.over_burst() - 1.3).abs() < 1e-12);
        let other = Sustained { seconds: 20, ..sustained };
        let impossible = Sustained { burst_micros: 0.0, ..sustained };
        for wrong in [None, Some(other), Some(impossible)] {
            let measurement = Measurement { sustained: wrong, ..run.clone() };
            assert_eq!(measurement.check_result(), Err(ResultError::Sustained), "{wrong:?}");
        }
        let usual = network_measurement("demo_conv", 100.0);
        let unasked = Measurement { sustained: Some(sustained), ..usual };
        assert_eq!(unasked.check_result(), Err(ResultError::Sustained));
        let failed = Measurement {
            status: Status::Failed,
            reason: Some("out of memory".to_owned()),
            latency: None,
            ..run
        };
        assert_eq!(failed.check_result(), Err(ResultError::Sustained));
        assert_eq!(Measurement { sustained: None, ..failed }.check_result(), Ok(()));
    }
}

//! What one agent observed for one task.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ops_catalog::{OpDigest, OpKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{HardwareId, RunConfig, WholeNetwork};

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
            Subject::Network(network) => write!(f, "network {}", network.name()),
        }
    }
}

/// How far the number of a measurement can be trusted.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Measured to the precision that was asked for.
    Ok,
    /// The time allowed was over before the interval was narrow enough.
    NotConverged,
    /// Measured, but the machine was disturbed for more of the samples than may be set aside.
    Degraded,
    /// There was no number; the reason says why.
    Failed,
}

impl Status {
    /// The name in tables and columns.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::NotConverged => "not_converged",
            Status::Degraded => "degraded",
            Status::Failed => "failed",
        }
    }
}

/// Why there is no number: what tells the fault of a box from that of an op.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The process that ran it died.
    WorkerDied,
    /// It did not return in time.
    TimedOut,
    /// It needs more memory than this box may give it.
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
        match self {
            FailureKind::WorkerDied => "worker_died",
            FailureKind::TimedOut => "timed_out",
            FailureKind::OutOfMemory => "out_of_memory",
            FailureKind::Device => "device",
            FailureKind::NotFinite => "not_finite",
            FailureKind::Unsupported => "unsupported",
        }
    }

    /// Whether another box of the class may have a number all the same.
    pub fn is_of_box(self) -> bool {
        match self {
            FailureKind::WorkerDied
            | FailureKind::TimedOut
            | FailureKind::OutOfMemory
            | FailureKind::Device => true,
            FailureKind::NotFinite | FailureKind::Unsupported => false,
        }
    }

    /// The kind of a failure that has only words, as from an agent that says no kind. Words that say nothing
    /// of the box count as the op's.
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

/// One point of an op's reuse-distance curve. Times are microseconds of one call.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Bytes of other memory that were touched between two calls.
    pub reuse_distance_bytes: u64,
    /// The quiet quantile: the 10th percentile of the samples, each of which is the mean of
    /// `calls_per_sample` calls.
    pub quiet_micros: f64,
    /// Lower end of the interval that a repetition of the measurement falls into 95% of the time.
    pub ci95_low_micros: f64,
    /// Upper end of it.
    pub ci95_high_micros: f64,
    /// The median of the same samples.
    pub median_micros: f64,
    /// Number of samples.
    pub samples: u32,
    /// Number of visits, spread over the run, that the samples come from.
    pub visits: u32,
    /// Calls that one sample is the mean of, with one wait for all of them: 1 on a processor, where it is left out,
    /// and a block on a GPU. Of visits with blocks of several lengths it is the longest.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub calls_per_sample: u32,
    /// On a GPU, what it costs the host to issue the call, in microseconds; the quiet quantile.
    /// Null on a processor, where issuing and running are one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_micros: Option<f64>,
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

/// Energy of one call, in millijoule.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// All that the sensor saw.
    pub gross_mj: f64,
    /// Without what the device draws when idle.
    pub net_mj: f64,
    /// About one tick of the sensor over the window, and the spread of the idle power.
    pub uncertainty_mj: f64,
    /// The sensor: `nvml`, `ina3221` or `rapl`, with its rails.
    pub source: String,
}

impl Energy {
    /// Whether it is what the type promises: finite, and more than nothing was drawn.
    pub fn is_sound(&self) -> bool {
        [self.gross_mj, self.net_mj, self.uncertainty_mj].iter().all(|mj| mj.is_finite())
            && self.gross_mj > 0.0
            && self.uncertainty_mj >= 0.0
    }
}

/// The share of the device's time from which on the host's time counts as what bounds an op.
pub const HOST_BOUND_SHARE: f64 = 0.9;

impl CurvePoint {
    /// Half the width of the 95% interval over the value.
    pub fn ci95_rel(&self) -> f64 {
        (self.ci95_high_micros - self.ci95_low_micros) / 2.0 / self.quiet_micros
    }

    /// Whether issuing the call takes as long as running it, on a GPU: called over and over, the device
    /// waits for the host.
    pub fn host_bound(&self) -> bool {
        self.host_micros.is_some_and(|host| host >= HOST_BOUND_SHARE * self.quiet_micros)
    }

    /// What one call costs, called over and over: on a GPU the larger of the host's and the device's
    /// time, as lower end, value and upper end of its interval.
    pub fn latency_micros(&self) -> (f64, f64, f64) {
        let at_least = self.host_micros.unwrap_or(0.0);
        let [low, value, high] = [self.ci95_low_micros, self.quiet_micros, self.ci95_high_micros];
        (low.max(at_least), value.max(at_least), high.max(at_least))
    }
}

/// A latency as a function of the reuse distance.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Points in ascending order of their distance; never empty.
    pub curve: Vec<CurvePoint>,
}

/// No call takes longer, in microseconds (11 days): a number beyond it is damage, and sums of numbers
/// below it stay finite.
pub(crate) const LONGEST_MICROS: f64 = 1e12;

/// The most points of a curve.
const MOST_POINTS: usize = 64;

impl Latency {
    /// The point at a distance, if it was measured.
    pub fn at(&self, reuse_distance_bytes: u64) -> Option<&CurvePoint> {
        self.curve.iter().find(|point| point.reuse_distance_bytes == reuse_distance_bytes)
    }

    /// Whether the curve is what the type promises: finite positive times, ordered intervals and
    /// ascending distances.
    pub fn is_sound(&self) -> bool {
        let sound = |p: &CurvePoint| {
            let times = [p.ci95_low_micros, p.quiet_micros, p.ci95_high_micros, p.median_micros];
            times.iter().all(|t| t.is_finite() && *t > 0.0)
                && p.ci95_low_micros <= p.quiet_micros
                && p.quiet_micros <= p.ci95_high_micros
                && p.host_micros.is_none_or(|t| t.is_finite() && t > 0.0)
                && p.samples > 0
                && p.visits > 0
                && p.calls_per_sample > 0
        };
        !self.curve.is_empty()
            && self.curve.iter().all(sound)
            && self.curve.is_sorted_by(|a, b| a.reuse_distance_bytes < b.reuse_distance_bytes)
    }

    /// Checks a curve that came from elsewhere. `reference` is the distance at which it will be read.
    fn check(&self, reference: u64) -> Result<(), String> {
        if self.curve.len() > MOST_POINTS {
            return Err(format!("its curve has more than {MOST_POINTS} points"));
        }
        let possible = |micros: f64| micros > 0.0 && micros <= LONGEST_MICROS;
        let bounded = self.curve.iter().all(|point| {
            let times = [point.ci95_high_micros, point.median_micros];
            times.into_iter().chain(point.host_micros).all(possible)
        });
        if !self.is_sound() || !bounded {
            return Err(
                "its latency is not sound: times are positive and finite, each lies inside \
                        its interval, and distances ascend"
                    .into(),
            );
        }
        if self.at(reference).is_none() {
            return Err(format!("its curve has no point at {reference} bytes, where it is read"));
        }
        Ok(())
    }
}

/// The state of the box around a measurement; null where it could not be read.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Mean load over one minute.
    pub load1: Option<f64>,
    /// Lowest current frequency of the processors, in kHz.
    pub khz: Option<u64>,
    /// Hottest sensor, in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Share of the last ten seconds, 0 to 100, in which some task waited for a processor (PSI).
    pub cpu_pressure: Option<f64>,
    /// Clock of the GPU, in MHz.
    pub gpu_mhz: Option<u32>,
    /// Clock of the GPU's memory, or of the external memory controller, in MHz.
    pub memory_mhz: Option<u32>,
    /// Why clocks are held down; empty when they are not, null when nobody could say.
    pub throttle: Option<Vec<String>>,
}

impl Telemetry {
    /// The worst of two states: what either could not read is taken from the other.
    pub fn worst(self, other: Telemetry) -> Telemetry {
        fn most(a: Option<f64>, b: Option<f64>) -> Option<f64> {
            a.into_iter().chain(b).max_by(f64::total_cmp)
        }
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        let throttle = match (self.throttle, other.throttle) {
            (Some(mut reasons), Some(more)) => {
                reasons.extend(more);
                reasons.sort_unstable();
                reasons.dedup();
                Some(reasons)
            }
            (one, other) => one.or(other),
        };
        Telemetry {
            load1: most(self.load1, other.load1),
            khz: least(self.khz, other.khz),
            temperature_c: most(self.temperature_c, other.temperature_c),
            cpu_pressure: most(self.cpu_pressure, other.cpu_pressure),
            gpu_mhz: least(self.gpu_mhz, other.gpu_mhz),
            memory_mhz: least(self.memory_mhz, other.memory_mhz),
            throttle,
        }
    }
}

/// Version of a measurement's JSON. 2: the run config names its runtime, and digests their version.
pub const MEASUREMENT_SCHEMA: u32 = 2;

fn first_schema() -> u32 {
    1
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
    /// The worst state that the box was seen in during the run, looked at every few seconds.
    #[serde(default)]
    pub during: Telemetry,
    /// The box after the run.
    pub after: Telemetry,
    /// How fast the reference ops ran in the same run: the quiet quantile in microseconds, by op key.
    /// The same box runs them in every run, so they tell whether it was slow as a whole.
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

    /// What it says one call costs, in microseconds; none when it failed.
    pub fn micros(&self) -> Option<f64> {
        Some(self.latency.as_ref()?.at(self.reference_distance())?.latency_micros().1)
    }

    /// Checks that status, reason, latency and energy fit together and are possible.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_result(&self) -> Result<(), String> {
        if !(1..=MEASUREMENT_SCHEMA).contains(&self.schema) {
            return Err(format!(
                "its schema is version {}, and this program reads 1 to {MEASUREMENT_SCHEMA}: upgrade the older of \
                 the two programs",
                self.schema
            ));
        }
        if self.energy.as_ref().is_some_and(|energy| !energy.is_sound()) {
            return Err("its energy is not a positive number; what was not measured is null".into());
        }
        match (self.status, &self.latency) {
            (Status::Failed, None) if self.reason.is_some() => Ok(()),
            (Status::Failed, None) => Err("it failed and gives no reason".into()),
            (Status::Failed, Some(_)) => Err("it failed and has a latency".into()),
            (_, None) => Err("it has no latency".into()),
            (_, Some(latency)) => latency.check(self.reference_distance()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn telemetry() -> impl Strategy<Value = Telemetry> {
        let throttle = prop::option::of(prop::collection::btree_set("[ab]", 0..2));
        let floats = || prop::option::of(0.0f64..100.0);
        let ints = || prop::option::of(1u32..100);
        (floats(), floats(), floats(), ints(), ints(), throttle).prop_map(
            |(load1, temperature_c, cpu_pressure, gpu_mhz, memory_mhz, throttle)| Telemetry {
                load1,
                khz: gpu_mhz.map(u64::from),
                temperature_c,
                cpu_pressure,
                gpu_mhz,
                memory_mhz,
                throttle: throttle.map(|reasons| reasons.into_iter().collect()),
            },
        )
    }

    proptest! {
        #[test]
        fn the_worst_state_does_not_depend_on_the_order(
            a in telemetry(), b in telemetry(), c in telemetry(),
        ) {
            prop_assert_eq!(a.clone().worst(b.clone()), b.clone().worst(a.clone()));
            let left = a.clone().worst(b.clone()).worst(c.clone());
            prop_assert_eq!(left, a.clone().worst(b.worst(c)));
            prop_assert_eq!(a.clone().worst(a.clone()), a.clone());
            prop_assert_eq!(a.clone().worst(Telemetry::default()), a);
        }
    }

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
            // The name in the database is the name that travels.
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    fn point(device: f64, host: Option<f64>) -> CurvePoint {
        CurvePoint {
            reuse_distance_bytes: 0,
            quiet_micros: device,
            ci95_low_micros: 0.95 * device,
            ci95_high_micros: 1.05 * device,
            median_micros: device,
            samples: 8,
            visits: 4,
            calls_per_sample: 1,
            host_micros: host,
        }
    }

    #[test]
    fn a_point_says_how_many_calls_a_sample_is_the_mean_of_unless_it_is_one() {
        let one = serde_json::to_value(point(100.0, None)).unwrap();
        assert_eq!(one.get("calls_per_sample"), None);
        assert_eq!(serde_json::from_value::<CurvePoint>(one).unwrap().calls_per_sample, 1);
        let block = CurvePoint { calls_per_sample: 8, ..point(100.0, None) };
        let text = serde_json::to_value(block).unwrap();
        assert_eq!(text["calls_per_sample"], 8);
        assert_eq!(serde_json::from_value::<CurvePoint>(text).unwrap(), block);
        let none = CurvePoint { calls_per_sample: 0, ..block };
        assert!(!Latency { curve: vec![none] }.is_sound());
    }

    #[test]
    fn an_op_costs_the_larger_of_its_two_times() {
        assert_eq!(point(100.0, None).latency_micros(), (95.0, 100.0, 105.0));
        assert_eq!(point(100.0, Some(10.0)).latency_micros(), (95.0, 100.0, 105.0));
        assert_eq!(point(100.0, Some(102.0)).latency_micros(), (102.0, 102.0, 105.0));
        assert_eq!(point(2.0, Some(10.0)).latency_micros(), (10.0, 10.0, 10.0));
    }

    #[test]
    fn what_waits_for_the_host_is_host_bound() {
        assert!(!point(100.0, None).host_bound());
        assert!(!point(100.0, Some(80.0)).host_bound());
        assert!(point(100.0, Some(99.0)).host_bound());
        assert!(point(2.0, Some(10.0)).host_bound());
    }

    #[test]
    fn a_host_time_is_a_time() {
        let sound = |host| Latency { curve: vec![point(5.0, host)] }.is_sound();
        assert!(sound(None) && sound(Some(3.0)));
        assert!(!sound(Some(0.0)) && !sound(Some(-1.0)) && !sound(Some(f64::NAN)));
    }
}

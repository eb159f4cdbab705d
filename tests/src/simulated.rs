//! An agent that measures nothing: it uses the real protocol through the real client, with numbers from a seed. So one
//! machine can run a farm of thousands.
//!
//! Its numbers cannot be mistaken for measurements: its hardware id begins with [`MARK`], which comes from the name of
//! its processor, and so does its version.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use latlas_client::{Client, ClientError};
use latlas_shared::api::{EnrolRequest, Enrolled, Heartbeat, Lease, LeaseAnswer, LeaseRequest};
use latlas_shared::api::{Orders, Renewed, Results, ResultsAnswer, Task, TaskWork};
use latlas_shared::{
    CONFIG_DEFAULT_REUSE_DISTANCE, CurvePoint, Fingerprint, Latency, Measurement, RunConfig,
    Subject, Sustained, Telemetry, WholeNetwork,
    samples::{self, Samples},
    testing,
};
use ops_catalog::OpKey;
use uuid::Uuid;

/// The version of libtorch, which was never released.
const NO_VERSION: &str = "0.0.0";

/// The prefix of the hardware id of a simulated box.
pub const MARK: &str = "simulated-";

/// How much slower a simulated box is at the end of a sustained run.
pub const OVER_BURST: f64 = 1.18;

/// The reuse distances of a curve, in bytes, as in the real agent.
const DISTANCES: [u64; 7] =
    [0, 2 << 20, 4 << 20, CONFIG_DEFAULT_REUSE_DISTANCE, 16 << 20, 32 << 20, 64 << 20];

/// The fingerprint of this class.
pub fn fingerprint(class: u32) -> Fingerprint {
    Fingerprint {
        arch: "simulated".into(),
        cpu_model: Some(format!("Simulated class-{class}")),
        libtorch: NO_VERSION.into(),
        facts: BTreeMap::from([("simulated".to_owned(), "yes".to_owned())]),
        ..testing::fingerprint(8)
    }
}

/// The run config of every simulated box.
pub fn run_config() -> RunConfig {
    RunConfig::libtorch_eager(NO_VERSION)
}

/// The first `count` keys of a fixed list, of the built-in catalog.
pub fn keys(count: u32) -> Vec<OpKey> {
    let key = |n: u32| format!("Conv3x3:n1-h8-w8-i{}-o{}-s1", n % 1000 + 1, n / 1000 + 1);
    (0..count).map(|n| key(n).parse().expect("it is written as keys are")).collect()
}

/// A simulated box that has entered a farm.
pub struct Simulated {
    client: Client,
    enrolled: Enrolled,
    fingerprint: String,
    rng: Mutex<fastrand::Rng>,
}

impl Simulated {
    /// Enrols in the farm of `client`, which has an enrol token.
    ///
    /// # Errors
    /// When the coordinator does not answer or refuses.
    pub async fn enrol(
        client: &Client,
        class: u32,
        number: u32,
        seed: u64,
    ) -> Result<Simulated, ClientError> {
        let fingerprint = fingerprint(class);
        let digest = fingerprint.digest();
        let request = EnrolRequest {
            fingerprint,
            run_config: run_config(),
            agent_version: version(),
            ..testing::enrolment(&format!("{MARK}{number}"), 8)
        };
        let enrolled: Enrolled = client.post("v1/agents", &request).await?;
        let client = client.with_token(enrolled.credential.clone());
        let rng = fastrand::Rng::with_seed(seed ^ u64::from(number).wrapping_mul(0x9e37_79b9));
        Ok(Simulated { client, enrolled, fingerprint: digest, rng: Mutex::new(rng) })
    }

    /// Its identity in the farm.
    pub fn enrolled(&self) -> &Enrolled {
        &self.enrolled
    }

    /// The client with its own credential.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for tasks, at most this many seconds.
    ///
    /// # Errors
    /// When the coordinator does not answer or refuses.
    pub async fn lease(&self, max_tasks: u32, wait: u32) -> Result<Option<Lease>, ClientError> {
        let path = format!("v1/agents/{}/leases", self.enrolled.agent_id);
        let lease_id = Some(Uuid::new_v4());
        let request = LeaseRequest { max_tasks, wait_seconds: wait, lease_id, instance: None };
        Ok(self.client.post::<_, LeaseAnswer>(&path, &request).await?.lease)
    }

    /// Sends a heartbeat with its leases.
    ///
    /// # Errors
    /// When the coordinator does not answer or refuses.
    pub async fn beat(&self, leases: Vec<Uuid>) -> Result<Orders, ClientError> {
        let telemetry = Telemetry {
            load1: Some(1.0),
            khz: Some(2_000_000),
            temperature_c: Some(50.0),
            cpu_pressure: Some(0.0),
            ..Telemetry::default()
        };
        let path = format!("v1/agents/{}/heartbeat", self.enrolled.agent_id);
        self.client.put(&path, &Heartbeat { leases, telemetry, ..Heartbeat::default() }).await
    }

    /// Renews a lease.
    ///
    /// # Errors
    /// When the coordinator does not answer, or the lease is lost.
    pub async fn renew(&self, lease: Uuid) -> Result<Renewed, ClientError> {
        self.client.post(&format!("v1/leases/{lease}/renew"), &serde_json::json!({})).await
    }

    /// Releases a lease.
    ///
    /// # Errors
    /// When the coordinator does not answer, or the lease is lost.
    pub async fn release(&self, lease: Uuid) -> Result<(), ClientError> {
        self.client.post(&format!("v1/leases/{lease}/release"), &serde_json::json!({})).await
    }

    /// A made-up measurement of a task.
    pub fn answer(&self, task: &Task) -> Measurement {
        match &task.work {
            TaskWork::Op { .. } => self.measure(task.subject(), Some(task.id)),
            TaskWork::Network(network) => self.measure_network(network, task),
        }
    }

    /// A made-up measurement of a network, which takes a nanosecond for ten multiply-accumulates. A sustained run makes
    /// it slower by [`OVER_BURST`].
    fn measure_network(&self, network: &WholeNetwork, task: &Task) -> Measurement {
        let macs = network.plan().map_or(0, |plan| plan.cost.flops);
        let burst_micros = 1.0 + 1e-4 * macs as f64;
        let sustained_micros = OVER_BURST * burst_micros;
        let sustained = network.sustained_seconds;
        Measurement {
            latency: Some(Latency { curve: vec![testing::point(0, burst_micros)] }),
            sustained: sustained.map(|seconds| Sustained {
                seconds,
                burst_micros,
                sustained_micros,
            }),
            ..self.measure(task.subject(), Some(task.id))
        }
    }

    /// A made-up measurement of a key of the built-in catalog.
    ///
    /// # Panics
    /// When the catalog has no such op.
    pub fn answer_key(&self, key: &OpKey) -> Measurement {
        self.measure(testing::subject(key.clone()), None)
    }

    fn measure(&self, subject: Subject, task: Option<i64>) -> Measurement {
        let finished_at = Timestamp::now();
        let started_at = finished_at - SignedDuration::from_secs(5);
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        // The keys of a farm differ by orders of magnitude. The values of a canary are like those of other boxes.
        let base = match task {
            Some(..0) => 100.0 * (1.0 + 0.05 * rng.f64()),
            _ => 10f64.powf(1.0 + 3.0 * rng.f64()),
        };
        let visits: Vec<Vec<f64>> =
            (0..9).map(|_| (0..9).map(|_| base * (1.0 + 0.1 * rng.f64())).collect()).collect();
        let telemetry = Telemetry { load1: Some(1.0), ..Telemetry::default() };
        Measurement {
            id: uuid::Builder::from_random_bytes(rng.u128(..).to_le_bytes()).into_uuid(),
            task,
            hardware_id: self.enrolled.hardware_id.clone(),
            fingerprint: self.fingerprint.clone(),
            run_config: run_config(),
            peak_memory_bytes: Some(200 << 20),
            samples: Some(samples::pack(&Samples {
                micros: BTreeMap::from([(CONFIG_DEFAULT_REUSE_DISTANCE, visits)]),
                ..Samples::default()
            })),
            started_at,
            finished_at,
            before: telemetry.clone(),
            during: telemetry.clone(),
            after: telemetry,
            agent_version: version(),
            ..testing::measured(subject, curve(base, &mut rng))
        }
    }

    /// Sends measurements.
    ///
    /// # Errors
    /// When the coordinator does not answer or refuses the whole call.
    pub async fn report(
        &self,
        measurements: Vec<Measurement>,
    ) -> Result<ResultsAnswer, ClientError> {
        self.client.post("v1/results", &Results { measurements, ..Results::default() }).await
    }
}

fn curve(base: f64, rng: &mut fastrand::Rng) -> Vec<CurvePoint> {
    let point = |(step, &distance): (usize, &u64)| {
        let micros = base * (1.0 + 0.1 * step as f64) * (1.0 + 0.01 * rng.f64());
        CurvePoint {
            ci95_low_micros: micros * 0.98,
            ci95_high_micros: micros * 1.03,
            median_micros: micros * 1.05,
            samples: 81,
            visits: 9,
            ..testing::point(distance, micros)
        }
    };
    DISTANCES.iter().enumerate().map(point).collect()
}

fn version() -> String {
    format!("{MARK}{}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_simulated_looks_real() {
        for class in [0, 7, 4_000_000_000] {
            let id = fingerprint(class).hardware_id();
            assert!(id.as_str().starts_with(MARK), "{id}");
        }
        assert!(version().starts_with(MARK));
        assert!(
            run_config().id().ends_with("-libtorch-eager-0.0.0"),
            "no such libtorch was ever released"
        );
    }

    #[test]
    fn classes_are_told_apart_and_keys_are_not_repeated() {
        assert_ne!(fingerprint(1).hardware_id(), fingerprint(2).hardware_id());
        let keys = keys(2500);
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 2500);
    }
}

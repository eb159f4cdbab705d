//! Agents that measure nothing, so that thousands of tasks are possible. They use the real protocol through the same
//! network, and record the answers.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use latlas_client::{Client, ClientError};
use latlas_shared::Measurement;
use latlas_shared::api::{
    Enrolled, Lease, LeaseAnswer, LeaseRequest, Renewed, Results, ResultsAnswer,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::processes::Coordinator;
use super::{Plan, Record};
use crate::proxy::Proxy;
use crate::synthetic::{self, Observed};

/// The memory of the boxes of each class.
pub const CLASSES: [u64; 2] = [8, 16];

/// The prefix of the names of boxes that fail every task.
pub const BAD: &str = "bad-";

/// How long they wait for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// All of them, until they are dropped.
pub struct Crowd(JoinSet<()>);

impl Crowd {
    /// Ends them.
    pub fn abort(mut self) {
        self.0.abort_all();
    }
}

struct Agent {
    client: Client,
    enrolled: Enrolled,
    memory: u64,
    /// It fails every task.
    is_bad: bool,
    rng: fastrand::Rng,
    record: Record,
    spool: VecDeque<Measurement>,
}

/// Enrols all simulated agents and lets them work.
pub async fn start(
    plan: &Plan,
    proxy: &Proxy,
    coordinator: &Coordinator,
    record: &Record,
    rng: &mut fastrand::Rng,
) -> Crowd {
    let token = coordinator.token("enroll");
    let client = Client::new(&format!("http://{}", proxy.address), Some(token)).unwrap();
    let mut crowd = JoinSet::new();
    // One bad box in addition to the others of each class.
    for index in 0..2 * plan.simulated + 2 {
        let memory = CLASSES[index % 2];
        let is_bad = index >= 2 * plan.simulated;
        let name = if is_bad { format!("{BAD}{memory}") } else { format!("simulated-{index}") };
        let enrolment = synthetic::enrolment(&name, memory);
        let enrolled: Enrolled = client.post("v1/agents", &enrolment).await.unwrap();
        let agent = Agent {
            client: client.with_token(enrolled.credential.clone()),
            enrolled,
            memory,
            is_bad,
            rng: fastrand::Rng::with_seed(rng.u64(..)),
            record: Record::clone(record),
            spool: VecDeque::new(),
        };
        crowd.spawn(agent.work());
    }
    Crowd(crowd)
}

impl Agent {
    async fn work(mut self) {
        loop {
            if self.step().await.is_none() {
                sleep(Duration::from_millis(self.rng.u64(20..200))).await;
            }
        }
    }

    /// One round; none if a call was not answered.
    async fn step(&mut self) -> Option<()> {
        while !self.spool.is_empty() {
            self.upload().await?;
        }
        // The same id for each retry, so that no lease is lost with an answer.
        let lease_id = Some(Uuid::new_v4());
        let request = LeaseRequest { max_tasks: 8, wait_seconds: 1, lease_id, instance: None };
        let path = format!("v1/agents/{}/leases", self.enrolled.agent_id);
        let answer = patiently(self.client.post::<_, LeaseAnswer>(&path, &request)).await?;
        let lease = answer.ok()?.lease?;
        self.measure(&lease).await;
        while !self.spool.is_empty() {
            self.upload().await?;
        }
        let path = format!("v1/leases/{}/release", lease.id);
        patiently(self.client.post::<_, ()>(&path, &json!({}))).await.map(|_| ())
    }

    async fn measure(&mut self, lease: &Lease) {
        for task in &lease.tasks {
            sleep(Duration::from_millis(self.rng.u64(1..100))).await;
            if self.rng.f64() < 0.01 {
                // It crashes and forgets its lease; its spool stays.
                return;
            }
            let observed = Observed {
                id: Uuid::now_v7(),
                task: Some(task.id),
                subject: task.subject(),
                result: match self.rng.f64() < 0.02 {
                    _ if self.is_bad => Err("the worker process died".to_owned()),
                    true => Err("the simulated box has no number".to_owned()),
                    false => Ok(5.0 + self.rng.f64()),
                },
                finished_at: Timestamp::now(),
            };
            let measurement = synthetic::measurement(self.memory, observed);
            self.record.lock().unwrap().made.get_or_insert_default().insert(measurement.id);
            self.spool.push_back(measurement);
            if self.rng.f64() < 0.3 {
                // Unsent results are sent later.
                let _ = self.upload().await;
            }
            if self.rng.f64() < 0.1 {
                let path = format!("v1/leases/{}/renew", lease.id);
                let renewed = patiently(self.client.post::<_, Renewed>(&path, &json!({}))).await;
                if matches!(renewed, Some(Err(error)) if error.status() == Some(409)) {
                    return;
                }
            }
        }
    }

    async fn upload(&mut self) -> Option<()> {
        let measurements: Vec<Measurement> = self.spool.iter().take(50).cloned().collect();
        let ids: Vec<Uuid> = measurements.iter().map(|measurement| measurement.id).collect();
        let body = Results { measurements, ..Results::default() };
        let call = self.client.post::<_, ResultsAnswer>("v1/results", &body);
        let answer = patiently(call).await?.ok()?;
        let mut ledger = self.record.lock().unwrap();
        for id in ids {
            match answer.refused.contains_key(&id) {
                true => ledger.refused.insert(id),
                false => ledger.acknowledged.insert(id),
            };
        }
        self.spool.retain(|measurement| {
            !ledger.acknowledged.contains(&measurement.id)
                && !ledger.refused.contains(&measurement.id)
        });
        Some(())
    }
}

/// An answer, unless it takes too long.
async fn patiently<T>(
    call: impl Future<Output = Result<T, ClientError>>,
) -> Option<Result<T, ClientError>> {
    timeout(PATIENCE, call).await.ok()
}

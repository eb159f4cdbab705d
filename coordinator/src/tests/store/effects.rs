//! Callers that disconnect: their change is made with all its effects, or not at all.

use std::pin::pin;
use std::task::Poll;

use axum::http::{Method, StatusCode};
use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{AgentState, Heartbeat, Lease, StateChange};
use latlas_shared::{Measurement, testing};
use serde_json::json;
use uuid::Uuid;

use crate::DATABASE;
use crate::store::{Actor, Agent, Incoming};
use crate::tests::harness::{Farm, KEYS, later, reader};
use crate::token::{Role, Terms, Token};

/// The most rounds of cancellations for each change.
const ROUNDS: u32 = 30;

/// Changes after which an idle agent has work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Ask,
    Release,
    RefusedResult,
    Quarantine,
    Trust,
    Expire,
    Stuck,
    RefusedCanary,
    OddCanary,
    LostCanary,
}

const ALL: [What; 10] = [
    What::Ask,
    What::Release,
    What::RefusedResult,
    What::Quarantine,
    What::Trust,
    What::Expire,
    What::Stuck,
    What::RefusedCanary,
    What::OddCanary,
    What::LostCanary,
];

/// A farm just before a change.
struct Stage {
    farm: Farm,
    /// Holds all existing work.
    holder: Agent,
    credential: String,
    lease: Option<Lease>,
    canary: Option<Lease>,
    /// Has queried for work in vain.
    idle: Agent,
    person: String,
    now: Timestamp,
}

async fn enrol(farm: &Farm, name: &str) -> (Agent, String) {
    let credential = Token::generate(Role::Agent).unwrap();
    let (enrolment, now) = (testing::enrolment(name, 8), Timestamp::now());
    let agent = farm.store().enrol(&enrolment, &credential, &Actor::CommandLine, now).await;
    (agent.unwrap(), credential.reveal().to_owned())
}

fn measured(lease: &Lease, micros: f64) -> Vec<Measurement> {
    let of = |task: &latlas_shared::api::Task| Measurement {
        task: Some(task.id),
        ..testing::measurement(&task.subject().to_string(), micros)
    };
    lease.tasks.iter().map(of).collect()
}

impl Stage {
    async fn before(what: What) -> Stage {
        let canaries = matches!(what, What::RefusedCanary | What::OddCanary | What::LostCanary);
        let farm = if canaries { Farm::with_canaries().await } else { Farm::new().await };
        let (holder, credential) = enrol(&farm, "holder").await;
        let (idle, _) = enrol(&farm, "idle").await;
        let role = if matches!(what, What::Quarantine | What::Trust) {
            Role::Admin
        } else {
            Role::Researcher
        };
        let now = Timestamp::now();
        let (_, person) = farm.token_on(role, Terms::usual(role, now), now).await;
        let mut stage = Stage {
            farm,
            holder,
            credential,
            lease: None,
            canary: None,
            idle,
            person,
            now: later(0),
        };
        if canaries {
            let others = [enrol(&stage.farm, "other").await.0, stage.idle.clone()];
            for agent in others {
                let lease = stage.take(&agent).await.unwrap();
                stage.report(&agent, measured(&lease, 100.0)).await;
                assert!(stage.farm.store().release(&agent, lease.id, stage.now).await.unwrap());
            }
            stage.canary = stage.take(&stage.holder).await;
        }
        if what != What::Ask {
            stage.farm.ask_for_keys().await;
        }
        match what {
            What::Ask => {}
            What::Trust => {
                let quarantined = AgentState::Quarantined;
                let change = StateChange { state: quarantined, reason: Some("a test".into()) };
                let (store, actor) = (stage.farm.store(), Actor::CommandLine);
                store.set_state(stage.idle.uuid, &change, &actor, stage.now).await.unwrap();
            }
            _ => stage.lease = stage.take(&stage.holder).await,
        }
        match what {
            What::Expire => stage.now += SignedDuration::from_secs(61),
            What::Stuck => {
                let id = stage.lease.as_ref().unwrap().id;
                let beat = Heartbeat { leases: vec![id], visits: Some(1), ..Default::default() };
                stage.farm.store().note(&stage.holder, &beat, &[], stage.now);
                for _ in 0..11 {
                    stage.keep().await;
                }
            }
            What::LostCanary => {
                for _ in 0..2 {
                    stage.keep().await;
                    stage.keep().await;
                    stage.canary = stage.take(&stage.holder).await;
                }
                stage.keep().await;
                stage.keep().await;
            }
            _ => {}
        }
        assert!(stage.take(&stage.idle).await.is_none(), "{what:?}");
        stage
    }

    async fn take(&self, agent: &Agent) -> Option<Lease> {
        self.farm.store().lease(agent, Uuid::new_v4(), 64, self.now).await.unwrap()
    }

    async fn report(&self, agent: &Agent, measurements: Vec<Measurement>) {
        let incoming = Incoming { measurements, ..Incoming::default() };
        self.farm.store().add_results(agent, incoming, self.now).await.unwrap();
    }

    /// Most of a lease's time passes, and the holder renews its lease. Nothing else is renewed.
    async fn keep(&mut self) {
        self.now += SignedDuration::from_secs(55);
        let (store, id) = (self.farm.store(), self.lease.as_ref().unwrap().id);
        assert!(store.renew(&self.holder, id, self.now).await.unwrap().is_some());
        if self.canary.is_some() {
            store.sweep(self.now).await.unwrap();
        }
    }

    async fn call(&self, method: Method, path: &str, token: &str, body: &serde_json::Value) {
        let call = self.farm.call(method, path).token(token).json(body);
        let answer = call.header("idempotency-key", "once").send().await;
        assert!(answer.status.is_success() || answer.status == StatusCode::CONFLICT, "{answer:?}");
    }

    /// Makes the change, until its caller is dropped.
    async fn act(&self, what: What) {
        let store = self.farm.store();
        match what {
            What::Ask => {
                let body = json!({
                    "hardware_id": testing::fingerprint(8).hardware_id(),
                    "definition": {"name": "mine", "keys": KEYS},
                });
                self.call(Method::POST, "/v1/requests", &self.person, &body).await;
            }
            What::Release => {
                let path = format!("/v1/leases/{}/release", self.lease.as_ref().unwrap().id);
                self.call(Method::POST, &path, &self.credential, &json!({})).await;
            }
            What::RefusedResult | What::RefusedCanary => {
                let canary = what == What::RefusedCanary;
                let lease = if canary { &self.canary } else { &self.lease };
                let mut measurements = measured(lease.as_ref().unwrap(), 100.0);
                measurements[0].fingerprint = "00".into();
                measurements.truncate(1);
                let body = json!({"measurements": measurements});
                self.call(Method::POST, "/v1/results", &self.credential, &body).await;
            }
            What::OddCanary => {
                let measurements = measured(self.canary.as_ref().unwrap(), 300.0);
                let body = json!({"measurements": measurements});
                self.call(Method::POST, "/v1/results", &self.credential, &body).await;
            }
            What::Quarantine | What::Trust => {
                let (agent, state) = match what {
                    What::Trust => (&self.idle, "active"),
                    _ => (&self.holder, "quarantined"),
                };
                let path = format!("/v1/agents/{}/state", agent.uuid);
                let body = json!({"state": state, "reason": "a test"});
                self.call(Method::PUT, &path, &self.person, &body).await;
            }
            What::Expire | What::Stuck => store.sweep(self.now).await.unwrap(),
            What::LostCanary => {
                assert!(self.take(&self.holder).await.is_none());
            }
        }
    }

    /// Waits for the started work, if any.
    async fn settle(&self) {
        for _ in 0..2 {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            // The writer runs changes one after the other, and this is the last.
            let nothing = self.farm.store().renew(&self.idle, Uuid::new_v4(), self.now).await;
            assert!(nothing.unwrap().is_none());
        }
    }

    /// Whether the change was made: there is work for the idle agent.
    async fn has_happened(&self, what: What) -> bool {
        if what == What::Trust {
            let standing = self.farm.store().decided(&self.idle).await.unwrap();
            return standing.state == AgentState::Active;
        }
        let pool = reader(&self.farm.dir.path().join(DATABASE)).await;
        let queued: i64 = sqlx::query_scalar("SELECT count(*) FROM tasks WHERE state = 'queued'")
            .fetch_one(&pool)
            .await
            .unwrap();
        pool.close().await;
        queued > 0
    }
}

/// The moment at which a caller disconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// While it waits for something, for example a commit.
    Waiting,
    /// After that has happened, before the caller is polled again.
    Woken,
}

/// Polls a future this many times and then drops it. Returns whether it has completed.
async fn cut(future: impl Future<Output = ()>, mut polls: u32, when: When) -> bool {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(false);
        }
        polls -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if polls == 0 && when == When::Waiting => Poll::Ready(false),
            polled => polled.map(|()| true),
        }
    })
    .await
}

/// Drops a call after each number of polls, and checks the result. Returns the number of dropped calls whose change was
/// made.
async fn each_cut(what: What, when: When) -> u32 {
    let (mut polls, mut half_way, mut has_ended) = (0, 0, false);
    while !has_ended {
        let stage = Stage::before(what).await;
        let waiting = stage.farm.store().wait_for_work(&stage.idle);
        // Up to the first dropped call whose change is made.
        while !stage.has_happened(what).await {
            assert!(!has_ended, "{what:?}: the call has ended, and nothing has happened");
            has_ended = cut(stage.act(what), polls, when).await;
            stage.settle().await;
            polls += 1;
        }
        half_way += u32::from(!has_ended);
        let place = format!("{what:?}, cut after {} polls, {when:?}", polls - 1);
        assert!(waiting.rung().now_or_never().is_some(), "{place}: nobody was told");
        assert!(stage.take(&stage.idle).await.is_some(), "{place}: the idle agent got nothing");
    }
    half_way
}

#[tokio::test]
async fn an_idle_agent_gets_the_work_whenever_the_caller_hangs_up() {
    for (what, when) in
        ALL.into_iter().flat_map(|what| [When::Waiting, When::Woken].map(|when| (what, when)))
    {
        // The number of polls of a call depends on SQLite's thread, so a round may miss the relevant moments.
        let mut half_way = 0;
        for _ in 0..ROUNDS {
            half_way += each_cut(what, when).await;
            if half_way > 0 {
                break;
            }
        }
        // Otherwise this test would show nothing.
        assert!(half_way > 0, "{what:?}, {when:?}: no cut left a change behind");
    }
}

#[tokio::test]
async fn whoever_repeats_a_call_with_its_key_wakes_idle_agents() {
    let stage = Stage::before(What::Ask).await;
    stage.act(What::Ask).await;
    let waiting = stage.farm.store().wait_for_work(&stage.idle);
    stage.act(What::Ask).await;
    assert!(waiting.rung().now_or_never().is_some());
}

/// Thousands of agents may wait: agents that news does not concern are not woken.
#[tokio::test]
async fn only_those_agents_are_woken_for_whom_there_may_be_work() {
    let stage = Stage::before(What::Release).await;
    let store = stage.farm.store();
    let lease = stage.lease.clone().unwrap();
    let mut elsewhere = testing::enrolment("elsewhere", 16);
    elsewhere.fingerprint = testing::fingerprint(16);
    let elsewhere = stage.farm.join(&elsewhere).await;
    let idle = store.wait_for_work(&stage.idle);
    let other = store.wait_for_work(&elsewhere);
    let holder = store.wait_for_work(&stage.holder);

    // One of two tasks is measured, and the lease ends: the other task waits for the agents of its table.
    let mut measurements = measured(&lease, 100.0);
    let last = measurements.pop().unwrap();
    stage.report(&stage.holder, measurements).await;
    assert!(idle.rung().now_or_never().is_none(), "nothing waits");
    assert!(store.release(&stage.holder, lease.id, stage.now).await.unwrap());
    assert!(idle.rung().now_or_never().is_some());
    assert!(holder.rung().now_or_never().is_some());
    assert!(other.rung().now_or_never().is_none(), "it is of another table");

    // The next lease has no task left: only its own agent may have the canary to do.
    let lease = stage.take(&stage.holder).await.unwrap();
    assert_eq!(lease.tasks.len(), 1);
    stage.report(&stage.holder, vec![Measurement { task: Some(lease.tasks[0].id), ..last }]).await;
    assert!(store.release(&stage.holder, lease.id, stage.now).await.unwrap());
    assert!(holder.rung().now_or_never().is_some());
    assert!(idle.rung().now_or_never().is_none(), "there is nothing for it");
    assert!(other.rung().now_or_never().is_none());
}

/// The fallback for missing announcements: work that is added by another process is found a few seconds later.
#[tokio::test]
async fn work_that_nobody_announced_is_found_in_a_few_seconds() {
    let mut stage = Stage::before(What::Release).await;
    let pool = sqlx::SqlitePool::connect_with(
        sqlx::sqlite::SqliteConnectOptions::new()
            .filename(stage.farm.dir.path().join(DATABASE))
            .foreign_keys(true),
    );
    let queued = "UPDATE tasks SET state = 'queued', lease_id = NULL";
    sqlx::query(queued).execute(&pool.await.unwrap()).await.unwrap();
    assert!(stage.take(&stage.idle).await.is_none(), "a crowd does not look each time");
    stage.now += SignedDuration::from_secs(5);
    assert!(stage.take(&stage.idle).await.is_some());
}

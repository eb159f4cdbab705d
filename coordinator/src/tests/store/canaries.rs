//! Canaries, from the first lease to quarantine and back.

use jiff::Timestamp;
use latlas_shared::api::{AgentState, Lease, ResultsAnswer};
use latlas_shared::{Measurement, testing};
use ops_catalog::Catalog;
use uuid::Uuid;

use crate::store::{Agent, Incoming};
use crate::tests::harness::{Farm, later};

/// Keys of the canary.
fn keys() -> Vec<String> {
    let catalog = Catalog::builtin();
    let space = catalog.space("canary").unwrap().resolve(catalog).unwrap();
    space.entries.iter().map(|(key, _)| key.to_string()).collect()
}

fn is_canary(lease: &Lease) -> bool {
    lease.tasks.iter().all(|task| task.id < 0)
}

async fn lease(farm: &Farm, agent: &Agent, now: Timestamp) -> Option<Lease> {
    farm.store().lease(agent, Uuid::new_v4(), 64, now).await.unwrap()
}

/// The measurements of an agent that takes this many microseconds for each of these tasks.
fn measured(lease: &Lease, micros: f64) -> Vec<Measurement> {
    let of = |task: &latlas_shared::api::Task| Measurement {
        task: Some(task.id),
        ..testing::measurement(&task.subject().to_string(), micros)
    };
    lease.tasks.iter().map(of).collect()
}

async fn report(
    farm: &Farm,
    agent: &Agent,
    measurements: Vec<Measurement>,
    now: Timestamp,
) -> ResultsAnswer {
    let incoming = Incoming { measurements, ..Incoming::default() };
    farm.store().add_results(agent, incoming, now).await.unwrap()
}

/// Measures the due canary, and releases the lease as agents do.
async fn sing(farm: &Farm, agent: &Agent, micros: f64, now: Timestamp) {
    let lease = lease(farm, agent, now).await.unwrap();
    assert!(is_canary(&lease));
    let answer = report(farm, agent, measured(&lease, micros), now).await;
    assert_eq!(answer.stored as usize, keys().len(), "{answer:?}");
    farm.store().release(agent, lease.id, now).await.unwrap();
}

async fn join(farm: &Farm, name: &str) -> Agent {
    farm.join(&testing::enrolment(name, 8)).await
}

async fn state(farm: &Farm, agent: &Agent) -> (AgentState, String) {
    let decided = farm.store().decided(agent).await.unwrap();
    (decided.state, decided.reason.unwrap_or_default())
}

const DAY: i64 = 24 * 3600;

#[tokio::test]
async fn a_canary_comes_before_other_work_and_again_every_day() {
    let farm = Farm::with_canaries().await;
    let agent = join(&farm, "box").await;
    let request = farm.ask_for_keys().await;
    let first = lease(&farm, &agent, later(0)).await.unwrap();
    let asked: Vec<String> = first.tasks.iter().map(|task| task.subject().to_string()).collect();
    assert_eq!(asked, keys());
    // While the canary is handed out, the agent gets other work if it asks.
    assert!(!is_canary(&lease(&farm, &agent, later(1)).await.unwrap()));
    let answer = report(&farm, &agent, measured(&first, 500.0), later(2)).await;
    assert_eq!(answer.stored, 4);
    assert!(farm.store().release(&agent, first.id, later(3)).await.unwrap());
    assert_eq!(farm.status(&request).await.done, 0);
    assert!(lease(&farm, &agent, later(DAY - 60)).await.is_none_or(|lease| !is_canary(&lease)));
    sing(&farm, &agent, 510.0, later(DAY + 60)).await;
    // A canary is kept as a fact and creates no row.
    let rebuilt = farm.store().rebuild().await.unwrap();
    assert_eq!((rebuilt.rows, rebuilt.networks), (0, 0));
    assert_eq!(state(&farm, &agent).await.0, AgentState::Active);
}

#[tokio::test]
async fn an_agent_that_has_become_slow_is_caught_and_comes_back_by_itself() {
    let farm = Farm::with_canaries().await;
    let mut agents = Vec::new();
    for (name, micros) in [("a", 100.0), ("b", 104.0), ("c", 97.0)] {
        let agent = join(&farm, name).await;
        sing(&farm, &agent, micros, later(0)).await;
        agents.push(agent);
    }
    let odd = &agents[2];
    let request = farm.ask_for_keys().await;
    // The next day it is slow; its other work is released at once.
    for agent in &agents[..2] {
        sing(&farm, agent, 101.0, later(DAY + 1)).await;
    }
    let given = lease(&farm, odd, later(DAY + 2)).await.unwrap();
    assert!(is_canary(&given));
    assert!(!is_canary(&lease(&farm, odd, later(DAY + 3)).await.unwrap()));
    assert_eq!(farm.status(&request).await.running, 2);
    report(&farm, odd, measured(&given, 220.0), later(DAY + 4)).await;
    let (now, reason) = state(&farm, odd).await;
    assert_eq!(now, AgentState::Quarantined);
    assert!(reason.starts_with("its canary took 2.18 times what it takes in 2 agents"), "{reason}");
    assert!(
        reason.contains("Conv1x1:n1-h14-w14-i160-o160-s1: 220.0 us, usually 101.0"),
        "{reason}"
    );
    assert_eq!(farm.status(&request).await.running, 0);

    // It gets only canaries, and its values do not count for any other agent.
    assert!(lease(&farm, odd, later(DAY + 600)).await.is_none());
    sing(&farm, odd, 215.0, later(DAY + 2000)).await;
    assert_eq!(state(&farm, odd).await.0, AgentState::Quarantined);
    sing(&farm, odd, 102.0, later(DAY + 4000)).await;
    let (now, reason) = state(&farm, odd).await;
    assert_eq!((now, reason.as_str()), (AgentState::Active, "its canary is like the others again"));
    assert!(!is_canary(&lease(&farm, odd, later(DAY + 4001)).await.unwrap()));
}

#[tokio::test]
async fn an_agent_without_company_is_held_against_its_own_past() {
    let farm = Farm::with_canaries().await;
    let agent = join(&farm, "only one").await;
    for day in 0..3 {
        sing(&farm, &agent, 100.0 + day as f64, later(day * DAY + day)).await;
    }
    let given = lease(&farm, &agent, later(3 * DAY + 3)).await.unwrap();
    report(&farm, &agent, measured(&given, 150.0), later(3 * DAY + 4)).await;
    let (now, reason) = state(&farm, &agent).await;
    assert_eq!(now, AgentState::Quarantined);
    assert!(reason.contains("3 earlier canaries of its own"), "{reason}");
}

#[tokio::test]
async fn a_canary_that_never_comes_in_counts_against_its_agent() {
    let farm = Farm::with_canaries().await;
    let agent = join(&farm, "box").await;
    for hour in 0..3 {
        assert!(is_canary(&lease(&farm, &agent, later(3600 * hour)).await.unwrap()));
        farm.store().sweep(later(3600 * hour + 61)).await.unwrap();
    }
    assert!(lease(&farm, &agent, later(3 * 3600)).await.is_none());
    let (now, reason) = state(&farm, &agent).await;
    assert_eq!(now, AgentState::Quarantined);
    assert_eq!(reason, "the canary was handed out 3 times and never came back whole");
    // A single canary is enough, since there is nothing to compare with.
    sing(&farm, &agent, 100.0, later(4 * 3600)).await;
    assert_eq!(state(&farm, &agent).await.0, AgentState::Active);
}

#[tokio::test]
async fn a_canary_that_is_given_back_or_refused() {
    let farm = Farm::with_canaries().await;
    let agent = join(&farm, "box").await;
    // An agent that is stopped releases it, any number of times, and this does not count against
    // it.
    for second in 0..5 {
        let given = lease(&farm, &agent, later(second)).await.unwrap();
        assert!(farm.store().release(&agent, given.id, later(second)).await.unwrap());
    }
    assert_eq!(state(&farm, &agent).await.0, AgentState::Active);
    let given = lease(&farm, &agent, later(10)).await.unwrap();
    let mut bad = measured(&given, 100.0);
    bad[0].fingerprint = "00".into();
    let answer = report(&farm, &agent, bad, later(11)).await;
    assert_eq!((answer.stored, answer.refused.len()), (3, 1));
    let (now, reason) = state(&farm, &agent).await;
    assert_eq!(now, AgentState::Quarantined);
    assert!(
        reason.starts_with("its canary was refused: ") && reason.contains("Enrol the agent again"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_agent_that_can_t_run_the_canary_is_left_alone() {
    let farm = Farm::with_canaries().await;
    let mut enrolment = testing::enrolment("old", 8);
    enrolment.primitives = vec!["relu".into()];
    let agent = farm.join(&enrolment).await;
    assert!(lease(&farm, &agent, later(0)).await.is_none());
    assert_eq!(state(&farm, &agent).await.0, AgentState::Active);
}

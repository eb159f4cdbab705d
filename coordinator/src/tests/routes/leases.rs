//! `/v1/agents/{id}/leases`, `/v1/leases`.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use latlas_shared::api::{Lease, Renewed, TaskWork};
use serde_json::json;
use uuid::Uuid;

use crate::tests::harness::{Farm, KEYS, check, later};

/// The longest poll that the coordinator grants, in seconds: far longer than a test on any machine.
const LONGEST_WAIT: u32 = 30;

#[tokio::test]
async fn a_lease_has_tasks_with_their_definitions() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    assert!(farm.lease(&agent, 8, 0).await.is_none());
    let request = farm.ask_for_keys().await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    let keys: Vec<String> = lease.tasks.iter().map(|task| task.subject().to_string()).collect();
    assert_eq!(keys, KEYS);
    let TaskWork::Op { definition, .. } = &lease.tasks[0].work else { panic!() };
    assert_eq!(definition.name, "Conv3x3");
    assert_eq!(farm.status(&request).await.running, 2);
    assert!(farm.lease(&agent, 8, 0).await.is_none(), "a task is out once");
}

#[tokio::test]
async fn a_lease_is_renewed_and_given_back() {
    let farm = Farm::new().await;
    let (agent, other) = (farm.enrol("box", 8).await, farm.enrol("other", 8).await);
    farm.ask_for_keys().await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    let post = |what: &str, by: &crate::tests::harness::EnrolledAgent| {
        farm.post(&format!("/v1/leases/{}/{what}", lease.id)).token(&by.enrolled.credential).send()
    };
    let renewed: Renewed = post("renew", &agent).await.read(StatusCode::OK);
    assert!(renewed.deadline >= lease.deadline);
    check("lease_of_another", &post("renew", &other).await);
    assert_eq!(post("release", &other).await.status, StatusCode::CONFLICT);
    check("released", &post("release", &agent).await);
    check("release_twice", &post("release", &agent).await);
    let again = farm.lease(&other, 8, 0).await.unwrap();
    assert_eq!(again.tasks.len(), 2, "nothing counted as an attempt, so both go out together");
}

/// The database stores times in microseconds, so the deadline may be less exact than at first.
#[track_caller]
fn same(again: &Option<Lease>, first: &Lease) {
    let again = again.as_ref().unwrap();
    assert_eq!((again.id, &again.tasks), (first.id, &first.tasks));
}

#[tokio::test]
async fn an_answer_that_was_lost_costs_no_lease() {
    let farm = Farm::new().await;
    let (agent, other) = (farm.enrol("box", 8).await, farm.enrol("other", 8).await);
    farm.ask_for_keys().await;
    let id = Uuid::new_v4();
    let lease = farm.lease_as(&agent, id).await.unwrap();
    assert_eq!((lease.id, lease.tasks.len()), (id, 1));
    same(&farm.lease_as(&agent, id).await, &lease);
    assert!(farm.lease_as(&other, id).await.is_none(), "nobody gets another's");
    // Released by a caller that never saw the lease; afterwards the id can be used again.
    let path = format!("/v1/leases/{id}/release");
    let released = farm.post(&path).token(&agent.enrolled.credential).send().await;
    assert_eq!(released.status, StatusCode::NO_CONTENT);
    let rest = farm.lease(&other, 8, 0).await.unwrap();
    assert_eq!(rest.tasks.len(), 2, "no attempt was counted");
    assert!(farm.lease_as(&agent, id).await.is_none());
}

#[tokio::test]
async fn a_canary_whose_answer_was_lost_is_no_second_try() {
    let farm = Farm::with_canaries().await;
    let agent = farm.enrol("box", 8).await;
    let id = Uuid::new_v4();
    let lease = farm.lease_as(&agent, id).await.unwrap();
    assert!(lease.tasks.iter().all(|task| task.id < 0), "{lease:?}");
    for _ in 0..10 {
        same(&farm.lease_as(&agent, id).await, &lease);
    }
}

#[tokio::test]
async fn two_calls_for_one_lease_get_the_same() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.ask_for_keys().await;
    let id = Uuid::new_v4();
    let (one, two) = tokio::join!(farm.lease_as(&agent, id), farm.lease_as(&agent, id));
    same(&one, &two.unwrap());
}

#[tokio::test]
async fn a_lease_that_ran_out_is_lost() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.ask_for_keys().await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    farm.store().sweep(later(3600)).await.unwrap();
    let path = format!("/v1/leases/{}/renew", lease.id);
    check("lease_lost", &farm.post(&path).token(&agent.enrolled.credential).send().await);
}

#[tokio::test]
async fn a_long_poll_hears_of_work_at_once() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    // A poll that is not woken ends without a lease.
    let (lease, _) = tokio::join!(farm.lease(&agent, 8, LONGEST_WAIT), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        farm.ask_for_keys().await
    });
    assert_eq!(lease.unwrap().tasks.len(), 2);
}

#[tokio::test]
async fn a_long_poll_ends_when_it_is_over_or_the_coordinator_stops() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let started = Instant::now();
    assert!(farm.lease(&agent, 8, 1).await.is_none());
    assert!(started.elapsed() >= Duration::from_secs(1));
    let started = Instant::now();
    let (lease, ()) = tokio::join!(farm.lease(&agent, 8, LONGEST_WAIT), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        farm.app.stop();
    });
    assert!(lease.is_none());
    assert!(started.elapsed() < Duration::from_secs(LONGEST_WAIT.into()), "the stop ended it");
}

#[tokio::test]
async fn a_lease_of_nothing_is_refused() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let path = format!("/v1/agents/{}/leases", agent.enrolled.agent_id);
    let body = json!({"max_tasks": 0, "wait_seconds": 0});
    let call = farm.post(&path).token(&agent.enrolled.credential).json(&body);
    check("lease_of_nothing", &call.send().await);
}

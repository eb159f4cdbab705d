//! `/v1/agents/{id}/leases`, `/v1/leases`.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use latlas_shared::api::{Renewed, TaskWork};
use serde_json::json;

use crate::tests::harness::{Farm, KEYS, check, later};

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
    let post = |what: &str, by: &crate::tests::harness::Box| {
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
    let started = Instant::now();
    let (lease, _) = tokio::join!(farm.lease(&agent, 8, 20), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        farm.ask_for_keys().await
    });
    assert_eq!(lease.unwrap().tasks.len(), 2);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_long_poll_ends_when_it_is_over_or_the_coordinator_stops() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let started = Instant::now();
    assert!(farm.lease(&agent, 8, 1).await.is_none());
    assert!(started.elapsed() >= Duration::from_secs(1));
    let (lease, ()) = tokio::join!(farm.lease(&agent, 8, 20), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        farm.app.stop();
    });
    assert!(lease.is_none());
    assert!(started.elapsed() < Duration::from_secs(5));
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

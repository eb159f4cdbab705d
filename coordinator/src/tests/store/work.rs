//! Work that is distributed over agents.

use std::collections::BTreeSet;

use jiff::Timestamp;
use latlas_shared::testing;
use uuid::Uuid;

use crate::tests::harness::{Farm, KEYS, later};

/// Fifty keys.
fn keys() -> Vec<String> {
    (1..=50).map(|c| format!("Conv3x3:n1-h8-w8-i4-o{c}-s1")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_agents_never_get_one_task() {
    let farm = Farm::new().await;
    let keys = keys();
    farm.enrol("first", 8).await;
    farm.ask_for(&keys.iter().map(String::as_str).collect::<Vec<_>>(), false).await;
    let mut takers = Vec::new();
    for n in 0..4 {
        let store = farm.store().clone();
        let agent = farm.join(&testing::enrolment(&format!("box-{n}"), 8)).await;
        takers.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(lease) =
                store.lease(&agent, Uuid::new_v4(), 3, Timestamp::now()).await.unwrap()
            {
                taken.extend(lease.tasks.iter().map(|task| task.id));
                tokio::task::yield_now().await;
            }
            taken
        }));
    }
    let mut all = Vec::new();
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    assert_eq!(all.len(), keys.len());
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), keys.len());
}

#[tokio::test]
async fn agents_get_only_what_is_theirs_and_what_they_can_run() {
    let farm = Farm::new().await;
    let able = farm.enrol("able", 8).await;
    let other_class = farm.enrol("other class", 16).await;
    let mut enrolment = testing::enrolment("other config", 8);
    enrolment.run_config.threads = 2;
    let other_config = farm.join(&enrolment).await;
    let mut enrolment = testing::enrolment("old", 8);
    enrolment.primitives = vec!["relu".into()];
    let old = farm.join(&enrolment).await;
    farm.ask_for_keys().await;
    for agent in [&other_config, &old] {
        assert!(
            farm.store().lease(agent, Uuid::new_v4(), 8, Timestamp::now()).await.unwrap().is_none()
        );
    }
    assert!(farm.lease(&other_class, 8, 0).await.is_none());
    assert_eq!(farm.lease(&able, 8, 0).await.unwrap().tasks.len(), 2);
}

#[tokio::test]
async fn a_task_that_kills_its_agents_takes_no_other_down() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    // The whole first lease dies. From then on the tasks are handed out one by one, and only one of
    // them kills its agent.
    assert_eq!(farm.lease(&agent, 8, 0).await.unwrap().tasks.len(), 2);
    farm.store().sweep(later(3600)).await.unwrap();
    for _ in 0..3 {
        let Some(lease) = farm.lease(&agent, 8, 0).await else { break };
        assert_eq!(lease.tasks.len(), 1);
        let key = lease.tasks[0].subject().to_string();
        if key == KEYS[0] {
            farm.store().sweep(later(3600)).await.unwrap();
        } else {
            farm.report(&agent, vec![agent.measures(&key, 10.0)]).await;
        }
    }
    let status = farm.status(&request).await;
    assert_eq!((status.done, status.failed, status.running), (1, 1, 0));
    assert_eq!(status.failures.keys().next().unwrap(), KEYS[0]);
}

#[tokio::test]
async fn leases_outlive_a_coordinator_that_was_away() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    farm.lease(&agent, 8, 0).await.unwrap();
    farm.store().resume(later(86_400)).await.unwrap();
    farm.store().sweep(later(86_400 + 1)).await.unwrap();
    assert_eq!(farm.status(&request).await.running, 2);
}

//! Agents that fail what others measure: the task goes to another agent, and the agent is quarantined.

use axum::http::StatusCode;
use jiff::Timestamp;
use latlas_shared::api::{AgentEntry, AgentState, BoxState, Lease, Page};
use latlas_shared::{FailureKind, Measurement, RowStatus, Status, Table, testing};
use uuid::Uuid;

use crate::store::{Agent, Incoming};
use crate::tests::harness::{EnrolledAgent, Farm, KEYS, later};

/// This many keys.
fn keys(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("Conv3x3:n1-h8-w8-i4-o{n}-s1")).collect()
}

async fn ask(farm: &Farm, keys: &[String]) -> latlas_shared::api::RequestStatus {
    farm.ask_for(&keys.iter().map(String::as_str).collect::<Vec<_>>(), false).await
}

/// The report of an agent that has no number for these tasks.
fn failures(lease: &Lease, kind: Option<FailureKind>, reason: &str) -> Vec<Measurement> {
    let of = |task: &latlas_shared::api::Task| Measurement {
        task: Some(task.id),
        status: Status::Failed,
        reason: Some(reason.to_owned()),
        failure_kind: kind,
        latency: None,
        ..testing::measurement(&task.subject().to_string(), 1.0)
    };
    lease.tasks.iter().map(of).collect()
}

/// The report of an agent that has a number for these tasks.
fn numbers(lease: &Lease) -> Vec<Measurement> {
    let of = |task: &latlas_shared::api::Task| Measurement {
        task: Some(task.id),
        task_generation: Some(task.generation),
        ..testing::measurement(&task.subject().to_string(), 10.0)
    };
    lease.tasks.iter().map(of).collect()
}

async fn entry(farm: &Farm, agent: &EnrolledAgent) -> AgentEntry {
    let page: Page<AgentEntry> = farm.get("/v1/agents").send().await.read(StatusCode::OK);
    page.items.into_iter().find(|a| a.agent_id == agent.enrolled.agent_id).unwrap()
}

/// A public report: a bad device takes jobs, fails each at once, and drains the queue.
#[tokio::test]
async fn a_broken_agent_does_not_empty_the_queue() {
    let farm = Farm::new().await;
    let (bad, good) = (farm.enrol("bad", 8).await, farm.enrol("good", 8).await);
    let request = ask(&farm, &keys(8)).await;
    let lease = farm.lease(&bad, 64, 0).await.unwrap();
    assert_eq!(lease.tasks.len(), 8);
    farm.report(&bad, failures(&lease, None, "the worker process died")).await;
    let status = farm.status(&request).await;
    assert_eq!((status.done, status.failed, status.running), (0, 0, 0));
    // It does not get the tasks that it has failed, and its empty result hides nothing from the other agent.
    assert!(farm.lease(&bad, 64, 0).await.is_none());
    let lease = farm.lease(&good, 64, 0).await.unwrap();
    assert_eq!(
        lease.tasks.len(),
        8,
        "an agent that reports takes no lease down, so they go together"
    );
    farm.report(&good, numbers(&lease)).await;
    let status = farm.status(&request).await;
    assert_eq!((status.done, status.failed), (8, 0));
    let path = format!("/v1/tables/{}", good.enrolled.hardware_id);
    let table: Table = farm.get(&path).send().await.read(StatusCode::OK);
    assert_eq!(table.rows.len(), 8);
    assert!(table.rows.iter().all(|row| row.status == RowStatus::Ok && row.agents == 1));
    let standing = entry(&farm, &bad).await.standing;
    assert_eq!((standing.state, standing.by.as_deref()), (BoxState::Quarantined, Some("failures")));
    let reason = standing.reason.unwrap();
    assert!(reason.starts_with("it failed 8 tasks within a day that other agents"), "{reason}");
    assert!(reason.contains("-s1: the worker process died"), "{reason}");
    assert_eq!(entry(&farm, &good).await.standing.state, BoxState::Active);
}

#[tokio::test]
async fn an_agent_that_fails_all_it_gets_is_out_before_others_have_come_to_its_tasks() {
    let farm = Farm::new().await;
    let (bad, good) = (farm.enrol("bad", 8).await, farm.enrol("good", 8).await);
    ask(&farm, &keys(12)).await;
    let first = farm.lease(&good, 1, 0).await.unwrap();
    let lease = farm.lease(&bad, 8, 0).await.unwrap();
    farm.report(&bad, failures(&lease, Some(FailureKind::OutOfMemory), "too little")).await;
    // No agent has a number, so the cause may be common.
    assert_eq!(entry(&farm, &bad).await.standing.state, BoxState::Active);
    farm.report(&good, numbers(&first)).await;
    let reason = entry(&farm, &bad).await.standing.reason.unwrap();
    assert!(reason.starts_with("it failed its last 8 tasks, all that it was given"), "{reason}");
}

#[tokio::test]
async fn what_the_op_is_at_fault_for_is_tried_once() {
    let farm = Farm::new().await;
    let (agent, _other) = (farm.enrol("a", 8).await, farm.enrol("b", 8).await);
    let request = farm.ask_for_keys().await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    let mut failed = failures(&lease, Some(FailureKind::NotFinite), "not finite");
    // A report without a kind.
    failed[1] = failures(&lease, None, "libtorch has no such kernel").remove(1);
    farm.report(&agent, failed).await;
    let status = farm.status(&request).await;
    assert_eq!((status.done, status.failed), (0, 2));
    assert_eq!(status.failures[KEYS[0]], "not finite");
    assert_eq!(entry(&farm, &agent).await.standing.state, BoxState::Active);
}

#[tokio::test]
async fn where_there_is_no_other_agent_the_row_says_which_one_failed_it() {
    let farm = Farm::new().await;
    let agent = farm.enrol("only", 8).await;
    // Agents of another class, in quarantine, or unable to run the task.
    farm.enrol("other class", 16).await;
    let suspect = farm.enrol("suspect", 8).await;
    farm.decide(&suspect, "quarantined", Some("its fan is broken")).await;
    let mut old = testing::enrolment("old", 8);
    old.primitives = vec!["relu".into()];
    farm.join(&old).await;
    let request = farm.ask_for(&KEYS[..1], false).await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    let reason = "it needs up to 900 MiB of memory, and the limit is 500 MiB";
    farm.report(&agent, failures(&lease, None, reason)).await;
    let status = farm.status(&request).await;
    assert_eq!((status.done, status.failed), (0, 1));
    assert_eq!(
        status.failures[KEYS[0]],
        format!("on agent only, and no other agent of its class can try it: {reason}")
    );
}

async fn lease(farm: &Farm, agent: &Agent, now: Timestamp) -> Option<Lease> {
    farm.store().lease(agent, Uuid::new_v4(), 64, now).await.unwrap()
}

async fn report(farm: &Farm, agent: &Agent, measurements: Vec<Measurement>, now: Timestamp) {
    let incoming = Incoming { measurements, ..Incoming::default() };
    let answer = farm.store().add_results(agent, incoming, now).await.unwrap();
    assert!(answer.refused.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_task_waits_for_another_agent_only_as_long_as_that_lives() {
    let farm = Farm::new().await;
    let a = farm.join(&testing::enrolment("a", 8)).await;
    let b = farm.join(&testing::enrolment("b", 8)).await;
    let request = farm.ask_for(&KEYS[..1], false).await;
    let first = lease(&farm, &a, later(0)).await.unwrap();
    let hung = failures(&first, Some(FailureKind::TimedOut), "it did not return");
    report(&farm, &a, hung, later(1)).await;
    assert!(lease(&farm, &a, later(2)).await.is_none(), "b is there");
    // Five minutes later b is silent.
    let again = lease(&farm, &a, later(400)).await.unwrap();
    report(&farm, &b, vec![], later(401)).await;
    farm.store().heartbeat(&b, &[], &Default::default(), later(402)).await.unwrap();
    let hung = failures(&again, Some(FailureKind::TimedOut), "it did not return");
    report(&farm, &a, hung, later(403)).await;
    // Three attempts in total.
    assert!(lease(&farm, &a, later(404)).await.is_none(), "b is there again");
    let last = lease(&farm, &b, later(405)).await.unwrap();
    let hung = failures(&last, Some(FailureKind::TimedOut), "it did not return");
    report(&farm, &b, hung, later(406)).await;
    let status = farm.status(&request).await;
    assert_eq!((status.done, status.failed), (0, 1));
    assert!(status.failures[KEYS[0]].contains("agent b"), "{:?}", status.failures);
}

#[tokio::test]
async fn what_is_refused_of_one_agent_goes_to_another() {
    let farm = Farm::new().await;
    let (odd, good) = (farm.enrol("odd", 8).await, farm.enrol("good", 8).await);
    let request = farm.ask_for(&KEYS[..1], false).await;
    let lease = farm.lease(&odd, 8, 0).await.unwrap();
    let mut strange = numbers(&lease);
    strange[0].fingerprint = "00".into();
    assert_eq!(farm.report(&odd, strange).await.refused.len(), 1);
    assert!(farm.lease(&odd, 8, 0).await.is_none());
    let lease = farm.lease(&good, 8, 0).await.unwrap();
    farm.report(&good, numbers(&lease)).await;
    assert_eq!(farm.status(&request).await.done, 1);
}

#[tokio::test]
async fn an_agent_that_was_taken_out_comes_back_by_its_canary() {
    let farm = Farm::new().await;
    let bad = farm.join(&testing::enrolment("bad", 8)).await;
    let good = farm.join(&testing::enrolment("good", 8)).await;
    ask(&farm, &keys(3)).await;
    let given = lease(&farm, &bad, later(0)).await.unwrap();
    let died = failures(&given, Some(FailureKind::WorkerDied), "the worker process died");
    report(&farm, &bad, died, later(1)).await;
    let given = lease(&farm, &good, later(2)).await.unwrap();
    report(&farm, &good, numbers(&given), later(3)).await;
    let state = async || farm.store().decided(&bad).await.unwrap().state;
    assert_eq!(state().await, AgentState::Quarantined);
    // It fails its canary, too.
    let canary = lease(&farm, &bad, later(4)).await.unwrap();
    assert!(canary.tasks.iter().all(|task| task.id < 0));
    let died = failures(&canary, Some(FailureKind::WorkerDied), "the worker process died");
    report(&farm, &bad, died, later(5)).await;
    farm.store().release(&bad, canary.id, later(5)).await.unwrap();
    assert_eq!(state().await, AgentState::Quarantined);
    assert!(lease(&farm, &bad, later(600)).await.is_none(), "the next is in half an hour");
    // It is repaired, and its earlier failures are forgotten.
    let canary = lease(&farm, &bad, later(2000)).await.unwrap();
    report(&farm, &bad, numbers(&canary), later(2001)).await;
    farm.store().release(&bad, canary.id, later(2001)).await.unwrap();
    assert_eq!(state().await, AgentState::Active);
    let more: Vec<String> = keys(5).split_off(3);
    ask(&farm, &more).await;
    let given = lease(&farm, &bad, later(2002)).await.unwrap();
    assert_eq!(given.tasks.len(), 2);
    report(&farm, &bad, numbers(&given), later(2003)).await;
    assert_eq!(state().await, AgentState::Active);
}

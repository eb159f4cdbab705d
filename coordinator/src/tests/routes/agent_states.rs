//! States of agents: their leases, and their measurements in each state.

use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use latlas_shared::api::{
    AgentEntry, AgentState, BoxState, FarmEntry, Heartbeat, Instance, Orders, Page, Problem,
};
use latlas_shared::{Status, Table, Telemetry, testing};
use serde_json::json;
use uuid::Uuid;

use crate::tests::harness::{EnrolledAgent, Farm, KEYS, check, later};
use crate::token::Role;

async fn table(farm: &Farm, agent: &EnrolledAgent) -> Table {
    farm.get(&format!("/v1/tables/{}", agent.enrolled.hardware_id))
        .send()
        .await
        .read(StatusCode::OK)
}

async fn listed(farm: &Farm, agent: &EnrolledAgent) -> AgentEntry {
    let page: Page<AgentEntry> = farm.get("/v1/agents").send().await.read(StatusCode::OK);
    page.items.into_iter().find(|entry| entry.agent_id == agent.enrolled.agent_id).unwrap()
}

#[tokio::test]
async fn an_agent_in_quarantine_gets_no_work_and_counts_for_nothing() {
    let farm = Farm::new().await;
    let (odd, other) = (farm.enrol("odd", 8).await, farm.enrol("other", 8).await);
    let request = farm.ask_for_keys().await;
    let lease = farm.lease(&odd, 8, 0).await.unwrap();
    farm.report(&odd, vec![odd.measures(KEYS[0], 10.0)]).await;
    let before = table(&farm, &odd).await;
    check("quarantined", &farm.decide(&odd, "quarantined", Some("its fan is broken")).await);

    // Its work is released without an attempt, and given to another agent.
    let beat = Heartbeat { leases: vec![lease.id], ..Heartbeat::default() };
    let orders: Orders = farm.beat(&odd, &beat).await.read(StatusCode::OK);
    assert_eq!(orders.cancelled_leases, [lease.id]);
    assert_eq!(
        (orders.state, orders.reason.as_deref()),
        (AgentState::Quarantined, Some("its fan is broken"))
    );
    let renew = farm.post(&format!("/v1/leases/{}/renew", lease.id));
    assert_eq!(renew.token(&odd.enrolled.credential).send().await.status, StatusCode::CONFLICT);
    assert!(farm.lease(&odd, 8, 0).await.is_none());

    // Its measurement is kept as a fact, but counts for no row and no request.
    let fact = odd.measures(KEYS[1], 99.0);
    assert_eq!(farm.report(&odd, vec![fact.clone()]).await.stored, 1);
    assert_eq!(farm.report(&odd, vec![fact]).await.known, 1);
    assert_eq!(table(&farm, &odd).await, before);
    let status = farm.status(&request).await;
    assert_eq!((status.done, status.failed, status.running), (1, 0, 0));
    let rest = farm.lease(&other, 8, 0).await.unwrap();
    assert_eq!(rest.tasks.len(), 1);
    farm.report(&other, vec![other.measures(KEYS[1], 20.0)]).await;
    assert_eq!(farm.status(&request).await.done, 2);

    // Measurements from the quarantine never count, also after a rebuild.
    check("released_from_quarantine", &farm.decide(&odd, "active", None).await);
    let now = table(&farm, &odd).await;
    assert_eq!(
        now.rows.iter().map(|row| row.latency_micros).collect::<Vec<_>>(),
        [Some(10.0), Some(20.0)]
    );
    farm.store().rebuild().await.unwrap();
    assert_eq!(table(&farm, &odd).await.rows, now.rows);
    farm.ask_for(&KEYS[..1], true).await;
    assert!(farm.lease(&odd, 8, 0).await.is_some());
}

#[tokio::test]
async fn an_agent_that_drains_finishes_what_it_has() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    let lease = farm.lease(&agent, 1, 0).await.unwrap();
    let entry: AgentEntry = farm
        .decide(&agent, "draining", Some("it moves to another rack"))
        .await
        .read(StatusCode::OK);
    assert_eq!((entry.leases.len(), entry.leases[0].id), (1, lease.id));
    let beat = Heartbeat { leases: vec![lease.id], ..Heartbeat::default() };
    let orders: Orders = farm.beat(&agent, &beat).await.read(StatusCode::OK);
    assert_eq!((orders.state, orders.cancelled_leases.len()), (AgentState::Draining, 0));
    assert!(farm.lease(&agent, 8, 0).await.is_none());
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    assert_eq!(farm.status(&request).await.done, 1);
    assert_eq!(table(&farm, &agent).await.rows.len(), 1);
}

#[tokio::test]
async fn only_admins_decide_and_they_say_why() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let path = format!("/v1/agents/{}/state", agent.enrolled.agent_id);
    let token = farm.token(Role::Researcher).await;
    let body = json!({"state": "quarantined", "reason": "I like it not"});
    let call = farm.call(Method::PUT, &path).token(&token).json(&body);
    check("state_by_a_researcher", &call.send().await);
    check("state_without_a_reason", &farm.decide(&agent, "quarantined", Some("  ")).await);
    let two_lines = farm.decide(&agent, "draining", Some("a\nb")).await;
    assert_eq!(two_lines.status, StatusCode::UNPROCESSABLE_ENTITY);
    check("state_unknown", &farm.decide(&agent, "asleep", Some("x")).await);
    let nobody = EnrolledAgent {
        enrolled: latlas_shared::api::Enrolled { agent_id: Uuid::nil(), ..agent.enrolled.clone() },
        ..agent.clone()
    };
    check("state_of_nobody", &farm.decide(&nobody, "active", None).await);
    assert_eq!(listed(&farm, &agent).await.standing.state, BoxState::Active);
}

#[tokio::test]
async fn a_second_process_with_one_credential_is_refused() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.ask_for_keys().await;
    let beat = |id: u128, boot: &str| Heartbeat {
        instance: Some(Instance { id: Uuid::from_u128(id), boot_id: boot.into() }),
        ..Heartbeat::default()
    };
    assert_eq!(farm.beat(&agent, &beat(1, "a")).await.status, StatusCode::OK);
    let refused = farm.beat(&agent, &beat(2, "b")).await;
    let problem: Problem = refused.read(StatusCode::CONFLICT);
    assert_eq!(problem.kind, "/problems/agent-cloned");
    for part in ["remove the state directory", "--enroll-token", "(box)"] {
        assert!(problem.detail.contains(part), "{}", problem.detail);
    }
    let path = format!("/v1/agents/{}/leases", agent.enrolled.agent_id);
    let poll = |id: u128, boot: &str| {
        let body = json!({"max_tasks": 1, "wait_seconds": 0,
                          "instance": {"id": Uuid::from_u128(id), "boot_id": boot}});
        farm.post(&path).token(&agent.enrolled.credential).json(&body).send()
    };
    assert_eq!(poll(2, "b").await.status, StatusCode::CONFLICT);
    assert_eq!(poll(1, "a").await.status, StatusCode::OK);
    // Restarted on the same boot.
    assert_eq!(poll(3, "a").await.status, StatusCode::OK);
    // An agent that does not report its process is accepted.
    assert_eq!(farm.beat(&agent, &Heartbeat::default()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_agent_that_is_unfit_gets_no_work_until_it_says_otherwise() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.ask_for_keys().await;
    let beat = |unfit: Option<&str>| Heartbeat {
        unfit: unfit.map(str::to_owned),
        telemetry: Telemetry { temperature_c: Some(99.0), ..Telemetry::default() },
        ..Heartbeat::default()
    };
    farm.beat(&agent, &beat(Some("99 degrees"))).await;
    assert!(farm.lease(&agent, 8, 0).await.is_none());
    assert_eq!(listed(&farm, &agent).await.unfit.as_deref(), Some("99 degrees"));
    farm.beat(&agent, &beat(None)).await;
    assert_eq!(farm.lease(&agent, 8, 0).await.unwrap().tasks.len(), 2);
    assert_eq!(listed(&farm, &agent).await.unfit, None);
    let long = farm.beat(&agent, &beat(Some(&"x".repeat(5000)))).await;
    assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn work_that_stands_still_is_taken_away() {
    let farm = Farm::new().await;
    let agent = farm.join(&testing::enrolment("box", 8)).await;
    let request = farm.ask_for(&KEYS[..1], false).await;
    let lease =
        farm.store().lease(&agent, Uuid::new_v4(), 8, Timestamp::now()).await.unwrap().unwrap();
    let beat = Heartbeat { leases: vec![lease.id], visits: Some(12), ..Heartbeat::default() };
    for round in 0..12 {
        let now = later(50 * round);
        let renewed = farm.store().renew(&agent, lease.id, now).await.unwrap();
        assert!(renewed.is_some(), "after {} s", 50 * round);
        farm.store().note(&agent, &beat, &[], now);
        farm.store().sweep(now).await.unwrap();
    }
    farm.store().sweep(later(603)).await.unwrap();
    assert!(farm.store().renew(&agent, lease.id, later(604)).await.unwrap().is_none());
    // The attempt counts, and the reason is visible once the task is given up.
    for _ in 0..2 {
        farm.store().lease(&agent, Uuid::new_v4(), 8, Timestamp::now()).await.unwrap().unwrap();
        farm.store().sweep(later(3600)).await.unwrap();
    }
    let status = farm.status(&request).await;
    assert_eq!(status.failed, 1);
    assert!(status.failures[KEYS[0]].ends_with("(attempt 3 of 3)"), "{status:?}");
}

#[tokio::test]
async fn the_list_shows_what_an_agent_is_at() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.ask_for_keys().await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    farm.beat(
        &agent,
        &Heartbeat { leases: vec![lease.id], visits: Some(7), ..Heartbeat::default() },
    )
    .await;
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    check("agent_at_work", &farm.get("/v1/agents").send().await);
}

#[tokio::test]
async fn the_farm_at_one_glance() {
    let farm = Farm::new().await;
    let (agent, odd) = (farm.enrol("box", 8).await, farm.enrol("odd", 8).await);
    farm.enrol("large", 16).await;
    farm.decide(&odd, "quarantined", Some("odd")).await;
    // The smallest shapes are handed out last.
    let keys = [KEYS[0], KEYS[1], "Conv3x3:n1-h4-w4-i4-o4-s1", "Conv3x3:n1-h3-w3-i4-o4-s1"];
    farm.ask_for(&keys, false).await;
    farm.lease(&agent, 3, 0).await.unwrap();
    let mut failed = agent.measures(KEYS[1], 1.0);
    failed.status = Status::Failed;
    failed.latency = None;
    failed.reason = Some("out of memory".into());
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0), failed]).await;
    farm.store().derive().await.unwrap();
    check("farm", &farm.get("/v1/farm").send().await);
    let page: Page<FarmEntry> = farm.get("/v1/farm?limit=1").send().await.read(StatusCode::OK);
    assert_eq!((page.items.len(), page.next_cursor.is_some()), (1, true));
}

#[tokio::test]
async fn a_number_that_can_t_be_makes_no_row() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for(&KEYS[..1], false).await;
    for _ in 0..3 {
        let lease = farm.lease(&agent, 8, 0).await.unwrap();
        let mut lie = agent.measures(KEYS[0], 1e-6);
        lie.task = Some(lease.tasks[0].id);
        assert_eq!(farm.report(&agent, vec![lie]).await.stored, 1);
    }
    assert!(table(&farm, &agent).await.rows.is_empty());
    let status = farm.status(&request).await;
    assert_eq!(status.failed, 1);
    let reason = &status.failures[KEYS[0]];
    assert!(reason.contains("suspect: 1e-6 us is faster"), "{reason}");
}

/// Driver and kernel are in the digest, power mode in the hardware id, libtorch in the run config: after any change,
/// nothing mixes with earlier measurements.
#[tokio::test]
async fn an_agent_that_has_changed_starts_anew() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    let before = table(&farm, &agent).await;
    let mut enrolment = testing::enrolment("box", 8);
    enrolment.fingerprint.power_mode = Some("15W".into());
    let slower = farm.join(&enrolment).await;
    assert_eq!(slower.table.hardware_id.as_str(), "test-9000-2c-8gb.cpu.15w");
    let mut enrolment = testing::enrolment("box", 8);
    enrolment.run_config.runtime_version = "2.14.0".into();
    let newer = farm.join(&enrolment).await;
    assert_eq!(newer.table.hardware_id, agent.enrolled.hardware_id);
    assert!(newer.table.run_config.id() != before.run_config.id());

    // Its measurements go to its own table, and it can't post results for its former identity.
    let mut own = agent.measures(KEYS[0], 50.0);
    own.hardware_id = slower.table.hardware_id.clone();
    own.fingerprint = testing::enrolment("box", 8).fingerprint.digest();
    let former = agent.measures(KEYS[0], 50.0);
    let mut under_new = agent.measures(KEYS[0], 50.0);
    under_new.run_config.runtime_version = "2.14.0".into();
    for (by, measurement, stored) in
        [(&slower, own, 0), (&slower, former, 0), (&newer, under_new, 1)]
    {
        let incoming = crate::store::Incoming {
            measurements: vec![measurement],
            ..crate::store::Incoming::default()
        };
        let answer = farm.store().add_results(by, incoming, Timestamp::now()).await.unwrap();
        assert_eq!(answer.stored, stored, "{answer:?}");
    }
    assert_eq!(table(&farm, &agent).await, before);
}

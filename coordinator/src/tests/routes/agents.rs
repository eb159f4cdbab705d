//! `/v1/agents`, `/v1/hardware`.

use axum::http::StatusCode;
use latlas_shared::api::{AgentEntry, Heartbeat, Orders, Page};
use latlas_shared::testing;
use serde_json::json;
use uuid::Uuid;

use crate::tests::harness::{Farm, check};
use crate::token::Role;

#[tokio::test]
async fn an_agent_enrols_and_is_listed() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Enroll).await;
    let enrolment = testing::enrolment("box-1", 8);
    let answer = farm.post("/v1/agents").token(&token).json(&enrolment).send().await;
    check("enrolled", &answer);
    farm.enrol("box-2", 8).await;
    farm.enrol("box-3", 16).await;
    check("hardware", &farm.get("/v1/hardware").send().await);
    check("agents", &farm.get("/v1/agents").send().await);
}

#[tokio::test]
async fn an_enrolment_that_makes_no_sense_is_refused() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Enroll).await;
    let mut enrolment = testing::enrolment("box", 8);
    enrolment.run_config.threads = 0;
    let answer = farm.post("/v1/agents").token(&token).json(&enrolment).send().await;
    check("enrolment_refused", &answer);
    let answer = farm.post("/v1/agents").token(&token).json(&json!({"name": "box"})).send().await;
    check("enrolment_incomplete", &answer);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let farm = Farm::new().await;
    for n in 0..5 {
        farm.enrol(&format!("box-{n}"), 8).await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/agents?limit=2".to_owned();
    loop {
        let page: Page<AgentEntry> = farm.get(&path).send().await.read(StatusCode::OK);
        assert!(page.items.len() <= 2);
        names.extend(page.items.into_iter().map(|agent| agent.name));
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/v1/agents?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["box-0", "box-1", "box-2", "box-3", "box-4"]);
    check("bad_cursor", &farm.get("/v1/agents?cursor=x").send().await);
    check("bad_limit", &farm.get("/v1/agents?limit=0").send().await);
    check("bad_parameter", &farm.get("/v1/agents?page=2").send().await);
}

#[tokio::test]
async fn a_heartbeat_hears_of_leases_that_are_lost() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.ask_for_keys().await;
    let lease = farm.lease(&agent, 1, 0).await.unwrap();
    let lost = Uuid::from_u128(7);
    let beat = Heartbeat { leases: vec![lease.id, lost], ..Heartbeat::default() };
    let orders: Orders = farm.beat(&agent, &beat).await.read(StatusCode::OK);
    assert_eq!(orders.cancelled_leases, [lost]);
}

#[tokio::test]
async fn an_agent_speaks_for_itself_only() {
    let farm = Farm::new().await;
    let (one, other) = (farm.enrol("one", 8).await, farm.enrol("other", 8).await);
    let path = format!("/v1/agents/{}/leases", other.enrolled.agent_id);
    let body = json!({"max_tasks": 1, "wait_seconds": 0});
    let call = farm.post(&path).token(&one.enrolled.credential).json(&body);
    check("another_agent", &call.send().await);
}

//! Presence of agents, its effect on requests, cancelled requests, and names of agents.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use latlas_shared::api::{
    AgentEntry, AgentPresence, AuditEntry, BoxState, FarmEntry, HardwareEntry, Heartbeat, Orders,
    Page, Problem, RequestStatus, Unattended,
};
use latlas_shared::testing;
use serde_json::{Value, json};

use crate::store::After;
use crate::tests::harness::{Answer, EnrolledAgent, Farm, KEYS, later};
use crate::token::Role;

const FIRST: After<i64> = After { cursor: None, limit: 10 };

async fn agents(farm: &Farm) -> Vec<AgentEntry> {
    let page: Page<AgentEntry> = farm.get("/v1/agents").send().await.read(StatusCode::OK);
    page.items
}

async fn state(farm: &Farm, agent: &EnrolledAgent) -> BoxState {
    let all = agents(farm).await;
    all.iter().find(|one| one.agent_id == agent.enrolled.agent_id).unwrap().standing.state
}

async fn counts(farm: &Farm, now: Timestamp) -> BTreeMap<String, u32> {
    farm.store().farm(&FIRST, now).await.unwrap().items.remove(0).agents
}

async fn metrics(farm: &Farm, now: Timestamp) -> Vec<(String, i64)> {
    let counts = farm.store().farm_counts(now).await.unwrap();
    counts.agents.into_iter().map(|(_, state, n)| (state, n)).collect()
}

/// Names and states of the agents of an unattended request.
fn absent(unattended: &Option<Unattended>) -> Vec<(&str, BoxState)> {
    let boxes = unattended.iter().flat_map(|unattended| &unattended.boxes);
    boxes.map(|one| (one.name.as_str(), one.standing.state)).collect()
}

/// Asks for keys of the 8 GiB class with this token.
async fn ask(farm: &Farm, token: &str, keys: &[&str], remeasure: bool) -> RequestStatus {
    let body = json!({
        "hardware_id": testing::fingerprint(8).hardware_id(),
        "definition": {"name": "mine", "keys": keys},
        "remeasure": remeasure,
    });
    farm.post("/v1/requests").token(token).json(&body).send().await.read(StatusCode::CREATED)
}

async fn cancel(farm: &Farm, token: &str, request: &RequestStatus) -> Answer {
    farm.post(&format!("/v1/requests/{}/cancel", request.id)).token(token).send().await
}

async fn audited(farm: &Farm, action: &str) -> Vec<Value> {
    let token = farm.token(Role::Admin).await;
    let page: Page<AuditEntry> =
        farm.get("/v1/audit").token(&token).send().await.read(StatusCode::OK);
    page.items.into_iter().filter(|one| one.action == action).map(|one| one.detail).collect()
}

#[tokio::test]
async fn an_agent_that_stops_in_order_is_stopped_in_every_list() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    assert_eq!(request.unattended, None);
    farm.lease(&agent, 8, 0).await.unwrap();
    let bye = Heartbeat { leaving: Some("it was told to stop".into()), ..Heartbeat::default() };
    farm.beat(&agent, &bye).await.read::<Orders>(StatusCode::OK);

    let entry = agents(&farm).await.remove(0);
    let standing = &entry.standing;
    assert_eq!((standing.state, entry.presence), (BoxState::Stopped, AgentPresence::Stopped));
    assert_eq!(standing.reason.as_deref(), Some("it was told to stop"));
    assert!(standing.since.is_some() && entry.leases.is_empty());
    // It stays stopped later too: it does not become silent, since it has announced its stop.
    for now in [Timestamp::now(), later(99_999)] {
        assert_eq!(counts(&farm, now).await, BTreeMap::from([("stopped".into(), 1)]));
        assert_eq!(metrics(&farm, now).await, [("stopped".to_owned(), 1)]);
    }
    let status = farm.status(&request).await;
    assert_eq!((status.running, absent(&status.unattended)), (0, vec![("box", BoxState::Stopped)]));

    farm.beat(&agent, &Heartbeat::default()).await.read::<Orders>(StatusCode::OK);
    assert_eq!(state(&farm, &agent).await, BoxState::Active);
    farm.store().write_notes().await.unwrap();
    assert_eq!(state(&farm, &agent).await, BoxState::Active);
    assert_eq!(farm.status(&request).await.unattended, None);
    let long = Heartbeat { leaving: Some("x".repeat(501)), ..Heartbeat::default() };
    assert_eq!(farm.beat(&agent, &long).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn an_agent_that_falls_silent_is_silent_in_every_list_after_45_seconds() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    for (second, shown) in [(40, "active"), (50, "silent")] {
        let now = later(second);
        let entry = farm.store().list_agents(&FIRST, now).await.unwrap().items.remove(0);
        assert_eq!(entry.standing.state.name(), shown);
        assert_eq!(counts(&farm, now).await, BTreeMap::from([(shown.into(), 1)]));
        assert_eq!(metrics(&farm, now).await, [(shown.to_owned(), 1)]);
        let status = farm.store().request_status(request.id, now).await.unwrap().unwrap();
        assert_eq!(status.unattended.is_some(), shown == "silent");
        let listed = farm.store().list_requests(&FIRST, now).await.unwrap().items.remove(0);
        assert_eq!(listed.unattended, status.unattended);
        if let Some(unattended) = status.unattended {
            assert_eq!(unattended.boxes[0].standing.since, Some(entry.seen_at));
        }
    }
    // A call for work is a sign of life; handing out work is not.
    let agent = farm.join(&testing::enrolment("other", 8)).await;
    farm.store().has_called(&agent, later(20));
    let lease = farm.store().lease(&agent, uuid::Uuid::new_v4(), 1, later(60)).await.unwrap();
    assert!(lease.is_some());
    assert_eq!(counts(&farm, later(64)).await, [("active", 1), ("silent", 1)].map(named).into());
    assert_eq!(counts(&farm, later(66)).await, [("silent", 2)].map(named).into());
}

fn named((state, n): (&str, u32)) -> (String, u32) {
    (state.to_owned(), n)
}

#[tokio::test]
async fn nobody_can_speak_while_the_coordinator_is_away() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    farm.store().resume(later(1000)).await.unwrap();
    assert_eq!(counts(&farm, later(1040)).await, [("active", 1)].map(named).into());
    assert_eq!(counts(&farm, later(1046)).await, [("silent", 1)].map(named).into());
}

#[tokio::test]
async fn a_request_says_at_once_that_no_agent_takes_its_tasks() {
    let farm = Farm::new().await;
    let (one, other) = (farm.enrol("one", 8).await, farm.enrol("other", 8).await);
    // A box of another class does not count.
    farm.enrol("large", 16).await;
    farm.decide(&one, "draining", Some("it moves")).await;
    assert_eq!(farm.ask_for_keys().await.unattended, None);
    farm.beat(&other, &Heartbeat { unfit: Some("99 degrees".into()), ..Heartbeat::default() })
        .await;
    let request = farm.ask_for_keys().await;
    let mut boxes = absent(&request.unattended);
    boxes.sort();
    assert_eq!(boxes, [("one", BoxState::Draining), ("other", BoxState::Unfit)]);
    let unattended = request.unattended.as_ref().unwrap();
    let draining = unattended.boxes.iter().find(|one| one.name == "one").unwrap();
    assert_eq!(draining.standing.reason.as_deref(), Some("it moves"));
    assert_eq!(draining.standing.by.as_deref(), Some("admin"));

    // The events report the state, and that it has ended.
    let mut events = farm.get(&format!("/v1/requests/{}/events", request.id)).open().await;
    assert!(events.next().await.unwrap().1.unattended.is_some());
    farm.decide(&one, "active", None).await;
    assert_eq!(events.next().await.unwrap().1.unattended, None);
    farm.decide(&one, "quarantined", Some("odd")).await;
    assert!(events.next().await.unwrap().1.unattended.is_some());

    let token = farm.token(Role::Admin).await;
    for agent in [&one, &other] {
        let path = format!("/v1/agents/{}", agent.enrolled.agent_id);
        let removed = farm.call(Method::DELETE, &path).token(&token).send().await;
        assert_eq!(removed.status, StatusCode::NO_CONTENT);
    }
    let status = farm.status(&request).await;
    assert_eq!(status.unattended, Some(Unattended { boxes: vec![], more: 0 }));
}

#[tokio::test]
async fn a_cancelled_request_leaves_the_queue_and_its_leases_end() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let (ada, bob) = (farm.token(Role::Researcher).await, farm.token(Role::Researcher).await);
    let mine = ask(&farm, &ada, &KEYS, false).await;
    let shared = ask(&farm, &bob, &KEYS[1..], false).await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    let mut events = farm.get(&format!("/v1/requests/{}/events", mine.id)).open().await;
    assert_eq!(events.next().await.unwrap().0, "progress");

    let problem: Problem = cancel(&farm, &bob, &mine).await.read(StatusCode::FORBIDDEN);
    assert!(problem.detail.contains("another token"), "{}", problem.detail);
    let ended: RequestStatus = cancel(&farm, &ada, &mine).await.read(StatusCode::OK);
    let cancelled = ended.cancelled.clone().unwrap();
    assert_eq!((cancelled.by.as_str(), cancelled.tasks), ("a test's researcher", 2));
    assert!(ended.is_finished());
    assert_eq!((ended.total, ended.done, ended.failed, ended.running), (2, 0, 0, 0));
    assert_eq!(farm.status(&mine).await, ended);
    let (name, last) = events.next().await.unwrap();
    assert_eq!((name.as_str(), last), ("cancelled", ended.clone()));
    assert_eq!(events.next().await, None);

    // The box is told, and tasks that another request waits for continue.
    let beat = Heartbeat { leases: vec![lease.id], ..Heartbeat::default() };
    let orders: Orders = farm.beat(&agent, &beat).await.read(StatusCode::OK);
    assert_eq!(orders.cancelled_leases, [lease.id]);
    let next = farm.lease(&agent, 8, 0).await.unwrap();
    let subjects: Vec<String> = next.tasks.iter().map(|t| t.subject().to_string()).collect();
    assert_eq!(subjects, [KEYS[1]]);
    assert!(!farm.status(&shared).await.is_finished());

    // A second cancellation changes nothing; a late result is a fact.
    let again: RequestStatus = cancel(&farm, &ada, &mine).await.read(StatusCode::OK);
    assert_eq!(again, ended);
    assert_eq!(
        audited(&farm, "request.cancel").await,
        [json!({"tasks": 2, "dropped": 1, "done": 0})]
    );
    let answer = farm.report(&agent, KEYS.map(|key| agent.measures(key, 10.0)).to_vec()).await;
    assert_eq!(answer.stored, 2, "{answer:?}");
    assert!(
        farm.status(&shared).await.cancelled.is_none() && farm.status(&shared).await.is_finished()
    );
    assert_eq!(farm.status(&mine).await, ended);
}

#[tokio::test]
async fn admins_cancel_for_others_and_what_is_over_stays() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let (ada, admin) = (farm.token(Role::Researcher).await, farm.token(Role::Admin).await);
    let first = ask(&farm, &ada, &KEYS, false).await;
    farm.report(&agent, KEYS.map(|key| agent.measures(key, 10.0)).to_vec()).await;
    let over: RequestStatus = cancel(&farm, &ada, &first).await.read(StatusCode::OK);
    assert_eq!((over.done, &over.cancelled), (2, &None), "it was finished");

    // A task that was measured before and requested again counts as measured again.
    let again = ask(&farm, &ada, &KEYS, true).await;
    assert_eq!(again.open(), 2);
    let ended: RequestStatus = cancel(&farm, &admin, &again).await.read(StatusCode::OK);
    assert_eq!(ended.cancelled.unwrap().by, "a test's admin");
    assert!(farm.lease(&agent, 8, 0).await.is_none());
    let third = ask(&farm, &ada, &KEYS, false).await;
    assert_eq!((third.total, third.done), (2, 2));

    let nobody = RequestStatus { id: uuid::Uuid::nil(), ..third };
    assert_eq!(cancel(&farm, &admin, &nobody).await.status, StatusCode::NOT_FOUND);
    let enroll = farm.token(Role::Enroll).await;
    assert_eq!(cancel(&farm, &enroll, &first).await.status, StatusCode::FORBIDDEN);
    assert_eq!(audited(&farm, "request.cancel").await.len(), 1);
}

#[tokio::test]
async fn agents_are_named_labelled_and_removed() {
    let farm = Farm::new().await;
    let (one, other) = (farm.enrol("vm", 8).await, farm.enrol("vm", 8).await);
    let admin = farm.token(Role::Admin).await;
    let path = format!("/v1/agents/{}", one.enrolled.agent_id);
    let change = async |token: &str, body: Value| {
        farm.call(Method::PATCH, &path).token(token).json(&body).send().await
    };
    let entry: AgentEntry =
        change(&admin, json!({"name": "rack-3", "labels": {"outlet": "7", "room": "b"}}))
            .await
            .read(StatusCode::OK);
    assert_eq!((entry.name.as_str(), entry.labels["outlet"].as_str()), ("rack-3", "7"));
    let entry: AgentEntry =
        change(&admin, json!({"labels": {"room": null}})).await.read(StatusCode::OK);
    assert_eq!(entry.labels, BTreeMap::from([("outlet".into(), "7".into())]));
    assert_eq!(agents(&farm).await[0], entry);

    let taken: Problem = change(&admin, json!({"name": "vm"})).await.read(StatusCode::CONFLICT);
    assert!(taken.detail.contains(&other.enrolled.agent_id.to_string()), "{}", taken.detail);
    for body in [
        json!({}),
        json!({"name": ""}),
        json!({"name": "two\nlines"}),
        json!({"labels": {"with space": "x"}}),
        json!({"labels": {"k": ""}}),
        json!({"labels": (0..40).map(|n| (n.to_string(), "x")).collect::<BTreeMap<_, _>>()}),
    ] {
        assert_eq!(
            change(&admin, body.clone()).await.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}"
        );
    }
    let researcher = farm.token(Role::Researcher).await;
    assert_eq!(change(&researcher, json!({"name": "x"})).await.status, StatusCode::FORBIDDEN);

    let request = farm.ask_for_keys().await;
    farm.lease(&one, 1, 0).await.unwrap();
    farm.report(&one, vec![one.measures(KEYS[0], 10.0)]).await;
    let remove =
        async |token: &str| farm.call(Method::DELETE, &path).token(token).send().await.status;
    assert_eq!(remove(&researcher).await, StatusCode::FORBIDDEN);
    assert_eq!(remove(&admin).await, StatusCode::NO_CONTENT);
    assert_eq!(remove(&admin).await, StatusCode::NOT_FOUND);
    assert_eq!(farm.beat(&one, &Heartbeat::default()).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(agents(&farm).await.len(), 1);
    let page: Page<HardwareEntry> = farm.get("/v1/hardware").send().await.read(StatusCode::OK);
    assert_eq!(page.items[0].agents, 1);
    let page: Page<FarmEntry> = farm.get("/v1/farm").send().await.read(StatusCode::OK);
    assert_eq!(page.items[0].agents, [("active", 1)].map(named).into());
    // Its work continues elsewhere, and its measurements stay.
    assert_eq!(farm.status(&request).await.done, 1);
    assert_eq!(farm.lease(&other, 8, 0).await.unwrap().tasks.len(), 1);
    assert_eq!(farm.decide(&one, "active", None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(audited(&farm, "agent.name").await, [json!({"name": "rack-3", "was": "vm"})]);
    assert_eq!(audited(&farm, "agent.label").await.len(), 2);
    assert_eq!(audited(&farm, "agent.remove").await, [json!({"name": "rack-3"})]);
}

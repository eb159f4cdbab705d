//! A box keeps its agent when the farm's address changes or its state directory is lost, and only one process is
//! accepted for an agent.

use axum::http::{Method, StatusCode};
use latlas_shared::api::{
    AgentEntry, BoxState, EnrolRequest, Enrolled, FarmIdentity, Heartbeat, Instance, LeaseCall,
    Page, Results,
};
use latlas_shared::{Measurement, Table, testing};
use uuid::Uuid;

use crate::DATABASE;
use crate::store::{Store, copy};
use crate::tests::harness::{EnrolledAgent, Farm, KEYS, later};
use crate::token::Role;

/// The enrolment of a box with a key.
fn with_key(name: &str, key: char, boot: &str) -> EnrolRequest {
    EnrolRequest {
        box_key: Some(String::from(key).repeat(64)),
        instance: Some(Instance { id: Uuid::new_v4(), boot_id: boot.into() }),
        ..testing::enrolment(name, 8)
    }
}

async fn enrol(farm: &Farm, request: &EnrolRequest) -> EnrolledAgent {
    let token = farm.token(Role::Enroll).await;
    let answer = farm.post("/v1/agents").token(&token).json(request).send().await;
    EnrolledAgent { enrolled: answer.read::<Enrolled>(StatusCode::CREATED), memory_gib: 8 }
}

/// Sends a call of a process, so that the coordinator registers the process.
async fn speak(farm: &Farm, agent: &EnrolledAgent, request: &EnrolRequest) {
    let beat = Heartbeat { instance: request.instance.clone(), ..Heartbeat::default() };
    assert_eq!(farm.beat(agent, &beat).await.status, StatusCode::OK);
}

async fn agents(farm: &Farm) -> Vec<AgentEntry> {
    farm.get("/v1/agents").send().await.read::<Page<AgentEntry>>(StatusCode::OK).items
}

/// Measures a key again, as an agent that was given the task.
async fn measures(farm: &Farm, agent: &EnrolledAgent, micros: f64) {
    farm.ask_for(&KEYS[..1], true).await;
    let lease = farm.lease(agent, 8, 0).await.unwrap();
    let task = &lease.tasks[0];
    let measurement = Measurement {
        task: Some(task.id),
        task_generation: Some(task.generation),
        ..agent.measures(KEYS[0], micros)
    };
    assert_eq!(farm.report(agent, vec![measurement]).await.stored, 1);
}

async fn only_row(farm: &Farm, agent: &EnrolledAgent) -> (f64, u32) {
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let table: Table = farm.get(&path).send().await.read(StatusCode::OK);
    assert_eq!(table.rows.len(), 1);
    (table.rows[0].latency_micros.unwrap(), table.rows[0].agents)
}

#[tokio::test]
async fn the_farm_is_the_same_wherever_its_database_goes() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let said: FarmIdentity = farm.get("/v1/farm/id").send().await.read(StatusCode::OK);
    assert_eq!(said.farm_id, agent.enrolled.farm_id);
    assert_eq!(said.farm_id.get_version_num(), 4);
    let moved = farm.dir.path().join("moved.db");
    copy(&farm.dir.path().join(DATABASE), &moved).await.unwrap();
    let store = Store::open(&moved).await.unwrap();
    assert_eq!(store.farm_id(), said.farm_id);
    store.close().await;
    assert_ne!(Farm::new().await.store().farm_id(), said.farm_id);
}

/// A public report: the address of the server changes, or a box loses its state, and boxes appear twice.
#[tokio::test]
async fn an_agent_that_enrols_again_is_the_agent_that_it_was() {
    let farm = Farm::new().await;
    let request = with_key("box", 'a', "one boot");
    let first = enrol(&farm, &request).await;
    speak(&farm, &first, &request).await;
    measures(&farm, &first, 6.0592).await;
    farm.decide(&first, "quarantined", Some("its fan is broken")).await;
    // A new process on the same boot, a moment later.
    let request = with_key("box with a new kernel", 'a', "one boot");
    let again = enrol(&farm, &request).await;
    assert_eq!(again.enrolled.agent_id, first.enrolled.agent_id);
    assert_ne!(again.enrolled.credential, first.enrolled.credential);
    let known = agents(&farm).await;
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].name, "box", "a name is the farm's");
    let standing = &known[0].standing;
    assert_eq!((standing.state, standing.by.as_deref()), (BoxState::Quarantined, Some("admin")));
    // Nor can it escape under another run config.
    let mut threads = request.clone();
    threads.run_config.threads = 2;
    enrol(&farm, &threads).await;
    let states: Vec<BoxState> = agents(&farm).await.iter().map(|a| a.standing.state).collect();
    assert_eq!(states, [BoxState::Quarantined; 2]);
    farm.decide(&again, "active", None).await;
    speak(&farm, &again, &request).await;
    measures(&farm, &again, 7.6346).await;
    assert_eq!(only_row(&farm, &again).await, (7.6346, 1));
    // After a reboot, once the old process has been silent for a while.
    let request = with_key("box", 'a', "next boot");
    let (credential, now) = (crate::token::Token::generate(Role::Agent).unwrap(), later(60));
    let actor = crate::store::Actor::CommandLine;
    let rebooted = farm.store().enrol(&request, &credential, &actor, now).await.unwrap();
    assert_eq!(rebooted.uuid, first.enrolled.agent_id);
}

#[tokio::test]
async fn two_boxes_that_run_at_once_are_two_agents_whatever_their_keys() {
    let farm = Farm::new().await;
    let original = with_key("original", 'a', "boot of one");
    let one = enrol(&farm, &original).await;
    speak(&farm, &one, &original).await;
    // A copy of its disk in another box.
    let copied = with_key("copy", 'a', "boot of another");
    let two = enrol(&farm, &copied).await;
    assert_ne!(one.enrolled.agent_id, two.enrolled.agent_id);
    speak(&farm, &two, &copied).await;
    speak(&farm, &one, &original).await;
    // The key still belongs to the first box.
    let again = with_key("original", 'a', "boot of one");
    assert_eq!(enrol(&farm, &again).await.enrolled.agent_id, one.enrolled.agent_id);
    // Another box, no key, and another table of the same box.
    let other = with_key("other", 'b', "third boot");
    let mut threads = with_key("box", 'a', "x");
    threads.run_config.threads = 2;
    for request in
        [other, testing::enrolment("nameless", 8), testing::enrolment("nameless", 8), threads]
    {
        enrol(&farm, &request).await;
    }
    assert_eq!(agents(&farm).await.len(), 6);
}

#[tokio::test]
async fn the_work_of_a_process_that_is_gone_waits_again_at_once() {
    let farm = Farm::new().await;
    let request = with_key("box", 'a', "one boot");
    let first = enrol(&farm, &request).await;
    let wanted = farm.ask_for_keys().await;
    farm.lease(&first, 8, 0).await.unwrap();
    assert_eq!(farm.status(&wanted).await.running, 2);
    enrol(&farm, &with_key("box", 'a', "one boot")).await;
    assert_eq!(farm.status(&wanted).await.running, 0);
    assert_eq!(farm.lease(&first, 8, 0).await.unwrap().tasks.len(), 2);
}

/// Each call checks that one process is registered for an agent.
#[tokio::test]
async fn a_clone_reports_renews_and_gives_back_nothing() {
    let farm = Farm::new().await;
    let request = with_key("box", 'a', "one boot");
    let agent = enrol(&farm, &request).await;
    speak(&farm, &agent, &request).await;
    let wanted = farm.ask_for(&KEYS[..1], false).await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    let clone = Some(Instance { id: Uuid::new_v4(), boot_id: "another boot".into() });
    let mut bad = agent.measures(KEYS[0], 10.0);
    (bad.task, bad.fingerprint) = (Some(lease.tasks[0].id), "00".into());
    let results = |instance: &Option<Instance>| Results {
        measurements: vec![bad.clone()],
        instance: instance.clone(),
        ..Results::default()
    };
    let token = &agent.enrolled.credential;
    for attempt in 0..3 {
        let answer = farm.post("/v1/results").token(token).json(&results(&clone)).send().await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{attempt}: {}", answer.body);
        assert!(answer.body.contains("agent-cloned"), "{}", answer.body);
    }
    for call in ["renew", "release"] {
        let path = format!("/v1/leases/{}/{call}", lease.id);
        let body = LeaseCall { instance: clone.clone() };
        let answer = farm.call(Method::POST, &path).token(token).json(&body).send().await;
        assert!(answer.body.contains("agent-cloned"), "{call}: {}", answer.body);
    }
    let status = farm.status(&wanted).await;
    assert_eq!((status.running, status.failed), (1, 0));
    // The original box continues.
    let body = LeaseCall { instance: request.instance.clone() };
    let path = format!("/v1/leases/{}/renew", lease.id);
    assert_eq!(farm.post(&path).token(token).json(&body).send().await.status, StatusCode::OK);
    let good = Results {
        measurements: vec![Measurement {
            task: Some(lease.tasks[0].id),
            ..agent.measures(KEYS[0], 10.0)
        }],
        instance: request.instance.clone(),
        ..Results::default()
    };
    let answer = farm.post("/v1/results").token(token).json(&good).send().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(farm.status(&wanted).await.done, 1);
}

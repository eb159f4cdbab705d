//! Records that this version can't read: each affects only its own subject.

use axum::http::StatusCode;
use latlas_shared::api::{AgentEntry, OpEntry, Page, RequestStatus};
use latlas_shared::{Measurement, RowStatus, Table, testing};
use serde_json::json;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use uuid::Uuid;

use crate::DATABASE;
use crate::rules::incidents::incidents;
use crate::store::Incoming;
use crate::tests::harness::{Farm, KEYS, later};
use crate::token::Role;

/// Changes the database in a way that this program does not.
async fn spoil(farm: &Farm, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(farm.dir.path().join(DATABASE));
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let done = sqlx::query(statement).execute(&pool).await.unwrap();
    assert!(done.rows_affected() > 0, "{statement}");
    pool.close().await;
}

#[tokio::test]
async fn a_network_at_the_head_of_the_queue_keeps_no_task_back() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let body = json!({
        "hardware_id": agent.enrolled.hardware_id, "networks": ["demo_conv"],
    });
    let token = farm.token(Role::Researcher).await;
    let answer = farm.post("/v1/requests").token(&token).json(&body).send().await;
    let network: RequestStatus = answer.read(StatusCode::CREATED);
    let keys = farm.ask_for_keys().await;
    spoil(&farm, "UPDATE networks SET definition = CAST(x'7b22ff' AS TEXT)").await;
    // One task at a time: the unreadable task comes first.
    let lease = farm.lease(&agent, 1, 0).await.unwrap();
    assert_eq!(lease.tasks[0].subject().to_string(), KEYS[0]);
    assert_eq!(farm.status(&keys).await.running, 1);
    let status = farm.status(&network).await;
    assert!(status.is_finished());
    let reason = &status.failures["network demo_conv"];
    assert!(reason.starts_with("it can't be handed out: "), "{reason}");
}

#[tokio::test]
async fn an_op_is_left_out_and_taken_when_it_comes_again() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let token = farm.token(Role::Researcher).await;
    let square = json!({"name": "Square", "nodes": [
        {"id": "a", "apply": "sigmoid", "inputs": ["input"]},
        {"apply": "mul", "inputs": ["a", "input"]},
    ]});
    farm.post("/v1/ops").token(&token).json(&square).send().await;
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    spoil(&farm, "UPDATE ops SET definition = 'no JSON' WHERE name IN ('Square', 'Conv1x1')").await;
    let ops = async |farm: &Farm| -> Vec<String> {
        let page: Page<OpEntry> = farm.get("/v1/ops?limit=1000").send().await.read(StatusCode::OK);
        page.items.into_iter().map(|entry| entry.definition.name).collect()
    };
    // The list continues after it.
    let names = ops(&farm).await;
    assert!(!names.contains(&"Square".to_owned()) && names.last().unwrap().as_str() > "Square");
    let page: Page<OpEntry> = farm.get("/v1/ops?limit=1").send().await.read(StatusCode::OK);
    assert!(page.next_cursor.is_some());

    let again = farm.again().await;
    let names = ops(&again).await;
    assert!(names.contains(&"Conv1x1".to_owned()), "the catalog has it");
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let table: Table = again.get(&path).send().await.read(StatusCode::OK);
    assert_eq!(table.rows[0].status, RowStatus::Ok);
    let answer = again.post("/v1/ops").token(&token).json(&square).send().await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert!(ops(&again).await.contains(&"Square".to_owned()));
}

#[tokio::test]
async fn what_is_known_of_an_agent_or_of_the_past_hides_nothing_else() {
    let farm = Farm::with_canaries().await;
    let [_, other] = [
        farm.join(&testing::enrolment("a", 8)).await,
        farm.join(&testing::enrolment("b", 8)).await,
    ];
    spoil(
        &farm,
        "UPDATE agents SET labels = '[1]', canary_values = 'x', canary_at = 1 WHERE name = 'a'",
    )
    .await;
    let token = farm.token(Role::Admin).await;
    let boxes: Page<AgentEntry> =
        farm.get("/v1/agents").token(&token).send().await.read(StatusCode::OK);
    assert_eq!(boxes.items.len(), 2);

    // A canary is judged despite the unreadable canary of another agent.
    let (store, now) = (farm.store(), later(0));
    let lease = store.lease(&other, Uuid::new_v4(), 64, now).await.unwrap().unwrap();
    let measured = lease.tasks.iter().map(|task| Measurement {
        task: Some(task.id),
        ..testing::measurement(&task.subject().to_string(), 100.0)
    });
    let incoming = Incoming { measurements: measured.collect(), ..Incoming::default() };
    let answer = store.add_results(&other, incoming, now).await.unwrap();
    assert_eq!(answer.stored as usize, lease.tasks.len());
}

#[tokio::test]
async fn an_incident_silences_no_later_one() {
    let farm = Farm::new().await;
    let agent = farm.join(&testing::enrolment("box", 8)).await;
    let store = farm.store();
    let note = async |now| {
        let is = incidents(&store.agents_now(now).await.unwrap());
        store.note_incidents(is, now).await.unwrap().len()
    };
    assert_eq!(note(later(90)).await, 1);
    spoil(&farm, "UPDATE incidents SET incident = '{}'").await;
    let counts = async |now| store.farm_counts(now).await.unwrap().incidents;
    assert_eq!(counts(later(91)).await, [("unreadable".to_owned(), 1)]);
    store.has_called(&agent, later(100));
    assert_eq!(note(later(101)).await, 0, "nobody can say what is over");
    assert_eq!(counts(later(101)).await, []);
    assert_eq!(note(later(200)).await, 1);
}

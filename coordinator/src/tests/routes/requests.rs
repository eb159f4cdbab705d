//! `/v1/requests` and its events.

use axum::http::StatusCode;
use latlas_shared::api::{Page, RequestStatus, TaskWork};
use latlas_shared::{Status, testing};
use serde_json::{Value, json};

use crate::tests::harness::{Farm, KEYS, check};
use crate::token::Role;

fn on_the_usual_class(more: Value) -> Value {
    let mut body = json!({"hardware_id": testing::fingerprint(8).hardware_id()});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A space can include networks of its own keys, which are handed out before its rows.
#[tokio::test]
async fn a_space_is_calibrated_by_networks_of_its_own_keys() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let token = farm.token(Role::Researcher).await;
    let ask = async |calibrate: u32| {
        let body = on_the_usual_class(json!({"space": "quick", "calibrate": calibrate}));
        farm.post("/v1/requests").token(&token).json(&body).send().await
    };
    let status: RequestStatus = ask(5).await.read(StatusCode::CREATED);
    assert_eq!((status.networks, status.total), (5, 44));
    let again: RequestStatus = ask(5).await.read(StatusCode::CREATED);
    assert_eq!(again.total, 44, "the same networks");
    let lease = farm.lease(&agent, 64, 0).await.unwrap();
    let networks = lease.tasks.iter().take_while(|task| matches!(task.work, TaskWork::Network(_)));
    assert_eq!(networks.count(), 5);
    assert_eq!(ask(101).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_request_is_followed_to_its_end() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let token = farm.token(Role::Researcher).await;
    let body = on_the_usual_class(json!({"definition": {"name": "mine", "keys": KEYS}}));
    let answer = farm.post("/v1/requests").token(&token).json(&body).send().await;
    check("request_made", &answer);
    let request: RequestStatus = answer.read(StatusCode::CREATED);
    let mut failed = agent.measures(KEYS[1], 1.0);
    failed.status = Status::Failed;
    failed.latency = None;
    failed.reason = Some("out of memory".into());
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0), failed]).await;
    let path = format!("/v1/requests/{}", request.id);
    check("request_finished", &farm.get(&path).send().await);
    let page: Page<RequestStatus> = farm.get("/v1/requests").send().await.read(StatusCode::OK);
    assert_eq!(page.items.len(), 1);
    let unknown = "/v1/requests/00000000-0000-0000-0000-000000000000";
    check("request_unknown", &farm.get(unknown).send().await);
}

#[tokio::test]
async fn events_tell_the_progress_and_end() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    let path = format!("/v1/requests/{}/events", request.id);
    let mut events = farm.get(&path).open().await;
    let mut told = vec![];
    for key in KEYS {
        let (name, status) = events.next().await.unwrap();
        told.push((name, status.done));
        farm.report(&agent, vec![agent.measures(key, 10.0)]).await;
    }
    let (name, status) = events.next().await.unwrap();
    told.push((name, status.done));
    let expected = [("progress", 0), ("progress", 1), ("finished", 2)];
    assert_eq!(told, expected.map(|(name, done)| (name.to_owned(), done)));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn events_of_a_stopping_coordinator_end_without_a_finish() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    let path = format!("/v1/requests/{}/events", request.id);
    let mut events = farm.get(&path).open().await;
    assert_eq!(events.next().await.unwrap().0, "progress");
    farm.app.stop();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn the_same_request_twice_is_one_set_of_tasks() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let (one, other) = (farm.ask_for_keys().await, farm.ask_for_keys().await);
    assert_ne!(one.id, other.id);
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    assert_eq!(lease.tasks.len(), 2);
    let measured = KEYS.map(|key| agent.measures(key, 10.0)).to_vec();
    farm.report(&agent, measured).await;
    assert!(farm.status(&one).await.is_finished() && farm.status(&other).await.is_finished());
    let third = farm.ask_for_keys().await;
    assert_eq!((third.total, third.done), (2, 2), "what is measured is not measured again");
}

#[tokio::test]
async fn an_idempotency_key_names_one_request() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    let token = farm.token(Role::Researcher).await;
    let ask = |key: &str, space: &str| {
        let body = on_the_usual_class(json!({"definition": {"name": space, "keys": KEYS}}));
        farm.post("/v1/requests").token(&token).header("idempotency-key", key).json(&body).send()
    };
    let first: RequestStatus = ask("k", "mine").await.read(StatusCode::CREATED);
    let again: RequestStatus = ask("k", "mine").await.read(StatusCode::OK);
    assert_eq!(first.id, again.id);
    check("idempotency_key_reused", &ask("k", "other").await);
    check("idempotency_key_empty", &ask("", "mine").await);
    // The same key of another user is a different key.
    let other = farm.token(Role::Researcher).await;
    let body = on_the_usual_class(json!({"definition": {"name": "other", "keys": KEYS}}));
    let call = farm.post("/v1/requests").token(&other).header("idempotency-key", "k").json(&body);
    let theirs: RequestStatus = call.send().await.read(StatusCode::CREATED);
    assert_ne!(theirs.id, first.id);
}

#[tokio::test]
async fn remeasuring_starts_over_and_leaves_finished_requests_finished() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let first = farm.ask_for_keys().await;
    farm.report(&agent, KEYS.map(|key| agent.measures(key, 10.0)).to_vec()).await;
    let second = farm.ask_for(&KEYS, true).await;
    assert_eq!((second.total, second.done), (2, 0));
    assert!(farm.status(&first).await.is_finished());
    assert_eq!(farm.lease(&agent, 8, 0).await.unwrap().tasks.len(), 2);
    farm.report(&agent, KEYS.map(|key| agent.measures_again(key, 11.0)).to_vec()).await;
    assert!(farm.status(&second).await.is_finished());
}

#[tokio::test]
async fn requests_that_make_no_sense_say_why() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Researcher).await;
    let ask = |body: Value| farm.post("/v1/requests").token(&token).json(&body).send();
    let elsewhere = json!({"hardware_id": "tesla-t4-16gb.cuda", "space": "quick"});
    check("request_without_any_agent", &ask(elsewhere.clone()).await);
    farm.enrol("box", 8).await;
    check("request_for_unknown_hardware", &ask(elsewhere).await);
    let config = on_the_usual_class(json!({"space": "quick", "config": "f64"}));
    check("request_for_unknown_config", &ask(config).await);
    check("request_for_no_space", &ask(on_the_usual_class(json!({}))).await);
    let unknown = on_the_usual_class(json!({"space": "slow"}));
    assert_eq!(ask(unknown).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let key = json!({"definition": {"name": "mine", "keys": ["Conv3x3:n1-h2-w2-i3-o3-s4"]}});
    check("request_for_an_impossible_key", &ask(on_the_usual_class(key)).await);
    let op = json!({"definition": {"name": "mine", "keys": ["Conv3x4:n1-h8-w8-i3-o3-s1"]}});
    assert_eq!(ask(on_the_usual_class(op)).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let sizes: Vec<u32> = (1..=400).collect();
    let grid = json!({"ops": ["Conv3x3"], "resolution": sizes, "c_in": sizes, "c_out": [1]});
    let large = json!({"definition": {"name": "large", "grids": [grid]}});
    check("request_too_large", &ask(on_the_usual_class(large)).await);
    assert!(
        farm.get("/v1/requests")
            .send()
            .await
            .read::<Page<RequestStatus>>(StatusCode::OK)
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn a_large_space_is_taken_in_one_call() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    let token = farm.token(Role::Researcher).await;
    let sizes: Vec<u32> = (1..=200).collect();
    let grid = json!({"ops": ["Conv3x3"], "resolution": [8], "c_in": sizes,
                      "c_out": sizes[..100], "stride": [1]});
    let space = json!({"definition": {"name": "large", "grids": [grid]}});
    let answer =
        farm.post("/v1/requests").token(&token).json(&on_the_usual_class(space)).send().await;
    let request: RequestStatus = answer.read(StatusCode::CREATED);
    assert_eq!(request.total, 20_000);
}

/// The largest shape of each op comes first because it is the most informative, whatever the order
/// in the space is.
#[tokio::test]
async fn a_space_is_handed_out_in_an_informative_order() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let of = |op: &str, channels: u32| format!("{op}:n1-h8-w8-i{channels}-o{channels}-s1");
    let keys: Vec<String> = ["Conv1x1", "Conv3x3"]
        .iter()
        .flat_map(|op| (1..=8).map(move |channels| of(op, channels)))
        .collect();
    farm.ask_for(&keys.iter().map(String::as_str).collect::<Vec<_>>(), false).await;
    let first: Vec<String> = farm
        .lease(&agent, 8, 0)
        .await
        .unwrap()
        .tasks
        .into_iter()
        .map(|task| match task.work {
            TaskWork::Op { key, .. } => key.to_string(),
            work @ TaskWork::Network { .. } => panic!("{work:?}"),
        })
        .collect();
    assert_eq!(first[0], of("Conv3x3", 8));
    assert!(first.contains(&of("Conv1x1", 8)), "{first:?}");
}

#[tokio::test]
async fn an_op_that_no_agent_can_run_is_refused_at_once() {
    let farm = Farm::new().await;
    let mut enrolment = testing::enrolment("old", 8);
    enrolment.primitives = vec!["relu".into()];
    let enroll = farm.token(Role::Enroll).await;
    farm.post("/v1/agents").token(&enroll).json(&enrolment).send().await;
    let token = farm.token(Role::Researcher).await;
    let body = on_the_usual_class(json!({"definition": {"name": "mine", "keys": KEYS}}));
    check("request_unsupported", &farm.post("/v1/requests").token(&token).json(&body).send().await);
}

#[tokio::test]
async fn a_space_may_bring_its_own_ops() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let token = farm.token(Role::Researcher).await;
    let ask = |ops: Value| {
        let space = json!({
            "name": "own", "ops": ops,
            "grids": [{"resolution": [8], "c_in": [4], "c_out": [4]}],
        });
        let body = on_the_usual_class(json!({ "definition": space }));
        farm.post("/v1/requests").token(&token).json(&body).send()
    };
    let own = json!([{"name": "TwoRelus", "nodes": [{"apply": "relu"}, {"apply": "relu"}]}]);
    let request: RequestStatus = ask(own).await.read(StatusCode::CREATED);
    assert_eq!(request.total, 1);
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    let subject = lease.tasks[0].subject().to_string();
    assert!(subject.starts_with("TwoRelus:"), "{subject}");
    let taken = json!([{"name": "Conv3x3", "nodes": [{"apply": "relu"}, {"apply": "relu"}]}]);
    assert_eq!(ask(taken).await.status, StatusCode::CONFLICT);
}

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::spool::tests::measurement;

/// Answers one call, whose body contains these ids.
type Answer = Box<dyn FnMut(&[Uuid]) -> Response + Send>;

/// A coordinator with the given answers.
async fn coordinator(answer: Answer) -> Client {
    async fn results(State(answer): State<Arc<Mutex<Answer>>>, body: String) -> Response {
        let body: Value = serde_json::from_str(&body).unwrap();
        let ids = body["measurements"].as_array().unwrap().iter();
        let ids: Vec<Uuid> = ids.map(|m| m["id"].as_str().unwrap().parse().unwrap()).collect();
        answer.lock().unwrap()(&ids)
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
    let routes =
        Router::new().route("/v1/results", post(results)).with_state(Arc::new(Mutex::new(answer)));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    client
}

fn stored(refused: Value) -> Response {
    let body = json!({"stored": 0, "known": 0, "refused": refused});
    body.to_string().into_response()
}

fn problem(status: u16) -> Response {
    let body = json!({"type": "/problems/x", "title": "X", "status": status, "detail": "because"});
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

fn outbox(dir: &TempDir) -> Outbox {
    let metrics = Metrics::new(&"test.cpu".parse().unwrap(), "f32");
    Outbox::new(Spool::open(dir.path()).unwrap(), Arc::new(metrics))
}

/// Makes the spool fail to store a measurement.
fn block(dir: &Path, measurement: &Measurement) {
    fs::create_dir(dir.join(format!("spool/{}.json", measurement.id))).unwrap();
}

fn unblock(dir: &Path, measurement: &Measurement) {
    fs::remove_dir(dir.join(format!("spool/{}.json", measurement.id))).unwrap();
}

#[tokio::test]
async fn what_is_acknowledged_is_gone_and_what_is_refused_is_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&dir);
    let (good, bad) = (measurement(), measurement());
    let refused = json!({bad.id.to_string(): "unknown op"});
    let client = coordinator(Box::new(move |_| stored(refused.clone()))).await;
    outbox.add(good);
    outbox.add(bad.clone());
    outbox.upload(&client).await.unwrap();
    assert_eq!(outbox.spool.len(), 0);
    let note = dir.path().join(format!("refused/{}.answer.txt", bad.id));
    assert_eq!(fs::read_to_string(note).unwrap(), "unknown op");
    outbox.close().unwrap();
}

#[tokio::test]
async fn trouble_at_the_other_end_takes_nothing_away() {
    for status in [401, 403, 408, 429, 500, 503] {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = outbox(&dir);
        let client = coordinator(Box::new(move |_| problem(status))).await;
        outbox.add(measurement());
        outbox.upload(&client).await.unwrap_err();
        assert_eq!(outbox.spool.len(), 1, "{status}");
        assert_eq!(fs::read_dir(dir.path().join("refused")).unwrap().count(), 0, "{status}");
        outbox.close().unwrap();
    }
}

/// After a reboot the coordinator may still accept only the previous process.
#[tokio::test]
async fn another_process_that_speaks_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&dir);
    let cloned =
        json!({"type": "/problems/agent-cloned", "title": "X", "status": 409, "detail": "x"});
    let answer = move |_: &[Uuid]| (StatusCode::CONFLICT, cloned.to_string()).into_response();
    let client = coordinator(Box::new(answer)).await;
    outbox.add(measurement());
    let error = outbox.upload(&client).await.unwrap_err();
    assert!(is_cloned(error.downcast_ref().unwrap()), "{error:#}");
    assert_eq!(outbox.spool.len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_not_the_coordinator_s_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&dir);
    let page = |status: StatusCode| {
        Box::new(move |_: &[Uuid]| (status, "<html>log in first</html>").into_response())
    };
    outbox.add(measurement());
    for status in [StatusCode::OK, StatusCode::NOT_FOUND] {
        outbox.upload(&coordinator(page(status)).await).await.unwrap_err();
        assert_eq!(outbox.spool.len(), 1, "{status}");
    }
}

#[tokio::test]
async fn the_wait_that_is_asked_for_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&dir);
    let client =
        coordinator(Box::new(|_| ([(header::RETRY_AFTER, "7")], problem(429)).into_response()));
    outbox.add(measurement());
    let error = outbox.upload(&client.await).await.unwrap_err();
    let error: &ClientError = error.downcast_ref().unwrap();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

/// One refused measurement blocks no other, whatever the refusal looks like.
#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_is_halved() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&dir);
    let all: Vec<Measurement> = (0..7).map(|_| measurement()).collect();
    let bad = all[4].id;
    let taken = Arc::new(Mutex::new(Vec::new()));
    let taking = Arc::clone(&taken);
    let client = coordinator(Box::new(move |ids| {
        if ids.contains(&bad) {
            return problem(413);
        }
        taking.lock().unwrap().extend_from_slice(ids);
        stored(json!({}))
    }));
    let client = client.await;
    for measurement in &all {
        outbox.add(measurement.clone());
    }
    outbox.upload(&client).await.unwrap();
    let expected: Vec<Uuid> = all.iter().map(|m| m.id).filter(|id| *id != bad).collect();
    assert_eq!(*taken.lock().unwrap(), expected);
    let note = dir.path().join(format!("refused/{bad}.answer.txt"));
    assert!(fs::read_to_string(note).unwrap().contains("because"));
}

#[tokio::test]
async fn what_finds_no_room_on_the_disk_is_sent_directly() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&dir);
    let (kept, sent) = (measurement(), measurement());
    block(dir.path(), &sent);
    outbox.add(kept.clone());
    outbox.add(sent.clone());
    assert!(outbox.is_blocked());
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let client = coordinator(Box::new(move |ids| {
        seen.lock().unwrap().extend_from_slice(ids);
        stored(json!({}))
    }));
    outbox.upload(&client.await).await.unwrap();
    assert_eq!(*order.lock().unwrap(), [sent.id, kept.id], "what may be lost goes first");
    assert!(!outbox.is_blocked());
    outbox.close().unwrap();
}

#[tokio::test]
async fn what_can_be_neither_stored_nor_sent_is_never_dropped_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = outbox(&dir);
    let measurement = measurement();
    block(dir.path(), &measurement);
    outbox.add(measurement.clone());
    let away = coordinator(Box::new(|_| problem(503))).await;
    outbox.upload(&away).await.unwrap_err();
    assert!(outbox.is_blocked(), "no new work begins");
    let lost = outbox.close().unwrap_err().to_string();
    assert!(lost.contains("network demo_conv") && lost.contains("are lost"), "{lost}");
    // Once there is space again, the measurement is on disk even if the coordinator is still away.
    unblock(dir.path(), &measurement);
    outbox.upload(&away).await.unwrap_err();
    assert!(!outbox.is_blocked());
    assert_eq!(outbox.spool.oldest(9).unwrap(), [measurement]);
    outbox.close().unwrap();
}

#[test]
fn waits_grow_to_a_bound_and_are_spread() {
    fastrand::seed(1);
    let mut backoff = Backoff::new();
    let waits: Vec<f64> = (0..12).map(|_| backoff.step(None).as_secs_f64()).collect();
    for (index, wait) in waits.iter().enumerate() {
        let most = (0.5 * 2f64.powi(i32::try_from(index).unwrap())).min(60.0);
        assert!((most / 2.0..=most).contains(wait), "{index}: {wait}");
    }
    let asked = Backoff::new().step(Some(Duration::from_secs(30))).as_secs_f64();
    assert!((30.25..=30.5).contains(&asked), "{asked}");
    assert!(Backoff::new().step(Some(Duration::MAX)) < Duration::from_secs(16 * 60));
}

//! Many watchers of one request.

use std::time::Duration;

use axum::http::StatusCode;
use latlas_shared::Status;
use latlas_shared::api::{Page, RequestStatus};

use crate::tests::harness::{Farm, KEYS};

async fn nobody_watches(farm: &Farm) {
    let none = async {
        while farm.app.watched().count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), none).await.unwrap();
}

#[tokio::test]
async fn fifty_streams_of_one_request_are_one_reader() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    let path = format!("/v1/requests/{}/events", request.id);
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(farm.get(&path).open().await);
    }
    assert_eq!(farm.app.watched().count(), 1);
    for (measured, key) in KEYS.into_iter().enumerate() {
        for events in &mut streams {
            assert_eq!(events.next().await.unwrap().1.done as usize, measured);
        }
        farm.report(&agent, vec![agent.measures(key, 10.0)]).await;
    }
    for events in &mut streams {
        let (name, status) = events.next().await.unwrap();
        assert_eq!((name.as_str(), status.done), ("finished", 2));
        assert_eq!(events.next().await, None);
    }
    nobody_watches(&farm).await;
    // A finished request has one event and is not watched.
    let mut late = farm.get(&path).open().await;
    assert_eq!(late.next().await.unwrap().0, "finished");
    assert_eq!(late.next().await, None);
    assert_eq!(farm.app.watched().count(), 0);
}

#[tokio::test]
async fn a_request_that_nobody_watches_any_more_is_let_go() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    let path = format!("/v1/requests/{}/events", request.id);
    let (mut one, other) = (farm.get(&path).open().await, farm.get(&path).open().await);
    assert_eq!(one.next().await.unwrap().0, "progress");
    drop(one);
    assert_eq!(farm.app.watched().count(), 1);
    drop(other);
    nobody_watches(&farm).await;
    let mut again = farm.get(&path).open().await;
    assert_eq!(again.next().await.unwrap().0, "progress");
}

#[tokio::test]
async fn a_list_says_of_each_request_what_it_says_itself() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let first = farm.ask_for(&KEYS[..1], false).await;
    let mut failed = agent.measures(KEYS[0], 1.0);
    (failed.status, failed.latency) = (Status::Failed, None);
    failed.reason = Some("out of memory".into());
    farm.report(&agent, vec![failed]).await;
    let second = farm.ask_for_keys().await;
    farm.lease(&agent, 8, 0).await.unwrap();
    let third = farm.ask_for(&["Conv1x1:n1-h8-w8-i4-o4-s1"], false).await;
    let page: Page<RequestStatus> = farm.get("/v1/requests").send().await.read(StatusCode::OK);
    let mut alone = Vec::new();
    for request in [&third, &second, &first] {
        alone.push(farm.status(request).await);
    }
    assert_eq!(page.items, alone);
    let counts = |status: &RequestStatus| (status.total, status.failed, status.running);
    assert_eq!(alone.iter().map(counts).collect::<Vec<_>>(), [(1, 0, 0), (2, 1, 1), (1, 1, 0)]);
    assert!(alone[2].failures[KEYS[0]].ends_with(": out of memory"), "{:?}", alone[2]);
    let page: Page<RequestStatus> =
        farm.get("/v1/requests?limit=1").send().await.read(StatusCode::OK);
    assert_eq!(page.items, alone[..1]);
}

//! The coordinator's clock counts: a box's clock determines neither which measurement is the latest nor which lease is
//! lost.

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{AgentEntry, Heartbeat, Page, ResultsAnswer};
use latlas_shared::{Measurement, Row, Table, testing};

use crate::store::Incoming;
use crate::tests::harness::{EnrolledAgent, Farm, KEYS, later};

/// Measures a key, as an agent that was given the task and whose clock shows this time at the end.
async fn measures(
    farm: &Farm,
    agent: &EnrolledAgent,
    micros: f64,
    clock: Timestamp,
) -> ResultsAnswer {
    let lease = farm.lease(agent, 8, 0).await.unwrap();
    let measurement = Measurement {
        task: Some(lease.tasks[0].id),
        started_at: clock,
        finished_at: clock,
        ..agent.measures(KEYS[0], micros)
    };
    farm.report(agent, vec![measurement]).await
}

async fn only_row(farm: &Farm, agent: &EnrolledAgent) -> Row {
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let mut table: Table = farm.get(&path).send().await.read(StatusCode::OK);
    assert_eq!(table.rows.len(), 1);
    table.rows.remove(0)
}

/// A public report: boxes without a battery-backed clock, or with local time in it, are hours ahead or in 1970.
#[tokio::test]
async fn the_later_measurement_counts_whatever_the_box_s_clock_shows() {
    for wrong in [
        Timestamp::now() + SignedDuration::from_hours(8),
        Timestamp::now() + SignedDuration::from_hours(24 * 365 * 30),
        Timestamp::UNIX_EPOCH,
    ] {
        for wrong_first in [true, false] {
            let farm = Farm::new().await;
            let agent = farm.enrol("box", 8).await;
            let clocks = match wrong_first {
                true => [wrong, Timestamp::now()],
                false => [Timestamp::now(), wrong],
            };
            farm.ask_for(&KEYS[..1], false).await;
            assert_eq!(measures(&farm, &agent, 6.0592, clocks[0]).await.stored, 1);
            let request = farm.ask_for(&KEYS[..1], true).await;
            assert_eq!(farm.status(&request).await.done, 0);
            assert_eq!(measures(&farm, &agent, 12.1184, clocks[1]).await.stored, 1);
            assert_eq!(farm.status(&request).await.done, 1);
            let row = only_row(&farm, &agent).await;
            assert_eq!(
                (row.latency_micros, row.agents),
                (Some(12.1184), 1),
                "{wrong} {wrong_first}"
            );
            let ago = Timestamp::now().duration_since(row.measured_at);
            assert!((0..60).contains(&ago.as_secs()), "{wrong} {wrong_first}: {}", row.measured_at);
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_shown_and_taken_off() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let ahead = SignedDuration::from_hours(8);
    let listed = async || {
        let page: Page<AgentEntry> = farm.get("/v1/agents").send().await.read(StatusCode::OK);
        page.items[0].clock_ahead_seconds
    };
    assert_eq!(listed().await, None);
    let beat = Heartbeat { clock: Some(Timestamp::now() + ahead), ..Heartbeat::default() };
    assert_eq!(farm.beat(&agent, &beat).await.status, StatusCode::OK);
    let shown = listed().await.unwrap();
    assert!((shown - 28_800.0).abs() < 60.0, "{shown}");
    // Measured half an hour before it was sent.
    let (measured, sent) = (later(1800), later(3600));
    let measurement = Measurement {
        started_at: measured + ahead,
        finished_at: measured + ahead,
        ..testing::measurement(KEYS[0], 10.0)
    };
    let incoming = Incoming {
        measurements: vec![measurement],
        clock: Some(sent + ahead),
        ..Incoming::default()
    };
    let joined = farm.join(&testing::enrolment("joined", 8)).await;
    assert_eq!(farm.store().add_results(&joined, incoming, sent).await.unwrap().stored, 1);
    let off = only_row(&farm, &agent).await.measured_at.duration_since(measured).abs();
    assert!(off < SignedDuration::from_millis(1), "{off}");
}

/// A measurement from the spool of an offline box does not answer a later request.
#[tokio::test]
async fn what_was_measured_before_answers_no_remeasurement() {
    let farm = Farm::new().await;
    let (offline, other) = (farm.enrol("offline", 8).await, farm.enrol("other", 8).await);
    farm.ask_for(&KEYS[..1], false).await;
    let old = farm.lease(&offline, 8, 0).await.unwrap();
    let task = &old.tasks[0];
    let report = |agent: &EnrolledAgent, micros: f64, generation: Option<u32>| Measurement {
        task: Some(task.id),
        task_generation: generation,
        ..agent.measures(KEYS[0], micros)
    };
    farm.report(&other, vec![report(&other, 10.0, None)]).await;
    let request = farm.ask_for(&KEYS[..1], true).await;
    for generation in [None, Some(task.generation)] {
        assert_eq!(farm.report(&offline, vec![report(&offline, 11.0, generation)]).await.stored, 1);
        assert_eq!(farm.status(&request).await.done, 0, "{generation:?}");
    }
    let new = farm.lease(&other, 8, 0).await.unwrap();
    assert_eq!(new.tasks[0].generation, task.generation + 1);
    // Nor does it if its box sends it while it works on the task again.
    let stale = report(&other, 99.0, Some(task.generation));
    farm.report(&other, vec![stale]).await;
    assert_eq!(farm.status(&request).await.done, 0);
    let fresh = report(&other, 12.0, Some(new.tasks[0].generation));
    farm.report(&other, vec![fresh]).await;
    assert_eq!(farm.status(&request).await.done, 1);
    // A measurement that arrives late is still older.
    farm.report(&other, vec![report(&other, 98.0, Some(task.generation))]).await;
    let row = only_row(&farm, &other).await;
    assert_eq!((row.latency_micros, row.agents), (Some(11.5), 2));
}

//! Incidents: each is reported once when it begins and once when it ends.

use jiff::Timestamp;
use latlas_shared::api::{AgentState, Heartbeat, StateChange};
use latlas_shared::testing;
use uuid::Uuid;

use crate::rules::incidents::incidents;
use crate::store::{Actor, Store};
use crate::tests::harness::{Farm, KEYS, later};
use crate::{DATABASE, alarm};

/// The alarms at a time: event and kind.
async fn told(store: &Store, now: Timestamp) -> Vec<(&'static str, &'static str)> {
    let is = incidents(&store.agents_now(now).await.unwrap());
    let alarms = store.note_incidents(is, now).await.unwrap();
    alarms.into_iter().map(|alarm| (alarm.event, alarm.incident.kind.name())).collect()
}

#[tokio::test]
async fn a_silent_class_is_told_once_also_after_a_restart() {
    let farm = Farm::new().await;
    let agent = farm.join(&testing::enrolment("box", 8)).await;
    farm.join(&testing::enrolment("large", 16)).await;
    let store = farm.store();
    assert_eq!(told(store, later(0)).await, []);
    store.has_called(&agent, later(30));
    // Only the other class has fallen silent.
    assert_eq!(told(store, later(60)).await, [("opened", "class_silent")]);
    assert_eq!(told(store, later(65)).await, []);
    assert_eq!(told(store, later(80)).await, [("opened", "class_silent")]);
    assert_eq!(store.farm_counts(later(80)).await.unwrap().incidents, [("class_silent".into(), 2)]);
    store.write_notes().await.unwrap();

    let again = Store::open(&farm.dir.path().join(DATABASE)).await.unwrap();
    assert_eq!(told(&again, later(90)).await, []);
    again.has_called(&agent, later(100));
    assert_eq!(told(&again, later(101)).await, [("resolved", "class_silent")]);
    assert_eq!(told(&again, later(102)).await, []);
    assert_eq!(told(&again, later(200)).await, [("opened", "class_silent")], "another incident");
}

#[tokio::test]
async fn an_agent_that_hangs_or_is_quarantined_by_the_farm_is_told() {
    let farm = Farm::new().await;
    let agent = farm.join(&testing::enrolment("box", 8)).await;
    farm.ask_for(&KEYS[..1], false).await;
    let store = farm.store();
    let lease = store.lease(&agent, Uuid::new_v4(), 8, later(0)).await.unwrap().unwrap();
    let works = |visits| Heartbeat { leases: vec![lease.id], visits, ..Heartbeat::default() };
    let beats = async |visits, second| {
        store.heartbeat(&agent, &[], &works(visits).telemetry, later(second)).await.unwrap();
        store.note(&agent, &works(visits), &[], later(second));
        store.sweep(later(second)).await.unwrap();
        told(store, later(second)).await
    };
    assert_eq!(beats(Some(3), 0).await, []);
    assert_eq!(beats(Some(3), 590).await, []);
    assert_eq!(beats(Some(3), 610).await, [("opened", "box_hangs")]);
    assert_eq!(beats(Some(3), 620).await, []);
    assert_eq!(beats(None, 630).await, [("resolved", "box_hangs")]);

    let decide = async |state, reason: Option<&str>| {
        let change = StateChange { state, reason: reason.map(str::to_owned) };
        store.set_state(agent.uuid, &change, &Actor::CommandLine, later(640)).await.unwrap();
    };
    decide(AgentState::Quarantined, Some("its fan is broken")).await;
    assert_eq!(told(store, later(641)).await, [], "an admin knows what he has decided");
    decide(AgentState::Active, None).await;
    assert_eq!(told(store, later(642)).await, []);
}

/// End to end: the command is called for each incident, and its failures are counted.
#[cfg(unix)]
#[tokio::test]
async fn the_command_is_called_and_counted() {
    let farm = Farm::new().await;
    farm.join(&testing::enrolment("box", 8)).await;
    let heard = farm.dir.path().join("heard");
    let app = crate::App::with_clock(farm.store().clone(), Default::default(), || later(60));
    let command = format!("cat >> {}; exit 3", heard.display());
    let watching = tokio::spawn(alarm::watch(app.clone(), Some(command)));
    let counted = async {
        loop {
            let counts = app.store().farm_counts(later(60)).await.unwrap();
            let text = app.metrics().text(&counts, later(60));
            if text.contains("latlas_alarms_total{outcome=\"failed\"} 1") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), counted).await.unwrap();
    let alarm: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(heard).unwrap()).unwrap();
    assert_eq!(
        (&alarm["event"], &alarm["kind"], &alarm["boxes"][0]["name"], &alarm["boxes"][0]["state"]),
        (&"opened".into(), &"class_silent".into(), &"box".into(), &"silent".into())
    );
    app.stop();
    watching.await.unwrap();
}

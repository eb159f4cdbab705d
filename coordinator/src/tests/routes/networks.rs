//! Whole networks: requested, measured, and evaluated as the accuracy of a table.

use axum::http::StatusCode;
use latlas_shared::api::{RequestStatus, TaskWork};
use latlas_shared::{MeasuredNetwork, Measurement, Status, Table, testing};
use ops_catalog::Catalog;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::tests::harness::{Answer, EnrolledAgent, Farm, KEYS, check};
use crate::token::Role;

/// A small network of a single op, which is a row of [`KEYS`].
fn small() -> Value {
    json!({"name": "small", "doc": "prose", "input": {"n": 1, "c": 4, "h": 8, "w": 8},
           "layers": [{"op": "Conv3x3", "c_out": 4, "stride": 1}]})
}

async fn ask(farm: &Farm, more: Value) -> Answer {
    let mut body = json!({"hardware_id": testing::fingerprint(8).hardware_id()});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let token = farm.token(Role::Researcher).await;
    farm.post("/v1/requests").token(&token).json(&body).send().await
}

/// Reports a result for every task that the agent is given.
async fn work_off(farm: &Farm, agent: &EnrolledAgent, network_micros: f64) -> Vec<String> {
    let lease = farm.lease(agent, 64, 0).await.unwrap();
    let mut measurements = Vec::new();
    for task in &lease.tasks {
        let measurement = match &task.work {
            TaskWork::Op { key, .. } => agent.measures(&key.to_string(), 10.0),
            TaskWork::Network(_) => {
                let measurement = agent.measures_network("demo_conv", network_micros);
                Measurement { subject: task.subject(), ..measurement }
            }
        };
        measurements.push(Measurement { task: Some(task.id), ..measurement });
    }
    let answer = farm.report(agent, measurements).await;
    assert_eq!(answer.stored as usize, lease.tasks.len(), "{answer:?}");
    lease.tasks.iter().map(|task| task.subject().to_string()).collect()
}

#[tokio::test]
async fn networks_are_asked_for_beside_a_space_and_become_accuracy() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let space = json!({"name": "mine", "keys": KEYS});
    let answer = ask(&farm, json!({"definition": space, "networks": [small(), "demo_conv"]})).await;
    check("request_with_networks", &answer);
    let request: RequestStatus = answer.read(StatusCode::CREATED);
    let measured = work_off(&farm, &agent, 12.0).await;
    assert_eq!(measured, ["network small", "network demo_conv", KEYS[0], KEYS[1]]);
    assert!(farm.status(&request).await.is_finished());

    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let answer = farm.get(&path).send().await;
    let table: Table = answer.read(StatusCode::OK);
    assert_eq!(table.rows.len(), 2, "a network is no row");
    let accuracy = table.accuracy.unwrap();
    assert_eq!((accuracy.overall.networks, accuracy.overall.predicted), (2, 1));
    let error = accuracy.networks[0].prediction.as_ref().unwrap().error;
    // The only row of the network has a curve that rises by half from 8 to 64 MiB. It is read at 12 MiB plus the small
    // weights.
    let predicted = 10.0 * (1.0 + 0.5 * 4.0 / 56.0);
    assert!((error - (predicted / 12.0 - 1.0)).abs() < 1e-4, "{error}");
    check("table_with_accuracy", &answer);

    let networks = farm.get(&format!("{path}/networks")).send().await;
    check("table_networks", &networks);
    let lines: Vec<MeasuredNetwork> =
        networks.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.network.plan().is_ok() && line.agents == 1));
}

#[tokio::test]
async fn networks_alone_are_a_request_too() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let answer = ask(&farm, json!({"networks": [small(), small()]})).await;
    let request: RequestStatus = answer.read(StatusCode::CREATED);
    assert_eq!((request.space, request.networks, request.total), (None, 1, 1), "each once");
    work_off(&farm, &agent, 12.0).await;
    // The name does not matter: it is the same network.
    let mut renamed = small();
    renamed["name"] = "other".into();
    let again: RequestStatus =
        ask(&farm, json!({"networks": [renamed]})).await.read(StatusCode::CREATED);
    assert_eq!((again.total, again.done), (1, 1), "what is measured is not measured again");
}

#[tokio::test]
async fn a_new_truth_is_a_new_version() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let table = async || farm.get(&path).send().await.read::<Table>(StatusCode::OK);
    let without = table().await;
    assert_eq!(without.accuracy, None);
    farm.report(&agent, vec![agent.measures_network("demo_conv", 1000.0)]).await;
    let with = table().await;
    assert_ne!(with.version, without.version);
    assert_eq!(with.rows, without.rows);
    let rebuilt = farm.store().rebuild().await.unwrap();
    assert_eq!((rebuilt.rows, rebuilt.networks), (1, 1));
    assert_eq!(table().await, with, "a rebuild changes nothing");
}

#[tokio::test]
async fn a_network_that_failed_is_told_and_is_no_truth() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request: RequestStatus =
        ask(&farm, json!({"networks": ["demo_conv"]})).await.read(StatusCode::CREATED);
    let mut failed = agent.measures_network("demo_conv", 1.0);
    failed.status = Status::Failed;
    failed.latency = None;
    failed.reason = Some("out of memory".into());
    farm.report(&agent, vec![failed]).await;
    let status = farm.status(&request).await;
    let reason = &status.failures["network demo_conv"];
    assert!(reason.ends_with("out of memory"), "{reason}");
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    assert_eq!(farm.get(&path).send().await.read::<Table>(StatusCode::OK).accuracy, None);
    assert_eq!(farm.get(&format!("{path}/networks")).send().await.body, "");
}

#[tokio::test]
async fn a_network_goes_to_agents_that_can_run_all_of_it() {
    let farm = Farm::new().await;
    let mut enrolment = testing::enrolment("old", 8);
    enrolment.primitives.retain(|primitive| primitive != "conv2d");
    let old = farm.join(&enrolment).await;
    let answer = ask(&farm, json!({"networks": ["demo_conv"]})).await;
    check("request_for_a_network_unsupported", &answer);
    let able = farm.enrol("able", 8).await;
    let _: RequestStatus =
        ask(&farm, json!({"networks": ["demo_conv"]})).await.read(StatusCode::CREATED);
    assert!(
        farm.store()
            .lease(&old, Uuid::new_v4(), 8, jiff::Timestamp::now())
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(work_off(&farm, &able, 9.0).await, ["network demo_conv"]);
}

#[tokio::test]
async fn a_network_may_use_ops_that_were_submitted() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let network = json!({"name": "own", "input": {"n": 1, "c": 4, "h": 8, "w": 8},
                         "layers": [{"op": "TwoRelus", "c_out": 4, "stride": 1}]});
    check(
        "request_for_a_network_of_unknown_ops",
        &ask(&farm, json!({"networks": [network]})).await,
    );
    let token = farm.token(Role::Researcher).await;
    let def = json!({"name": "TwoRelus", "nodes": [{"apply": "relu"}, {"apply": "relu"}]});
    farm.post("/v1/ops").token(&token).json(&def).send().await;
    let _: RequestStatus =
        ask(&farm, json!({"networks": [network]})).await.read(StatusCode::CREATED);
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    let TaskWork::Network(sent) = &lease.tasks[0].work else { panic!() };
    assert_eq!(sent.ops[0].name, "TwoRelus");
    assert!(Catalog::builtin().op("TwoRelus").is_err() && sent.plan().is_ok());
}

#[tokio::test]
async fn networks_that_make_no_sense_say_why() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    check(
        "request_for_an_unknown_network",
        &ask(&farm, json!({"networks": ["mobilenet_v9"]})).await,
    );
    let mut typo = small();
    typo["layer"] = json!([]);
    check("request_for_a_mistyped_network", &ask(&farm, json!({"networks": [typo]})).await);
    let neither = ask(&farm, json!({"networks": []})).await;
    assert_eq!(neither.status, StatusCode::UNPROCESSABLE_ENTITY);
}

/// Sustained runs are tasks of their own: three at most, after everything else and one at a time.
#[tokio::test]
async fn sustained_runs_are_asked_for_beside_networks_and_become_a_ratio() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let space = json!({"name": "mine", "keys": KEYS});
    let networks = json!([small(), "demo_conv", "squeezenet1_1", "resnet18"]);
    let body = json!({"definition": space, "networks": networks, "sustained": true});
    let answer = ask(&farm, body.clone()).await;
    check("request_with_sustained_runs", &answer);
    let request: RequestStatus = answer.read(StatusCode::CREATED);
    assert_eq!((request.networks, request.total), (4, 4 + 2 + 3));
    assert_eq!(work_off(&farm, &agent, 1e5).await.len(), 6);
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let table = async || farm.get(&path).send().await.read::<Table>(StatusCode::OK);
    let before = table().await;
    assert_eq!(before.sustained, None);

    for (name, over_burst) in [("small", 1.1), ("demo_conv", 1.2), ("squeezenet1_1", 1.5)] {
        let lease = farm.lease(&agent, 64, 0).await.unwrap();
        let [task] = lease.tasks.as_slice() else { panic!("one at a time: {lease:?}") };
        let subject = task.subject();
        assert_eq!(subject.to_string(), format!("network {name}, sustained"));
        let run = testing::sustained_measurement("demo_conv", 1e5, over_burst);
        let measurement = Measurement {
            task: Some(task.id),
            latency: run.latency,
            sustained: run.sustained,
            subject,
            ..agent.measures_network("demo_conv", 1.0)
        };
        assert_eq!(farm.report(&agent, vec![measurement]).await.stored, 1);
    }
    assert!(farm.status(&request).await.is_finished());
    let after = table().await;
    assert_ne!(after.version, before.version);
    let sustained = after.sustained.unwrap();
    assert_eq!((sustained.networks, sustained.seconds), (3, 600));
    assert!((sustained.over_burst - 1.2).abs() < 1e-12);
    assert_eq!((&after.accuracy, &after.calibration), (&before.accuracy, &before.calibration));
    let ndjson = farm.get(&format!("{path}?format=ndjson")).send().await.body;
    let header: Value = serde_json::from_str(ndjson.lines().next().unwrap()).unwrap();
    assert_eq!(header["sustained"]["seconds"], 600);
    let networks = farm.get(&format!("{path}/networks")).send().await.body;
    assert_eq!(networks.lines().count(), 4, "a sustained run is no truth");

    let rebuilt = farm.store().rebuild().await.unwrap();
    assert_eq!((rebuilt.rows, rebuilt.networks), (2, 7));
    assert_eq!(table().await, after, "a rebuild changes nothing");
    let again: RequestStatus = ask(&farm, body).await.read(StatusCode::CREATED);
    assert_eq!((again.total, again.done), (9, 9), "what has run does not run again");
}

#[tokio::test]
async fn a_sustained_run_needs_a_network() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    let space = json!({"name": "mine", "keys": KEYS});
    let answer = ask(&farm, json!({"definition": space, "sustained": true})).await;
    check("request_for_sustained_runs_of_nothing", &answer);
}

/// A sustained run that failed has a name of its own among the failures.
#[tokio::test]
async fn a_sustained_run_that_failed_is_told_apart_from_its_network() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let body = json!({"networks": ["demo_conv"], "sustained": true});
    let request: RequestStatus = ask(&farm, body).await.read(StatusCode::CREATED);
    work_off(&farm, &agent, 1000.0).await;
    let task = farm.lease(&agent, 64, 0).await.unwrap().tasks.remove(0);
    let failed = Measurement {
        status: Status::Failed,
        latency: None,
        reason: Some("it is not supported".into()),
        subject: task.subject(),
        task: Some(task.id),
        ..agent.measures_network("demo_conv", 1.0)
    };
    farm.report(&agent, vec![failed]).await;
    let failures = farm.status(&request).await.failures;
    assert_eq!(failures.into_keys().collect::<Vec<_>>(), ["network demo_conv, sustained"]);
}

//! `/v1/results`.

use axum::http::StatusCode;
use latlas_predict::TableIndex;
use latlas_shared::api::ResultsAnswer;
use latlas_shared::samples::{self, Samples};
use latlas_shared::{Status, Subject};
use serde_json::{Value, json};

use crate::tests::harness::{Farm, KEYS, check, later, reader};

#[tokio::test]
async fn replays_change_nothing() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let measurements = KEYS.map(|key| agent.measures(key, 10.0)).to_vec();
    let answer = farm.report(&agent, measurements.clone()).await;
    assert_eq!((answer.stored, answer.known), (2, 0));
    let table = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let before = farm.get(&table).send().await.body;
    let twice = [measurements.clone(), measurements].concat();
    let answer = farm.report(&agent, twice).await;
    assert_eq!((answer.stored, answer.known), (0, 4));
    assert_eq!(farm.get(&table).send().await.body, before);
}

#[tokio::test]
async fn one_that_is_refused_keeps_no_other_out() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let good = agent.measures(KEYS[0], 10.0);
    let mut foreign = agent.measures(KEYS[1], 10.0);
    foreign.hardware_id = "tesla-t4-16gb.cuda".parse().unwrap();
    let mut odd = serde_json::to_value(agent.measures(KEYS[1], 10.0)).unwrap();
    odd["colour"] = "blue".into();
    let body = json!({"measurements": [good, foreign, odd]});
    let call = farm.post("/v1/results").token(&agent.enrolled.credential).json(&body);
    let answer: ResultsAnswer = call.send().await.read(StatusCode::OK);
    assert_eq!((answer.stored, answer.known), (1, 0));
    let foreign = &answer.refused[&foreign.id];
    assert!(foreign.contains("enrolled as test-9000-2c-8gb.cpu"), "{foreign}");
    let odd = &answer.refused[&serde_json::from_value(odd["id"].clone()).unwrap()];
    assert!(odd.contains("there is no field `colour`"), "{odd}");
}

#[tokio::test]
async fn what_has_no_id_can_t_be_refused_alone() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let body = json!({"measurements": [agent.measures(KEYS[0], 10.0), {"latency": 5}]});
    let call = farm.post("/v1/results").token(&agent.enrolled.credential).json(&body);
    check("result_without_id", &call.send().await);
    let many: Vec<Value> = vec![json!({}); 1001];
    let call = farm.post("/v1/results").token(&agent.enrolled.credential);
    check("too_many_results", &call.json(&json!({"measurements": many})).send().await);
}

#[tokio::test]
async fn a_late_result_counts() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for(&KEYS[..1], false).await;
    for attempt in 1..=3 {
        farm.lease(&agent, 8, 0).await.unwrap();
        farm.store().sweep(later(attempt * 3600)).await.unwrap();
    }
    let given_up = farm.status(&request).await;
    assert_eq!((given_up.failed, given_up.done), (1, 0));
    let reason = given_up.failures.values().next().unwrap();
    assert!(reason.contains("(attempt 3 of 3)"), "{reason}");
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    let status = farm.status(&request).await;
    assert_eq!((status.failed, status.done), (0, 1));
}

#[tokio::test]
async fn a_network_is_kept_and_is_no_row() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let network = agent.measures_network("demo_conv", 1000.0);
    assert_eq!(farm.report(&agent, vec![network.clone()]).await.stored, 1);
    assert_eq!(farm.report(&agent, vec![network]).await.known, 1);
    let table = farm.get(&format!("/v1/tables/{}", agent.enrolled.hardware_id)).send().await;
    assert_eq!(table.read::<Value>(StatusCode::OK)["rows"], json!([]));
}

#[tokio::test]
async fn a_network_that_is_not_what_it_says_is_refused() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let mut measurement = agent.measures_network("demo_conv", 1000.0);
    let Subject::Network(network) = &mut measurement.subject else { panic!() };
    network.digest = "net2-00000000000000000000000000000000".parse().unwrap();
    let id = measurement.id;
    let answer = farm.report(&agent, vec![measurement]).await;
    assert!(answer.refused[&id].contains("another version of the catalog"), "{answer:?}");
}

#[tokio::test]
async fn samples_are_kept_beside_the_measurement() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let mut measurement = agent.measures(KEYS[0], 10.0);
    let packed = samples::pack(&Samples {
        micros: [(0, vec![vec![10.0, 11.0]])].into(),
        ..Samples::default()
    });
    measurement.samples = Some(packed.clone());
    measurement.status = Status::Degraded;
    measurement.reason = Some("the box was busy".into());
    let mut odd = agent.measures(KEYS[0], 10.0);
    odd.samples = Some("not Base64".into());
    let id = odd.id;
    let answer = farm.report(&agent, vec![measurement, odd]).await;
    assert_eq!(answer.stored, 1);
    assert!(answer.refused[&id].starts_with("packed samples are not Base64: "), "{answer:?}");
    let table = farm.get(&format!("/v1/tables/{}", agent.enrolled.hardware_id)).send().await;
    assert_eq!(table.read::<Value>(StatusCode::OK)["rows"][0]["status"], "degraded");
    let pool = reader(&farm.dir.path().join(crate::DATABASE)).await;
    let stored = sqlx::query_scalar::<_, Vec<u8>>("SELECT samples FROM measurements");
    assert_eq!(stored.fetch_one(&pool).await.unwrap(), samples::bytes(&packed).unwrap());
}

/// Every admitted measurement leads to a table that readers accept.
#[tokio::test]
async fn extreme_results_make_no_table_unreadable() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let huge = agent.measures(KEYS[0], 1e11);
    let tiny = agent.measures(KEYS[1], f64::MIN_POSITIVE);
    assert_eq!(farm.report(&agent, vec![huge, tiny]).await.stored, 2);
    let table = farm.get(&format!("/v1/tables/{}", agent.enrolled.hardware_id)).send().await;
    TableIndex::new(table.read(StatusCode::OK)).unwrap();
}

/// An agent whose results are refused or unreadable does not get the task for ever.
#[tokio::test]
async fn refused_results_count_as_attempts() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for(&KEYS[..1], false).await;
    for attempt in 0..3 {
        let lease = farm.lease(&agent, 8, 0).await.unwrap();
        let mut measurement = agent.measures(KEYS[0], 10.0);
        measurement.task = Some(lease.tasks[0].id);
        measurement.fingerprint = "changed".into();
        let mut value = serde_json::to_value(measurement).unwrap();
        if attempt == 0 {
            value["colour"] = "blue".into();
        }
        let body = json!({"measurements": [value]});
        let call = farm.post("/v1/results").token(&agent.enrolled.credential).json(&body);
        let answer: ResultsAnswer = call.send().await.read(StatusCode::OK);
        assert_eq!(answer.refused.len(), 1);
    }
    assert!(farm.lease(&agent, 8, 0).await.is_none());
    let status = farm.status(&request).await;
    let reason = status.failures.values().next().unwrap();
    assert!(reason.starts_with("the result of agent box was refused: "), "{reason}");
    assert!(reason.ends_with("(attempt 3 of 3)"), "{reason}");
}

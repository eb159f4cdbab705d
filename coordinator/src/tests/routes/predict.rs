//! `/v1/predict`.

use axum::http::StatusCode;
use latlas_shared::api::PredictAnswer;
use serde_json::{Value, json};

use crate::testing;
use crate::tests::harness::{Farm, KEYS, check};

fn network(c_out: u32) -> Value {
    json!({
        "hardware_id": testing::fingerprint(8).hardware_id(),
        "network": {"input": {"n": 1, "c": 4, "h": 8, "w": 8},
                    "layers": [{"op": "Conv3x3", "c_out": 4, "stride": 1},
                               {"op": "Conv3x3", "c_out": c_out, "stride": 2}]},
    })
}

#[tokio::test]
async fn a_network_is_the_sum_of_its_ops() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0), agent.measures(KEYS[1], 5.0)]).await;
    for _ in 0..2 {
        let answer = farm.post("/v1/predict").json(&network(8)).send().await;
        let answer: PredictAnswer = answer.read(StatusCode::OK);
        // At 8 MiB, and the weights lie little beyond.
        assert!((answer.prediction.latency_micros - 15.0).abs() < 1e-3);
    }
    check("predict_missing_rows", &farm.post("/v1/predict").json(&network(16)).send().await);
}

#[tokio::test]
async fn a_network_with_a_mistake_is_refused() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    let mut body = network(8);
    body["network"]["layers"][1]["op"] = "Conv3x4".into();
    let answer = farm.post("/v1/predict").json(&body).send().await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let mut body = network(8);
    body["network"]["layers"][1]["stride"] = Value::Null;
    check("predict_without_a_stride", &farm.post("/v1/predict").json(&body).send().await);
    let mut body = network(8);
    body["hardware_id"] = "other.cpu".into();
    check("predict_unknown_hardware", &farm.post("/v1/predict").json(&body).send().await);
}

//! `/v1/predict`.

use std::sync::Arc;

use axum::http::StatusCode;
use latlas_shared::api::PredictAnswer;
use latlas_shared::testing;
use serde_json::{Value, json};
use tokio::task::JoinSet;

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
        // The curves rise by half from 8 to 64 MiB. They are read at 12 MiB plus the small weights.
        let expected = 15.0 * (1.0 + 0.5 * 4.0 / 56.0);
        assert!((answer.prediction.latency_micros - expected).abs() < 1e-3, "{answer:?}");
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

/// Several callers request estimates at once: they wait for the one that learns. If too many wait, others are told so.
#[tokio::test]
async fn estimates_are_learned_once_and_not_by_everybody_at_a_time() {
    let farm = Arc::new(Farm::new().await);
    let agent = farm.enrol("box", 8).await;
    let mut measured = Vec::new();
    for size in [4, 8, 16] {
        for (c_in, c_out) in [(4, 4), (4, 8), (4, 16), (8, 8), (8, 4), (8, 16)] {
            let micros = f64::from(size * size * c_in * c_out) / 100.0;
            let key = format!("Conv3x3:n1-h{size}-w{size}-i{c_in}-o{c_out}-s1");
            measured.push(agent.measures(&key, micros));
        }
    }
    farm.report(&agent, measured).await;
    let ask = || {
        let farm = Arc::clone(&farm);
        let mut body = network(8);
        body["network"]["layers"] = json!([{"op": "Conv3x3", "c_out": 12, "stride": 1}]);
        body["missing"] = "interpolate".into();
        async move { farm.post("/v1/predict").json(&body).send().await }
    };
    let held = farm.app.predictions().hold();
    let mut asking: JoinSet<_> = (0..65).map(|_| ask()).collect();
    let refused = asking.join_next().await.unwrap().unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    assert!(refused.body.contains("too many predictions with"), "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    // Predictions from rows alone do not wait.
    let mut body = network(8);
    body["network"]["layers"] = json!([{"op": "Conv3x3", "c_out": 4, "stride": 1}]);
    let answer = farm.post("/v1/predict").json(&body).send().await;
    let version = answer.read::<PredictAnswer>(StatusCode::OK).version;
    drop(held);
    let mut answers = 0;
    while let Some(answer) = asking.join_next().await {
        answer.unwrap().read::<PredictAnswer>(StatusCode::OK);
        answers += 1;
    }
    assert_eq!(answers, 64);
    assert_eq!(farm.app.predictions().times_learned(&version), 1);
}

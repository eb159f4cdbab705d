//! Lists and texts in bodies have bounds, so that one caller can't fill memory or keep a processor busy.

use axum::http::StatusCode;
use latlas_shared::api::{Heartbeat, Problem};
use latlas_shared::{Telemetry, testing};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::tests::harness::Farm;
use crate::token::Role;

#[tokio::test]
async fn what_a_heartbeat_says_has_bounds() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let says = |throttle: Vec<String>| Heartbeat {
        telemetry: Telemetry { throttle: Some(throttle), ..Telemetry::default() },
        ..Heartbeat::default()
    };
    let usual = says(vec!["sw_thermal_slowdown".into(); 8]);
    assert_eq!(farm.beat(&agent, &usual).await.status, StatusCode::OK);
    for (beat, field) in [
        (says(vec!["x".repeat(5000)]), "telemetry.throttle"),
        (says(vec![String::new(); 5000]), "telemetry.throttle"),
        (Heartbeat { leases: vec![Uuid::nil(); 1001], ..Heartbeat::default() }, "leases"),
        (Heartbeat { unfit: Some("x".repeat(501)), ..Heartbeat::default() }, "unfit"),
    ] {
        let answer = farm.beat(&agent, &beat).await;
        let problem: Problem = answer.read(StatusCode::UNPROCESSABLE_ENTITY);
        assert!(problem.detail.starts_with(field), "{}", problem.detail);
    }
}

#[tokio::test]
async fn a_request_has_bounds() {
    let farm = Farm::new().await;
    farm.enrol("box", 8).await;
    let token = farm.token(Role::Researcher).await;
    let ask = async |more: Value| {
        let mut body = json!({"hardware_id": testing::fingerprint(8).hardware_id()});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        farm.post("/v1/requests").token(&token).json(&body).send().await
    };
    let op = |n: usize| json!({"name": format!("Op{n}"), "nodes": [{"apply": "relu"}]});
    let ops: Vec<Value> = (0..101).map(op).collect();
    let mut talkative = op(0);
    talkative["doc"] = json!("x".repeat(10_001));
    let mut renamed = op(0);
    renamed["aliases"] = (0..17).map(|n| json!(format!("Other{n}"))).collect();
    let grids = json!([{"resolution": [8], "c_in": [4], "c_out": [4]}]);
    for (more, says) in [
        (json!({"networks": vec!["demo_conv"; 1001]}), "networks: there are 1001"),
        (
            json!({"definition": {"name": "own", "ops": ops, "grids": grids}}),
            "definition.ops: there are 101",
        ),
        (json!({"definition": {"name": "own", "ops": [talkative], "grids": grids}}), "doc"),
        (json!({"definition": {"name": "own", "ops": [renamed], "grids": grids}}), "aliases"),
    ] {
        let problem: Problem = ask(more).await.read(StatusCode::UNPROCESSABLE_ENTITY);
        assert!(problem.detail.contains(says), "{}", problem.detail);
    }
    let most = json!({"networks": vec!["demo_conv"; 1000]});
    assert_eq!(ask(most).await.status, StatusCode::CREATED);
}

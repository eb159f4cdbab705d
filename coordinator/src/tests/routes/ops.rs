//! `/v1/ops`.

use axum::http::StatusCode;
use latlas_shared::api::{OpEntry, Page};
use serde_json::{Value, json};

use crate::tests::harness::{Farm, check};
use crate::token::Role;

/// An op that is in no catalog.
fn square() -> Value {
    json!({"name": "Square", "nodes": [
        {"id": "a", "apply": "sigmoid", "inputs": ["input"]},
        {"apply": "mul", "inputs": ["a", "input"]},
    ]})
}

#[tokio::test]
async fn a_definition_is_taken_once() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Researcher).await;
    let submit = || farm.post("/v1/ops").token(&token).json(&square()).send();
    check("op_taken", &submit().await);
    assert_eq!(submit().await.status, StatusCode::OK);
    let page: Page<OpEntry> = farm.get("/v1/ops?limit=1000").send().await.read(StatusCode::OK);
    let entry = page.items.iter().find(|entry| entry.definition.name == "Square").unwrap();
    assert!(!entry.builtin);
}

#[tokio::test]
async fn a_name_means_one_definition_and_a_definition_has_one_name() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Researcher).await;
    let submit = |def: Value| farm.post("/v1/ops").token(&token).json(&def).send();
    submit(square()).await;
    let other = json!({"name": "Square", "nodes": [{"apply": "relu"}, {"apply": "relu"}]});
    check("op_name_taken", &submit(other).await);
    let mut renamed = square();
    renamed["name"] = "Quadrat".into();
    check("op_has_a_name", &submit(renamed).await);
    let builtin = json!({"name": "Conv3x3", "nodes": [{"apply": "relu"}, {"apply": "relu"}]});
    assert_eq!(submit(builtin).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_definition_with_a_mistake_is_refused() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Researcher).await;
    let submit = |def: Value| farm.post("/v1/ops").token(&token).json(&def).send();
    let wiring = json!({"name": "Odd", "nodes": [{"apply": "relu", "inputs": ["nowhere"]}]});
    check("op_with_a_mistake", &submit(wiring).await);
    let unknown = json!({"name": "Odd", "nodes": [{"apply": "teleport"}]});
    assert_eq!(submit(unknown).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn submitted_ops_outlive_the_process() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Researcher).await;
    farm.post("/v1/ops").token(&token).json(&square()).send().await;
    let path = farm.dir.path().join(crate::DATABASE);
    let reopened = crate::store::Store::open(&path).await.unwrap();
    assert!(reopened.ops().catalog().op("Square").is_ok());
}

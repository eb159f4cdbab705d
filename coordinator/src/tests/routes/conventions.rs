//! Conventions of every route: tokens, problem documents, compression.

use axum::http::{Method, StatusCode, header};
use latlas_shared::api::{PROBLEM_JSON, Problem, ResultsAnswer};
use latlas_shared::testing;
use serde_json::json;

use crate::Settings;
use crate::tests::harness::{Farm, KEYS, check};
use crate::token::Role;

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let farm = Farm::new().await;
    check("no_route", &farm.get("/v1/nothing").send().await);
    check("no_route_at_all", &farm.get("/").send().await);
    check("other_method", &farm.call(Method::DELETE, "/v1/agents").send().await);
    check("path_is_no_id", &farm.get("/v1/requests/42").send().await);
}

#[tokio::test]
async fn bodies_that_can_t_be_read_are_problems() {
    let farm = Farm::new().await;
    let token = farm.token(Role::Researcher).await;
    let post = || farm.post("/v1/requests").token(&token);
    check("body_without_type", &post().text("{}").send().await);
    let json = || post().header("content-type", "application/json");
    check("body_is_no_json", &json().text("{").send().await);
    check("body_has_other_fields", &post().json(&json!({"hardware": "x"})).send().await);
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    check("body_too_large", &json().text(&large).send().await);
}

#[tokio::test]
async fn tokens_are_asked_for_with_the_way_to_get_one() {
    let farm = Farm::new().await;
    let enrolment = testing::enrolment("box", 8);
    check("no_token", &farm.post("/v1/agents").json(&enrolment).send().await);
    let call = farm.post("/v1/agents").token("latlas_enroll_00").json(&enrolment);
    check("unknown_token", &call.send().await);
    let researcher = farm.token(Role::Researcher).await;
    let call = farm.post("/v1/agents").token(&researcher).json(&enrolment);
    check("wrong_role", &call.send().await);
    let call = farm.post("/v1/ops").header("authorization", "Basic dTpw");
    check("other_scheme", &call.send().await);
}

/// Every change requires a token, whatever the settings.
#[tokio::test]
async fn nothing_changes_without_a_token() {
    let farm = Farm::new().await;
    let id = "00000000-0000-0000-0000-000000000000";
    for (method, path) in [
        (Method::POST, "/v1/agents".to_owned()),
        (Method::PUT, format!("/v1/agents/{id}/heartbeat")),
        (Method::PUT, format!("/v1/agents/{id}/state")),
        (Method::POST, format!("/v1/agents/{id}/leases")),
        (Method::POST, format!("/v1/leases/{id}/renew")),
        (Method::POST, format!("/v1/leases/{id}/release")),
        (Method::POST, "/v1/results".to_owned()),
        (Method::POST, "/v1/ops".to_owned()),
        (Method::POST, "/v1/requests".to_owned()),
        (Method::POST, "/v1/tokens/1/revoke".to_owned()),
    ] {
        let answer = farm.call(method, &path).json(&json!({})).send().await;
        let problem: Problem = answer.read(StatusCode::UNAUTHORIZED);
        assert_eq!(problem.kind, "/problems/unauthorized", "{path}");
        assert_eq!(answer.header(header::CONTENT_TYPE), PROBLEM_JSON);
    }
}

#[tokio::test]
async fn reading_is_closed_where_the_settings_say_so() {
    let farm = Farm::with(Settings { open_reads: false, ..Settings::default() }).await;
    let token = farm.token(Role::Researcher).await;
    for path in [
        "/v1/farm",
        "/v1/hardware",
        "/v1/agents",
        "/v1/ops",
        "/v1/requests",
        "/v1/tables",
        "/v1/tables/x",
    ] {
        assert_eq!(farm.get(path).send().await.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_ne!(farm.get(path).token(&token).send().await.status, StatusCode::UNAUTHORIZED);
    }
    let predict = farm.post("/v1/predict").json(&json!({})).send().await;
    assert_eq!(predict.status, StatusCode::UNAUTHORIZED);
    assert_eq!(farm.get("/healthz").send().await.status, StatusCode::OK);
    let agent = farm.enrol("box", 8).await;
    let tables = farm.get("/v1/tables").token(&agent.enrolled.credential).send().await;
    assert_eq!(tables.status, StatusCode::OK);
}

/// No token is needed there, so a token that is sent is intentional, and its error should be
/// reported.
#[tokio::test]
async fn a_wrong_token_is_refused_where_none_is_needed() {
    let farm = Farm::new().await;
    assert_eq!(farm.get("/v1/tables").send().await.status, StatusCode::OK);
    let enroller = farm.token(Role::Enroll).await;
    let read = farm.get("/v1/tables").token(&enroller).send().await;
    assert_eq!(read.status, StatusCode::OK, "a token that is in force, whatever for");
    check("wrong_token_to_read", &farm.get("/v1/tables").token("latlas_admin_00").send().await);
    let basic = farm.get("/v1/tables").header("authorization", "Basic dTpw").send().await;
    assert_eq!(basic.status, StatusCode::UNAUTHORIZED);
}

/// An undeclared proxy must not open to the world what is open to this machine.
#[tokio::test]
async fn what_came_through_a_proxy_is_not_local() {
    let farm = Farm::new().await;
    let through = || farm.get("/v1/tables").header("x-forwarded-for", "192.0.2.7");
    assert_eq!(through().send().await.status, StatusCode::UNAUTHORIZED);
    let token = farm.token(Role::Researcher).await;
    assert_eq!(through().token(&token).send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn health_and_readiness() {
    let farm = Farm::new().await;
    assert_eq!(farm.get("/healthz").send().await.status, StatusCode::OK);
    check("ready", &farm.get("/readyz").send().await);
    farm.app.stop();
    check("not_ready", &farm.get("/readyz").send().await);
}

#[tokio::test]
async fn answers_are_compressed_when_asked() {
    let farm = Farm::new().await;
    for encoding in ["gzip", "zstd"] {
        let answer = farm.get("/v1/ops").header("accept-encoding", encoding).send().await;
        assert_eq!(answer.header(header::CONTENT_ENCODING), encoding);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_may_be_sent_again() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let body = json!({"measurements": [agent.measures(KEYS[0], 10.0)]});
    let call = || farm.post("/v1/results").token(&agent.enrolled.credential).json(&body);
    // An agent treats other refusals below 500 as final, and would move its measurements aside.
    let problem: Problem = call().send_half().await.read(StatusCode::REQUEST_TIMEOUT);
    assert_eq!(problem.kind, "/problems/broken-off");
    let answer: ResultsAnswer = call().send().await.read(StatusCode::OK);
    assert_eq!(answer.stored, 1);
}

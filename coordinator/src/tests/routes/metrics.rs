//! `GET /metrics` and `GET /openapi.json`.

use axum::http::{StatusCode, header};
use serde_json::Value;

use crate::Settings;
use crate::tests::harness::{Farm, KEYS};
use crate::token::Role;

async fn text(farm: &Farm) -> String {
    let answer = farm.get("/metrics").send().await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert!(answer.header(header::CONTENT_TYPE).starts_with("application/openmetrics-text"));
    answer.body
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
}

/// The value of the line with this beginning.
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn the_farm_is_counted() {
    let farm = Farm::new().await;
    let empty = text(&farm).await;
    has(&empty, "latlas_leases 0");
    has(&empty, "latlas_oldest_queued_request_age_seconds 0.0");
    assert!(value(&empty, "latlas_database_size_bytes") > 4096.0);

    let agent = farm.enrol("box-with-a-name", 8).await;
    farm.ask_for_keys().await;
    farm.lease(&agent, 1, 0).await.unwrap();
    let hardware = agent.enrolled.hardware_id.to_string();
    let busy = text(&farm).await;
    let tasks = |state| format!("latlas_tasks{{hardware_id=\"{hardware}\",state=\"{state}\"}} 1");
    has(&busy, &tasks("leased"));
    has(&busy, &tasks("queued"));
    let agents = |state| format!("latlas_agents{{hardware_id=\"{hardware}\",state=\"{state}\"}} 1");
    has(&busy, &agents("active"));
    has(&busy, "latlas_leases 1");
    assert!(value(&busy, "latlas_oldest_queued_request_age_seconds") > 0.0);

    let good = agent.measures(KEYS[0], 10.0);
    let mut bad = agent.measures(KEYS[1], 10.0);
    bad.hardware_id = "another.cpu".parse().unwrap();
    farm.report(&agent, vec![good.clone(), bad]).await;
    farm.report(&agent, vec![good]).await;
    let after = text(&farm).await;
    for outcome in ["stored", "known", "refused"] {
        has(&after, &format!("latlas_results_total{{outcome=\"{outcome}\"}} 1"));
    }
    has(&after, &tasks("done"));
    assert!(!after.contains("box-with-a-name"), "names are not for whoever watches");
    assert!(!after.contains(&agent.enrolled.agent_id.to_string()));
    assert!(after.ends_with("# EOF\n"));

    farm.decide(&agent, "quarantined", Some("its fan is broken")).await;
    has(&text(&farm).await, &agents("quarantined"));
}

#[tokio::test]
async fn calls_are_counted_by_route_and_not_by_path() {
    let farm = Farm::new().await;
    for id in 0..3 {
        farm.get(&format!("/v1/requests/{id}")).send().await;
        farm.get(&format!("/anything/{id}")).send().await;
    }
    farm.call("BREW".parse().unwrap(), "/v1/tables").send().await;
    let text = text(&farm).await;
    let counted = |labels: &str| format!("latlas_http_requests_total{{{labels}}}");
    let requests = "method=\"GET\",route=\"/v1/requests/{id}\",status=\"400\"";
    assert_eq!(value(&text, &counted(requests)), 3.0);
    assert_eq!(value(&text, &counted("method=\"GET\",route=\"none\",status=\"404\"")), 3.0);
    let other = "method=\"other\",route=\"/v1/tables\",status=\"405\"";
    assert_eq!(value(&text, &counted(other)), 1.0);
    let timed = "latlas_http_request_duration_seconds_count";
    let labels = "{method=\"GET\",route=\"/v1/requests/{id}\"}";
    assert_eq!(value(&text, &format!("{timed}{labels}")), 3.0);
}

#[tokio::test]
async fn metrics_are_as_closed_as_tables() {
    let farm = Farm::with(Settings { open_reads: false, ..Settings::default() }).await;
    assert_eq!(farm.get("/metrics").send().await.status, StatusCode::UNAUTHORIZED);
    let token = farm.token(Role::Researcher).await;
    assert_eq!(farm.get("/metrics").token(&token).send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_document_is_served() {
    let farm = Farm::with(Settings { open_reads: false, ..Settings::default() }).await;
    let document: Value = farm.get("/openapi.json").send().await.read(StatusCode::OK);
    assert_eq!(document["info"]["title"], "Latlas coordinator");
    assert!(document["paths"]["/v1/tables/{hardware_id}"]["get"].is_object());
}

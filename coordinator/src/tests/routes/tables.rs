//! `/v1/tables`.

use axum::http::{StatusCode, header};
use latlas_predict::TableIndex;
use latlas_shared::api::{Page, TableEntry};
use latlas_shared::{Table, testing};
use serde_json::json;

use crate::tests::harness::{EnrolledAgent, Farm, KEYS, check};
use crate::token::Role;

async fn measured() -> (Farm, EnrolledAgent, String) {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.report(&agent, KEYS.map(|key| agent.measures(key, 10.0)).to_vec()).await;
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    (farm, agent, path)
}

#[tokio::test]
async fn a_table_in_every_format() {
    let (farm, _, path) = measured().await;
    check("table_json", &farm.get(&path).send().await);
    check("table_csv", &farm.get(&format!("{path}?format=csv")).send().await);
    check("table_ndjson", &farm.get(&format!("{path}?format=ndjson")).send().await);
    check("table_unknown_format", &farm.get(&format!("{path}?format=xml")).send().await);
    check("table_list", &farm.get("/v1/tables").send().await);
}

#[tokio::test]
async fn a_table_of_nothing_has_no_rows() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let table: Table = farm.get(&path).send().await.read(StatusCode::OK);
    assert!(table.rows.is_empty());
}

#[tokio::test]
async fn a_client_that_has_it_gets_304_until_it_changes() {
    let (farm, agent, path) = measured().await;
    let first = farm.get(&path).send().await;
    let tag = first.header(header::ETAG);
    let again = farm.get(&path).header("if-none-match", tag).send().await;
    assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(again.header(header::ETAG), tag);
    let zipped = farm.get(&path).header("accept-encoding", "gzip").send().await;
    let zipped_tag = zipped.header(header::ETAG);
    assert_ne!(zipped_tag, tag, "other bytes, other tag");
    let again = farm.get(&path).header("if-none-match", zipped_tag).send().await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    farm.report(&agent, vec![agent.measures_again(KEYS[0], 20.0)]).await;
    let changed = farm.get(&path).header("if-none-match", tag).send().await;
    assert_eq!(changed.status, StatusCode::OK);
}

#[tokio::test]
async fn a_version_stays_what_it_was() {
    let (farm, agent, path) = measured().await;
    let first = farm.get(&path).send().await;
    let version = first.read::<Table>(StatusCode::OK).version;
    farm.report(&agent, vec![agent.measures_again(KEYS[0], 20.0)]).await;
    assert_ne!(farm.get(&path).send().await.read::<Table>(StatusCode::OK).version, version);
    let pinned = farm.get(&format!("{path}/versions/{version}")).send().await;
    assert_eq!(pinned.body, first.body);
    assert_eq!(pinned.header(header::CACHE_CONTROL), "max-age=31536000, immutable");
    let csv = farm.get(&format!("{path}/versions/{version}?format=csv")).send().await;
    assert!(csv.body.starts_with("hardware_id,op_type,"));
    check("version_unknown", &farm.get(&format!("{path}/versions/00")).send().await);
    let elsewhere = format!("/v1/tables/other.cpu/versions/{version}");
    check("version_elsewhere", &farm.get(&elsewhere).send().await);
}

#[tokio::test]
async fn the_first_run_config_is_the_default_one() {
    let (farm, _, path) = measured().await;
    let token = farm.token(Role::Enroll).await;
    let mut enrolment = testing::enrolment("two threads", 8);
    enrolment.run_config.threads = 2;
    farm.post("/v1/agents").token(&token).json(&enrolment).send().await;
    let table: Table = farm.get(&path).send().await.read(StatusCode::OK);
    assert_eq!((table.run_config.threads, table.rows.len()), (1, 2));
    let other = format!("{path}?config={}", enrolment.run_config.id());
    let table: Table = farm.get(&other).send().await.read(StatusCode::OK);
    assert_eq!((table.run_config.threads, table.rows.len()), (2, 0));
    check("table_unknown_config", &farm.get(&format!("{path}?config=f64")).send().await);
    let page: Page<TableEntry> = farm.get("/v1/tables").send().await.read(StatusCode::OK);
    assert_eq!(page.items.len(), 2);
}

#[tokio::test]
async fn unknown_hardware_is_told_what_is_known() {
    let farm = Farm::new().await;
    check("table_without_any_agent", &farm.get("/v1/tables/tesla-t4-16gb.cuda").send().await);
    farm.enrol("box", 8).await;
    check("table_of_unknown_hardware", &farm.get("/v1/tables/Not%20An%20Id%0A").send().await);
}

#[tokio::test]
async fn a_table_explains_ops_of_its_own() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let token = farm.token(Role::Researcher).await;
    let def = json!({"name": "TwoRelus", "nodes": [{"apply": "relu"}, {"apply": "relu"}]});
    let answer = farm.post("/v1/ops").token(&token).json(&def).send().await;
    let op: latlas_shared::api::OpAnswer = answer.read(StatusCode::CREATED);
    let mut measurement = agent.measures(KEYS[0], 10.0);
    let key = "TwoRelus:n1-h8-w8-i4-o4-s1".parse().unwrap();
    measurement.subject = latlas_shared::Subject::Op { key, digest: op.digest };
    assert_eq!(farm.report(&agent, vec![measurement]).await.stored, 1);
    let path = format!("/v1/tables/{}", agent.enrolled.hardware_id);
    let table: Table = farm.get(&path).send().await.read(StatusCode::OK);
    assert_eq!(table.ops.len(), 1);
    assert!(TableIndex::new(table).unwrap().catalog().op("TwoRelus").is_ok());
}

//! `/v1/tokens`, `/v1/audit`, and the behaviour of ended tokens.

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{AuditEntry, Page, TokenEntry};
use latlas_shared::testing;
use serde_json::json;

use crate::tests::harness::{Farm, KEYS, check};
use crate::token::{Role, Terms};

async fn tokens(farm: &Farm, admin: &str) -> Vec<TokenEntry> {
    let answer = farm.get("/v1/tokens").token(admin).send().await;
    answer.read::<Page<TokenEntry>>(StatusCode::OK).items
}

#[tokio::test]
async fn an_admin_sees_tokens_and_takes_them_back() {
    let farm = Farm::new().await;
    let admin = farm.token(Role::Admin).await;
    let agent = farm.enrol("box", 8).await;
    check("tokens", &farm.get("/v1/tokens").token(&admin).send().await);
    let list = tokens(&farm, &admin).await;
    let credential = list.iter().find(|token| token.agent_id == Some(agent.enrolled.agent_id));
    let path = format!("/v1/tokens/{}/revoke", credential.unwrap().id);
    check("token_revoked", &farm.post(&path).token(&admin).send().await);
    let again: TokenEntry = farm.post(&path).token(&admin).send().await.read(StatusCode::OK);
    assert!(again.revoked_at.is_some());
    let lease = format!("/v1/agents/{}/leases", agent.enrolled.agent_id);
    let body = json!({"max_tasks": 1, "wait_seconds": 0});
    let call = farm.post(&lease).token(&agent.enrolled.credential).json(&body);
    check("credential_revoked", &call.send().await);
    check("no_such_token", &farm.post("/v1/tokens/99/revoke").token(&admin).send().await);
    check("token_is_no_number", &farm.post("/v1/tokens/x/revoke").token(&admin).send().await);
}

#[tokio::test]
async fn only_an_admin_hosts() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let researcher = farm.token(Role::Researcher).await;
    check("tokens_of_others", &farm.get("/v1/tokens").token(&researcher).send().await);
    let enroller = farm.token(Role::Enroll).await;
    for token in [&researcher, &enroller, &agent.enrolled.credential] {
        for path in ["/v1/tokens", "/v1/audit"] {
            assert_eq!(farm.get(path).token(token).send().await.status, StatusCode::FORBIDDEN);
        }
        let revoke = farm.post("/v1/tokens/1/revoke").token(token).send().await;
        assert_eq!(revoke.status, StatusCode::FORBIDDEN);
    }
    for path in ["/v1/tokens", "/v1/audit"] {
        let status = farm.get(path).send().await.status;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} is not open, wherever reading is");
    }
}

/// The answer to an invalid token reveals nothing to a stranger.
#[tokio::test]
async fn tokens_that_ended_are_refused_like_those_that_never_were() {
    let farm = Farm::new().await;
    let now = Timestamp::now();
    let days = |days: i64| SignedDuration::from_hours(24 * days);
    let past = now - days(40);
    let (_, expired) = farm.token_on(Role::Enroll, Terms::usual(Role::Enroll, past), past).await;
    let used_up = Terms { expires_at: None, uses_left: Some(1) };
    let (_, used_up) = farm.token_on(Role::Enroll, used_up, now).await;
    let (id, revoked) = farm.token_on(Role::Enroll, Terms::default(), now).await;
    farm.store().revoke_token(id, &crate::store::Actor::CommandLine, now).await.unwrap();
    let enrol =
        |token: &str| farm.post("/v1/agents").token(token).json(&testing::enrolment("box", 8));
    assert_eq!(enrol(&used_up).send().await.status, StatusCode::CREATED);
    let unknown = enrol("latlas_enroll_00").send().await;
    check("token_not_in_force", &unknown);
    for ended in [&expired, &used_up, &revoked] {
        let answer = enrol(ended).send().await;
        assert_eq!((answer.status, &answer.body), (unknown.status, &unknown.body));
    }
}

#[tokio::test]
async fn what_people_change_is_in_the_audit_log() {
    let farm = Farm::new().await;
    let admin = farm.token(Role::Admin).await;
    farm.enrol("box", 8).await;
    farm.ask_for(&KEYS, false).await;
    let researcher = farm.token(Role::Researcher).await;
    let op = json!({"name": "Square", "nodes": [{"apply": "relu"}, {"apply": "relu"}]});
    let submit = || farm.post("/v1/ops").token(&researcher).json(&op);
    assert_eq!(submit().send().await.status, StatusCode::CREATED);
    // A known op changes nothing.
    assert_eq!(submit().send().await.status, StatusCode::OK);
    let revoke = farm.post("/v1/tokens/2/revoke").token(&admin).send().await;
    assert_eq!(revoke.status, StatusCode::OK);
    let answer = farm.get("/v1/audit").token(&admin).send().await;
    check("audit", &answer);
    for secret in [&admin, &researcher] {
        assert!(!answer.body.contains(secret.rsplit('_').next().unwrap()));
    }
    let mut actions = Vec::new();
    let mut path = "/v1/audit?limit=3".to_owned();
    loop {
        let answer = farm.get(&path).token(&admin).send().await;
        let page: Page<AuditEntry> = answer.read(StatusCode::OK);
        actions.extend(page.items.into_iter().map(|entry| entry.action));
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/v1/audit?limit=3&cursor={cursor}");
    }
    let expected = [
        "token.revoke",
        "op.submit",
        "token.create",
        "request.create",
        "token.create",
        "agent.enrol",
        "token.create",
        "token.create",
    ];
    assert_eq!(actions, expected);
}

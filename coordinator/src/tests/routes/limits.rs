//! Rate limits.

use axum::http::{StatusCode, header};
use latlas_shared::api::Problem;
use serde_json::json;

use crate::Settings;
use crate::limits::Rate;
use crate::tests::harness::{Answer, Farm};
use crate::token::Role;

/// Guesses that an address may make at once.
const GUESSES: usize = 10;

fn guess(n: usize) -> String {
    format!("latlas_admin_{n:064x}")
}

/// A 429 whose waiting time is a number of seconds from 1 to `longest`, and that reveals nothing about the farm.
fn check_slowed(answer: &Answer, longest: u64, cause: &str) {
    let problem: Problem = answer.read(StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = answer.header(header::RETRY_AFTER).parse().unwrap();
    assert!((1..=longest).contains(&wait), "{wait}");
    assert_eq!(problem.kind, "/problems/too-many-requests");
    assert_eq!(problem.detail, format!("{cause}: wait as long as Retry-After says"));
}

const TOO_MANY_GUESSES: &str =
    "too many calls with tokens that are not known came from this address";

#[tokio::test]
async fn guessing_is_slowed_and_nobody_else_is() {
    let farm = Farm::new().await;
    let here = "192.0.2.1";
    let agent = farm.enrol("box", 8).await;
    let beat = json!({"leases": [], "telemetry": {}});
    let path = format!("/v1/agents/{}/heartbeat", agent.enrolled.agent_id);
    let heartbeat = || {
        let call = farm.call(axum::http::Method::PUT, &path).from(here);
        call.token(&agent.enrolled.credential).json(&beat)
    };
    assert_eq!(heartbeat().send().await.status, StatusCode::OK);
    for n in 0..GUESSES {
        let answer = farm.get("/v1/tokens").from(here).token(&guess(n)).send().await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let admin = farm.token(Role::Admin).await;
    for wrong_or_right in [&guess(GUESSES), &admin] {
        // Even a correct guess is no longer checked, so guessing is useless.
        let answer = farm.get("/v1/tokens").from(here).token(wrong_or_right).send().await;
        check_slowed(&answer, 6, TOO_MANY_GUESSES);
    }
    // A box at the same address continues, and so do callers elsewhere or without a token.
    assert_eq!(heartbeat().send().await.status, StatusCode::OK);
    let elsewhere = farm.get("/v1/tokens").from("192.0.2.2").token(&admin).send().await;
    assert_eq!(elsewhere.status, StatusCode::OK);
    assert_eq!(farm.get("/v1/tables").from(here).send().await.status, StatusCode::OK);
    // The token was valid elsewhere, so it is not a guess here either.
    let again = farm.get("/v1/tokens").from(here).token(&admin).send().await;
    assert_eq!(again.status, StatusCode::OK);
}

/// A box whose credential was revoked continues to call with it; that is not a guess, and does not limit other boxes at
/// its address.
#[tokio::test]
async fn a_token_that_has_ended_is_no_guess() {
    let farm = Farm::new().await;
    let now = jiff::Timestamp::now();
    let (id, ended) = farm.token_on(Role::Researcher, Default::default(), now).await;
    farm.store().revoke_token(id, &crate::store::Actor::CommandLine, now).await.unwrap();
    for _ in 0..2 * GUESSES {
        let answer = farm.get("/v1/tables").from("192.0.2.1").token(&ended).send().await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let fresh = farm.token(Role::Researcher).await;
    let answer = farm.get("/v1/tables").from("192.0.2.1").token(&fresh).send().await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn behind_a_proxy_guesses_count_against_those_who_make_them() {
    let settings = Settings { open_reads: false, behind_proxy: true, ..Settings::default() };
    let farm = Farm::with(settings).await;
    let call = |token: &str, chain: &str| {
        let call = farm.get("/v1/tables").from("127.0.0.1").token(token);
        call.header("x-forwarded-for", chain)
    };
    for n in 0..=GUESSES {
        // What the client itself puts before the proxy's entry has no effect.
        let answer = call(&guess(n), &format!("203.0.113.{n}, 192.0.2.1")).send().await;
        let slowed = n == GUESSES;
        assert_eq!(answer.status == StatusCode::TOO_MANY_REQUESTS, slowed, "{}", answer.body);
    }
    let fresh = farm.token(Role::Researcher).await;
    assert_eq!(call(&fresh, "192.0.2.2").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_credential_has_its_rate() {
    let settings = Settings { rate: Rate::per_second(1), ..Settings::default() };
    let farm = Farm::with(settings).await;
    let (one, other) = (farm.token(Role::Researcher).await, farm.token(Role::Researcher).await);
    let mut slowed = None;
    // Four at once and one per second: even on a slow machine, a hundred in a row are too many.
    for _ in 0..100 {
        let answer = farm.get("/v1/tables").token(&one).send().await;
        if answer.status != StatusCode::OK {
            slowed = Some(answer);
            break;
        }
    }
    check_slowed(&slowed.unwrap(), 1, "this token calls too often");
    assert_eq!(farm.get("/v1/tables").token(&other).send().await.status, StatusCode::OK);
}

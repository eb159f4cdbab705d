//! Tokens and the audit log in the database.

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{AuditEntry, TokenEntry};
use latlas_shared::testing;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

use crate::DATABASE;
use crate::store::{Actor, After, EnrolError, Found, NewToken, Store};
use crate::tests::harness::Farm;
use crate::token::{Role, Terms, Token};

const ALL: After<i64> = After { cursor: None, limit: 1000 };

async fn raw(path: &Path) -> SqlitePool {
    SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await.unwrap()
}

async fn audit(store: &Store) -> Vec<AuditEntry> {
    store.list_audit(&ALL).await.unwrap().items
}

async fn listed(store: &Store, id: i64) -> TokenEntry {
    let tokens = store.list_tokens(&ALL).await.unwrap().items;
    tokens.into_iter().find(|token| token.id == id).unwrap()
}

/// A store with one token with these terms.
async fn with_token(role: Role, terms: Terms) -> (Farm, i64, Token) {
    let farm = Farm::new().await;
    let (id, secret) = farm.token_on(role, terms, Timestamp::now()).await;
    (farm, id, Token::from_client(&secret))
}

async fn is_in_force(store: &Store, token: &Token, now: Timestamp) -> bool {
    matches!(store.find_token(token, now).await.unwrap(), Found::InForce(_))
}

#[tokio::test]
async fn an_expiry_is_a_moment() {
    let now = Timestamp::now();
    let end = now + SignedDuration::from_hours(1);
    let terms = Terms { expires_at: Some(end), uses_left: None };
    let (farm, id, token) = with_token(Role::Researcher, terms).await;
    let microsecond = SignedDuration::from_micros(1);
    // Times are stored in whole microseconds.
    let end = listed(farm.store(), id).await.expires_at.unwrap();
    assert!(is_in_force(farm.store(), &token, end - microsecond).await);
    assert!(!is_in_force(farm.store(), &token, end).await);
    let entry = listed(farm.store(), id).await;
    assert_eq!((entry.state(now), entry.state(end)), ("in force", "expired"));
}

#[tokio::test]
async fn a_token_is_known_by_its_secret_alone() {
    let (farm, id, token) = with_token(Role::Researcher, Terms::default()).await;
    let now = Timestamp::now();
    match farm.store().find_token(&token, now).await.unwrap() {
        Found::InForce(holder) => assert_eq!((holder.id, holder.role), (id, Role::Researcher)),
        other => panic!("{other:?}"),
    }
    let other = Token::generate(Role::Researcher).unwrap();
    assert!(matches!(farm.store().find_token(&other, now).await.unwrap(), Found::Unknown));
}

/// Boxes that enrol at the same moment share the uses of a token, and no use is taken twice.
#[tokio::test]
async fn uses_are_taken_one_by_one() {
    let terms = Terms { expires_at: None, uses_left: Some(5) };
    let (farm, id, token) = with_token(Role::Enroll, terms).await;
    let now = Timestamp::now();
    // Each was authenticated before any of them enrols.
    let Found::InForce(holder) = farm.store().find_token(&token, now).await.unwrap() else {
        panic!("it is in force");
    };
    let actor = Arc::new(holder.actor());
    let boxes = (0..12).map(|n| {
        let (store, actor) = (farm.store().clone(), Arc::clone(&actor));
        tokio::spawn(async move {
            let credential = Token::generate(Role::Agent).unwrap();
            store.enrol(&testing::enrolment(&format!("box-{n}"), 8), &credential, &actor, now).await
        })
    });
    let mut enrolled = 0;
    for outcome in boxes.collect::<Vec<_>>() {
        match outcome.await.unwrap() {
            Ok(_) => enrolled += 1,
            Err(EnrolError::TokenEnded) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(enrolled, 5);
    assert_eq!(farm.store().list_agents(&ALL, Timestamp::now()).await.unwrap().items.len(), 5);
    let entry = listed(farm.store(), id).await;
    assert_eq!((entry.uses_left, entry.state(now)), (Some(0), "used up"));
    assert!(!is_in_force(farm.store(), &token, now).await);
    let enrolments = audit(farm.store()).await;
    assert_eq!(enrolments.iter().filter(|entry| entry.action == "agent.enrol").count(), 5);
}

#[tokio::test]
async fn a_token_that_ends_during_a_call_enrols_nobody() {
    let (farm, id, _) = with_token(Role::Enroll, Terms::default()).await;
    let now = Timestamp::now();
    let actor = Actor::Token { id, label: String::new() };
    farm.store().revoke_token(id, &Actor::CommandLine, now).await.unwrap();
    let credential = Token::generate(Role::Agent).unwrap();
    let enrolment = testing::enrolment("box", 8);
    let refused = farm.store().enrol(&enrolment, &credential, &actor, now).await;
    assert!(matches!(refused, Err(EnrolError::TokenEnded)), "{refused:?}");
    assert!(farm.store().list_agents(&ALL, Timestamp::now()).await.unwrap().items.is_empty());
    assert!(
        farm.store()
            .list_hardware(&After { cursor: None, limit: 9 })
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn revoking_is_for_good_and_noted_once() {
    let (farm, id, token) = with_token(Role::Admin, Terms::default()).await;
    let first = Timestamp::now();
    let actor = Actor::Token { id, label: "ada".into() };
    let once = farm.store().revoke_token(id, &actor, first).await.unwrap().unwrap();
    let later = first + SignedDuration::from_hours(1);
    let twice = farm.store().revoke_token(id, &Actor::CommandLine, later).await.unwrap().unwrap();
    assert_eq!(once, twice);
    assert_eq!(once.state(first), "revoked");
    assert!(!is_in_force(farm.store(), &token, later).await);
    assert_eq!(farm.store().revoke_token(id + 1, &actor, first).await.unwrap(), None);
    let log = audit(farm.store()).await;
    let said: Vec<_> =
        log.iter().map(|e| (e.action.as_str(), e.who.as_str(), e.token_id)).collect();
    assert_eq!(said, [("token.revoke", "ada", Some(id)), ("token.create", "command line", None)]);
}

#[tokio::test]
async fn a_use_is_noted_once_an_hour() {
    let (farm, id, token) = with_token(Role::Researcher, Terms::default()).await;
    let store = farm.store();
    let first = Timestamp::from_second(1_700_000_000).unwrap();
    let minutes = |n| first + SignedDuration::from_mins(n);
    for (used, noted) in [(0, 0), (1, 0), (59, 0), (60, 60), (61, 60), (200, 200)] {
        assert!(is_in_force(store, &token, minutes(used)).await);
        store.write_notes().await.unwrap();
        assert_eq!(listed(store, id).await.last_used_at, Some(minutes(noted)), "{used}");
    }
}

#[tokio::test]
async fn the_audit_log_is_only_added_to() {
    let (farm, ..) = with_token(Role::Admin, Terms::default()).await;
    let before = audit(farm.store()).await;
    let pool = raw(&farm.dir.path().join(DATABASE)).await;
    for sql in ["UPDATE audit SET who = 'somebody else'", "DELETE FROM audit"] {
        let error = sqlx::query(sql).execute(&pool).await.unwrap_err().to_string();
        assert!(error.contains("the audit log is never"), "{error}");
    }
    assert_eq!(audit(farm.store()).await, before);
    assert_eq!(before.len(), 1);
}

/// A change that fails is not in the log either.
#[tokio::test]
async fn a_change_that_fails_is_not_logged() {
    let (farm, _, token) = with_token(Role::Admin, Terms::default()).await;
    let new = NewToken { role: Role::Admin, label: String::new(), terms: Terms::default() };
    // The same secret again.
    let again = farm.store().add_token(&token, &new, &Actor::CommandLine, Timestamp::now()).await;
    assert!(again.is_err());
    assert_eq!(audit(farm.store()).await.len(), 1);
}

#[tokio::test]
async fn a_token_without_limits_goes_on_working() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    Store::open(&path).await.unwrap().close().await;
    let options = SqliteConnectOptions::new().filename(&path);
    let pool = SqlitePool::connect_with(options.foreign_keys(true)).await.unwrap();
    let enroller = Token::generate(Role::Enroll).unwrap();
    let revoked = Token::generate(Role::Admin).unwrap();
    for (token, role, revoked_at) in [(&enroller, "enroll", None), (&revoked, "admin", Some(5))] {
        sqlx::query(
            "INSERT INTO tokens (hash, role, created_at, revoked_at) VALUES (?1, ?2, 0, ?3)",
        )
        .bind(token.hash().as_slice())
        .bind(role)
        .bind(revoked_at)
        .execute(&pool)
        .await
        .unwrap();
    }
    pool.close().await;
    let store = Store::open(&path).await.unwrap();
    let now = Timestamp::now();
    assert!(matches!(store.find_token(&revoked, now).await.unwrap(), Found::Ended));
    for n in 0..3 {
        let Found::InForce(holder) = store.find_token(&enroller, now).await.unwrap() else {
            panic!("it is in force");
        };
        let credential = Token::generate(Role::Agent).unwrap();
        let enrolment = testing::enrolment(&format!("box-{n}"), 8);
        store.enrol(&enrolment, &credential, &holder.actor(), now).await.unwrap();
    }
    let entry = listed(&store, 1).await;
    assert_eq!((entry.uses_left, entry.expires_at, entry.state(now)), (None, None, "in force"));
}

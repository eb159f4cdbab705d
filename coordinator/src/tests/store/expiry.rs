//! Many leases that expire together.

use std::cell::RefCell;

use axum::http::StatusCode;
use latlas_shared::api::RequestStatus;
use latlas_shared::testing;
use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use crate::DATABASE;
use crate::tests::harness::{Farm, later, reader};
use crate::token::Role;

#[tokio::test]
async fn others_get_their_turn_while_many_leases_run_out() {
    let farm = Farm::new().await;
    let agent = farm.join(&testing::enrolment("box", 8)).await;
    let sizes: Vec<u32> = (1..=60).collect();
    let grid = json!({"ops": ["Conv3x3"], "resolution": [8], "c_in": sizes, "c_out": sizes});
    let body = json!({
        "hardware_id": testing::fingerprint(8).hardware_id(),
        "definition": {"name": "large", "grids": [grid]},
    });
    let token = farm.token(Role::Researcher).await;
    let asked = farm.post("/v1/requests").token(&token).json(&body).send().await;
    let request: RequestStatus = asked.read(StatusCode::CREATED);
    let mut leased = 0;
    while let Some(lease) = farm.store().lease(&agent, Uuid::new_v4(), 64, later(0)).await.unwrap()
    {
        leased += lease.tasks.len();
    }
    assert_eq!((leased, farm.status(&request).await.running), (3600, 3600));
    let ended = RefCell::new(Vec::new());
    let mut progress = farm.store().progress();
    progress.mark_unchanged();
    let sweep = async {
        farm.store().sweep(later(3600)).await.unwrap();
        ended.borrow_mut().push("sweep");
    };
    let other = async {
        // The first of them have ended.
        progress.changed().await.unwrap();
        let none = farm.store().renew(&agent, Uuid::new_v4(), later(3600)).await.unwrap();
        assert!(none.is_none());
        ended.borrow_mut().push("another change");
    };
    tokio::join!(sweep, other);
    assert_eq!(*ended.borrow(), ["another change", "sweep"]);
    let pool = reader(&farm.dir.path().join(DATABASE)).await;
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM leases),
                (SELECT count(*) FROM tasks WHERE state = 'queued' AND attempts = 1)",
    );
    let row = row.fetch_one(&pool).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (0, 3600));
}

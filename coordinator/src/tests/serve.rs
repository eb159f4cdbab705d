//! Background tasks of the coordinator.

use std::time::{Duration, Instant};

use jiff::SignedDuration;

use crate::serve::derive;
use crate::tests::harness::{Farm, KEYS, reader};

#[tokio::test]
async fn leases_move_with_a_clock_that_is_set() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    farm.lease(&agent, 8, 0).await.unwrap();
    let running = async || {
        farm.store().sweep(farm.app.now()).await.unwrap();
        farm.status(&request).await.running
    };
    for jump in [SignedDuration::from_hours(10), SignedDuration::from_hours(-20)] {
        let (now, calendar) = (Instant::now(), farm.app.now() + jump);
        farm.app.follow_calendar(now, calendar).await.unwrap();
        assert!(farm.app.now() >= calendar);
        assert_eq!(running().await, 2, "the lease is as old as it was");
    }
    // The lease still ends at its time, not ten hours later.
    farm.store().sweep(farm.app.now() + SignedDuration::from_secs(61)).await.unwrap();
    assert_eq!(farm.status(&request).await.running, 0);
}

/// No table is read here, and the database's own view soon contains the row.
#[tokio::test]
async fn rows_follow_by_themselves() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let deriving = tokio::spawn(derive(farm.app.clone()));
    let pool = reader(&farm.dir.path().join(crate::DATABASE)).await;
    let rows = async || -> i64 {
        let rows = sqlx::query_scalar("SELECT count(*) FROM latency_lookup");
        rows.fetch_one(&pool).await.unwrap()
    };
    for (measured, key) in (0..).zip(KEYS) {
        farm.report(&agent, vec![agent.measures(key, 10.0)]).await;
        let followed = async {
            while rows().await <= measured {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), followed).await.unwrap();
    }
    farm.app.stop();
    deriving.await.unwrap();
}

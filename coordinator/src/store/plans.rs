//! Tests of what queries cost: by their plans and their steps, and not by the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use latlas_shared::Measurement;
use latlas_shared::api::AgentState;
use uuid::Uuid;

use super::{Agent, Incoming, Store};
use super::{canaries, expiry, farm, metrics, queue, requests, results, tasks};
use crate::testing;
use crate::tests::harness::{Farm, later};

impl Store {
    /// How SQLite will run a query, step by step.
    async fn plan(&self, sql: &str) -> Vec<String> {
        let explained = format!("EXPLAIN QUERY PLAN {sql}");
        let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(explained))
            .fetch_all(&self.db.readers)
            .await
            .unwrap();
        steps.into_iter().map(|(_, _, _, step)| step).collect()
    }

    /// Hundreds of steps that the connection that writes takes for something.
    async fn steps_of(&self, work: impl Future<Output = ()>) -> u64 {
        let steps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let mut writer = self.db.writer().acquire().await.unwrap();
        writer.lock_handle().await.unwrap().set_progress_handler(10, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            true
        });
        drop(writer);
        work.await;
        let mut writer = self.db.writer().acquire().await.unwrap();
        writer.lock_handle().await.unwrap().remove_progress_handler();
        steps.load(Ordering::Relaxed)
    }
}

/// Tables that grow with the farm and its history. Only an index may be gone through from end to end.
const LARGE: [&str; 8] = [
    "agents",
    "fingerprints",
    "leases",
    "measurements",
    "request_tasks",
    "requests",
    "table_rows",
    "tasks",
];

#[tokio::test]
async fn no_query_goes_through_a_large_table() {
    let farm = Farm::new().await;
    let queries = [
        ("canaries of its own", canaries::OWN),
        ("canaries of others", canaries::OTHERS),
        ("earlier canaries", canaries::PAST),
        ("the farm", farm::TABLES),
        ("failures", farm::FAILURES),
        ("leases that are over", expiry::DUE),
        ("the queue", queue::QUEUE),
        ("metrics of tasks", metrics::TASKS),
        ("metrics of requests", metrics::OLDEST),
        ("counts of requests", requests::COUNTS),
        ("running tasks of requests", requests::RUNNING),
        ("fingerprints", results::FINGERPRINTS),
        ("tasks of leases", tasks::OF_LEASES),
    ];
    for (name, sql) in queries {
        let plan = farm.store().plan(sql).await;
        let scans = plan.iter().filter_map(|step| step.strip_prefix("SCAN "));
        let bad: Vec<&str> = scans
            .filter(|step| LARGE.contains(&step.split(' ').next().unwrap()))
            .filter(|step| !step.contains(" USING "))
            .collect();
        assert!(bad.is_empty(), "{name}: {plan:#?}");
    }
    // These are read in the order of an index, and not sorted.
    let ordered = [
        ("canaries of its own", canaries::OWN),
        ("canaries of others", canaries::OTHERS),
        ("earlier canaries", canaries::PAST),
        ("leases that are over", expiry::DUE),
        ("the queue", queue::QUEUE),
        ("metrics of requests", metrics::OLDEST),
        ("fingerprints", results::FINGERPRINTS),
    ];
    for (name, sql) in ordered {
        let plan = farm.store().plan(sql).await;
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{name}: {plan:#?}");
    }
}

/// Measures the canary that is due; the steps that taking it in cost.
async fn sing(farm: &Farm, agent: &Agent, now: Timestamp) -> u64 {
    let store = farm.store();
    let lease = store.lease(agent, Uuid::new_v4(), 64, now).await.unwrap().unwrap();
    let fingerprint = [8, 16]
        .map(testing::fingerprint)
        .into_iter()
        .find(|fingerprint| fingerprint.hardware_id() == agent.table.hardware_id);
    let fingerprint = fingerprint.unwrap().digest();
    let measured = lease.tasks.iter().map(|task| Measurement {
        task: Some(task.id),
        hardware_id: agent.table.hardware_id.clone(),
        fingerprint: fingerprint.clone(),
        ..testing::measurement(&task.subject().to_string(), 100.0)
    });
    let incoming = Incoming { measurements: measured.collect(), ..Incoming::default() };
    let steps = store.steps_of(async {
        let answer = store.add_results(agent, incoming, now).await.unwrap();
        assert_eq!(answer.refused, Default::default());
    });
    let steps = steps.await;
    store.release(agent, lease.id, now).await.unwrap();
    steps
}

/// So many earlier copies of each canary that there is, the last ones set aside as in a long quarantine.
async fn remember(farm: &Farm, copies: u32) {
    sqlx::query(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
         INSERT INTO measurements (uuid, table_id, agent_id, op_id, key, fingerprint, status, finished_at,
                                   received_at, measurement, canary, set_aside)
         SELECT hex(randomblob(16)), table_id, agent_id, op_id, key, fingerprint, status, finished_at,
                received_at - n, measurement, 1, iif(n < ?1 / 2, 'on purpose', NULL)
         FROM n, (SELECT * FROM measurements WHERE canary = 1)",
    )
    .bind(copies)
    .execute(farm.store().db.writer())
    .await
    .unwrap();
}

#[tokio::test]
async fn judging_a_canary_costs_the_same_after_years() {
    let farm = Farm::with_canaries().await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        let agent = farm.join(&testing::enrolment(name, 8)).await;
        sing(&farm, &agent, later(0)).await;
        agents.push(agent);
    }
    // It is held against its own past.
    let alone = farm.join(&testing::enrolment("alone", 16)).await;
    sing(&farm, &alone, later(0)).await;
    let day = 24 * 3600 + 60;
    // As many as are looked at.
    remember(&farm, 2 * canaries::MOST_COMPARED as u32 + 2).await;
    let mut young = Vec::new();
    for agent in [&agents[0], &alone] {
        young.push(sing(&farm, agent, later(day)).await);
    }
    remember(&farm, 40).await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM measurements WHERE canary = 1")
        .fetch_one(&farm.store().db.readers)
        .await
        .unwrap();
    assert!(rows > 40_000, "{rows}");
    for (agent, young) in [&agents[0], &alone].into_iter().zip(young) {
        let old = sing(&farm, agent, later(2 * day)).await;
        assert!(young > 10 && old < young + young / 4, "{young} tens of steps became {old}");
    }
    // It was judged all the same.
    let standing = farm.store().decided(&agents[0]).await.unwrap();
    assert_eq!(standing.state, AgentState::Active);
    let slow = farm.join(&testing::enrolment("slow", 8)).await;
    let lease = farm.store().lease(&slow, Uuid::new_v4(), 64, later(2 * day)).await.unwrap();
    let measured = lease.unwrap().tasks.into_iter().map(|task| Measurement {
        task: Some(task.id),
        ..testing::measurement(&task.subject().to_string(), 300.0)
    });
    let incoming = Incoming { measurements: measured.collect(), ..Incoming::default() };
    farm.store().add_results(&slow, incoming, later(2 * day)).await.unwrap();
    let standing = farm.store().decided(&slow).await.unwrap();
    assert_eq!(standing.state, AgentState::Quarantined);
    assert!(standing.reason.unwrap().contains("in 3 boxes of its class"));
}

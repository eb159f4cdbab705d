//! The cost of queries and of work, measured by SQLite's plans and steps, not by the clock.

use jiff::Timestamp;
use latlas_shared::api::AgentState;
use latlas_shared::{Measurement, testing};
use uuid::Uuid;

use crate::DATABASE;
use crate::store::testing::{MOST_COMPARED, QUERIES, Query};
use crate::store::{Agent, Incoming};
use crate::tests::harness::{Farm, later, reader};

/// Tables that grow with the farm and its history. Only an index on them may be scanned completely.
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
    for Query { name, sql, ordered } in QUERIES {
        let plan = farm.store().plan(sql).await;
        let scans = plan.iter().filter_map(|step| step.strip_prefix("SCAN "));
        let bad: Vec<&str> = scans
            .filter(|step| LARGE.contains(&step.split(' ').next().unwrap()))
            .filter(|step| !step.contains(" USING "))
            .collect();
        assert!(bad.is_empty(), "{name}: {plan:#?}");
        let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
        assert!(!(ordered && sorts), "{name}: {plan:#?}");
    }
}

/// Measures the due canary. Returns the number of steps for storing its results.
async fn measure_canary(farm: &Farm, agent: &Agent, now: Timestamp) -> u64 {
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

#[tokio::test]
async fn judging_a_canary_costs_the_same_after_years() {
    let farm = Farm::with_canaries().await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        let agent = farm.join(&testing::enrolment(name, 8)).await;
        measure_canary(&farm, &agent, later(0)).await;
        agents.push(agent);
    }
    // It is compared with its own past.
    let alone = farm.join(&testing::enrolment("alone", 16)).await;
    measure_canary(&farm, &alone, later(0)).await;
    let day = 24 * 3600 + 60;
    // As many as the comparison reads.
    farm.store().repeat_canaries(2 * MOST_COMPARED as u32 + 2).await;
    let mut young = Vec::new();
    for agent in [&agents[0], &alone] {
        young.push(measure_canary(&farm, agent, later(day)).await);
    }
    farm.store().repeat_canaries(40).await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM measurements WHERE canary = 1")
        .fetch_one(&reader(&farm.dir.path().join(DATABASE)).await)
        .await
        .unwrap();
    assert!(rows > 40_000, "{rows}");
    for (agent, young) in [&agents[0], &alone].into_iter().zip(young) {
        let old = measure_canary(&farm, agent, later(2 * day)).await;
        assert!(young > 10 && old < young + young / 4, "{young} tens of steps became {old}");
    }
    // It was judged nevertheless.
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
    assert!(standing.reason.unwrap().contains("in 3 agents of its class"));
}

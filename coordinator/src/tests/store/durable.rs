//! The state after a full disk, a crash and a copy.

use std::collections::BTreeSet;
use std::path::Path;

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{AgentEntry, Page, Results, ResultsAnswer};
use latlas_shared::{Measurement, Status, Telemetry, testing};

use crate::DATABASE;
use crate::store::{Store, copy};
use crate::tests::harness::{Answer, EnrolledAgent, Farm, KEYS, check, later, reader};

async fn stored(path: &Path) -> BTreeSet<String> {
    let pool = reader(path).await;
    let found: Vec<String> =
        sqlx::query_scalar("SELECT uuid FROM measurements").fetch_all(&pool).await.unwrap();
    pool.close().await;
    found.into_iter().collect()
}

async fn send(farm: &Farm, agent: &EnrolledAgent, measurements: &[Measurement]) -> Answer {
    let results = Results { measurements: measurements.to_vec(), ..Results::default() };
    farm.post("/v1/results").token(&agent.enrolled.credential).json(&results).send().await
}

#[tokio::test]
async fn a_full_disk_is_said_loses_nothing_and_passes() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    let kept = agent.measures(KEYS[0], 10.0);
    farm.report(&agent, vec![kept.clone()]).await;
    let lease = farm.lease(&agent, 8, 0).await.unwrap();
    farm.store().leave_room(2).await.unwrap();
    let mut large = agent.measures(KEYS[1], 20.0);
    large.samples = Some("x".repeat(200_000));
    let refused = send(&farm, &agent, std::slice::from_ref(&large)).await;
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE, "{}", refused.body);
    check("disk_full", &refused);
    let path = farm.dir.path().join(DATABASE);
    assert_eq!(stored(&path).await, BTreeSet::from([kept.id.to_string()]));
    assert_eq!(farm.status(&request).await.done, 1);
    // Calls that need no space continue, and so does everything once there is space.
    let renew = format!("/v1/leases/{}/renew", lease.id);
    let renewed = farm.post(&renew).token(&agent.enrolled.credential).send().await;
    assert_eq!(renewed.status, StatusCode::OK, "{}", renewed.body);
    farm.store().leave_room(1_000_000).await.unwrap();
    let answer: ResultsAnswer =
        send(&farm, &agent, std::slice::from_ref(&large)).await.read(StatusCode::OK);
    assert_eq!(answer.stored, 1);
    assert_eq!(stored(&path).await.len(), 2);
    assert_eq!(farm.status(&request).await.done, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_that_come_together_are_each_whole() {
    let farm = std::sync::Arc::new(Farm::new().await);
    let mut senders = tokio::task::JoinSet::new();
    let mut sent = BTreeSet::new();
    for n in 0..16 {
        let agent = farm.enrol(&format!("box-{n}"), 8).await;
        let mut measurements: Vec<Measurement> =
            (0..10).map(|i| agent.measures(KEYS[i % 2], 10.0 + i as f64)).collect();
        sent.extend(measurements.iter().map(|m| m.id.to_string()));
        // One of the measurements is refused, and is sent twice.
        measurements[3].hardware_id = "other.cpu".parse().unwrap();
        sent.remove(&measurements[3].id.to_string());
        measurements.push(measurements[5].clone());
        let farm = std::sync::Arc::clone(&farm);
        senders.spawn(async move {
            let answer: ResultsAnswer =
                send(&farm, &agent, &measurements).await.read(StatusCode::OK);
            (answer.stored, answer.known, answer.refused.len())
        });
    }
    while let Some(answer) = senders.join_next().await {
        assert_eq!(answer.unwrap(), (9, 1, 1));
    }
    assert_eq!(stored(&farm.dir.path().join(DATABASE)).await, sent);
}

async fn seen_at(farm: &Farm) -> Timestamp {
    let page: Page<AgentEntry> = farm.get("/v1/agents").send().await.read(StatusCode::OK);
    page.items[0].seen_at
}

#[tokio::test]
async fn a_heartbeat_is_seen_at_once_and_written_later() {
    let farm = Farm::new().await;
    let agent = farm.join(&testing::enrolment("box", 8)).await;
    let written = async || {
        let pool = reader(&farm.dir.path().join(DATABASE)).await;
        let row: (i64, Option<String>) =
            sqlx::query_as("SELECT seen_at, telemetry FROM agents").fetch_one(&pool).await.unwrap();
        pool.close().await;
        row
    };
    let enrolled = written().await;
    let now = later(30);
    let telemetry = Telemetry { load1: Some(1.5), ..Telemetry::default() };
    farm.store().heartbeat(&agent, &[], &telemetry, now).await.unwrap();
    assert_eq!(seen_at(&farm).await, now);
    assert_eq!(written().await, enrolled, "a heartbeat costs no write");
    farm.store().write_notes().await.unwrap();
    assert_eq!(seen_at(&farm).await.as_microsecond(), now.as_microsecond());
    let (seen, telemetry) = written().await;
    assert_eq!(seen, now.as_microsecond());
    assert!(telemetry.unwrap().contains("\"load1\":1.5"));
    // The latest report counts, even if the clock was set back in between.
    farm.store().heartbeat(&agent, &[], &Telemetry::default(), later(-30)).await.unwrap();
    farm.store().write_notes().await.unwrap();
    assert!(written().await.0 < now.as_microsecond());
}

/// All derived data of the database.
async fn derived(path: &Path) -> Vec<(String, i64, String)> {
    let pool = reader(path).await;
    let rows = sqlx::query_as(
        "SELECT 'row', table_id, op_id || key || op_type || batch || input_h || input_w || channels_in
                || channels_out || stride || ifnull(latency_micros, '-') || ifnull(energy_mj, '-')
                || measured_at || row FROM table_rows
         UNION ALL SELECT 'network', table_id, network_id || '@' || measured_at || network
         FROM table_networks
         UNION ALL SELECT 'fingerprint', table_id, digest FROM table_fingerprints
         ORDER BY 1, 2, 3",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    pool.close().await;
    rows
}

#[tokio::test]
async fn every_derived_table_is_what_a_rebuild_makes() {
    let farm = Farm::new().await;
    let mut rng = 7u64;
    let mut random = |n: u64| {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (rng >> 33) % n
    };
    let mut agents = Vec::new();
    for n in 0..4 {
        agents.push(farm.enrol(&format!("box-{n}"), 8 + 8 * (n % 2)).await);
    }
    for _ in 0..40 {
        let agent = &agents[random(4) as usize];
        let mut measurements = Vec::new();
        for _ in 0..=random(5) {
            let micros = 1.0 + random(1000) as f64 / 7.0;
            let mut measurement = match random(4) {
                0 => agent
                    .measures_network(["demo_conv", "mobilenet_v2"][random(2) as usize], micros),
                n => agent.measures(
                    [KEYS[0], KEYS[1], "Conv3x3:n1-h9-w9-i4-o4-s1"][n as usize - 1],
                    micros,
                ),
            };
            // The latest number of an agent counts, whatever the order of arrival.
            measurement.finished_at += SignedDuration::from_secs(random(4) as i64);
            match random(5) {
                0 => measurement.status = Status::NotConverged,
                1 => {
                    measurement.status = Status::Failed;
                    measurement.latency = None;
                    measurement.reason = Some("out of memory".into());
                }
                _ => {}
            }
            measurements.push(measurement);
        }
        let sent = measurements.len();
        let answer = farm.report(agent, measurements).await;
        assert_eq!(answer.stored as usize, sent, "{:?}", answer.refused);
    }
    farm.store().derive().await.unwrap();
    let path = farm.dir.path().join(DATABASE);
    let before = derived(&path).await;
    assert!(before.len() > 10, "{}", before.len());
    farm.store().rebuild().await.unwrap();
    assert_eq!(derived(&path).await, before);
}

#[tokio::test]
async fn what_is_derived_follows_after_a_crash_too() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let path = farm.dir.path().join(DATABASE);
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    farm.store().derive().await.unwrap();
    let one = derived(&path).await;
    farm.report(&agent, vec![agent.measures_again(KEYS[0], 11.0), agent.measures(KEYS[1], 20.0)])
        .await;
    assert_eq!(derived(&path).await, one, "an answer to an agent does not wait for it");
    // Another process on the same file knows the progress.
    let store = Store::open(&path).await.unwrap();
    store.derive().await.unwrap();
    let two = derived(&path).await;
    assert_eq!((one.len(), two.len()), (2, 3));
    assert!(two.iter().all(|entry| entry.0 != "row" || !one.contains(entry)), "{two:?}");
    store.rebuild().await.unwrap();
    assert_eq!(derived(&path).await, two);
    // When everything is up to date, there is nothing to do, and nothing is written.
    let changes = async || -> i64 {
        let pool = reader(&path).await;
        let changes = sqlx::query_scalar("SELECT sum(changes) FROM tables");
        let changes = changes.fetch_one(&pool).await.unwrap();
        pool.close().await;
        changes
    };
    let before = changes().await;
    store.derive().await.unwrap();
    farm.store().derive().await.unwrap();
    assert_eq!(changes().await, before);
}

#[tokio::test]
async fn a_backup_is_whole_while_results_come_in() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let before = farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    assert_eq!(before.stored, 1);
    let path = farm.dir.path().join(DATABASE);
    let acknowledged = stored(&path).await;
    let to = farm.dir.path().join("copy.db");
    let (copied, _) = tokio::join!(copy(&path, &to), async {
        for n in 0..20 {
            farm.report(&agent, vec![agent.measures_again(KEYS[1], 10.0 + f64::from(n))]).await;
        }
    });
    let copied = copied.unwrap();
    let in_copy = stored(&to).await;
    assert!(in_copy.is_superset(&acknowledged));
    assert_eq!(copied.measurements, in_copy.len() as u64);
    assert_eq!(std::fs::metadata(&to).unwrap().len(), copied.bytes);
    let error = copy(&path, &to).await.unwrap_err().to_string();
    assert!(error.contains("is not overwritten"), "{error}");
    let files: Vec<_> = std::fs::read_dir(farm.dir.path()).unwrap().map(|f| f.unwrap()).collect();
    assert!(!files.iter().any(|f| f.file_name().to_string_lossy().ends_with(".part")), "{files:?}");
    // The copy is a normal database.
    let store = Store::open(&to).await.unwrap();
    store.derive().await.unwrap();
    let derived_before = derived(&to).await;
    store.rebuild().await.unwrap();
    assert_eq!(derived(&to).await, derived_before);
}

#[tokio::test]
async fn what_can_t_be_copied_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from.db"), dir.path().join("to.db"));
    let error = copy(&from, &to).await.unwrap_err().to_string();
    assert!(error.contains("there is no database at"), "{error}");
    std::fs::write(&from, "no database. ".repeat(99)).unwrap();
    let error = copy(&from, &to).await.unwrap_err().to_string();
    assert!(error.contains("is not a whole database of latlas-coordinator"), "{error}");
    Store::open(&dir.path().join("ours.db")).await.unwrap().close().await;
    // SQLite would write to a file with a different name.
    let odd =
        dir.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"o\xff.db"));
    let error = copy(&dir.path().join("ours.db"), &odd).await.unwrap_err();
    let error = crate::chain::Chain(&error).to_string();
    assert!(error.contains("is not UTF-8"), "{error}");
    let nowhere = dir.path().join("no").join("to.db");
    let error = copy(&dir.path().join("ours.db"), &nowhere).await.unwrap_err().to_string();
    assert!(error.contains("can't be written"), "{error}");
    assert!(!to.exists());
}

#[tokio::test]
async fn versions_do_not_mind_a_clock_that_is_set_back() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let table = farm.store().table(agent.enrolled.hardware_id.as_str(), None).await.unwrap();
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    let first = farm.store().latest_version(&table, later(3600)).await.unwrap().version;
    farm.report(&agent, vec![agent.measures_again(KEYS[0], 20.0)]).await;
    let second = farm.store().latest_version(&table, later(-3600)).await.unwrap().version;
    assert!(second.version != first.version && second.created_at < first.created_at);
    let again = farm.store().latest_version(&table, later(7200)).await.unwrap().version;
    assert_eq!(again, second, "what is latest is counted, and not dated");
}

//! Derived data when some of it can't be read or written.

use std::path::Path;
use std::time::Duration;

use axum::http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use latlas_shared::api::{Page, STALE, Stale, TableEntry};
use latlas_shared::{Row, RowStatus, Table};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

use crate::DATABASE;
use crate::store::{Served, StoreError, TableRef};
use crate::tests::harness::{Answer, EnrolledAgent, Farm, KEYS, later};

/// A connection that changes the database without permission.
async fn intruder(path: &Path) -> SqlitePool {
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path)).await.unwrap();
    sqlx::query("DROP TRIGGER IF EXISTS measurements_are_facts").execute(&pool).await.unwrap();
    pool
}

async fn change(farm: &Farm, statement: &'static str) {
    let pool = intruder(&farm.dir.path().join(DATABASE)).await;
    let done = sqlx::query(statement).execute(&pool).await.unwrap();
    assert!(done.rows_affected() > 0, "{statement}");
    pool.close().await;
}

fn path(agent: &EnrolledAgent) -> String {
    format!("/v1/tables/{}", agent.enrolled.hardware_id)
}

async fn table(farm: &Farm, agent: &EnrolledAgent) -> Table {
    let answer = farm.get(&path(agent)).send().await;
    assert_eq!(answer.headers.get(STALE), None);
    answer.read(StatusCode::OK)
}

fn row<'t>(table: &'t Table, key: &str) -> &'t Row {
    table.rows.iter().find(|row| row.key().to_string() == key).unwrap()
}

async fn counted(farm: &Farm, name: &str) -> String {
    let text = farm.get("/metrics").send().await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
}

#[tokio::test]
async fn a_measurement_that_can_t_be_read_costs_its_row_and_nothing_else() {
    let farm = Farm::new().await;
    let [agent, second, other] =
        [farm.enrol("box", 8).await, farm.enrol("second", 8).await, farm.enrol("other", 16).await];
    let measured = [agent.measures(KEYS[0], 10.0), agent.measures(KEYS[1], 20.0)];
    farm.report(&agent, measured.to_vec()).await;
    farm.report(&agent, vec![agent.measures_network("demo_conv", 99.0)]).await;
    farm.report(&other, vec![other.measures(KEYS[0], 30.0)]).await;
    // A field of a newer version in one entry, and a non-text byte in another.
    change(
        &farm,
        "UPDATE measurements SET measurement = json_insert(measurement, '$.newer', 1)
         WHERE id = (SELECT min(id) FROM measurements)",
    )
    .await;
    change(
        &farm,
        "UPDATE measurements SET measurement = CAST(x'7b22ff' AS TEXT) WHERE network_id IS NOT NULL",
    )
    .await;

    let read = table(&farm, &agent).await;
    let bad = row(&read, KEYS[0]);
    assert_eq!((bad.status, bad.latency_micros), (RowStatus::Failed, None));
    let reason = bad.reason.as_deref().unwrap();
    assert!(reason.starts_with("1 of 1 measurements can't be read"), "{reason}");
    assert_eq!(row(&read, KEYS[1]).latency_micros, Some(20.0));
    assert_eq!(read.accuracy, None);
    assert_eq!(row(&table(&farm, &other).await, KEYS[0]).latency_micros, Some(30.0));
    let list: Page<TableEntry> = farm.get("/v1/tables").send().await.read(StatusCode::OK);
    assert!(list.items.iter().all(|entry| entry.stale.is_none()), "{list:?}");
    assert_eq!(counted(&farm, "latlas_unreadable_measurements").await, "2");
    assert_eq!(counted(&farm, "latlas_dirty_places").await, "0");
    // The served table is readable.
    Table::from_json(&farm.get(&path(&agent)).send().await.body).unwrap();

    // Measurements of others at that place count, and the row says what is left out.
    farm.report(&second, vec![second.measures(KEYS[0], 12.0)]).await;
    let read = table(&farm, &agent).await;
    let half = row(&read, KEYS[0]);
    assert_eq!((half.status, half.latency_micros), (RowStatus::Ok, Some(12.0)));
    assert!(half.reason.as_deref().unwrap().starts_with("1 of 2 measurements"), "{half:?}");
    let rebuilt = farm.store().rebuild().await.unwrap();
    assert_eq!((rebuilt.rows, rebuilt.networks, rebuilt.unreadable), (3, 1, 2));
    assert_eq!(table(&farm, &agent).await.version, read.version, "a rebuild makes the same");

    // A version that can read it again.
    change(
        &farm,
        "UPDATE measurements SET measurement = json_remove(measurement, '$.newer')
         WHERE id = (SELECT min(id) FROM measurements)",
    )
    .await;
    farm.store().retry_unreadable().await.unwrap();
    let read = table(&farm, &agent).await;
    let whole = row(&read, KEYS[0]);
    assert_eq!((whole.status, whole.reason.as_deref(), whole.agents), (RowStatus::Ok, None, 2));
    assert_eq!(counted(&farm, "latlas_unreadable_measurements").await, "1");
}

#[tokio::test]
async fn a_derived_row_of_another_version_is_derived_again() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    farm.report(&agent, KEYS.map(|key| agent.measures(key, 10.0)).to_vec()).await;
    farm.report(&agent, vec![agent.measures_network("demo_conv", 99.0)]).await;
    let before = table(&farm, &agent).await;
    change(&farm, "UPDATE table_rows SET row = json_insert(row, '$.newer', 1) WHERE op_id > 0")
        .await;
    change(&farm, "UPDATE table_networks SET network = 'no JSON'").await;
    change(&farm, "UPDATE fingerprints SET fingerprint = '{}'").await;
    change(&farm, "UPDATE tables SET changes = changes + 1").await;
    let after = table(&farm, &agent).await;
    assert_eq!((&after.version, &after.rows), (&before.version, &before.rows));
}

/// Many rows, which need more space than the available pages have.
fn many(agent: &EnrolledAgent, micros: f64) -> Vec<latlas_shared::Measurement> {
    let key = |n| format!("Conv3x3:n1-h8-w8-i{n}-o4-s1");
    (1..=100).map(|n| agent.measures(&key(n), micros)).collect()
}

fn stale(answer: &Answer) -> &str {
    answer.headers.get(STALE).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_full_disk_leaves_everything_to_be_read() {
    let farm = Farm::new().await;
    let [agent, other] = [farm.enrol("box", 8).await, farm.enrol("other", 16).await];
    farm.report(&agent, KEYS.map(|key| agent.measures(key, 10.0)).to_vec()).await;
    farm.report(&agent, vec![agent.measures_network("demo_conv", 99.0)]).await;
    let before = farm.get(&path(&agent)).send().await;
    let tag = before.header(header::ETAG);
    let version = before.read::<Table>(StatusCode::OK).version;
    let networks = format!("{}/networks", path(&agent));
    let networks_before = farm.get(&networks).send().await.body;
    // The measurements are acknowledged, but there is no space for the derived data.
    farm.report(&agent, many(&agent, 20.0)).await;
    farm.store().leave_room(0).await.unwrap();
    let reading = farm.get(&path(&agent)).send().await;
    assert_eq!((stale(&reading), &reading.body), ("disk-full", &before.body));
    let known = farm.get(&path(&agent)).header("if-none-match", tag).send().await;
    assert_eq!((known.status, stale(&known)), (StatusCode::NOT_MODIFIED, "disk-full"));
    let reading = farm.get(&networks).send().await;
    assert_eq!((stale(&reading), &reading.body), ("disk-full", &networks_before));
    let pinned = farm.get(&format!("{}/versions/{version}", path(&agent))).send().await;
    assert_eq!((stale(&pinned), &pinned.body), ("", &before.body));
    let list: Page<TableEntry> = farm.get("/v1/tables").send().await.read(StatusCode::OK);
    let entry = |agent: &EnrolledAgent| {
        let of = |entry: &&TableEntry| entry.hardware_id == agent.enrolled.hardware_id;
        list.items.iter().find(of).unwrap()
    };
    assert_eq!(entry(&agent).version.as_ref(), Some(&version));
    assert_eq!(entry(&agent).stale, Some(Stale::DiskFull));
    assert_eq!(entry(&other).stale, entry(&other).version.is_none().then_some(Stale::DiskFull));
    let network = serde_json::json!({
        "hardware_id": agent.enrolled.hardware_id,
        "network": {"input": {"n": 1, "c": 4, "h": 8, "w": 8},
                    "layers": [{"op": "Conv3x3", "c_out": 4, "stride": 1}]},
    });
    let prediction = farm.post("/v1/predict").json(&network).send().await;
    let prediction: serde_json::Value = prediction.read(StatusCode::OK);
    assert_eq!(
        (&prediction["stale"], &prediction["version"]),
        (&"disk-full".into(), &version.into())
    );
    // Once there is space, derivation continues without help.
    farm.store().leave_room(1_000_000).await.unwrap();
    assert_eq!(table(&farm, &agent).await.rows.len(), 101);
}

async fn table_ref(farm: &Farm, agent: &EnrolledAgent) -> TableRef {
    farm.store().table(agent.enrolled.hardware_id.as_str(), None).await.unwrap()
}

#[tokio::test]
async fn a_version_that_takes_long_is_stored_whoever_waits_for_it() {
    const SOON: Duration = Duration::from_millis(20);
    let farm = Farm::new().await;
    let store = farm.store();
    let [agent, other] = [farm.enrol("box", 8).await, farm.enrol("other", 16).await];
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    let (slow, quick) = (table_ref(&farm, &agent).await, table_ref(&farm, &other).await);
    let first = store.latest_version(&quick, later(0)).await.unwrap();
    let held = store.hold_versions().await;
    // There is no version yet.
    for _ in 0..3 {
        let error = store.latest_version_within(&slow, later(0), SOON).await.unwrap_err();
        assert!(matches!(error, StoreError::Unfinished), "{error}");
    }
    assert_eq!(store.versions_under_way(), 1, "the others wait for the first");
    let list = store.list_tables(&crate::store::After { cursor: None, limit: 10 }, later(0));
    let list = list.await.unwrap();
    let versions: Vec<_> =
        list.items.iter().map(|entry| (entry.version.as_deref(), entry.stale)).collect();
    let quick_one = (Some(first.version.version.as_str()), None);
    assert_eq!(versions, [(None, Some(Stale::Behind)), quick_one]);
    let unchanged = store.latest_version_within(&quick, later(0), SOON).await.unwrap();
    assert_eq!(unchanged, first, "what is current needs no job");
    // All waiting readers have gone, but the version is stored.
    drop(held);
    ended(&farm).await;
    let found = store.latest_version_within(&slow, later(0), SOON).await.unwrap();
    assert_eq!((found.version.rows, found.stale), (1, None));
    // The last version is available while the next one is not.
    let held = store.hold_versions().await;
    farm.report(&agent, vec![agent.measures(KEYS[1], 10.0)]).await;
    let last = store.latest_version_within(&slow, later(0), SOON).await.unwrap();
    assert_eq!(last, Served { version: found.version, stale: Some(Stale::Behind) });
    // Measurements that were acknowledged while a version was being built are included in what its
    // readers get.
    let (read, ()) = tokio::join!(store.latest_version(&slow, later(0)), async {
        farm.report(&agent, vec![agent.measures("Conv3x3:n1-h9-w9-i4-o4-s1", 1.0)]).await;
        drop(held);
    });
    assert_eq!(read.unwrap().stale, None);
    let read = store.latest_version(&slow, later(0)).await.unwrap();
    assert_eq!((read.version.rows, read.stale), (3, None));
}

/// Waits until no version is being built.
async fn ended(farm: &Farm) {
    let none = async {
        while farm.store().versions_under_way() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), none).await.unwrap();
}

#[tokio::test]
async fn old_versions_make_room_but_not_the_latest_nor_those_with_a_name() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let (store, table) = (farm.store(), table_ref(&farm, &agent).await);
    let begin = Timestamp::from_second(1_790_000_040).unwrap();
    let mut versions = Vec::new();
    // One version every ten seconds, all within one minute.
    for n in 0..5 {
        let micros = 10.0 + f64::from(n);
        let mut measured = agent.measures(KEYS[0], micros);
        measured.finished_at += SignedDuration::from_secs(i64::from(n));
        farm.report(&agent, vec![measured]).await;
        let now = begin + SignedDuration::from_secs(10 * i64::from(n));
        versions.push(store.latest_version(&table, now).await.unwrap().version.version);
    }
    let pool = intruder(&farm.dir.path().join(DATABASE)).await;
    sqlx::query("INSERT INTO version_tags SELECT table_id, 'paper', version, 0 FROM table_versions WHERE version = ?1")
        .bind(&versions[1])
        .execute(&pool)
        .await
        .unwrap();
    let hours = |hours| begin + SignedDuration::from_hours(hours);
    assert_eq!(store.thin_versions(hours(5)).await.unwrap(), 0);
    assert_eq!(store.thin_versions(hours(7)).await.unwrap(), 3);
    assert_eq!(store.thin_versions(hours(10_000)).await.unwrap(), 0);
    for (n, version) in versions.iter().enumerate() {
        let answer = farm.get(&format!("{}/versions/{version}", path(&agent))).send().await;
        if n == 1 || n == 4 {
            assert_eq!(answer.status, StatusCode::OK, "{n}");
        } else {
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{n}");
            assert!(answer.body.contains("or it is no longer kept"), "{}", answer.body);
        }
    }
    // Content that returns becomes a version again.
    let mut again = agent.measures(KEYS[0], 10.0);
    again.finished_at += SignedDuration::from_hours(1);
    farm.report(&agent, vec![again]).await;
    let back = store.latest_version(&table, hours(8)).await.unwrap();
    assert_eq!((back.version.created_at, back.stale), (hours(8), None));
    pool.close().await;
}

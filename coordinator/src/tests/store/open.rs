//! Opening data directories and databases, good and bad.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use latlas_shared::api::BoxState;
use ops_catalog::{Catalog, Op, OpDef, OpDigest};

use crate::store::{After, Store};
use crate::tests::harness::{Farm, KEYS};
use crate::{DATABASE, DataDir};

async fn error_of(path: &Path) -> String {
    Store::open(path).await.unwrap_err().to_string()
}

/// Runs SQL on a database file, as another program would.
async fn run(path: &Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(sql).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    fs::write(&path, "just a text file, longer than the header of a database would be".repeat(9))
        .unwrap();
    let before = fs::read(&path).unwrap();
    let error = error_of(&path).await;
    assert!(error.contains("is not a database"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);

    let path = dir.path().join("other.db");
    run(&path, "CREATE TABLE shopping (item TEXT)").await;
    let error = error_of(&path).await;
    assert!(error.contains("database of another program"), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    Store::open(&path).await.unwrap().close().await;
    run(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', 1, x'00', 0)",
    )
    .await;
    let error = error_of(&path).await;
    assert!(error.contains("written by a newer latlas-coordinator"), "{error}");
}

/// A database as the migrations up to this one made it.
async fn as_of(path: &Path, last: i64) -> sqlx::SqlitePool {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options.foreign_keys(true)).await.unwrap();
    let all = sqlx::migrate!();
    let first = all.iter().filter(|migration| migration.version <= last).cloned().collect();
    sqlx::migrate::Migrator::with_migrations(first).run(&pool).await.unwrap();
    pool
}

/// A database as the first three migrations made it, with a task of each state.
async fn before_networks(path: &Path) {
    let pool = as_of(path, 3).await;
    sqlx::raw_sql(
        "INSERT INTO tables (id, hardware_id, config_id, run_config, created_at)
         VALUES (1, 'old.cpu', 'c', '{}', 0);
         INSERT INTO fingerprints VALUES ('f', 'old.cpu', '{}', 0);
         INSERT INTO agents (id, uuid, name, table_id, fingerprint, primitives, agent_version, enrolled_at,
                             seen_at)
         VALUES (1, '00000000-0000-0000-0000-000000000001', 'box', 1, 'f', '[\"relu\"]', '0', 0, 0);
         INSERT INTO ops (id, digest, name, definition, builtin, current, created_at)
         VALUES (7, '00', 'Old', '{\"name\": \"Old\", \"nodes\": [{\"apply\": \"relu\"}, {\"apply\": \"relu\"}]}', 0, 0, 0);
         INSERT INTO leases VALUES ('00000000-0000-0000-0000-00000000000a', 1, 0, 99);
         INSERT INTO tasks (id, table_id, op_id, key, state, attempts, reason, lease_id)
         VALUES (1, 1, 7, 'Old:n1-h8-w8-i4-o4-s1', 'queued', 1, 'lost', NULL),
                (2, 1, 7, 'Old:n1-h8-w8-i4-o5-s1', 'leased', 0, NULL,
                 '00000000-0000-0000-0000-00000000000a'),
                (3, 1, 7, 'Old:n1-h8-w8-i4-o6-s1', 'failed', 3, 'gave up', NULL);
         INSERT INTO requests VALUES (1, '00000000-0000-0000-0000-0000000000bb', 1, 'mine', NULL, '', 0);
         INSERT INTO request_tasks
         VALUES (1, 1, NULL, NULL), (1, 2, NULL, NULL), (1, 3, 'failed', 'gave up');
         INSERT INTO measurements (uuid, table_id, agent_id, fingerprint, status, finished_at, received_at,
                                   measurement)
         VALUES ('u', 1, 1, 'f', 'ok', 0, 0, '{\"subject\": {\"network\": {\"name\": \"old\"}}}');",
    )
    .execute(&pool)
    .await
    .unwrap();
    // The definition above is what it says, whatever its digest would be today.
    let op: OpDef =
        serde_json::from_str(r#"{"name": "Old", "nodes": [{"apply": "relu"}, {"apply": "relu"}]}"#)
            .unwrap();
    sqlx::query("UPDATE ops SET digest = ?1 WHERE id = 7")
        .bind(as_it_was(Op::new(op).unwrap().digest()))
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
}

#[tokio::test]
async fn a_database_from_before_networks_keeps_its_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    before_networks(&path).await;
    let store = Store::open(&path).await.unwrap();
    let id = "00000000-0000-0000-0000-0000000000bb".parse().unwrap();
    let status = store.request_status(id, Timestamp::now()).await.unwrap().unwrap();
    assert_eq!((status.total, status.failed, status.running, status.networks), (3, 1, 1, 0));
    assert_eq!(status.space.as_deref(), Some("mine"));
    assert_eq!(status.failures["Old:n1-h8-w8-i4-o6-s1"], "gave up");
    // A network that said nothing but its name makes no truth, and is no obstacle.
    let rebuilt = store.rebuild().await.unwrap();
    assert_eq!((rebuilt.rows, rebuilt.networks), (0, 0));
    store.sweep(Timestamp::now()).await.unwrap();
    assert_eq!(store.request_status(id, Timestamp::now()).await.unwrap().unwrap().running, 0);
    store.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let broken: Vec<(String,)> = sqlx::query_as("SELECT \"table\" FROM pragma_foreign_key_check")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(broken, []);
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM measurements").fetch_one(&pool).await.unwrap();
    assert_eq!(kept, 1);
}

/// How digests were written before they said their version.
fn as_it_was(digest: &OpDigest) -> String {
    digest.as_str().strip_prefix("op1-").unwrap().to_owned()
}

/// A database as the migrations up to `last` made it, with a box and what it has measured.
async fn before_states(path: &Path, last: i64) {
    let pool = as_of(path, last).await;
    let mut measurement = crate::testing::measurement(KEYS[0], 10.0);
    measurement.fingerprint = "f".into();
    let config = measurement.run_config.id().replace("-libtorch-eager-", "-torch");
    let op = Catalog::builtin().op("Conv3x3").unwrap();
    sqlx::raw_sql(
        "INSERT INTO fingerprints VALUES ('f', 'test-9000-2c-8gb.cpu', '{}', 0);
         INSERT INTO ops (id, digest, name, definition, builtin, current, created_at)
         VALUES (1, '00', 'Conv3x3', '', 1, 1, 0);",
    )
    .execute(&pool)
    .await
    .unwrap();
    for (sql, values) in [
        (
            "INSERT INTO tables (id, hardware_id, config_id, run_config, created_at)
             VALUES (1, 'test-9000-2c-8gb.cpu', ?1, ?2, 0)",
            [config, serde_json::to_string(&measurement.run_config).unwrap()],
        ),
        (
            "UPDATE ops SET digest = ?1, definition = ?2",
            [as_it_was(op.digest()), serde_json::to_string(op.def()).unwrap()],
        ),
        (
            "INSERT INTO agents (id, uuid, name, table_id, fingerprint, primitives, agent_version,
                                 enrolled_at, seen_at)
             VALUES (1, ?1, ?2, 1, 'f', '[\"conv2d\"]', '0', 0, 0)",
            ["00000000-0000-0000-0000-000000000001".to_owned(), "box".to_owned()],
        ),
        (
            "INSERT INTO measurements (uuid, table_id, agent_id, op_id, key, fingerprint, status,
                                       finished_at, received_at, measurement)
             VALUES (?1, 1, 1, 1, 'Conv3x3:n1-h8-w8-i4-o4-s1', 'f', 'ok', 0, 0, ?2)",
            [measurement.id.to_string(), serde_json::to_string(&measurement).unwrap()],
        ),
    ] {
        let [first, second] = values;
        sqlx::query(sql).bind(first).bind(second).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

#[tokio::test]
async fn a_database_from_before_states_keeps_its_boxes_active() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    before_states(&path, 4).await;
    let store = Store::open(&path).await.unwrap();
    let first = After { cursor: None, limit: 9 };
    let agents = store.list_agents(&first, Timestamp::now()).await.unwrap().items;
    assert_eq!((agents.len(), agents[0].standing.state), (1, BoxState::Silent));
    assert_eq!((agents[0].standing.by.as_deref(), agents[0].canary_at), (None, None));
    assert_eq!(agents[0].config, crate::testing::run_config(1).id());
    // What was measured before counts as it did.
    assert_eq!(store.rebuild().await.unwrap().rows, 1);
}

/// Until then one number said which measurements the rows had followed.
#[tokio::test]
async fn what_was_behind_before_places_were_listed_is_derived() {
    let dir = tempfile::tempdir().unwrap();
    for (last, behind) in [(4, 0), (8, 1)] {
        let path = dir.path().join(format!("{last}.db"));
        before_states(&path, last).await;
        let store = Store::open(&path).await.unwrap();
        let now = Timestamp::now();
        assert_eq!(store.farm_counts(now).await.unwrap().dirty, behind, "{last}");
        store.derive().await.unwrap();
        assert_eq!(store.farm_counts(now).await.unwrap().dirty, 0);
        let table = store.table("test-9000-2c-8gb.cpu", None).await.unwrap();
        let served = store.latest_version(&table, now).await.unwrap();
        assert_eq!(i64::from(served.version.rows), behind);
    }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let farm = Farm::new().await;
    let agent = farm.enrol("box", 8).await;
    let request = farm.ask_for_keys().await;
    farm.report(&agent, vec![agent.measures(KEYS[0], 10.0)]).await;
    let before = farm.status(&request).await;
    farm.store().close().await;
    let store = Store::open(&farm.dir.path().join(DATABASE)).await.unwrap();
    assert_eq!(store.request_status(request.id, Timestamp::now()).await.unwrap().unwrap(), before);
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(&dir.path().join("deep").join("data")).unwrap();
    let lock = data.lock_for_serving().unwrap();
    let error = data.lock_for_serving().unwrap_err().to_string();
    assert!(error.contains("another latlas-coordinator is serving"), "{error}");
    drop(lock);
    data.lock_for_serving().unwrap();
    // Two programs that open a new database at once both succeed.
    let (one, other) = tokio::join!(data.open_store(), data.open_store());
    one.unwrap();
    other.unwrap();
}

#[tokio::test]
async fn a_directory_that_can_t_be_made_is_an_error_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DataDir::open(&file.join("data")).unwrap_err().to_string();
    assert!(error.contains("can't be written") && error.contains("--data DIR"), "{error}");
}

#[tokio::test]
async fn commits_are_on_the_disk_before_they_are_acknowledged() {
    let farm = Farm::new().await;
    assert_eq!(farm.store().durability().await.unwrap(), ("wal".to_owned(), 2, true));
}

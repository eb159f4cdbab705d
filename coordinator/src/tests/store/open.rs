//! Opening data directories and databases, good and bad.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use crate::store::Store;
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

#[tokio::test]
async fn a_schema_from_before_the_first_release_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    Store::open(&path).await.unwrap().close().await;
    run(&path, "UPDATE _sqlx_migrations SET version = 1").await;
    let before = fs::read(&path).unwrap();
    let error = error_of(&path).await;
    assert!(error.contains("from before the first release"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
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

//! Restoring a backup where a coordinator was killed, with the real programs.

use std::fs;
use std::path::Path;
use std::process::Command;

use latlas_tests::invariants::{self, Books};
use latlas_tests::{Ran, RealFarm, program, run};

fn coordinator(args: &[&str], data: &Path) -> Ran {
    run(Command::new(program("latlas-coordinator")).args(args).arg("--data").arg(data))
}

/// The measurements that a command says a file has.
fn counted(output: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(output).expect("it is JSON");
    value["measurements"].as_u64().expect("it counts them")
}

#[tokio::test]
async fn a_log_that_a_killed_coordinator_has_left_is_not_mixed_into_a_restored_database() {
    let mut farm = RealFarm::start();
    let ingest = ["ingest", "--agents", "2", "--keys", "10", "--batches", "4", "--batch", "50"];
    farm.simulate(&[&ingest[..], &["--seed", "1"]].concat()).ok();
    let backup = farm.dir.path().join("backup.db");
    let data = farm.data();
    let made = coordinator(&["backup", backup.to_str().unwrap(), "--json"], &data).ok();
    assert_eq!(counted(&made), 200);
    farm.simulate(&[&ingest[..], &["--seed", "2"]].concat()).ok();
    farm.kill();

    // The host moves the database away, and not what lies beside it.
    let old = farm.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    fs::rename(data.join("latlas.db"), old.join("latlas.db")).unwrap();
    let log = fs::read(data.join("latlas.db-wal")).unwrap();
    assert!(!log.is_empty());
    let restore = ["restore", backup.to_str().unwrap(), "--json"];
    for refused in [
        coordinator(&restore, &data).fails(1),
        coordinator(&["serve", "--listen", "127.0.0.1:0"], &data).fails(1),
    ] {
        assert!(
            refused.contains("latlas.db-wal") && refused.contains("Move these files"),
            "{refused}"
        );
    }
    assert_eq!(fs::read(data.join("latlas.db-wal")).unwrap(), log, "it is left alone");
    assert!(!data.join("latlas.db").exists());

    // With its log the old database is whole, and without it the restored one is.
    for beside in ["latlas.db-wal", "latlas.db-shm"] {
        if data.join(beside).exists() {
            fs::rename(data.join(beside), old.join(beside)).unwrap();
        }
    }
    assert_eq!(counted(&coordinator(&restore, &data).ok()), 200);
    let restored = data.join("latlas.db");
    assert_eq!(Books::read(&restored).await.unwrap().measurements.len(), 200);
    assert_eq!(invariants::damage(&restored).await, None);
    let again = farm.dir.path().join("again.db");
    let kept = coordinator(&["backup", again.to_str().unwrap(), "--json"], &old).ok();
    assert_eq!(counted(&kept), 400);
}

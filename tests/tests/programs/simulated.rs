//! Simulated agents against a real coordinator: they work as real ones do, and their numbers stay apart.

use latlas_tests::RealFarm;
use latlas_tests::simulated::MARK;

#[test]
fn a_simulated_farm_works_and_is_marked() {
    let farm = RealFarm::start();
    let small = ["--agents", "12", "--classes", "2", "--keys", "24", "--seed", "5"];
    // The time is far more than it takes, on a machine that may be busy.
    let until = ["--once", "--seconds", "900"];
    let quick = ["--work", "0.2", "--heartbeat", "0.5", "--streams", "3"];
    let seen = farm.simulate(&[&["load"][..], &small, &until, &quick].concat()).ok();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["errors"], serde_json::json!({}), "{seen}");
    assert!(seen["heartbeats"].as_u64().unwrap() >= 12, "{seen}");
    assert!(seen["events"].as_u64().unwrap() >= 3, "{seen}");
    assert!(seen["results_ms"]["p99"].as_f64().unwrap() > 0.0, "{seen}");
    assert!(seen["results"].as_u64().unwrap() >= 48, "each key of each class: {seen}");

    let tables = farm.latlas(&["table", "list", "--json"]).ok();
    assert_eq!(tables.lines().count(), 2, "{tables}");
    for table in tables.lines() {
        let table: serde_json::Value = serde_json::from_str(table).unwrap();
        assert!(table["hardware_id"].as_str().unwrap().starts_with(MARK), "{table}");
        assert_eq!(table["rows"], 24);
    }

    let batches = ["ingest", "--agents", "2", "--batches", "3", "--batch", "50", "--keys", "10"];
    let ingested = farm.simulate(&[&batches[..], &["--seed", "6"]].concat()).ok();
    let ingested: serde_json::Value = serde_json::from_str(&ingested).unwrap();
    assert_eq!(ingested["measurements"], 150);
    assert_eq!(farm.stop(), 0);
}

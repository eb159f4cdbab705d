//! Simulated agents against a real coordinator: they work as real ones do, and their numbers stay apart.

use latlas_client::Client;
use latlas_shared::api::Task;
use latlas_tests::RealFarm;
use latlas_tests::simulated::{MARK, Simulated};

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

/// A passively cooled box: its table says how much slower it is after ten minutes.
#[tokio::test]
async fn a_box_that_becomes_slower_as_it_heats_up_has_it_in_its_table() {
    let farm = RealFarm::start();
    let [_, enroll, _] = farm.tokens();
    let client = Client::new(&farm.url, Some(enroll.to_owned())).unwrap();
    let agent = Simulated::enrol(&client, 1, 1, 7).await.unwrap();
    let hardware = agent.enrolled().hardware_id.to_string();
    let space = farm.file("space.yaml", "name: mine\nkeys: [\"Conv3x3:n1-h8-w8-i4-o4-s1\"]\n");
    let networks = ["--network", "demo_conv", "--network", "squeezenet1_1"];
    let ask = [&["--space", &space, "--sustained"], &networks[..]].concat();
    farm.profile(&hardware, &ask).ok();

    let mut handed_out = Vec::new();
    while let Some(lease) = agent.lease(64, 0).await.unwrap() {
        let sustained = lease.tasks.iter().filter(|task| task.is_sustained()).count();
        assert!(sustained == 0 || lease.tasks.len() == 1, "a sustained run is alone: {lease:?}");
        let stored = agent.report(lease.tasks.iter().map(|t| agent.answer(t)).collect()).await;
        assert_eq!(stored.unwrap().stored as usize, lease.tasks.len());
        handed_out.extend(lease.tasks);
    }
    let (last, first) = (handed_out.split_off(3), handed_out);
    assert!(!first.iter().any(Task::is_sustained), "they come last: {first:?}");
    let last: Vec<String> = last.iter().map(|task| task.subject().to_string()).collect();
    assert_eq!(last, ["network demo_conv, sustained", "network squeezenet1_1, sustained"]);

    farm.latlas(&["table", "get", &hardware, "-o", "table.json"]).ok();
    let shown = farm.latlas(&["table", "show", "table.json"]).ok();
    let line = "sustained over burst  1.18 (2 networks, 10 min)";
    assert_eq!(shown.lines().nth(2), Some(line), "{shown}");
    let accuracy = farm.latlas(&["accuracy", "--table", "table.json", "--json"]).ok();
    let accuracy: serde_json::Value = serde_json::from_str(&accuracy).unwrap();
    assert_eq!(accuracy["overall"]["networks"], 2, "a sustained run is no truth: {accuracy}");
    assert_eq!(farm.stop(), 0);
}

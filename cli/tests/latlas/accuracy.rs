//! Tables that are made without a coordinator, and how well they predict.

use crate::common::farm::FakeCoordinator;
use crate::common::{Desk, GRAPH, SMALL, network_measured, op_measured, rows_measured};
use insta::assert_snapshot;
use latlas_shared::testing::sustained_measurement;
use latlas_shared::{Measurement, Status, Table};

/// A third network, with an op that nobody measured.
const UNMEASURED: &str = r#"{"name": "odd <one>", "input": {"n": 1, "c": 8, "h": 16, "w": 16}, "layers": [{"op": "MaxPool", "c_out": 8, "stride": 2}]}"#;

/// A folder with a table that was built from measurements of two networks and of their ops.
fn desk_with_a_table() -> Desk {
    let desk = Desk::new();
    let graph = GRAPH.replacen('{', r#"{"name": "graph", "#, 1);
    let networks = [(SMALL, 215.0), (&graph, 36.5), (UNMEASURED, 3.0)];
    let networks: String = networks
        .iter()
        .map(|(spec, micros)| format!("{}\n", network_measured(spec, *micros)))
        .collect();
    desk.put("rows.ndjson", rows_measured(&[SMALL, GRAPH])).put("networks.ndjson", networks);
    let ran = desk.run("table build rows.ndjson networks.ndjson -o table.json");
    assert_eq!(ran.code, 0, "{}", ran.report());
    desk
}

fn built(desk: &Desk, name: &str) -> Table {
    Table::from_json(&std::fs::read_to_string(desk.path(name)).unwrap()).unwrap()
}

#[test]
fn a_table_is_built_from_measurements() {
    let desk = desk_with_a_table();
    let table = built(&desk, "table.json");
    assert_eq!((table.rows.len(), table.fingerprints.len()), (6, 0));
    assert_eq!(table.accuracy.as_ref().unwrap().overall.networks, 3);
    // The order of files and lines, and what comes twice, make no difference.
    let ran = desk.run_with(
        "table build networks.ndjson - rows.ndjson -o again.json",
        rows_measured(&[GRAPH]),
    );
    let said = format!("wrote again.json: 6 rows, 3 networks, version {}\n", table.version);
    assert_eq!((ran.code, ran.stderr), (0, said));
    let again = Table { created_at: table.created_at, ..built(&desk, "again.json") };
    assert_eq!(again, table);
    let predicted = desk.run_with("predict --table table.json --arch -", SMALL);
    assert_eq!(predicted.code, 0, "{}", predicted.report());
    let ran = desk.run("table build rows.ndjson");
    assert_eq!(Table::from_json(&ran.stdout).unwrap().accuracy, None);
}

#[test]
fn a_sustained_run_that_does_not_count_is_named() {
    let desk = Desk::new();
    let disturbed = Measurement {
        status: Status::Degraded,
        reason: Some("other processes used 1.2 processors".to_owned()),
        ..sustained_measurement("demo_conv", 100.0, 1.2)
    };
    let quiet = sustained_measurement("demo_mobile", 100.0, 1.1);
    let runs = [quiet, disturbed].map(|run| serde_json::to_string(&run).unwrap());
    desk.put("runs.ndjson", runs.join("\n"));
    let ran = desk.run("table build runs.ndjson -o table.json");
    assert_eq!(ran.code, 0, "{}", ran.report());
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(said.len(), 2, "{}", ran.stderr);
    assert_eq!(
        said[0],
        "a sustained run is left out: demo_conv: degraded, other processes used 1.2 processors"
    );
    assert_eq!(built(&desk, "table.json").sustained.unwrap().networks, 1);
}

#[test]
fn a_prediction_says_how_many_networks_of_its_calibration_are_poor() {
    let desk = Desk::new();
    let poor = network_measured(SMALL, 215.0).to_string().replace("\"ok\"", "\"not_converged\"");
    let graph = GRAPH.replacen('{', r#"{"name": "graph", "#, 1);
    let networks = format!("{poor}\n{}\n", network_measured(&graph, 36.5));
    desk.put("all.ndjson", rows_measured(&[SMALL, GRAPH]) + "\n" + &networks);
    let ran = desk.run("table build all.ndjson -o table.json");
    assert_eq!(ran.code, 0, "{}", ran.report());
    let predicted = desk.run_with("predict --table table.json --arch -", SMALL);
    let basis = "calibrated on 2 networks (1 of them not ok)";
    assert!(predicted.stdout.contains(basis), "{}", predicted.report());
}

#[test]
fn measurements_that_make_no_table_are_named() {
    let desk = desk_with_a_table();
    let key = "Conv3x3:n1-h8-w8-i4-o4-s1".parse().unwrap();
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut measurement = op_measured(&key, 1.0);
        change(&mut measurement);
        format!("\n{measurement}\n")
    };
    desk.put("empty.ndjson", "\n\n")
        .put("broken.ndjson", "{\"id\": 1")
        .put("other.ndjson", changed(&|m| m["hardware_id"] = "other.cpu".into()))
        .put("config.ndjson", changed(&|m| m["run_config"]["threads"] = 2.into()))
        .put(
            "unsound.ndjson",
            changed(&|m| m["latency"]["curve"][0]["quiet_micros"] = (-1.0).into()),
        )
        .put("digest.ndjson", changed(&|m| m["subject"]["op"]["digest"] = "00".into()))
        .put("op.ndjson", changed(&|m| m["subject"]["op"]["key"] = "Mine:n1-h8-w8-i4-o4-s1".into()))
        .put("probe.json", "{\"fingerprint\": 7}");
    let mut all = String::new();
    for what in [
        "",
        "nowhere.ndjson",
        "- -",
        "empty.ndjson",
        "broken.ndjson",
        "rows.ndjson other.ndjson",
        "rows.ndjson config.ndjson",
        "unsound.ndjson",
        "digest.ndjson",
        "op.ndjson",
        "rows.ndjson --probe probe.json",
    ] {
        let ran = desk.run(&format!("table build {what}"));
        all.push_str(&format!("{what}\n{}\n", ran.report()));
    }
    assert_snapshot!(all);
}

#[test]
fn ops_of_a_file_make_rows() {
    let desk = Desk::new();
    let ops = "name: mine\nops:\n- name: Mine\n  nodes: [{apply: relu}, {apply: relu}]\n";
    let def: ops_catalog::OpDef = serde_json::from_str(
        r#"{"name": "Mine", "nodes": [{"apply": "relu"}, {"apply": "relu"}]}"#,
    )
    .unwrap();
    let mut measurement = op_measured(&"Conv3x3:n1-h8-w8-i4-o4-s1".parse().unwrap(), 2.0);
    measurement["subject"]["op"]["key"] = "Mine:n1-h8-w8-i4-o4-s1".into();
    measurement["subject"]["op"]["digest"] =
        ops_catalog::Op::new(def).unwrap().digest().to_string().into();
    desk.put("mine.yaml", ops).put("rows.ndjson", measurement.to_string());
    let ran = desk.run("table build rows.ndjson --op-file mine.yaml -o table.json");
    assert_eq!(ran.code, 0, "{}", ran.report());
    let table = built(&desk, "table.json");
    assert_eq!((table.rows.len(), table.ops[0].name.as_str()), (1, "Mine"));
}

#[test]
fn accuracy_is_printed_explained_and_drawn() {
    let desk = desk_with_a_table();
    let ran = desk.run("accuracy --table table.json --plot plot.svg");
    assert_snapshot!(ran.report());
    assert_snapshot!(std::fs::read_to_string(desk.path("plot.svg")).unwrap());
    let json = desk.run("accuracy --table table.json --json").json();
    let accuracy = built(&desk, "table.json").accuracy.unwrap();
    assert_eq!(json, [serde_json::to_value(accuracy).unwrap()]);
}

#[test]
fn accuracy_comes_from_a_coordinator_too() {
    let mut desk = desk_with_a_table();
    let text = std::fs::read_to_string(desk.path("table.json")).unwrap();
    let farm = FakeCoordinator::new(&[
        ("GET /v1/tables/test-box-2c.cpu", "200", &text),
        ("GET /v1/tables/test-box-2c.cpu?config=c1", "200", &crate::common::table_of(&[SMALL])),
    ]);
    let from_file = desk.run("accuracy --table table.json");
    desk.coordinator = Some(farm.address.clone());
    let ran = desk.run("accuracy test-box-2c.cpu");
    assert_eq!((ran.code, ran.stdout), (0, from_file.stdout));
    let without = desk.run("accuracy test-box-2c.cpu --config c1 --plot plot.svg");
    assert_snapshot!(without.report());
    assert!(!desk.path("plot.svg").exists());
    for wrong in ["accuracy", "accuracy test-box-2c.cpu --table table.json"] {
        assert_eq!(desk.run(wrong).code, 2, "{wrong}");
    }
}

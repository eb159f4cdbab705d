//! `latlas arch`, as users meet it.

use std::io::{BufRead, BufReader, Write};

use crate::common::{Desk, GRAPH, SHORT, SMALL};
use insta::assert_snapshot;

/// The graph with its nodes in another order, and another name.
const SPELLED: &str = r#"{"name": "other", "input": {"n": 1, "c": 8, "h": 16, "w": 16}, "nodes": [{"op": "Conv1x1", "c_out": 8, "stride": 1, "inputs": [-1, 1]}, {"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [-1]}], "output": 0}"#;

#[test]
fn each_network_gives_a_line() {
    let desk = Desk::new();
    let ran =
        desk.run_with("arch hash --arch -", format!("{SMALL}\n\n{GRAPH}\n{SPELLED}\n{SHORT}"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let lines = ran.json();
    assert_eq!(lines.len(), 4);
    for hash in ["topology", "shaped", "computation"] {
        assert_eq!(lines[1][hash], lines[2][hash]);
        assert_ne!(lines[0][hash], lines[1][hash]);
    }
    assert!(lines.iter().all(|line| line["exact"] == true));
    assert_snapshot!(ran.stdout);
}

#[test]
fn files_and_built_in_networks_are_read_alike() {
    let desk = Desk::new();
    desk.put("graph.json", GRAPH).put("graphs.ndjson", format!("{GRAPH}\n{SPELLED}\n"));
    let value: serde_json::Value = serde_json::from_str(GRAPH).unwrap();
    desk.put("pretty.json", serde_json::to_string_pretty(&value).unwrap());
    let ran = desk.run(
        "arch hash --network resnet18 --network ./graph.json --arch pretty.json --arch graphs.ndjson",
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let lines = ran.json();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["name"], "resnet18");
    assert!(lines[1..].iter().all(|line| line["shaped"] == lines[1]["shaped"]));
}

#[test]
fn networks_of_own_ops_are_hashed_by_definition() {
    let desk = Desk::new();
    let network = |op: &str| {
        format!(
            r#"{{"input": {{"n": 1, "c": 8, "h": 8, "w": 8}}, "layers": [{{"op": "{op}", "c_out": 8, "stride": 1}}]}}"#
        )
    };
    desk.put("mine.yaml", "ops:\n- {name: Mine, nodes: [{apply: relu}]}\n");
    let lines = format!("{}\n{}\n", network("Mine"), network("ReLU"));
    let ran = desk.run_with("arch hash --arch - --op-file mine.yaml", &lines);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.json()[0]["topology"], ran.json()[1]["topology"]);
    assert_eq!(desk.run_with("arch hash --arch -", &lines).code, 1);
}

#[test]
fn invalid_lines_do_not_hide_the_others() {
    let cycle = r#"{"id": 1, "input": {"n": 1, "c": 8, "h": 8, "w": 8}, "nodes": [{"op": "ReLU", "c_out": 8, "stride": 1, "inputs": [1]}, {"op": "ReLU", "c_out": 8, "stride": 1, "inputs": [0]}], "output": 1}"#;
    let dangling = cycle.replace("[0]", "[7]");
    let differing = GRAPH.replace("\"c_out\": 8", "\"c_out\": 9");
    let zero = SMALL.replace("\"stride\": 2", "\"stride\": 0");
    let half = &SMALL[..SMALL.len() / 2];
    let mut bytes = format!("{GRAPH}\n{cycle}\n{dangling}\n{differing}\n{zero}\n").into_bytes();
    bytes.extend_from_slice(b"{\"name\": \"caf\xe9\"}\n");
    bytes.extend_from_slice(format!("{SMALL}\n{half}").as_bytes());
    assert_snapshot!(Desk::new().run_with("arch hash --arch -", bytes).report());
}

/// A search that waits for a hash before it writes the next network gets it.
#[test]
fn hashes_do_not_wait_for_the_end() {
    let desk = Desk::new();
    let mut child = desk.command("arch hash --arch -").spawn().unwrap();
    let mut networks = child.stdin.take().unwrap();
    let mut hashes = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in [1, 3, 5] {
        write!(networks, "{GRAPH}\n\n").unwrap();
        let line = hashes.next().unwrap().unwrap();
        assert!(line.starts_with(&format!("{{\"line\":{number},")), "{line}");
    }
    drop(networks);
    assert!(hashes.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn mistakes_are_named() {
    let desk = Desk::new();
    desk.put("empty.ndjson", "").put("bad.yaml", "layers: [\n");
    let mut report = String::new();
    for arguments in [
        "arch hash --arch empty.ndjson",
        "arch hash --arch nowhere.ndjson",
        "arch hash --arch bad.yaml",
        "arch hash --network resnet19",
    ] {
        let ran = desk.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.report());
        report.push_str(&format!("latlas {arguments}\n{}\n", ran.stderr));
    }
    assert_snapshot!(report);
}

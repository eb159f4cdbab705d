//! What a user is told when something is wrong: one paragraph that names the place and the remedy, the
//! right exit code, and nothing half-written.

use std::fs;
use std::process::Command;

use latlas_tests::{RealFarm, agent, hardware_id, is_latency, program, run};

/// Runs `latlas-agent bench` on a space file and returns what it says.
fn bench(space: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("space.yaml");
    fs::write(&file, space).unwrap();
    let out = dir.path().join("out.ndjson");
    let mut command = agent();
    let said = run(command.args(["bench", "--space"]).arg(&file).arg("--out").arg(&out)).fails(1);
    assert!(!out.exists(), "nothing is written for a request that is not valid");
    said
}

#[test]
fn spaces_that_cannot_be_measured() {
    let grid = |grid: &str| format!("name: bad\ngrids:\n  - {grid}\n");
    for (space, expected) in [
        (
            grid("{ops: [Conv3x4], resolution: [8], c_in: [8], c_out: [8]}"),
            ["op Conv3x4", "the closest names are Conv3x3"],
        ),
        (
            grid("{ops: [Conv3x3], resolution: [2], c_in: [8], c_out: [8], stride: [4]}"),
            ["grids[0]", "stride 4 is larger than the input"],
        ),
        (
            grid("{ops: [Conv3x3], resolution: [8], c_in: [0], c_out: [8]}"),
            ["grids[0]", "channels_in is 0"],
        ),
        (
            grid("{ops: [MaxPool], resolution: [8], c_in: [6], c_out: [8]}"),
            ["MaxPool gives 6 channels here", "channels_out is 6"],
        ),
        (
            "name: bad
ops: [{name: Grouped, nodes: [{apply: {conv2d: {out: c_out, kernel: 3, groups: 4}}}]}]
grids: [{resolution: [8], c_in: [6], c_out: [8]}]"
                .to_owned(),
            ["node 0 (conv2d)", "groups 4 does not divide the 6 channels"],
        ),
        (
            grid("{ops: [Conv3x3], resolutoin: [8], c_in: [8], c_out: [8]}"),
            ["resolutoin", "line 3"],
        ),
        ("name: bad\nkeys: [Conv3x3:n1-h8]\n".to_owned(), ["Conv3x3:n1-h8", "`w` is missing"]),
    ] {
        let said = bench(&space);
        for part in expected {
            assert!(said.contains(part), "{space}\n{said}");
        }
    }
}

#[test]
fn keys_and_devices_that_do_not_exist() {
    let bench = |args: &[&str]| run(agent().arg("bench").args(args));
    let said = bench(&["--key", "Conv3x3"]).fails(2);
    assert!(said.contains("a key looks like"), "{said}");
    let said = bench(&["--space", "quikc"]).fails(1);
    assert!(said.contains("the built-in ones are"), "{said}");
    let said = bench(&["--space", "absent/space.yaml"]).fails(1);
    assert!(said.contains("absent/space.yaml"), "{said}");
    let said = bench(&["--space", "quick", "--threads", "1000"]).fails(1);
    assert!(said.contains("more than the"), "{said}");
    let said = bench(&["--space", "quick", "--device", "tpu"]).fails(2);
    assert!(said.contains("cuda:N"), "{said}");
    let stop = ["--space", "quick", "--stop-at", "5"];
    let said = bench(&[&stop[..], &["--order", "shuffled"]].concat()).fails(2);
    assert!(said.contains("--order informative"), "{said}");
    let said = bench(&["--space", "quick", "--order", "informative", "--stop-at", "x"]).fails(2);
    assert!(said.contains("from 0 to 100"), "{said}");
    let said = bench(&[]).fails(2);
    assert!(said.contains("--space"), "{said}");
}

#[test]
fn work_that_does_not_fit_costs_its_row_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("space.yaml");
    // The first needs hundreds of GiB, the second almost nothing.
    let keys = "Conv3x3:n4096-h256-w256-i64-o64-s1, Conv1x1:n1-h4-w4-i4-o4-s1";
    fs::write(&file, format!("name: big\nkeys: [\"{}\"]\n", keys.replace(", ", "\", \""))).unwrap();
    let out = run(agent().arg("bench").arg("--space").arg(&file)).ok();
    let mut rows: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["subject"]["op"]["key"].as_str().unwrap().to_owned());
    assert!(is_latency(&rows[0]["latency"]["curve"][0]["quiet_micros"]), "{}", rows[0]);
    assert_eq!(rows[1]["status"], "failed");
    assert!(rows[1]["reason"].as_str().unwrap().contains("the limit is"), "{}", rows[1]);
    assert_eq!(rows[1]["latency"], serde_json::Value::Null);
}

#[test]
fn an_agent_without_a_coordinator_or_with_a_wrong_token() {
    let dir = tempfile::tempdir().unwrap();
    let agent = |url: &str, token: &str| {
        run(agent()
            .args(["run", "--once", "--coordinator", url, "--state"])
            .arg(dir.path().join("state"))
            .env("LATLAS_ENROLL_TOKEN", token))
    };
    let said = agent("http://127.0.0.1:9", "latlas_enroll_x").fails(1);
    assert!(said.contains("does not answer"), "{said}");
    assert!(said.contains("latlas-coordinator serve"), "{said}");
    let said = agent("nonsense", "latlas_enroll_x").fails(1);
    assert!(said.contains("`nonsense` is not the address"), "{said}");
    let farm = RealFarm::start();
    let said = agent(&farm.url, "latlas_enroll_wrong").fails(1);
    assert!(said.contains("token create"), "{said}");
    assert!(!said.contains("latlas_enroll_wrong"), "a token is never shown: {said}");
    assert!(!dir.path().join("state/identity.json").exists());
}

#[test]
fn a_coordinator_that_cannot_use_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    fs::write(&file, "not a directory").unwrap();
    let serve = |data: &std::path::Path| {
        run(Command::new(program("latlas-coordinator"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data))
    };
    let said = serve(&file).fails(1);
    assert!(said.contains("a-file"), "{said}");
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(
        data.join("latlas.db"),
        "this is no database, but it is long enough to be read as one",
    )
    .unwrap();
    let said = serve(&data).fails(1);
    assert!(said.contains("latlas.db"), "{said}");
    assert_eq!(
        fs::read_to_string(data.join("latlas.db")).unwrap(),
        "this is no database, but it is long enough to be read as one"
    );
}

#[test]
fn what_a_researcher_is_told() {
    let farm = RealFarm::start();
    let hardware = hardware_id();
    let said = farm.profile(&hardware, &["--space", "quick"]).fails(1);
    assert!(said.contains(&hardware), "an unknown hardware id is named: {said}");
    let said = farm.latlas(&["table", "get", &hardware, "-o", "t.json"]).fails(1);
    assert!(said.contains(&hardware), "{said}");
    assert!(!farm.dir.path().join("t.json").exists());

    farm.file("schema.json", r#"{"schema": 99, "rows": []}"#);
    farm.file("network.json", r#"{"input": {"n":1,"c":3,"h":8,"w":8}, "layers": [{"op": "Conv3x3", "c_out": 8, "stride": 1}]}"#);
    let predict = |table: &str, network: &str| {
        farm.latlas(&["predict", "--table", table, "--arch", network]).fails(1)
    };
    let said = predict("schema.json", "network.json");
    assert!(said.contains("schema version 99"), "{said}");
    let said = predict("network.json", "network.json");
    assert!(said.contains("not a latency table"), "{said}");
    let said = predict("absent.json", "network.json");
    assert!(said.contains("absent.json"), "{said}");
}

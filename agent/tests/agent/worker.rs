//! Real workers that come to harm: the run ends, and its rows are right or marked.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use latlas_shared::{Measurement, Status};

fn bench(keys: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latlas-agent"));
    // What the agent remembers of other runs must not decide about these.
    let state = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    command.env("XDG_STATE_HOME", state);
    command.arg("bench").stdout(Stdio::piped()).stderr(Stdio::null());
    for key in keys {
        command.args(["--key", key]);
    }
    command.spawn().unwrap()
}

/// The worker that an agent is running.
fn worker_of(agent: &Child) -> Option<String> {
    let pid = agent.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}

#[test]
fn a_worker_killed_in_the_middle_costs_no_row() {
    let keys = [
        "Conv3x3:n1-h8-w8-i8-o8-s1",
        "Conv1x1:n1-h8-w8-i8-o8-s1",
        "DepthwiseConv3x3:n1-h8-w8-i8-o8-s1",
        "MBConv3_3x3:n1-h56-w56-i24-o24-s1",
    ];
    let mut agent = bench(&keys);
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    // Between two visits there is always a worker; with the last row it goes.
    if let Some(worker) = worker_of(&agent) {
        signal("-KILL", &worker);
    }
    let mut rows: Vec<Measurement> = vec![serde_json::from_str(&first).unwrap()];
    rows.extend(lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()));
    assert!(agent.wait().unwrap().success());
    assert_eq!(rows.len(), keys.len());
    for row in rows {
        assert_ne!(row.status, Status::Failed, "{}: {:?}", row.subject, row.reason);
        assert!(row.latency.unwrap().is_sound());
    }
}

#[test]
fn an_agent_that_is_killed_leaves_no_worker_behind() {
    let mut agent = bench(&["MBConv3_3x3:n1-h56-w56-i24-o24-s1", "Conv1x1:n1-h8-w8-i8-o8-s1"]);
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let worker = worker_of(&agent);
    agent.kill().unwrap();
    agent.wait().unwrap();
    // It ends by itself when its standard input closes.
    if let Some(worker) = worker {
        let status = format!("/proc/{worker}/status");
        while fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ")) {
            std::thread::yield_now();
        }
    }
}

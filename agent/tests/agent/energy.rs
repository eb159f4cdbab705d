//! The agent and its worker with and without a sensor of energy.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use ops_catalog::{Catalog, OpKey};
use serde_json::{Value, json};

const KEY: &str = "Conv3x3:n1-h8-w8-i8-o8-s1";

fn agent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_latlas-agent"))
}

#[test]
fn a_worker_runs_one_op_for_as_long_as_it_is_told() {
    let settings = json!({
        "device": "cpu", "dtype": "f32", "memory_format": "contiguous", "threads": 1,
        "allocator": "system", "largest_reuse_distance": 0, "memory_limit": 1u64 << 30,
    });
    let mut worker = agent()
        .args(["worker", &settings.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut replies = BufReader::new(worker.stdout.take().unwrap()).lines();
    assert_eq!(replies.next().unwrap().unwrap(), "\"ready\"");
    let key: OpKey = KEY.parse().unwrap();
    let def = Catalog::builtin().op(&key.op).unwrap().def().clone();
    let work = json!({ "op": { "def": def, "shape": key.shape } });
    let mut requests = worker.stdin.take().unwrap();
    let mut ask = |busy_seconds: Option<f64>| -> Value {
        let request = json!({ "work": work, "passes": [], "busy_seconds": busy_seconds });
        writeln!(requests, "{request}").unwrap();
        let reply: Value = serde_json::from_str(&replies.next().unwrap().unwrap()).unwrap();
        reply["visited"]["busy"].clone()
    };
    let busy = ask(Some(0.1));
    let seconds = busy["end"].as_f64().unwrap() - busy["start"].as_f64().unwrap();
    assert!(seconds >= 0.1, "{busy}");
    assert!(busy["calls"].as_u64().unwrap() > 0, "{busy}");
    assert_eq!(ask(None), Value::Null);
    drop(requests);
    assert!(worker.wait().unwrap().success());
}

#[test]
fn probe_names_the_sensor_or_says_why_there_is_none() {
    let output = agent().args(["probe", "--json"]).output().unwrap();
    let probe: Value = serde_json::from_slice(&output.stdout).unwrap();
    let energy = &probe["energy"];
    assert_ne!(energy["source"].is_string(), energy["reason"].is_string(), "{energy}");
    let output = agent().arg("probe").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("energy sensor  ")), "{text}");
}

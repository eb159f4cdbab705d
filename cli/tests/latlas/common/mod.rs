//! What the tests of the command share: running it, and tables made of nothing.
#![allow(clippy::unwrap_used, reason = "this is a part of tests")]

pub mod farm;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jiff::{SignedDuration, Timestamp};
use latlas_shared::testing::{self, MIB};
use latlas_shared::{CurvePoint, Measurement, Row, Subject, Table, WholeNetwork};
use ops_catalog::{Catalog, Network, NetworkSpec, OpKey};
use tempfile::TempDir;
use uuid::Uuid;

/// What a run left behind.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// All of it, for a snapshot.
    pub fn report(&self) -> String {
        let Ran { code, stdout, stderr } = self;
        format!("exit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}")
    }

    /// Stdout as one JSON value a line.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A folder with files in it, where the command runs.
pub struct Desk {
    folder: TempDir,
    pub coordinator: Option<String>,
    pub token: Option<String>,
}

impl Desk {
    pub fn new() -> Desk {
        Desk { folder: tempfile::tempdir().unwrap(), coordinator: None, token: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> &Desk {
        std::fs::write(self.path(name), content).unwrap();
        self
    }

    /// Names of the files in the folder.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The command, not started yet.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latlas"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .env_remove("LATLAS_TOKEN")
            .env_remove("LATLAS_COORDINATOR")
            .env_remove("LATLAS_CA_FILE")
            .env_remove("LATLAS_CLIENT_CERT")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(address) = &self.coordinator {
            command.env("LATLAS_COORDINATOR", address);
        }
        if let Some(token) = &self.token {
            command.env("LATLAS_TOKEN", token);
        }
        command
    }

    /// Runs the command on words that are cut at spaces.
    pub fn run(&self, arguments: &str) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs it with something on stdin.
    pub fn run_with(&self, arguments: &str, stdin: impl AsRef<[u8]>) -> Ran {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = stdin.as_ref().to_vec();
        let writer = std::thread::spawn(move || {
            // The command need not read what it is given.
            let _ = pipe.write_all(&bytes);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Two networks that share no row, and one more that uses rows of the first.
pub const SMALL: &str = r#"{"id": 1, "name": "small", "input": {"n": 1, "c": 3, "h": 32, "w": 32}, "layers": [{"op": "Conv3x3", "c_out": 16, "stride": 2}, {"op": "MBConv6_3x3", "c_out": 16, "stride": 1}, {"op": "MBConv6_3x3", "c_out": 24, "stride": 2}]}"#;
pub const GRAPH: &str = r#"{"id": "g-2", "input": {"n": 1, "c": 8, "h": 16, "w": 16}, "nodes": [{"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [-1]}, {"op": "Conv1x1", "c_out": 8, "stride": 1, "inputs": [0, -1]}], "output": 1}"#;
pub const SHORT: &str =
    r#"{"layers": ["Conv3x3", "MBConv6"], "input_resolution": 32, "channels": [16, 16]}"#;

/// A network from JSON.
pub fn network(json: &str) -> Network {
    Network::new(&NetworkSpec::from_json(json).unwrap(), Catalog::builtin()).unwrap()
}

/// All keys of some networks.
pub fn keys(networks: &[&str]) -> BTreeSet<OpKey> {
    let plan = |json: &&str| network(json).plan(Catalog::builtin()).unwrap();
    networks.iter().flat_map(|json| plan(json).steps).map(|step| step.key).collect()
}

/// A latency that resembles one: a fixed part, and a part for the work.
pub fn plausible(key: &OpKey) -> f64 {
    let cost = Catalog::builtin().op(&key.op).unwrap().at(&key.shape).unwrap().cost;
    // Quarters of a microsecond print in few digits.
    (4.0 * (5.0 + cost.flops as f64 / 1e4 + cost.activation_elements as f64 / 1e4)).round() / 4.0
}

/// A point of a curve whose numbers have few digits.
fn point(reuse_distance_bytes: u64, micros: f64) -> CurvePoint {
    CurvePoint {
        ci95_low_micros: micros * 0.96875,
        ci95_high_micros: micros * 1.03125,
        median_micros: micros * 1.0625,
        samples: 60,
        visits: 12,
        ..testing::point(reuse_distance_bytes, micros)
    }
}

/// A curve that starts at `micros`.
fn curve(micros: f64) -> Vec<CurvePoint> {
    vec![point(8 * MIB, micros), point(64 * MIB, micros * 1.5)]
}

/// A row that takes `micros` at the reference distance, and more beyond it.
pub fn row(key: &OpKey, micros: f64) -> Row {
    Row {
        ci95_rel: Some(0.03125),
        median_micros: Some(micros * 1.0625),
        curve: curve(micros),
        ..testing::row(key, micros)
    }
}

/// A table of some rows.
pub fn table(rows: Vec<Row>) -> Table {
    Table { version: "5f0c2a7be91d4c3a8f6e2d1b0a9c8e7f".to_owned(), ..testing::table(rows) }
}

/// The text of a table with all rows of some networks.
pub fn table_of(networks: &[&str]) -> String {
    let rows = keys(networks).iter().map(|key| row(key, plausible(key))).collect();
    serde_json::to_string(&table(rows)).unwrap()
}

/// A line of a file of measurements, as `latlas-agent bench` writes it.
fn measurement(subject: Subject, curve: Vec<CurvePoint>) -> serde_json::Value {
    let started_at: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let measurement = Measurement {
        id: Uuid::from_u128(7),
        hardware_id: table(Vec::new()).hardware_id,
        fingerprint: "f1".to_owned(),
        started_at,
        finished_at: started_at + SignedDuration::from_mins(1),
        ..testing::measured(subject, curve)
    };
    serde_json::to_value(measurement).unwrap()
}

/// A measurement of a key.
pub fn op_measured(key: &OpKey, micros: f64) -> serde_json::Value {
    let curve = vec![point(8 * MIB, micros), point(64 * MIB, micros)];
    measurement(testing::subject(key.clone()), curve)
}

/// A measurement of a whole network, given as JSON.
pub fn network_measured(network: &str, micros: f64) -> serde_json::Value {
    let spec = NetworkSpec::from_json(network).unwrap();
    let whole = WholeNetwork::new(&spec, Catalog::builtin()).unwrap();
    measurement(Subject::Network(Box::new(whole)), vec![point(0, micros)])
}

/// All rows of some networks as measurements, a line each.
pub fn rows_measured(networks: &[&str]) -> String {
    let lines =
        keys(networks).into_iter().map(|key| op_measured(&key, plausible(&key)).to_string() + "\n");
    lines.collect()
}

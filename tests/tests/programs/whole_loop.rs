//! From nothing to a prediction, through the real programs.

use latlas_tests::{RealFarm, agent, hardware_id, is_latency, program, run, run_with_input};
use sqlx::Row as _;
use std::process::Command;

/// A small space with everything that `NETWORK` needs.
const SPACE: &str = "
name: small
grids:
  - {ops: [Conv3x3], resolution: [16], c_in: [3], c_out: [16], stride: [2]}
  - {ops: [MBConv3_3x3], resolution: [8], c_in: [16], c_out: [16], stride: [1]}
  - {ops: [MaxPool], resolution: [8], c_in: [16], c_out: [c_in], stride: [2]}
";

const NETWORK: &str = r#"{"name": "small", "input": {"n": 1, "c": 3, "h": 16, "w": 16}, "layers": [
  {"op": "Conv3x3", "c_out": 16, "stride": 2}, {"op": "MBConv3_3x3", "c_out": 16, "stride": 1},
  {"op": "MaxPool", "c_out": 16, "stride": 2}]}"#;

/// An op that no catalog has, with the shape to measure it at. Of two shapes one may contradict the other, and
/// nothing is predicted from it then.
const NEW_OP: &str = "
name: ghost
ops:
  - name: GhostConv3x3
    doc: Half of the channels by a convolution, the rest by a cheap depthwise one.
    nodes:
      - {id: primary, apply: {conv2d: {out: c_out/2, kernel: 3, stride: stride}}}
      - {id: cheap, apply: {conv2d: {out: c_out/2, kernel: 3, groups: c_out/2}}}
      - {apply: concat, inputs: [primary, cheap]}
grids:
  - {resolution: [8], c_in: [16], c_out: [32], stride: [2]}
";

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// The farm after the agent has enrolled, found a request and worked it off.
fn measured_farm() -> (RealFarm, String) {
    let farm = RealFarm::start();
    let hardware = hardware_id();
    farm.agent().ok();
    let space = farm.file("space.yaml", SPACE);
    farm.profile(&hardware, &["--space", &space]).ok();
    farm.agent().ok();
    (farm, hardware)
}

/// Measuring takes most of the time, so one farm is for all who only read.
#[tokio::test]
async fn a_measured_farm_serves_everybody() {
    let (farm, hardware) = measured_farm();
    a_measured_space_becomes_a_table_and_a_prediction(&farm, &hardware);
    the_seed_s_view_has_the_numbers_of_the_http_interface(&farm, &hardware).await;
    candidates_are_pruned_against_a_measured_table(&farm);
    a_new_op_is_measured_without_a_rebuild(&farm, &hardware);
    assert_eq!(farm.stop(), 0);
}

fn a_measured_space_becomes_a_table_and_a_prediction(farm: &RealFarm, hardware: &str) {
    // The same request again finds everything measured, so waiting for it ends at once.
    farm.profile(hardware, &["--space", "space.yaml", "--wait"]).ok();

    farm.latlas(&["table", "get", hardware, "-o", "table.json"]).ok();
    let table = json(&std::fs::read_to_string(farm.dir.path().join("table.json")).unwrap());
    assert_eq!(table["hardware_id"], hardware);
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert!(is_latency(&row["latency_micros"]), "{row}");
        assert_eq!(row["agents"], 1);
    }

    let network = farm.file("network.json", NETWORK);
    let predicted =
        farm.latlas(&["predict", "--table", "table.json", "--arch", &network, "--json"]).ok();
    let predicted = json(&predicted);
    assert!(is_latency(&predicted["latency_micros"]), "{predicted}");
    assert_eq!(predicted["measured_share"], 1.0);
}

#[tokio::test]
async fn a_measured_network_becomes_the_accuracy_of_its_table() {
    let farm = RealFarm::start();
    let hardware = hardware_id();
    farm.agent().ok();
    let (space, network) = (farm.file("space.yaml", SPACE), farm.file("network.json", NETWORK));
    let ask = ["--space", &space, "--arch", &network];
    let asked = farm.profile(&hardware, &ask).ok();
    assert!(asked.contains("wanted    small + 1 network\n"), "{asked}");
    farm.agent().ok();
    // Everything is measured, so the wait ends at once.
    farm.profile(&hardware, &[&ask[..], &["--wait"]].concat()).ok();

    farm.latlas(&["table", "get", &hardware, "-o", "table.json"]).ok();
    let table = json(&std::fs::read_to_string(farm.dir.path().join("table.json")).unwrap());
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "the network is no row");
    let accuracy = &table["accuracy"];
    assert_eq!(accuracy["overall"]["networks"], 1);
    let entry = &accuracy["networks"][0];
    assert_eq!(entry["name"], "small");
    assert!(is_latency(&entry["measured_micros"]), "{entry}");
    let predicted = &entry["prediction"]["predicted_micros"];
    assert!(is_latency(predicted), "{entry}");
    let again =
        farm.latlas(&["predict", "--table", "table.json", "--arch", &network, "--json"]).ok();
    // Accuracy judges the rows alone; a prediction is corrected by what was learned from the network, and reads its
    // rows at the footprint that was learned.
    let again = json(&again);
    assert!(is_latency(&again["ops_micros"]), "{again}");
    assert_eq!(again["calibration_networks"], 1);

    let from_farm = farm.latlas(&["accuracy", &hardware]).ok();
    let from_file = farm.latlas(&["accuracy", "--table", "table.json", "--plot", "plot.svg"]).ok();
    assert_eq!(from_farm, from_file);
    let plot = std::fs::read_to_string(farm.dir.path().join("plot.svg")).unwrap();
    assert!(plot.contains("<title>small: measured "), "{plot}");

    // The same measurements make the same version without a coordinator.
    let pool = sqlx::SqlitePool::connect(&database(&farm)).await.unwrap();
    let measurements: Vec<String> =
        sqlx::query_scalar("SELECT measurement FROM measurements").fetch_all(&pool).await.unwrap();
    assert_eq!(measurements.len(), 4);
    let file = farm.file("measured.ndjson", &measurements.join("\n"));
    farm.latlas(&["table", "build", &file, "-o", "built.json"]).ok();
    let built = json(&std::fs::read_to_string(farm.dir.path().join("built.json")).unwrap());
    assert_eq!(built["version"], table["version"]);
    assert_eq!(built["accuracy"], table["accuracy"]);
}

/// The address of a farm's database.
fn database(farm: &RealFarm) -> String {
    let database = std::fs::read_dir(farm.data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "db" || e == "sqlite"))
        .expect("the data directory holds a database");
    format!("sqlite:{}?mode=ro", database.display())
}

async fn the_seed_s_view_has_the_numbers_of_the_http_interface(farm: &RealFarm, hardware: &str) {
    let csv = farm.latlas(&["table", "get", hardware, "--format", "csv"]).ok();
    let pool = sqlx::SqlitePool::connect(&database(farm)).await.unwrap();
    let rows = sqlx::query("SELECT * FROM latency_lookup ORDER BY op_type").fetch_all(&pool).await;
    let rows = rows.unwrap();
    assert_eq!(rows.len(), 3);
    let columns: Vec<&str> = rows[0].columns().iter().map(sqlx::Column::name).collect();
    assert_eq!(
        columns,
        [
            "hardware_id",
            "op_type",
            "input_h",
            "input_w",
            "channels_in",
            "channels_out",
            "stride",
            "latency_micros",
            "energy_mj"
        ]
    );
    for row in &rows {
        let op: String = row.get("op_type");
        let latency: f64 = row.get("latency_micros");
        let line = csv.lines().find(|line| line.contains(&format!(",{op},"))).unwrap();
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields[0], hardware);
        assert_eq!(fields[7].parse::<f64>().unwrap(), latency, "{op}");
    }
}

fn a_new_op_is_measured_without_a_rebuild(farm: &RealFarm, hardware: &str) {
    let file = farm.file("ghost.yaml", NEW_OP);
    farm.profile(hardware, &["--op-file", &file]).ok();
    farm.agent().ok();
    farm.latlas(&["table", "get", hardware, "-o", "table.json"]).ok();
    let table = json(&std::fs::read_to_string(farm.dir.path().join("table.json")).unwrap());
    let ghosts: Vec<&serde_json::Value> = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["op_type"] == "GhostConv3x3")
        .collect();
    assert_eq!(ghosts.len(), 1);
    assert!(ghosts.iter().all(|row| is_latency(&row["latency_micros"])), "{ghosts:?}");
    // The table explains itself: a network may use the op with nothing but the file.
    let network = farm.file(
        "ghost.json",
        r#"{"input": {"n": 1, "c": 16, "h": 8, "w": 8}, "layers": [{"op": "GhostConv3x3", "c_out": 32, "stride": 2}]}"#,
    );
    farm.latlas(&["predict", "--table", "table.json", "--arch", &network]).ok();
}

#[test]
fn an_op_in_a_space_file_is_measured_without_a_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ghost.yaml");
    std::fs::write(&file, NEW_OP).unwrap();
    let out = run(agent().arg("bench").arg("--space").arg(&file)).ok();
    let measurements: Vec<serde_json::Value> = out.lines().map(json).collect();
    assert_eq!(measurements.len(), 1);
    for measurement in measurements {
        let key = measurement["subject"]["op"]["key"].as_str().unwrap();
        assert!(key.starts_with("GhostConv3x3:n1-h8-w8-i16-o32-s"), "{key}");
        let curve = measurement["latency"]["curve"].as_array().unwrap();
        assert!(curve.iter().all(|point| is_latency(&point["quiet_micros"])), "{measurement}");
    }
}

fn candidates_are_pruned_against_a_measured_table(farm: &RealFarm) {
    let config = farm.file("limits.yaml", "max_latency_ms: 1000000000\nmax_params: 5000\n");
    let one_line = NETWORK.replace('\n', "");
    let wide = one_line.replace("16", "64");
    let unknown = one_line.replace("MaxPool", "AvgPool");
    let input = format!("{one_line}\n{wide}\n{unknown}\nnonsense\n");
    let ran = run_with_input(
        Command::new(program("latlas"))
            .args(["prune", "--table", "table.json", "--config", &config])
            .current_dir(farm.dir.path()),
        &input,
    );
    let verdicts: Vec<String> =
        ran.ok().lines().map(|line| json(line)["verdict"].as_str().unwrap().to_owned()).collect();
    assert_eq!(verdicts, ["accepted", "rejected", "unknown", "invalid"]);
}

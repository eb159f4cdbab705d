//! `latlas predict`, as users meet it.

use crate::common::{Desk, GRAPH, SHORT, SMALL, plausible, row, table, table_of};
use insta::assert_snapshot;
use latlas_shared::RowStatus;

fn desk() -> Desk {
    let desk = Desk::new();
    desk.put("table.json", table_of(&[SMALL, GRAPH])).put("small.json", SMALL);
    desk
}

#[test]
fn a_network_is_predicted_for_people() {
    assert_snapshot!(desk().run("predict --table table.json --arch small.json").report());
}

#[test]
fn a_network_is_predicted_for_programs() {
    let ran = desk().run("predict --table table.json --arch small.json --json");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    insta::assert_json_snapshot!(ran.json());
}

#[test]
fn yaml_stdin_and_lines_are_read_alike() {
    let desk = desk();
    let json = desk.run("predict --table table.json --arch small.json --json").json().remove(0);
    let value: serde_json::Value = serde_json::from_str(SMALL).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let yaml = "id: 1\nname: small\ninput: {n: 1, c: 3, h: 32, w: 32}\nlayers:\n\
                - {op: Conv3x3, c_out: 16, stride: 2}\n- {op: MBConv6, c_out: 16, stride: 1}\n\
                - op: MBConv6_3x3\n  c_out: 24\n  stride: 2\n";
    for text in [pretty.as_str(), yaml, SMALL] {
        let ran = desk.run_with("predict --table table.json --arch - --json", text);
        let found = ran.json().remove(0);
        assert_eq!(found["latency_micros"], json["latency_micros"], "{}", ran.report());
        assert_eq!(found["ops"], json["ops"]);
    }
}

#[test]
fn many_networks_give_a_line_each() {
    let desk = desk();
    let lines = format!("{SMALL}\n\n{GRAPH}\r\n{SMALL}");
    let ran = desk.run_with("predict --table table.json --arch - --json", &lines);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let labels: Vec<_> = ran.json().iter().map(|l| (l["line"].clone(), l["id"].clone())).collect();
    assert_eq!(
        format!("{labels:?}"),
        r#"[(Number(1), Number(1)), (Number(3), String("g-2")), (Number(4), Number(1))]"#
    );
    assert_snapshot!(desk.run_with("predict --table table.json --arch -", &lines).report());
}

/// The whole is the sum of its rows, read at the footprint: 8 MiB beside the weights. The rows' curve rises by
/// the half of its value there over the next 56 MiB.
#[test]
fn a_prediction_is_the_sum_of_its_rows() {
    let at_8_mib: f64 = crate::common::keys(&[SMALL]).iter().map(plausible).sum();
    let ran = desk().run("predict --table table.json --arch small.json --json");
    let answer = &ran.json()[0];
    let weight_bytes = answer["reuse_distance_bytes"].as_f64().unwrap() - f64::from(8 << 20);
    assert!(weight_bytes > 4.0 * 1000.0, "{weight_bytes}");
    let expected = at_8_mib * (1.0 + 0.5 * weight_bytes / f64::from(56 << 20));
    let off = answer["latency_micros"].as_f64().unwrap() / expected - 1.0;
    assert!(off.abs() < 1e-9, "{off}");
}

#[test]
fn every_missing_row_of_all_networks_is_listed_once() {
    let desk = Desk::new();
    let mut rows: Vec<_> = crate::common::keys(&[GRAPH]).iter().map(|key| row(key, 10.0)).collect();
    rows.pop();
    desk.put("table.json", serde_json::to_string(&table(rows)).unwrap());
    desk.put("many.ndjson", format!("{SMALL}\n{GRAPH}\n{SMALL}\n"));
    assert_snapshot!(desk.run("predict --table table.json --arch many.ndjson").report());
    let ran = desk.run("predict --table table.json --arch many.ndjson --json");
    assert_eq!(ran.code, 1);
    insta::assert_json_snapshot!(ran.json());
}

/// A request doesn't measure again what has a row, so it has to say so.
#[test]
fn a_suspect_row_is_told_how_to_be_measured_again() {
    let desk = Desk::new();
    let mut rows: Vec<_> = crate::common::keys(&[GRAPH]).iter().map(|key| row(key, 10.0)).collect();
    rows[0].status = RowStatus::Suspect;
    rows[0].reason = Some("it takes 3.0 times as long as another: measure both again".into());
    desk.put("table.json", serde_json::to_string(&table(rows)).unwrap());
    assert_snapshot!(desk.run_with("predict --table table.json --arch -", GRAPH).report());
}

#[test]
fn built_in_networks_have_names() {
    let desk = desk();
    let all = ops_catalog::Catalog::builtin().network("mobilenet_v2").unwrap();
    let plan = all.plan(ops_catalog::Catalog::builtin()).unwrap();
    let keys: std::collections::BTreeSet<_> = plan.steps.into_iter().map(|s| s.key).collect();
    let rows = keys.iter().map(|key| row(key, plausible(key))).collect();
    desk.put("mobile.json", serde_json::to_string(&table(rows)).unwrap());
    let ran = desk.run("predict --table mobile.json --network mobilenet_v2");
    assert_eq!(ran.code, 0, "{}", ran.report());
    assert!(ran.stdout.starts_with("mobilenet_v2\n"), "{}", ran.stdout);
    let ran = desk.run("predict --table mobile.json --network mobilenet_v9");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    let start = "error: network mobilenet_v9: there is no such network; the built-in ones are ";
    assert!(ran.stderr.starts_with(start), "{}", ran.stderr);
}

#[test]
fn shapes_between_rows_are_interpolated_when_asked() {
    let desk = Desk::new();
    let mut rows = Vec::new();
    for size in [8, 16, 32] {
        for c_in in [8, 16, 32] {
            for c_out in [8, 16, 32] {
                let key =
                    format!("Conv3x3:n1-h{size}-w{size}-i{c_in}-o{c_out}-s1").parse().unwrap();
                rows.push(row(&key, plausible(&key)));
            }
        }
    }
    desk.put("table.json", serde_json::to_string(&table(rows)).unwrap());
    let network = |size: u32| {
        format!(
            "name: between\ninput: {{n: 1, c: 16, h: {size}, w: {size}}}\nlayers: [{{op: Conv3x3, c_out: \
             16, stride: 1}}, {{op: Conv3x3, c_out: 24, stride: 1}}]\n"
        )
    };
    let command = "predict --table table.json --arch - --missing";
    let refused = desk.run_with(&format!("{command} error"), network(16));
    assert_eq!(refused.code, 1);
    assert_snapshot!(desk.run_with(&format!("{command} interpolate"), network(16)).report());
    assert_snapshot!(desk.run_with(&format!("{command} interpolate"), network(64)).report());
}

/// What is wrong is said in a paragraph that names the place, and nothing is on stdout.
#[test]
fn mistakes_are_named() {
    let desk = desk();
    std::fs::create_dir(desk.path("folder")).unwrap();
    let with = |change: (&str, &str)| table_of(&[SMALL]).replace(change.0, change.1);
    desk.put("empty.json", "\n")
        .put("latin1.json", b"{\"name\": \"caf\xe9\"}")
        .put("future.json", with(("\"schema\":2", "\"schema\":3")))
        .put("negative.json", with(("\"latency_micros\":", "\"latency_micros\":-")))
        .put("table.csv", "op_type,input_h\nConv3x3,56\n")
        .put("cut.json", &table_of(&[SMALL])[..300]);
    let mut report = String::new();
    for table in [
        "nowhere.json",
        "folder",
        "empty.json",
        "latin1.json",
        "future.json",
        "negative.json",
        "table.csv",
        "cut.json",
        "small.json",
    ] {
        let ran = desk.run(&format!("predict --table {table} --arch small.json"));
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.report());
        report.push_str(&format!("table {table}\n{}\n", ran.stderr));
    }
    let graph = |nodes: &str| {
        format!(
            r#"{{"input": {{"n": 1, "c": 8, "h": 16, "w": 16}}, "nodes": [{nodes}], "output": 1}}"#
        )
    };
    let a = r#"{"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [1]}"#;
    let b = r#"{"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [0, -1]}"#;
    let wide = r#"{"op": "Conv3x3", "c_out": 16, "stride": 1, "inputs": [-1]}"#;
    for (what, text) in [
        ("an unknown op", SMALL.replace("Conv3x3", "Conv3x4")),
        ("no c_out", SMALL.replace("\"c_out\": 24, ", "")),
        ("a stride beyond the input", SMALL.replace("\"stride\": 1", "\"stride\": 99")),
        ("a cycle", graph(&format!("{a}, {b}"))),
        ("channels that do not fit", graph(&format!("{wide}, {b}"))),
        ("a typo in JSON", SMALL.replace("c_out", "cout")),
        ("a typo in YAML", "input: {n: 1, c: 3, h: 32, w: 32}\nlayer: []\n".to_owned()),
        ("no YAML at all", "layers: [\n".to_owned()),
        ("no network", "[]".to_owned()),
        ("nothing", String::new()),
    ] {
        let ran = desk.run_with("predict --table table.json --arch -", text);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.report());
        report.push_str(&format!("{what}\n{}\n", ran.stderr));
    }
    assert_snapshot!(report);
}

#[test]
fn usage_is_checked_before_files_are_read() {
    let desk = desk();
    for (arguments, problem) in [
        ("predict --arch small.json", "--table <FILE>"),
        ("predict --table table.json", "--arch <FILE>|--network <NAME|FILE>"),
        ("predict --table table.json --arch - --network -", "only one of the files can be stdin"),
        ("predict --table table.json --arch x --missing guess", "write `error` or `interpolate`"),
        ("predict --tabel table.json", "unexpected argument '--tabel'"),
    ] {
        let ran = desk.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{}", ran.report());
        assert!(ran.stderr.contains(problem), "{}", ran.report());
    }
}

#[test]
fn invalid_lines_do_not_hide_the_others() {
    let desk = desk();
    let lines = format!("{SMALL}\n{{\"id\": 5, \"layers\": []}}\nnot JSON\n{GRAPH}\n");
    let ran = desk.run_with("predict --table table.json --arch - --json", &lines);
    assert_eq!(ran.code, 1);
    let kinds: Vec<&str> = ran
        .json()
        .iter()
        .map(|line| if line.get("invalid").is_some() { "invalid" } else { "predicted" })
        .collect();
    assert_eq!(kinds, ["predicted", "invalid", "invalid", "predicted"]);
    assert_snapshot!(ran.stderr);
}

#[test]
fn a_table_is_listed_for_people_and_for_programs() {
    let desk = Desk::new();
    let mut rows: Vec<_> =
        crate::common::keys(&[SMALL]).iter().map(|k| row(k, plausible(k))).collect();
    let failed = &mut rows[1];
    failed.latency_micros = None;
    failed.ci95_rel = None;
    failed.curve.clear();
    failed.status = latlas_shared::RowStatus::Failed;
    failed.reason = Some("out of memory".to_owned());
    desk.put("table.json", serde_json::to_string(&table(rows)).unwrap());
    assert_snapshot!(desk.run("table show table.json").report());
    let some = desk.run("table show table.json --op MBConv6 --json");
    assert_eq!(some.json().len(), 2, "{}", some.report());
    assert_eq!(some.json()[0]["op_type"], "MBConv6_3x3");
    let none = desk.run("table show table.json --op Conv4x4");
    assert_eq!((none.code, none.stdout.as_str()), (1, ""));
}

/// A reader that has enough is no error.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_quiet() {
    use std::io::{BufRead, BufReader, Read};
    let desk = desk();
    desk.put("many.ndjson", format!("{SMALL}\n").repeat(20_000));
    let command = "predict --table table.json --arch many.ndjson --json";
    let mut child = desk.command(command).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"line\":1,"));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_failed_row_is_said_to_have_failed() {
    let desk = desk();
    let mut rows: Vec<_> = crate::common::keys(&[SHORT]).iter().map(|key| row(key, 10.0)).collect();
    let failed = &mut rows[0];
    failed.latency_micros = None;
    failed.curve.clear();
    failed.status = latlas_shared::RowStatus::Failed;
    failed.reason = Some("out of memory\nat 3 GB".to_owned());
    desk.put("failed.json", serde_json::to_string(&table(rows)).unwrap());
    let ran = desk.run_with("predict --table failed.json --arch -", SHORT);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("# it could not be measured: out of memory at 3 GB\n"),
        "{}",
        ran.stderr
    );
}

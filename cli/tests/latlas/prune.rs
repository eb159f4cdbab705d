//! `latlas prune`, as users meet it.

use std::io::{BufRead, BufReader, Write};

use crate::common::{Desk, GRAPH, SHORT, SMALL, table_of};
use insta::assert_snapshot;

const LIMITS: &str = "max_latency_ms: 0.2\nmax_params: 50000\nmax_per_op: {MBConv6: 1}\n";

fn desk() -> Desk {
    let desk = Desk::new();
    desk.put("table.json", table_of(&[SMALL, GRAPH])).put("limits.yaml", LIMITS);
    desk
}

const PRUNE: &str = "prune --table table.json --config limits.yaml";

/// Candidates of every kind, with the lines that only resemble one.
fn candidates() -> Vec<u8> {
    let wide = SHORT.replace("[16, 16]", "[512, 512]");
    let text =
        format!("{SMALL}\n{GRAPH}\n{SHORT}\n\n{{\"id\": 7, \"layer\": []}}\n{wide}\nnonsense\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"{\"name\": \"caf\xe9\"}\n");
    bytes.extend_from_slice(SMALL.replace("Conv3x3", "Conv9x9").as_bytes());
    bytes
}

#[test]
fn each_line_gets_a_verdict_in_its_order() {
    let ran = desk().run_with(PRUNE, candidates());
    assert_eq!(ran.stdout.lines().count(), 9);
    assert_snapshot!(ran.report());
}

#[test]
fn a_file_is_read_like_stdin() {
    let desk = desk();
    desk.put("candidates.ndjson", candidates());
    let ran = desk.run(&format!("{PRUNE} --arch candidates.ndjson"));
    let streamed = desk.run_with(PRUNE, candidates());
    assert_eq!((ran.code, &ran.stdout), (streamed.code, &streamed.stdout));
    // What measures the missing rows names the file that the candidates are in.
    assert!(ran.stderr.contains("--arch candidates.ndjson > space.yaml"), "{}", ran.stderr);
    assert!(streamed.stderr.contains("--arch FILE > space.yaml"), "{}", streamed.stderr);
}

#[test]
fn the_upper_end_of_the_interval_can_be_held_against_the_budget() {
    let desk = desk();
    // The estimate is 33.9 us, and the upper end far above it: no network was measured.
    for (limits, verdict) in [
        ("max_latency_ms: 0.035\n", "accepted"),
        ("max_latency_ms: 0.035\nlatency_bound: estimate\n", "accepted"),
        ("max_latency_ms: 0.035\nlatency_bound: upper\n", "rejected"),
        ("max_latency_ms: 0.070\nlatency_bound: upper\n", "accepted"),
    ] {
        desk.put("limits.yaml", limits);
        let ran = desk.run_with(PRUNE, GRAPH);
        assert_eq!(ran.json()[0]["verdict"], verdict, "{limits}{}", ran.report());
    }
}

#[test]
fn an_unmeasured_row_can_be_interpolated_but_not_invented() {
    let desk = desk();
    let ran =
        desk.run_with(&format!("{PRUNE} --missing interpolate"), SHORT.replace("16, 16", "16, 24"));
    let verdict = &ran.json()[0];
    assert_eq!(verdict["verdict"], "unknown", "{}", ran.report());
    assert!(verdict["latency_micros"].is_null());
}

/// A search that waits for a verdict before it writes the next candidate gets it.
#[test]
fn verdicts_do_not_wait_for_the_end() {
    let desk = desk();
    let mut child = desk.command(PRUNE).spawn().unwrap();
    let mut candidates = child.stdin.take().unwrap();
    let mut verdicts = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 1..=3 {
        writeln!(candidates, "{GRAPH}").unwrap();
        let verdict = verdicts.next().unwrap().unwrap();
        assert!(verdict.starts_with(&format!("{{\"line\":{number},")), "{verdict}");
    }
    drop(candidates);
    assert!(verdicts.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn mistakes_are_named() {
    let desk = desk();
    let mut report = String::new();
    for (what, limits) in [
        ("a typo", "max_params: 1\nmax_flop: 600e6\n"),
        ("a name of long ago", "estimated_latency_budget_ms: 25\n"),
        ("an unknown op", "max_per_op: {Conv5x6: 5}\n"),
        ("a number that is none", "max_flops: 6OOe6\n"),
        ("no constraint", "{}\n"),
        ("nothing", "\n"),
        ("no YAML", "max_flops: [\n"),
        ("a list", "- max_flops: 3\n"),
        ("a latency of zero", "max_latency_ms: 0\n"),
        ("a bound of nothing", "max_flops: 1\nlatency_bound: upper\n"),
    ] {
        desk.put("limits.yaml", limits);
        let ran = desk.run_with(PRUNE, SMALL);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.report());
        report.push_str(&format!("{what}\n{}\n", ran.stderr));
    }
    desk.put("limits.yaml", LIMITS).put("empty.ndjson", "");
    for arguments in [
        PRUNE,
        "prune --table table.json --config limits.yaml --arch empty.ndjson",
        "prune --table table.json --config limits.yaml --arch nowhere.ndjson",
        "prune --table table.json --config nowhere.yaml",
        "prune --table limits.yaml --config limits.yaml",
        "prune --table table.json --config table.json",
    ] {
        let ran = desk.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.report());
        report.push_str(&format!("latlas {arguments}\n{}\n", ran.stderr));
    }
    assert_snapshot!(report);
}

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

/// A small space, whose three ops are those of the table or are not.
const SPACE: &str = "name: tiny\nversion: 2\ninput: {n: 1, c: 3, h: 16, w: 16}\nbody:\n  - {op: Conv3x3, c_out: 16, \
                     stride: 2}\n  - {depth: 2, c_out: 16, options: [Conv3x3, MBConv6_3x3]}\n";

/// A table of every row of [`SPACE`].
fn desk_with_a_space() -> Desk {
    let desk = Desk::new();
    let layers = |ops: [&str; 2]| {
        let layer = |op: &str| format!(r#"{{"op": "{op}", "c_out": 16, "stride": 1}}"#);
        format!(
            r#"{{"input": {{"n": 1, "c": 3, "h": 16, "w": 16}}, "layers": [
               {{"op": "Conv3x3", "c_out": 16, "stride": 2}}, {}, {}]}}"#,
            layer(ops[0]),
            layer(ops[1])
        )
        .replace('\n', "")
    };
    let networks = layers(["Conv3x3", "MBConv6_3x3"]);
    desk.put("table.json", table_of(&[&networks])).put("limits.yaml", "max_per_op: {MBConv6: 1}\n");
    let all = [
        ["Conv3x3"; 2],
        ["Conv3x3", "MBConv6_3x3"],
        ["MBConv6_3x3", "Conv3x3"],
        ["MBConv6_3x3"; 2],
    ];
    let lines: String = all.map(|ops| layers(ops) + "\n").concat();
    desk.put("networks.ndjson", lines).put("tiny.yaml", SPACE);
    desk
}

const GENOTYPES: &str = "prune --table table.json --config limits.yaml --space ./tiny.yaml";

#[test]
fn genotypes_have_the_verdicts_of_their_networks() {
    let desk = desk_with_a_space();
    let networks = desk.run(&format!("{PRUNE} --arch networks.ndjson"));
    assert_eq!(networks.code, 0, "{}", networks.report());
    for threads in ["1", "3"] {
        let genotypes = desk.run(&format!("{GENOTYPES} --all --threads {threads}"));
        assert_eq!(genotypes.code, 0, "{}", genotypes.report());
        assert_eq!(networks.json().len(), 4);
        for (network, mut genotype) in networks.json().into_iter().zip(genotypes.json()) {
            assert!(genotype.as_object_mut().unwrap().remove("genotype").is_some());
            assert_eq!(genotype, network);
        }
    }
}

#[test]
fn candidates_of_a_space_are_lines_or_objects() {
    let desk = desk_with_a_space();
    let lines =
        "00\ntiny@2:11\n{\"genotype\": \"01\", \"id\": {\"accuracy\": 0.93}}\n\n2\ntiny@1:00\n0x\n";
    let ran = desk.run_with(GENOTYPES, lines);
    assert_snapshot!(ran.report());
    let compact = desk.run_with(&format!("{GENOTYPES} --format compact"), lines);
    assert_snapshot!(compact.report());
    let only = desk.run_with(&format!("{GENOTYPES} --only accepted"), lines);
    let accepted: Vec<_> =
        ran.json().into_iter().filter(|line| line["verdict"] == "accepted").collect();
    assert_eq!(only.json(), accepted);
}

#[test]
fn drawn_candidates_depend_on_the_seed_only() {
    let desk = desk_with_a_space();
    let drawn = |options: &str| desk.run(&format!("{GENOTYPES} --draw {options}")).stdout;
    let (few, many) = (drawn("100 --seed 7"), drawn("5000 --seed 7 --threads 4"));
    assert_eq!(few.lines().count(), 100);
    assert!(many.starts_with(&few));
    assert_ne!(few, drawn("100 --seed 8"));
}

#[test]
fn mistakes_with_spaces_are_named() {
    let desk = desk_with_a_space();
    for (arguments, code, problem) in [
        ("--space nas_bench_micro", 1, "there is no such space; the built-in ones are "),
        ("--space ./gone.yaml", 1, "gone.yaml: there is no such file"),
        ("--space ./limits.yaml", 1, "limits.yaml: "),
        ("--draw 5", 2, "--space"),
        ("--all", 2, "--space"),
        ("--space ./tiny.yaml --all --draw 5", 2, "cannot be used with"),
        ("--space ./tiny.yaml --threads 0", 2, "0 is not in 1..=1024"),
    ] {
        let ran = desk.run(&format!("{PRUNE} {arguments}"));
        assert_eq!(ran.code, code, "{arguments}: {}", ran.report());
        assert!(ran.stderr.contains(problem), "{arguments}: {}", ran.stderr);
    }
}

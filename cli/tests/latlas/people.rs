//! Files as people have them, in front of the command: byte order marks, UTF-16, gzip, empty variables, and that
//! no message has the words of a library.

use crate::common::{Desk, GRAPH, SMALL, rows_measured, table_of};
use ops_catalog::text::FOREIGN_PHRASES;

fn desk() -> Desk {
    let desk = Desk::new();
    desk.put("table.json", table_of(&[SMALL, GRAPH]));
    desk.put("limits.yaml", "max_latency_ms: 25\n").put("small.json", SMALL);
    desk
}

fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

const GZIP: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00";

#[test]
fn marks_line_ends_and_utf16_make_no_difference() {
    let desk = desk();
    let lines = format!("{SMALL}\n{GRAPH}\n{SMALL}\n");
    for (name, bytes) in [
        ("marked", format!("\u{feff}{lines}").into_bytes()),
        ("windows", lines.replace('\n', "\r\n").into_bytes()),
        ("utf16", utf16(&lines)),
    ] {
        desk.put("many.ndjson", &bytes);
        let ran = desk.run("prune --table table.json --config limits.yaml --arch many.ndjson");
        assert_eq!(ran.code, 0, "{name}: {}", ran.report());
        assert!(ran.stderr.starts_with("3 candidates: 3 accepted"), "{name}: {}", ran.stderr);
        let ran = desk.run("predict --table table.json --arch many.ndjson --json");
        assert_eq!((ran.code, ran.json().len()), (0, 3), "{name}: {}", ran.report());
        let ran = desk.run("networks keys --arch many.ndjson");
        assert_eq!(ran.code, 0, "{name}: {}", ran.report());
    }
    let encode: [fn(&str) -> Vec<u8>; 2] = [|t| format!("\u{feff}{t}").into_bytes(), utf16];
    for encode in encode {
        desk.put("t.json", encode(&table_of(&[SMALL]))).put("l.yaml", encode("max_flops: 1e99\n"));
        desk.put("l.yaml", encode("max_flops: 6e8\n"))
            .put("r.ndjson", encode(&rows_measured(&[SMALL])));
        let ran = desk.run("prune --table t.json --config l.yaml --arch small.json");
        assert_eq!(ran.code, 0, "{}", ran.report());
        let ran = desk.run("table build r.ndjson -o built.json");
        assert_eq!(ran.code, 0, "{}", ran.report());
    }
}

#[test]
fn an_id_of_128_bits_comes_back_as_it_was() {
    let desk = desk();
    let id = "340282366920938463463374607431768211455";
    desk.put("big.ndjson", SMALL.replacen("\"id\": 1,", &format!("\"id\": {id},"), 1));
    for command in [
        "prune --table table.json --config limits.yaml --arch big.ndjson",
        "predict --table table.json --arch big.ndjson --json",
    ] {
        let ran = desk.run(command);
        assert!(ran.stdout.contains(&format!("\"id\":{id},")), "{}", ran.report());
    }
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let desk = desk();
    let variables = ["LATLAS_TOKEN", "LATLAS_COORDINATOR", "LATLAS_CA_FILE", "LATLAS_CLIENT_CERT"];
    let run = |value: Option<&str>| {
        let mut command = desk.command("table list");
        for name in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let unset = run(None);
    assert!(unset.1.contains("the coordinator at http://127.0.0.1:8700"), "{}", unset.1);
    assert_eq!(run(Some("")), unset);
    assert_eq!(run(Some(" ")), unset);
}

#[test]
fn a_proxy_that_fails_is_named() {
    let desk = Desk::new();
    let mut command = desk.command("--coordinator http://192.0.2.10:8700 table list");
    for name in ["no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    let output = command.env("http_proxy", "http://user:secret@127.0.0.1:9").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("went through the proxy http://127.0.0.1:9, which did not"), "{said}");
    assert!(said.contains("no_proxy") && !said.contains("secret"), "{said}");
}

/// Networks, limits, spaces, ops, tables, measurements and probes: whatever stands there, the refusal is ours.
#[test]
fn no_reader_answers_in_a_librarys_words() {
    let desk = desk();
    let readers = [
        "predict --table table.json --arch bad",
        "predict --table table.json --network ./bad",
        "predict --table bad --arch small.json",
        "predict --table table.json --arch small.json --op-file bad",
        "prune --table table.json --config bad --arch small.json",
        "prune --table table.json --config limits.yaml --arch bad",
        "networks keys --arch bad",
        "table build bad",
        "table build rows.ndjson --probe bad",
        "table show bad",
        "accuracy --table bad",
        "profile --hardware x.cpu --space ./bad",
        "profile --hardware x.cpu --op-file bad",
        "profile --hardware x.cpu --arch bad",
    ];
    desk.put("rows.ndjson", rows_measured(&[SMALL]));
    let damaged_table = table_of(&[SMALL]).replacen("\"rows\":[{", "\"rows\":[{\"x\":1,", 1);
    let damaged_row = rows_measured(&[SMALL]).replacen("\"status\":\"ok\"", "\"status\":1", 1);
    let texts: [&[u8]; 21] = [
        b"",
        GZIP,
        b"\xff\xfe",
        b"\xff\xfe\0\0a\0\0\0",
        b"caf\xe9: 1",
        b"a\0b",
        b"max_flops = 1",
        b"max_flops: 1\nmax_flops: 2\n",
        b"max_flops: 1e30",
        b"max_flops: 032",
        b"name: a\n---\nname: b\n",
        b"{\"layers\": [}",
        b"{\"layers\": [1, true]}",
        b"{\"input\": {\"n\": 1.5}}",
        b"{\"schema\": \"1\"}",
        b"{\"schema\": 1, \"rows\": 7}",
        b"{\"id\": \"x\", \"subject\": 1}",
        b"{\"fingerprint\": 1}",
        b"[1, 2",
        damaged_table.as_bytes(),
        damaged_row.as_bytes(),
    ];
    for text in texts {
        desk.put("bad", text);
        for reader in readers {
            let ran = desk.run(reader);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
            // A candidate that is no network is a verdict.
            let refused = ran.code == 1 || said.contains("\"invalid\"");
            assert!(refused, "{reader}: {shown:?}: {}", ran.report());
            for phrase in FOREIGN_PHRASES {
                assert!(!said.contains(phrase), "{reader}: {shown:?}: `{phrase}` is in: {said}");
            }
        }
    }
    desk.put("bad", GZIP);
    let said = desk.run("predict --table table.json --arch bad").stderr;
    assert_eq!(
        said,
        "error: bad: the file is compressed with gzip; unpack it first, as in `gunzip FILE`\n"
    );
}

#[test]
fn ops_of_the_user_come_with_a_file() {
    let desk = desk();
    let ops =
        "name: mine\nops: [{name: Mine, nodes: [{apply: {conv2d: {out: c_out, kernel: 3}}}]}]\n";
    desk.put("ops.yaml", ops).put(
        "mine.json",
        SMALL.replacen(
            "Conv3x3\", \"c_out\": 16, \"stride\": 2",
            "Mine\", \"c_out\": 16, \"stride\": 1",
            1,
        ),
    );
    let ran = desk.run("networks keys --arch mine.json");
    assert!(ran.stderr.contains("there is no such op"), "{}", ran.report());
    let ran = desk.run("networks keys --network ./mine.json --op-file ops.yaml");
    assert!(ran.code == 0 && ran.stdout.contains("Mine:n1-h32-w32-i3-o16-s1"), "{}", ran.report());
    let ran = desk.run("predict --table table.json --network ./mine.json --op-file ops.yaml");
    let command = "latlas networks keys --network ./mine.json --op-file ops.yaml > space.yaml";
    assert!(ran.stderr.contains("Mine:n1-h32-w32-i3-o16-s1  # not measured"), "{}", ran.report());
    assert!(ran.stderr.contains(command), "{}", ran.report());
    let ran = desk
        .run("prune --table table.json --config limits.yaml --arch mine.json --op-file ops.yaml");
    assert!(ran.stdout.contains("\"verdict\":\"unknown\""), "{}", ran.report());
    let command = "latlas networks keys --arch mine.json --op-file ops.yaml > space.yaml";
    assert!(ran.stderr.contains(command), "{}", ran.report());
}

#[test]
fn several_networks_are_a_table_wherever_they_come_from() {
    let desk = desk();
    desk.put("graph.json", GRAPH);
    let ran = desk.run("predict --table table.json --network ./small.json --arch graph.json");
    assert_eq!(ran.code, 0, "{}", ran.report());
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 10, "{}", ran.stdout);
    assert!(
        lines[1].contains("2 networks, from the rows alone; FLOPs are multiply-acc"),
        "{}",
        lines[1]
    );
    assert!(lines[2].starts_with("NETWORK  LATENCY  INTERVAL"), "{}", lines[2]);
    assert!(lines[3].starts_with("small ") && lines[4].starts_with("\"g-2\""), "{}", ran.stdout);
}

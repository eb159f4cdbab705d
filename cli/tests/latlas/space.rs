//! `latlas space`, as users meet it.

use insta::assert_snapshot;
use ops_catalog::arch_space::{builtin_space, builtin_spaces};
use ops_catalog::{Catalog, SpaceDef};

use crate::common::{Desk, plausible, row, table};

/// A space of twelve networks, with an op of its own.
const MINE: &str = "\
name: mine
version: 2
doc: One or two convolutions on a small map.
ops:
  - {name: Halve, nodes: [{apply: {avg_pool: {kernel: 2, stride: stride, padding: 0}}}]}
input: {n: 1, c: 8, h: 16, w: 16}
body:
  - {id: block, depth: [1, 2], op: Conv<kernel>x<kernel>, c_out: c_in, choices: {kernel: [1, 3]}}
  - {id: end, options: [{op: Halve, stride: 2}, ReLU], c_out: c_in}
";

#[test]
fn the_built_in_spaces_are_listed() {
    let desk = Desk::new();
    let ran = desk.run("space list");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout.lines().count(), 1 + builtin_spaces().count());
    let json = desk.run("space list --json").json();
    let sizes: Vec<String> = json
        .iter()
        .map(|space| {
            format!("{} {}", space["name"].as_str().unwrap(), space["size"].as_str().unwrap())
        })
        .collect();
    assert!(sizes.contains(&"nas_bench_201 15625".to_owned()), "{sizes:?}");
    assert!(sizes.contains(&"darts 1076746950455072400".to_owned()), "{sizes:?}");
}

#[test]
fn a_space_is_shown_with_its_choices_and_an_example() {
    let desk = Desk::new();
    desk.put("mine.yaml", MINE);
    let shown = [
        "space show nas_bench_macro",
        "space show ofa_mobilenet_v3",
        "space show nas_bench_201",
        "space show mine.yaml",
        "space show mine.yaml --json",
        "space size nas_bench_macro",
        "space size ofa_mobilenet_v3",
        "space size nas_bench_macro --json",
    ];
    let report =
        shown.map(|command| format!("$ latlas {command}\n{}\n", desk.run(command).report()));
    assert_snapshot!(report.concat());
    let definition = desk.run("space show nas_bench_macro --definition");
    assert_eq!(definition.stdout, builtin_space("nas_bench_macro").unwrap().text);
    desk.put("copy.yaml", definition.stdout);
    assert_eq!(desk.run("space size copy.yaml").stdout, "6561\n");
}

#[test]
fn drawn_networks_are_decoded_and_encoded_again() {
    let desk = Desk::new();
    for space in ["nas_bench_macro", "nas_bench_201", "mobilenet_v3_fpn"] {
        let drawn = desk.run(&format!("space draw {space} --count 5 --seed 7"));
        let genotypes = desk.run(&format!("space draw {space} --count 5 --seed 7 --genotypes"));
        assert_eq!((drawn.code, drawn.stderr.as_str()), (0, ""), "{}", drawn.report());
        assert_eq!(genotypes.stdout.lines().count(), 5);
        let decoded = desk.run_with(&format!("space decode {space} -"), &genotypes.stdout);
        assert_eq!(decoded.stdout, drawn.stdout);
        let encoded = desk.run_with(&format!("space encode {space} -"), &drawn.stdout);
        assert_eq!(encoded.stdout, genotypes.stdout, "{}", encoded.report());
        let ids: Vec<_> = drawn.json().iter().map(|line| line["id"].clone()).collect();
        assert_eq!(ids, genotypes.stdout.lines().collect::<Vec<_>>());
    }
    let three = desk.run("space draw nas_bench_macro --count 3 --seed 7").stdout;
    assert!(desk.run("space draw nas_bench_macro --count 5 --seed 7").stdout.starts_with(&three));
}

#[test]
fn without_a_seed_the_networks_are_new_and_the_seed_is_said() {
    let desk = Desk::new();
    let ran = desk.run("space draw darts --count 1 --genotypes");
    let seed: u64 = ran.stderr.trim().strip_prefix("seed ").unwrap().parse().unwrap();
    let again = desk.run(&format!("space draw darts --count 1 --genotypes --seed {seed}"));
    assert_eq!(ran.stdout, again.stdout);
}

#[test]
fn networks_of_other_programs_get_their_genotypes() {
    let desk = Desk::new();
    let guide = r#"{"id": 12345678901234567890123, "name": "guide", "layers": ["Conv3x3", "Identity", "MBConv6", "MaxPool", "Conv5x5"], "input_resolution": 224, "channels": [32, 32, 64, 64, 128]}"#;
    let ran = desk.run_with("space encode layer_chain - --json", guide);
    assert_eq!(
        ran.stdout,
        "{\"id\":12345678901234567890123,\"name\":\"guide\",\"genotype\":\"layer_chain@1:350i1b...............\"}\n",
        "{}",
        ran.report()
    );
}

/// A table of the keys of a space predicts every network of it.
#[test]
fn the_keys_of_a_space_are_what_its_networks_need() {
    let desk = Desk::new();
    let keys = desk.run("space keys nas_bench_201");
    assert_eq!((keys.code, keys.stderr.as_str()), (0, ""));
    let space = SpaceDef::from_yaml(&keys.stdout).unwrap().resolve(Catalog::builtin()).unwrap();
    let rows = space.entries.iter().map(|(key, _)| row(key, plausible(key))).collect();
    desk.put("table.json", serde_json::to_string(&table(rows)).unwrap());
    let drawn = desk.run("space draw nas_bench_201 --count 20 --seed 7").stdout;
    let ran = desk.run_with("predict --table table.json --arch - --json", &drawn);
    assert_eq!((ran.code, ran.json().len()), (0, 20), "{}", ran.report());
    let ids = |lines: Vec<serde_json::Value>| {
        lines.iter().map(|line| line["id"].clone()).collect::<Vec<_>>()
    };
    let drawn = drawn.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ids(ran.json()), ids(drawn));
    // Ops of the space's own come with the keys.
    desk.put("mine.yaml", MINE);
    assert_snapshot!(desk.run("space keys mine.yaml").report());
}

#[test]
fn mistakes_are_named() {
    let desk = Desk::new();
    desk.put("bad.yaml", MINE.replace("c_in, choices", "c_on, choices"));
    desk.put("mine.yaml", MINE);
    desk.put("other.json", r#"{"name": "x", "input": {"n": 1, "c": 8, "h": 16, "w": 16}, "layers": [{"op": "Conv3x3", "c_out": 8, "stride": 1}, {"op": "Conv5x5", "c_out": 8, "stride": 1}]}"#);
    let mut report = String::new();
    for (arguments, stdin) in [
        ("space show nothing", ""),
        ("space show mobilenet", ""),
        ("space show absent.yaml", ""),
        ("space show bad.yaml", ""),
        ("space size -", "[1"),
        ("space decode mine.yaml 0", ""),
        ("space decode mine.yaml .00", ""),
        ("space decode mine.yaml 002", ""),
        ("space decode mine.yaml mine@1:000", ""),
        ("space decode mine.yaml darts@1:000", ""),
        ("space decode mine.yaml -", "0.0\n\n00x\n"),
        ("space encode mine.yaml other.json", ""),
        ("space encode nas_bench_macro other.json", ""),
        ("space encode mine.yaml -", "{\"layers\": []}"),
        ("space encode mine.yaml -", ""),
        ("space draw mine.yaml --count -1", ""),
        ("space decode - -", ""),
    ] {
        let ran = desk.run_with(arguments, stdin);
        report.push_str(&format!("$ latlas {arguments}\n{}\n", ran.report()));
    }
    let known: Vec<&str> = builtin_spaces().map(|space| space.name).collect();
    assert_snapshot!(report.replace(&known.join(", "), "SPACES"));
}

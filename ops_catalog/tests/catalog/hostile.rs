//! Texts and values that ask for a lot of work are refused before it is done.

use std::time::{Duration, Instant};

use ops_catalog::{Invalid, Network, NetworkSpec, NodeSpec, SpaceDef};

use crate::generate::{layer, sequence};
use crate::{assert_refused, builtin, map, resolve, try_op};

#[track_caller]
fn assert_refused_quickly<T: std::fmt::Debug>(
    read: impl FnOnce() -> Result<T, Invalid>,
    parts: &[&str],
) {
    let start = Instant::now();
    let result = read();
    // Generous for a loaded machine without optimization; what these texts ask for would take hours.
    assert!(start.elapsed() < Duration::from_secs(300), "it took {:?}", start.elapsed());
    assert_refused(result, parts);
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let mut laughs =
        String::from("layers: [A]\nid:\n  a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs += &format!("  a{level}: &a{level} [{aliases}]\n");
    }
    assert_refused_quickly(|| NetworkSpec::from_yaml(&laughs), &["it has more than 250000 values"]);

    let deep = "[".repeat(1_000_000);
    assert_refused_quickly(
        || NetworkSpec::from_yaml(&format!("id: {deep}")),
        &["nested more than 100 levels deep"],
    );
    assert_refused_quickly(
        || NetworkSpec::from_json(&format!("{{\"id\": {deep}")),
        &["nested more than 100 levels deep"],
    );
    let indented: String = (0..3_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_refused_quickly(|| NetworkSpec::from_yaml(&indented), &[]);

    let long = format!("layers: [{}]", "A, ".repeat(1_000_000));
    assert_refused_quickly(|| NetworkSpec::from_yaml(&long), &["it has more than 250000 values"]);
    assert_refused_quickly(
        || SpaceDef::from_yaml(&"x".repeat(17 << 20)),
        &["the text has 17825792 bytes"],
    );
    let field = format!("{}: 1", "x".repeat(1_000));
    assert_refused_quickly(|| SpaceDef::from_yaml(&field), &["there is no field", "column 1"]);
}

#[test]
fn hostile_sizes_are_refused_quickly() {
    let many = (1..=1000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let grid = format!("{{ops: [Conv1x1], resolution: [{many}], c_in: [{many}], c_out: [c_in]}}");
    assert_refused_quickly(
        || resolve(&format!("name: big\ngrids: [{grid}]")),
        &["grids[0]", "keys or more, and a space has at most 100000"],
    );
    // The same few keys over and over: no list is long, and no key is new.
    let ops = "Conv1x1, ".repeat(2_000);
    let grid = format!("{{ops: [{ops}], resolution: [1], c_in: [{many}], c_out: [1]}}");
    assert_refused_quickly(
        || resolve(&format!("name: big\ngrids: [{grid}]")),
        &["keys or more, and a space has at most 100000"],
    );

    let layers = vec![layer("Conv1x1", 3, 1); 10_001];
    let spec = sequence(8, layers);
    assert_refused_quickly(|| Network::new(&spec, builtin()), &["layers: has 10001 entries"]);
    let node = |inputs| NodeSpec { inputs: Some(inputs), ..layer("Conv1x1", 3, 1) };
    let spec = NetworkSpec {
        layers: None,
        nodes: Some(vec![node(vec![-1; 15_000]), node(vec![0; 15_000])]),
        output: Some(1),
        ..sequence(8, vec![])
    };
    assert_refused_quickly(
        || Network::new(&spec, builtin()),
        &["nodes: have 30000 inputs together"],
    );

    // Ever larger maps and ever more channels, as far as the number of nodes allows.
    let upsamples = "{apply: {upsample: {scale: 1024}}},".repeat(64);
    let grown = try_op(&format!("name: Test\nnodes: [{upsamples}]")).unwrap();
    assert_refused_quickly(|| grown.at(&map(1, 1, 1, 1)), &["too large"]);
    let mut widened = "{id: a0, apply: relu},".to_owned();
    for node in 1..60 {
        let inputs = vec![format!("a{}", node - 1); 64].join(", ");
        widened += &format!("{{id: a{node}, inputs: [{inputs}], apply: concat}},");
    }
    let widened = try_op(&format!("name: Test\nnodes: [{widened}]")).unwrap();
    assert_refused_quickly(|| widened.at(&map(1, 1, 1, 1)), &["concat"]);
}

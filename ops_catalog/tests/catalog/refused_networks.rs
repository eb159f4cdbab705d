//! Spaces and networks that are refused, and that the message names the place and the problem.

use ops_catalog::{Invalid, Network, NetworkPlan, NetworkSpec};

use crate::{assert_refused, builtin, resolve};

fn plan(yaml: &str) -> Result<NetworkPlan, Invalid> {
    let spec = NetworkSpec::from_yaml(yaml)?;
    Network::new(&spec, builtin())?.plan(builtin())
}

#[test]
fn spaces_with_mistakes() {
    let grid = |fields: &str| format!("name: mine\ngrids:\n  - {{{fields}}}\n");
    for (text, parts) in [
        (
            grid("ops: [Conv3], resolution: [8], c_in: [3], c_out: [8]"),
            &["space mine, grids[0], op Conv3", "Conv3x3"][..],
        ),
        (grid("resolution: [8], c_in: [3], c_out: [8]"), &["grids[0]", "some list is empty"]),
        (
            grid("ops: [Conv3x3], resolution: [8], c_in: [], c_out: [8]"),
            &["grids[0]", "some list is empty"],
        ),
        (grid("ops: [Conv3x3], c_in: [3], c_out: [8]"), &["give one of `resolution` and `tokens`"]),
        (
            grid("ops: [Conv3x3], resolution: [8], tokens: [8], c_in: [3], c_out: [8]"),
            &["give one of `resolution` and `tokens`"],
        ),
        (
            grid("ops: [Conv3x3], resolution: [8], c_in: [3], c_out: [c_out]"),
            &["grids[0], c_out", "numbers and multiples of c_in"],
        ),
        (
            grid("ops: [Conv3x3], resolution: [8], c_in: [3], c_out: [c_in/2]"),
            &["grids[0], c_out", "not a whole number"],
        ),
        (
            grid("ops: [Conv3x3], resolution: [8], c_in: [3], c_out: [8], stride: [9]"),
            &["Conv3x3:n1-h8-w8-i3-o8-s9", "stride 9 is larger"],
        ),
        (
            grid("ops: [Conv3x3], resolution: [8], c_in: [3], c_out: [8], stride: [1, 0]"),
            &["stride is 0"],
        ),
        (grid("ops: [Conv3x3], resolution: [8], c_in: [x], c_out: [8]"), &["line 3"]),
        (
            grid("ops: [Conv3x3], resolution: [8], c_in: [3], c_out: [8], channels: [3]"),
            &["there is no field `channels`", "line 3"],
        ),
        ("name: mine".to_owned(), &["it has no key: give `grids`, `keys` or `networks`"]),
        ("name: no/path\nnetworks: [resnet18]".to_owned(), &["space name `no/path`"]),
        ("name: ''\nnetworks: [resnet18]".to_owned(), &["space name ``"]),
        ("name: mine\nnetworks: [resnet19]".to_owned(), &["network resnet19", "resnet18"]),
        ("name: mine\nkeys: ['Conv9:n1-h8-w8-i3-o8-s1']".to_owned(), &["keys[0], op Conv9"]),
        ("name: mine\nkeys: ['Conv3x3:n1-h8-w8-i3-o8']".to_owned(), &["`s` is missing", "line 2"]),
        (
            "name: mine\nkeys: ['Add:n1-h8-w8-i3-o8-s1']".to_owned(),
            &["keys[0], Add:n1-h8-w8-i3-o8-s1, node 1"],
        ),
        (
            "name: mine\nops: [{name: Conv3x3, nodes: [apply: relu]}]".to_owned(),
            &["space mine, op Conv3x3", "taken by another definition"],
        ),
        ("grids: []".to_owned(), &["`name` is missing"]),
    ] {
        assert_refused(resolve(&text), parts);
    }
}

#[test]
fn a_space_may_define_ops_and_measure_them() {
    let space = resolve(
        "name: mine
ops:
  - {name: Swish, nodes: [{id: gate, apply: sigmoid}, {inputs: [input, gate], apply: mul}]}
grids:
  - {resolution: [8, 16], c_in: [4], c_out: [c_in]}
keys: ['MBConv6:n1-h8-w8-i8-o8-s1']
",
    );
    let keys: Vec<String> = space.unwrap().entries.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(
        keys,
        ["Swish:n1-h8-w8-i4-o4-s1", "Swish:n1-h16-w16-i4-o4-s1", "MBConv6_3x3:n1-h8-w8-i8-o8-s1"]
    );
}

#[test]
fn networks_with_fields_missing_or_out_of_place() {
    let input = "input: {n: 1, c: 3, h: 32, w: 32}\n";
    let conv = "{op: Conv3x3, c_out: 8, stride: 1}";
    let short = "layers: [Conv3x3]\ninput_resolution: 32\nchannels: [8]\n";
    for (text, parts) in [
        (input.to_owned(), &["layers: is missing", "a sequence", "a graph", "the short form"][..]),
        (format!("layers: [{conv}]"), &["input: is missing"]),
        (format!("{input}layers: []"), &["layers: has 0 entries"]),
        (format!("{input}layers: [{{c_out: 8, stride: 1}}]"), &["layers[0].op: is missing"]),
        (
            format!("{input}layers: [{conv}, {{op: Conv3x3, stride: 1}}]"),
            &["layers[1].c_out: is missing"],
        ),
        (format!("{input}layers: [{{op: Conv3x3, c_out: 8}}]"), &["layers[0].stride: is missing"]),
        (
            format!("{input}layers: [{{op: Conv3x3, c_out: 8, stride: 1, inputs: [-1]}}]"),
            &["layers[0].inputs: does not belong in a sequence"],
        ),
        (
            format!("{input}layers: [{{op: Conv3x3, c_out: 8, stride: 1, merge: add}}]"),
            &["layers[0].merge: does not belong"],
        ),
        (
            format!("{input}layers: [{conv}, Conv3x3]"),
            &["either all names or all have their sizes"],
        ),
        (format!("{input}layers: [{conv}]\noutput: 0"), &["output: does not belong in a sequence"]),
        (format!("{input}layers: [{conv}]\nchannels: [8]"), &["channels: does not belong"]),
        (
            format!("{input}layers: [{conv}]\ninput_resolution: 32"),
            &["input_resolution: does not belong"],
        ),
        (format!("{input}layers: [{conv}]\nnodes: [{conv}]"), &["`layers` or `nodes`, not both"]),
        (
            format!("{input}layers: [{{op: Conv3x3, c_out: 0, stride: 1}}]"),
            &["layers[0]", "channels_out is 0"],
        ),
        (
            format!("{input}layers: [{{op: Conv4x4, c_out: 8, stride: 1}}]"),
            &["layers[0], op Conv4x4", "closest names"],
        ),
        (
            format!("{input}layers: [{{op: Linear, c_out: 8, stride: 1}}]"),
            &["layers[0], Linear:n1-h32-w32-i3-o8-s1, node 0 (linear)"],
        ),
        (
            format!("{input}layers: [{{op: ClassTokenHead, c_out: 8, stride: 1}}]"),
            &[
                "layers[0], ClassTokenHead: takes a sequence [n, tokens, c], but its input is [1, 3, 32, 32]",
            ],
        ),
        (
            format!("name: mine\n{input}layers: [{{op: Conv3x3, c_out: 8}}]"),
            &["network mine, layers[0].stride: is missing"],
        ),
        (
            format!("layers: [{conv}]\ninput: {{n: 1, c: 0, h: 32, w: 32}}"),
            &["input.c: is 0; it lies between 1 and 65536"],
        ),
        (format!("layers: [{conv}]\ninput: {{n: 1, c: 3, h: 32}}"), &["`w` is missing"]),
        (short.replace("channels: [8]\n", ""), &["channels: is missing"]),
        (short.replace("[8]", "[8, 8]"), &["channels: has 2 entries for 1 layers"]),
        (short.replace("input_resolution: 32\n", ""), &["input_resolution: is missing"]),
        (short.replace("32", "0"), &["input_resolution: is 0"]),
        (format!("{input}{short}"), &["input: does not belong in the short form"]),
    ] {
        assert_refused(plan(&text), parts);
    }
}

#[test]
fn graphs_that_do_not_hold_together() {
    let node = |inputs: &str| format!("{{op: Conv3x3, c_out: 8, stride: 1, inputs: {inputs}}}");
    let graph = |nodes: &[String], output: &str| {
        format!("input: {{n: 1, c: 3, h: 8, w: 8}}\nnodes: [{}]\n{output}\n", nodes.join(", "))
    };
    for (text, parts) in [
        (graph(&[node("[-1]")], ""), &["output: is missing"][..]),
        (graph(&[node("[-1]")], "output: 1"), &["output: is 1; nodes are 0 to 0"]),
        (graph(&[node("[-1]")], "output: -1"), &["output: is -1; nodes are 0 to 0"]),
        (graph(&[], "output: 0"), &["nodes: has 0 entries"]),
        (graph(&[node("[]")], "output: 0"), &["nodes[0].inputs: is empty"]),
        (
            graph(&[node("[-2]")], "output: 0"),
            &["nodes[0].inputs: -2 is no node; nodes are 0 to 0, and -1 is the network's input"],
        ),
        (graph(&[node("[0]")], "output: 0"), &["nodes[0].inputs: closes a cycle"]),
        (
            graph(&[node("[1]"), node("[2]"), node("[0]")], "output: 2"),
            &["nodes[", "closes a cycle: node"],
        ),
        (
            graph(&[node("[-1]"), node("[-1]")], "output: 1"),
            &["nodes[0]: does not lead to the output"],
        ),
        (
            graph(&[node("[-1]"), node("[0, -1]")], "output: 1"),
            &["nodes[1], inputs: are added, but differ: [1, 8, 8, 8]"],
        ),
        (
            graph(
                &[
                    node("[-1]"),
                    "{op: MaxPool, c_out: 8, stride: 2, inputs: [0]}".into(),
                    "{op: Conv1x1, c_out: 8, stride: 1, inputs: [0, 1], merge: concat}".into(),
                ],
                "output: 2",
            ),
            &["nodes[2], inputs: its inputs differ in more than channels"],
        ),
        (
            graph(&["{op: Conv3x3, c_out: 8, stride: 1}".into()], "output: 0"),
            &["nodes[0].inputs: is missing"],
        ),
        (
            graph(&[node("[-1]")], "output: 0\nchannels: [8]"),
            &["channels: does not belong in a graph"],
        ),
        (
            graph(&[node("[-1]")], "output: 0\ninput_resolution: 8"),
            &["input_resolution: does not belong in a graph"],
        ),
    ] {
        assert_refused(plan(&text), parts);
    }
}

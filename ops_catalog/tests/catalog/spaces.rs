//! The spaces that are built in.

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use ops_catalog::{Network, NetworkSpec, NodeSpec, OpKey, Space, make_divisible};
use proptest::prelude::*;

use crate::builtin;
use crate::generate::{layer, sequence};

fn space(name: &str) -> Space {
    builtin().space(name).and_then(|def| def.resolve(builtin())).unwrap_or_else(|e| panic!("{e}"))
}

fn keys(name: &str) -> HashSet<OpKey> {
    space(name).entries.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn every_space_has_the_count_that_its_doc_says() {
    for def in builtin().spaces() {
        let words: Vec<&str> = def.doc.split_whitespace().collect();
        let [.., count, "keys."] = words.as_slice() else { panic!("{} says no count", def.name) };
        let resolved = space(&def.name);
        assert_eq!(resolved.entries.len().to_string(), *count, "{}", def.name);
        let distinct: BTreeSet<&OpKey> = resolved.entries.iter().map(|(key, _)| key).collect();
        assert_eq!(distinct.len(), resolved.entries.len(), "{}", def.name);
    }
}

#[test]
fn the_spaces_are_those_of_the_documentation() {
    let names: Vec<&str> = builtin().spaces().map(|def| def.name.as_str()).collect();
    assert_eq!(names, ["canary", "fpn", "mobilenet", "quick", "seed", "transformer"]);
}

#[test]
fn quick_predicts_both_demonstration_networks_and_is_cheap() {
    let quick = keys("quick");
    for name in ["demo_mobile", "demo_conv"] {
        for step in builtin().network(name).unwrap().plan(builtin()).unwrap().steps {
            assert!(quick.contains(&step.key), "{name} needs {}", step.key);
        }
    }
    for (key, op) in space("quick").entries {
        let flops = op.at(&key.shape).unwrap().cost.flops;
        assert!(flops < 25_000_000, "{key} has {flops} multiply-accumulates");
    }
}

#[test]
fn seed_has_the_rows_and_listings_of_the_guide() {
    let seed = keys("seed");
    for key in [
        // The sample table.
        "Conv3x3:n1-h56-w56-i32-o32-s1",
        "Conv3x3:n1-h56-w56-i64-o64-s2",
        "MBConv6_3x3:n1-h56-w56-i32-o32-s1",
        "SelfAttention:n1-h14-w14-i128-o128-s1",
        "AvgPool:n1-h28-w28-i128-o128-s2",
        // The lookup table's listing.
        "Conv1x1:n1-h224-w224-i32-o32-s1",
        "MBConv3_3x3_NoAct:n1-h224-w224-i32-o32-s1",
        // The layer types of the pruner's listing.
        "Conv3x3:n1-h224-w224-i32-o32-s1",
        "Conv5x5:n1-h224-w224-i32-o32-s1",
        "Identity:n1-h224-w224-i32-o32-s1",
        "MaxPool:n1-h224-w224-i32-o32-s2",
        "AvgPool:n1-h224-w224-i32-o32-s2",
        "DepthwiseConv3x3:n1-h224-w224-i32-o32-s1",
        "MBConv3_3x3:n1-h224-w224-i32-o32-s1",
        "MBConv6_3x3:n1-h224-w224-i32-o32-s1",
    ] {
        assert!(seed.contains(&key.parse().unwrap()), "{key}");
    }
}

/// One stage of a search: where it begins, and the choices of its blocks.
type Stage = Vec<(u32, u32, bool)>;

fn stages(count: usize) -> impl Strategy<Value = Vec<Stage>> {
    let block = (prop_oneof![Just(3u32), Just(6)], prop_oneof![Just(3u32), Just(5)], any::<bool>());
    proptest::collection::vec(proptest::collection::vec(block, 1..5), count)
}

/// The blocks of one stage: the first has the stage's stride, the others keep the shape.
fn blocks(stage: &Stage, activation: &str, c_out: u32, stride: u32) -> Vec<NodeSpec> {
    stage
        .iter()
        .enumerate()
        .map(|(index, (expansion, kernel, excite))| {
            let excite = if *excite { "_SE" } else { "" };
            let op = format!("MBConv{expansion}_{kernel}x{kernel}{excite}{activation}");
            layer(&op, c_out, if index == 0 { stride } else { 1 })
        })
        .collect()
}

fn resolution() -> impl Strategy<Value = u32> {
    prop_oneof![Just(128u32), Just(160), Just(192), Just(224)]
}

fn v2(stages: &[Stage]) -> Vec<NodeSpec> {
    let mut nodes = vec![layer("Conv3x3_ReLU6", 32, 2), layer("MBConv1_3x3", 16, 1)];
    let widths = [(24, 2), (32, 2), (64, 2), (96, 1), (160, 2)];
    for (stage, (c, stride)) in stages.iter().zip(widths) {
        nodes.extend(blocks(stage, "", c, stride));
        nodes.push(layer("Identity", c, 1));
    }
    nodes.extend(blocks(&stages[5][..1].to_vec(), "", 320, 1));
    nodes.extend([
        layer("Conv1x1_ReLU6", 1280, 1),
        layer("GlobalAvgPool", 1280, 1),
        layer("Linear", 1000, 1),
    ]);
    nodes
}

fn v3(stages: &[Stage], quarters: u32) -> Vec<NodeSpec> {
    let width = |c: u32| make_divisible(c * quarters / 4, 8);
    let mut nodes =
        vec![layer("Conv3x3_Hardswish", width(16), 2), layer("MBConv1_3x3_ReLU", width(16), 1)];
    let widths = [
        (24, 2, "_ReLU"),
        (40, 2, "_ReLU"),
        (80, 2, "_Hardswish"),
        (112, 1, "_Hardswish"),
        (160, 2, "_Hardswish"),
    ];
    for (stage, (c, stride, activation)) in stages.iter().zip(widths) {
        nodes.extend(blocks(stage, activation, width(c), stride));
        nodes.push(layer("Identity", width(c), 1));
    }
    let last = 6 * width(160);
    nodes.extend([
        layer("Conv1x1_Hardswish", last, 1),
        layer("GlobalAvgPool", last, 1),
        layer("Linear_Hardswish", width(1280), 1),
        layer("Linear", 1000, 1),
    ]);
    nodes
}

/// A pyramid on three levels of a backbone, whose `taps` are given finest first. Each level's
/// convolution is what the next one raises, so that the graph has one output.
fn with_pyramid(nodes: Vec<NodeSpec>, taps: [usize; 3], c: u32) -> Vec<NodeSpec> {
    let mut graph: Vec<NodeSpec> = nodes
        .into_iter()
        .enumerate()
        .map(|(index, node)| NodeSpec { inputs: Some(vec![index as i64 - 1]), ..node })
        .collect();
    graph.truncate(taps[2] + 1);
    let mut add = |op: &str, inputs: Vec<usize>| {
        let inputs = inputs.into_iter().map(|index| index as i64).collect();
        graph.push(NodeSpec { inputs: Some(inputs), ..layer(op, c, 1) });
        graph.len() - 1
    };
    let mut above = add("Conv1x1", vec![taps[2]]);
    for tap in [taps[1], taps[0]] {
        let lateral = add("Conv1x1", vec![tap]);
        let raised = add("Upsample2x", vec![above]);
        above = add("Conv3x3", vec![lateral, raised]);
    }
    graph
}

static MOBILENET: LazyLock<HashSet<OpKey>> = LazyLock::new(|| keys("mobilenet"));

fn uncovered(space: &HashSet<OpKey>, spec: &NetworkSpec) -> Option<OpKey> {
    let plan = Network::new(spec, builtin()).and_then(|network| network.plan(builtin()));
    let plan = plan.unwrap_or_else(|e| panic!("{e}"));
    plan.steps.into_iter().map(|step| step.key).find(|key| !space.contains(key))
}

proptest! {
    #[test]
    fn mobilenet_covers_every_network_of_its_searches(
        stages in stages(6), resolution in resolution(), quarters in 2u32..=4,
    ) {
        let v2 = sequence(resolution, v2(&stages));
        prop_assert_eq!(uncovered(&MOBILENET, &v2), None);
        let v3 = sequence(resolution, v3(&stages[..5], quarters));
        prop_assert_eq!(uncovered(&MOBILENET, &v3), None);
    }

    #[test]
    fn fpn_and_mobilenet_cover_a_pyramid_on_any_width(
        resolution in resolution(), quarters in 2u32..=4, c in prop_oneof![Just(64u32), Just(128)],
    ) {
        let space = MOBILENET.union(&keys("fpn")).cloned().collect();
        let one_block = vec![vec![(3, 3, false)]; 5];
        let backbone = v3(&one_block, quarters);
        // Blocks and identities alternate after the stem and the first block.
        let taps = [5, 9, 11];
        let mut spec = sequence(resolution, vec![]);
        spec.layers = None;
        let nodes = with_pyramid(backbone, taps, c);
        spec.output = Some(nodes.len() as i64 - 1);
        spec.nodes = Some(nodes);
        prop_assert_eq!(uncovered(&space, &spec), None);
    }
}

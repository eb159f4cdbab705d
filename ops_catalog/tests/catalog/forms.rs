//! The three forms of a network, and what does not depend on how one is written.

use std::collections::BTreeMap;

use ops_catalog::{Network, NetworkPlan, NetworkSpec, NodeSpec};
use proptest::prelude::*;

use crate::generate::{self, sequence};
use crate::{assert_refused, builtin};

fn plan(spec: &NetworkSpec) -> NetworkPlan {
    Network::new(spec, builtin())
        .and_then(|network| network.plan(builtin()))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn keys(plan: &NetworkPlan) -> Vec<String> {
    plan.steps.iter().map(|step| step.key.to_string()).collect()
}

/// How often each key occurs, whatever the order.
fn counted(plan: &NetworkPlan) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for key in keys(plan) {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// A sequence as a graph.
fn as_graph(size: u32, layers: Vec<NodeSpec>) -> NetworkSpec {
    let nodes: Vec<NodeSpec> = layers
        .into_iter()
        .enumerate()
        .map(|(index, node)| NodeSpec { inputs: Some(vec![index as i64 - 1]), ..node })
        .collect();
    NetworkSpec {
        layers: None,
        output: Some(nodes.len() as i64 - 1),
        nodes: Some(nodes),
        ..sequence(size, vec![])
    }
}

/// The same graph with its nodes in another order; `order[i]` is where node `i` goes.
fn permuted(spec: &NetworkSpec, order: &[usize]) -> NetworkSpec {
    let nodes = spec.nodes.as_ref().unwrap();
    let moved = |index: i64| usize::try_from(index).map_or(index, |index| order[index] as i64);
    let mut shuffled = vec![NodeSpec::default(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let inputs = node.inputs.as_ref().unwrap().iter().map(|&input| moved(input)).collect();
        shuffled[order[index]] = NodeSpec { inputs: Some(inputs), ..node.clone() };
    }
    NetworkSpec { nodes: Some(shuffled), output: spec.output.map(moved), ..spec.clone() }
}

fn order(count: usize) -> impl Strategy<Value = Vec<usize>> {
    Just((0..count).collect::<Vec<_>>()).prop_shuffle()
}

#[test]
fn three_forms_of_one_network_have_one_plan() {
    let short = NetworkSpec::from_json(
        r#"{"layers": ["Conv3x3", "Identity", "MBConv6", "MaxPool", "Conv5x5"],
            "input_resolution": 224, "channels": [32, 32, 64, 64, 128]}"#,
    );
    let sequence = NetworkSpec::from_yaml(
        "input: {n: 1, c: 3, h: 224, w: 224}
layers:
  - {op: Conv3x3, c_out: 32, stride: 1}
  - {op: Identity, c_out: 32, stride: 1}
  - {op: MBConv6_3x3, c_out: 64, stride: 1}
  - {op: MaxPool, c_out: 64, stride: 2}
  - {op: Conv5x5, c_out: 128, stride: 1}
",
    );
    let graph = NetworkSpec::from_yaml(
        "input: {n: 1, c: 3, h: 224, w: 224}
output: 0
nodes:
  - {op: Conv5x5, c_out: 128, stride: 1, inputs: [1]}
  - {op: MaxPool, c_out: 64, stride: 2, inputs: [2]}
  - {op: MBConv6, c_out: 64, stride: 1, inputs: [3]}
  - {op: Identity, c_out: 32, stride: 1, inputs: [4]}
  - {op: Conv3x3, c_out: 32, stride: 1, inputs: [-1]}
",
    );
    let [short, sequence, graph] = [short, sequence, graph].map(|spec| plan(&spec.unwrap()));
    assert_eq!(
        keys(&short),
        [
            "Conv3x3:n1-h224-w224-i3-o32-s1",
            "Identity:n1-h224-w224-i32-o32-s1",
            "MBConv6_3x3:n1-h224-w224-i32-o64-s1",
            "MaxPool:n1-h224-w224-i64-o64-s2",
            "Conv5x5:n1-h112-w112-i64-o128-s1",
        ]
    );
    assert_eq!(keys(&sequence), keys(&short));
    assert_eq!(keys(&graph), keys(&short));
    assert_eq!((graph.cost, graph.output), (short.cost, short.output));
    assert_eq!((sequence.cost, sequence.output), (short.cost, short.output));
    assert_eq!(graph.steps[0].place, "nodes[4]");
    assert_eq!(sequence.steps[0].place, "layers[0]");
}

/// A residual, two branches, a concatenation, and a sum of three.
fn branched() -> NetworkSpec {
    NetworkSpec::from_yaml(
        "input: {n: 2, c: 3, h: 64, w: 48}
nodes:
  - {op: Conv3x3_ReLU, c_out: 16, stride: 2, inputs: [-1]}
  - {op: Conv3x3, c_out: 16, stride: 1, inputs: [0]}
  - {op: Conv1x1, c_out: 8, stride: 1, inputs: [1, 0]}
  - {op: Conv5x5, c_out: 8, stride: 1, inputs: [1]}
  - {op: Conv1x1, c_out: 16, stride: 1, inputs: [2, 3], merge: concat}
  - {op: MaxPool, c_out: 16, stride: 2, inputs: [4, 0, 1]}
output: 5
",
    )
    .unwrap()
}

#[test]
fn merges_are_rows_of_their_own() {
    let plan = plan(&branched());
    let merges: Vec<String> = plan
        .steps
        .iter()
        .filter(|step| step.merge.is_some())
        .map(|step| format!("{} reads {}", step.key, step.inputs.len()))
        .collect();
    assert_eq!(
        merges,
        [
            "Add:n2-h32-w24-i32-o16-s1 reads 2",
            "Concat:n2-h32-w24-i16-o16-s1 reads 2",
            "Add:n2-h32-w24-i32-o16-s1 reads 2",
            "Add:n2-h32-w24-i32-o16-s1 reads 2",
        ]
    );
    assert_eq!(plan.output.dims(), [2, 16, 16, 12]);
}

#[test]
fn gates_are_rows_of_their_own() {
    let gated = |size: u32| {
        NetworkSpec::from_yaml(&format!(
            "input: {{n: 2, c: 8, h: 9, w: 7}}
nodes:
  - {{op: Conv1x1, c_out: 8, stride: 1, inputs: [-1]}}
  - {{op: Sigmoid, c_out: 8, stride: 1, inputs: [0]}}
  - {{op: Conv3x3, c_out: {size}, stride: 1, inputs: [-1]}}
  - {{op: Identity, c_out: 8, stride: 1, inputs: [1, 2, -1], merge: mul}}
output: 3
"
        ))
        .unwrap()
    };
    assert_eq!(keys(&plan(&gated(8)))[3..5], ["Mul:n2-h9-w7-i16-o8-s1"; 2]);
    let network = Network::new(&gated(4), builtin()).unwrap();
    assert_refused(
        network.plan(builtin()),
        &["nodes[3]", "inputs: are multiplied, but differ: [2, 8, 9, 7]", "[2, 4, 9, 7]"],
    );
}

#[test]
fn sequences_of_tokens_are_merged_as_well() {
    let spec = NetworkSpec::from_yaml(
        "input: {n: 1, c: 3, h: 64, w: 64}
nodes:
  - {op: PatchEmbed, c_out: 64, stride: 16, inputs: [-1]}
  - {op: TransformerEncoder, c_out: 64, stride: 1, inputs: [0]}
  - {op: TransformerEncoder, c_out: 64, stride: 1, inputs: [1, 0, 0]}
  - {op: ClassTokenHead, c_out: 10, stride: 1, inputs: [2, 0], merge: concat}
output: 3
",
    );
    let plan = plan(&spec.unwrap());
    assert_eq!(
        keys(&plan)[2..],
        [
            "Add:n1-h17-w1-i128-o64-s1",
            "Add:n1-h17-w1-i128-o64-s1",
            "TransformerEncoder:n1-h17-w1-i64-o64-s1",
            "Concat:n1-h17-w1-i128-o128-s1",
            "ClassTokenHead:n1-h17-w1-i128-o10-s1",
        ]
    );
}

#[test]
fn a_deep_network_needs_no_deep_stack() {
    let layers = vec![generate::layer("Identity", 3, 1); 10_000];
    let plan = plan(&as_graph(8, layers));
    assert_eq!(plan.steps.len(), 10_000);
}

proptest! {
    #[test]
    fn a_sequence_has_a_step_for_each_layer_and_costs_their_sum(layers in generate::layers()) {
        let count = layers.len();
        let plan = plan(&sequence(64, layers));
        prop_assert_eq!(plan.steps.len(), count);
        let mut sum = ops_catalog::Cost::default();
        for step in &plan.steps {
            sum += step.op.at(&step.key.shape).unwrap().cost;
        }
        prop_assert_eq!(plan.cost, sum);
        for pair in plan.steps.windows(2) {
            prop_assert_eq!(pair[0].plan.output, pair[1].plan.input);
        }
    }

    #[test]
    fn a_sequence_and_its_graph_have_one_plan(layers in generate::layers()) {
        let (a, b) = (plan(&sequence(64, layers.clone())), plan(&as_graph(64, layers)));
        prop_assert_eq!(keys(&a), keys(&b));
        prop_assert_eq!((a.cost, a.output), (b.cost, b.output));
    }

    #[test]
    fn the_order_in_which_nodes_are_written_does_not_matter(order in order(6)) {
        let (a, b) = (plan(&branched()), plan(&permuted(&branched(), &order)));
        prop_assert_eq!(counted(&a), counted(&b));
        prop_assert_eq!((a.cost, a.output), (b.cost, b.output));
    }

    #[test]
    fn a_random_graph_runs_in_order_however_it_is_written(
        (wires, order) in (3usize..20).prop_flat_map(|count| {
            let wires = proptest::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), count);
            (wires, order(count))
        }),
    ) {
        // Every node reads the one before it, so all lead to the output, and one other.
        let nodes: Vec<NodeSpec> = wires
            .iter()
            .enumerate()
            .map(|(index, (other, _, twice))| {
                let mut inputs = vec![index as i64 - 1];
                if *twice {
                    inputs.push(i64::from(*other) % (index as i64 + 1) - 1);
                }
                NodeSpec { inputs: Some(inputs), ..generate::layer("Conv3x3", 3, 1) }
            })
            .collect();
        let spec = NetworkSpec {
            layers: None,
            output: Some(nodes.len() as i64 - 1),
            nodes: Some(nodes),
            ..sequence(16, vec![])
        };
        let (a, b) = (plan(&spec), plan(&permuted(&spec, &order)));
        prop_assert_eq!(counted(&a), counted(&b));
        prop_assert_eq!(a.cost, b.cost);
        for (index, step) in b.steps.iter().enumerate() {
            for input in &step.inputs {
                prop_assert!(*input < ops_catalog::Value::Of(index));
            }
        }
    }

    #[test]
    fn a_specification_survives_json(layers in generate::layers()) {
        for spec in [sequence(64, layers.clone()), as_graph(64, layers)] {
            let text = serde_json::to_string(&spec).unwrap();
            prop_assert_eq!(&NetworkSpec::from_json(&text).unwrap(), &spec);
            prop_assert_eq!(&NetworkSpec::from_yaml(&text).unwrap(), &spec);
        }
    }
}

#[test]
fn the_first_line_tells_one_network_from_many() {
    for (line, one_a_line) in [
        (r#"{"layers": []}"#, true),
        ("  {}", true),
        ("{", false),
        ("{\"layers\": [", false),
        ("input: {n: 1}", false),
        ("{layers: [Conv3x3], input_resolution: 32}", false),
        ("# a comment", false),
        ("[]", false),
        ("", false),
    ] {
        assert_eq!(NetworkSpec::is_one_a_line(line), one_a_line, "{line}");
    }
}

#[test]
fn a_text_holds_one_network_or_one_a_line() {
    let one = r#"{"name": "a", "layers": ["Conv3x3"], "input_resolution": 32, "channels": [8]}"#;
    let spec = NetworkSpec::from_json(one).unwrap();
    let other = NetworkSpec { name: Some("b".to_owned()), ..spec.clone() };
    let second = serde_json::to_string(&other).unwrap();
    let many = NetworkSpec::read_all(&format!("{one}\r\n\n{second}")).unwrap();
    assert_eq!(many, [(Some(1), spec.clone()), (Some(3), other)]);
    let indented = serde_json::to_string_pretty(&spec).unwrap();
    let yaml = "name: a\nlayers: [Conv3x3]\ninput_resolution: 32\nchannels: [8]\n";
    for text in [indented.as_str(), yaml] {
        assert_eq!(NetworkSpec::read_all(text).unwrap(), [(None, spec.clone())]);
    }
    let broken = format!("{one}\n{{\"name\": \"b\", \"layer\": []}}\n");
    assert_refused(
        NetworkSpec::read_all(&broken),
        &["line 2, column 15: there is no field `layer` here; the fields are"],
    );
    assert_refused(
        NetworkSpec::read_all(&format!("{one}\n{{")),
        &["line 2, column 2: it is not JSON"],
    );
    assert_refused(NetworkSpec::read_all(" \n"), &["it is empty"]);
}

use std::collections::HashSet;
use std::fmt::Write as _;

use ops_catalog::{Catalog, Family, Network, NetworkPlan, Op, OpDef, OpPlan, Shape};

use super::*;

fn shape(h: u32, w: u32, channels_in: u32, channels_out: u32, stride: u32) -> Shape {
    Shape { batch: 2, input_h: h, input_w: w, channels_in, channels_out, stride }
}

/// Shapes of which every op of the catalog can take at least one.
fn candidates() -> Vec<Shape> {
    vec![
        shape(16, 16, 64, 64, 1),
        shape(16, 16, 64, 64, 2),
        shape(16, 16, 64, 128, 2),
        shape(16, 16, 80, 112, 1),
        shape(16, 16, 64, 32, 1),
        shape(16, 16, 64, 256, 1),
        shape(1, 1, 64, 10, 1),
        shape(50, 1, 128, 128, 1),
        shape(64, 64, 3, 64, 32),
    ]
}

fn op(nodes: &str, shape: Shape) -> OpPlan {
    let def = OpDef::from_yaml(&format!("{{name: T, nodes: {nodes}}}")).unwrap();
    Op::new(def).unwrap().at(&shape).unwrap()
}

fn plan(name: &str) -> NetworkPlan {
    let catalog = Catalog::builtin();
    catalog.network(name).unwrap().plan(catalog).unwrap()
}

/// Checks that each value is made once, before it is read, and read by something or the output.
fn check(model: &Model) {
    let mut known: HashSet<&str> = HashSet::from([INPUT]);
    for tensor in &model.tensors {
        assert!(known.insert(&tensor.name), "{} is made twice", tensor.name);
    }
    for node in &model.nodes {
        for input in node.inputs.iter().filter(|input| !input.is_empty()) {
            assert!(known.contains(&**input), "{input} is read before it is made");
        }
        for output in &node.outputs {
            assert!(known.insert(output), "{output} is made twice");
        }
    }
    assert!(known.contains(OUTPUT));
    let mut read: HashSet<&str> =
        model.nodes.iter().flat_map(|node| &node.inputs).map(|value| &**value).collect();
    read.extend([INPUT, OUTPUT]);
    for name in known {
        assert!(read.contains(name), "{}: nothing reads {name}", model.name);
    }
}

fn elements(model: &Model) -> u64 {
    model.weights().map(Weight::elements).sum()
}

#[test]
fn every_catalog_op_is_a_graph_with_the_weights_that_the_catalog_counts() {
    for op in Catalog::builtin().ops() {
        for plan in candidates().iter().filter_map(|shape| op.at(shape).ok()) {
            let model = Model::of_op(op.name(), &plan);
            check(&model);
            assert_eq!(elements(&model), plan.cost.weight_elements, "{}", op.name());
            assert_eq!(model.input, plan.input.dims());
            assert_eq!(model.output, plan.output.dims());
        }
    }
}

#[test]
fn networks_are_graphs_whose_weights_begin_with_the_layer() {
    for name in ["mobilenet_v3_large", "vit_b_32", "shufflenet_v2_x1_0", "regnet_y_400mf"] {
        let plan = plan(name);
        let model = Model::of_network(name, &plan);
        check(&model);
        assert_eq!(elements(&model), plan.cost.weight_elements, "{name}");
        for weight in model.weights() {
            let parts: Vec<&str> = weight.name.split('.').collect();
            assert!(["layers", "nodes"].contains(&parts[0]), "{}", weight.name);
            assert!(parts[1].parse::<usize>().is_ok(), "{}", weight.name);
        }
    }
    let catalog = Catalog::builtin();
    for spec in Family::Transformer.draw(3).take(5) {
        let plan = Network::new(&spec, catalog).unwrap().plan(catalog).unwrap();
        check(&Model::of_network("drawn", &plan));
    }
}

/// The graph, a line for each operator.
fn drawn(model: &Model) -> String {
    let mut text = String::new();
    for node in &model.nodes {
        let (outputs, inputs) = (node.outputs.join(", "), node.inputs.join(", "));
        write!(text, "{outputs} = {}({inputs})", node.operator).unwrap();
        for (name, value) in &node.attributes {
            write!(text, " {name}={value:?}").unwrap();
        }
        text.push('\n');
    }
    for tensor in &model.tensors {
        writeln!(text, "{} {:?}", tensor.name, tensor.dims).unwrap();
    }
    text
}

#[test]
fn an_op_is_written_as_exporters_write_it() {
    let plan = op(
        "[{id: expand, apply: {conv2d: {out: 2*c_in, kernel: 1}}}, {apply: relu6},
          {apply: {squeeze_excite: {squeeze: 2, gate: hardsigmoid}}},
          {id: body, apply: {conv2d: {out: c_out, kernel: 3, stride: 2, padding: same}}}, {apply: global_avg_pool},
          {apply: {linear: {out: c_out}}}]",
        shape(6, 6, 4, 4, 1),
    );
    insta::assert_snapshot!(drawn(&Model::of_op("T", &plan)));
}

#[test]
fn an_output_that_no_operator_makes_is_a_copy() {
    for nodes in ["[{apply: identity}]", "[{apply: identity}, {apply: identity}]"] {
        let model = Model::of_op("T", &op(nodes, shape(4, 4, 3, 3, 1)));
        assert_eq!(drawn(&model), "output = Identity(input)\n");
    }
}

#[test]
fn the_name_of_the_output_reaches_all_its_readers() {
    let split = "[{id: a, apply: {split: {parts: 2}}}, {id: b, inputs: [a.0], apply: relu},
                  {inputs: [b, a.1], apply: add}]";
    let model = Model::of_op("T", &op(split, shape(4, 4, 4, 2, 1)));
    check(&model);
    assert_eq!(model.nodes.last().unwrap().outputs, [Value::from(OUTPUT)]);
}

//! Single operators of `aten`, from `x` of `[2, 3]`, or of a value with other dimensions made from it, to `y`.

use latlas_import::graph::{Function, Graph, Operation};
use serde_json::{Value, json};

use crate::archive::{floats, node, read};
use crate::{lines, unsupported};

fn ints(list: &[i64]) -> Value {
    json!({"as_ints": list})
}

fn tensor(name: &str) -> Value {
    json!({"as_tensor": {"name": name}})
}

/// One operator on `x`.
fn one(target: &str, arguments: &[(&str, Value)], dims: &[i64]) -> Graph {
    read(&[node(target, "x", "y", arguments)], &[("y", floats(dims))])
}

fn operations(graph: &Graph) -> Vec<Operation> {
    graph.nodes.iter().map(|node| node.operation.clone()).collect()
}

#[test]
fn arithmetic_with_numbers_has_constants() {
    let graph = one(
        "add.Tensor",
        &[("other", json!({"as_int": 2})), ("alpha", json!({"as_float": 0.5}))],
        &[2, 3],
    );
    assert_eq!(lines(&graph), ["Add [2, 3]"]);
    let added = &graph.values[graph.nodes[0].inputs[1]];
    assert_eq!(added.numbers.as_deref(), Some([1.0].as_slice()));
    // 1 - x
    let graph = one("rsub.Scalar", &[("other", json!({"as_float": 1.0}))], &[2, 3]);
    assert_eq!(graph.nodes[0].inputs[1], graph.inputs[0]);
    let both = [("tensor1", tensor("x")), ("tensor2", tensor("x"))];
    assert_eq!(lines(&one("addcmul.default", &both, &[2, 3])), ["Mul [2, 3]", "Add [2, 3]"]);
}

#[test]
fn activations_have_their_parameters() {
    let function = |target: &str, arguments: &[(&str, Value)]| match operations(&one(
        target,
        arguments,
        &[2, 3],
    ))
    .remove(0)
    {
        Operation::Apply(function) => function,
        other => panic!("{other:?}"),
    };
    assert_eq!(function("hardtanh.default", &[]), Function::Clip { min: -1.0, max: 1.0 });
    assert_eq!(function("clamp.default", &[("min", json!({"as_int": 0}))]), Function::Relu);
    assert_eq!(function("leaky_relu_.default", &[]), Function::LeakyRelu { slope: 0.01 });
    let tanh = [("approximate", json!({"as_string": "tanh"}))];
    assert_eq!(function("gelu.default", &tanh), Function::GeluTanh);
    let scaled = one("elu.default", &[("scale", json!({"as_float": 1.05}))], &[2, 3]);
    assert_eq!(
        unsupported(&scaled),
        ["y (aten.elu.default): its parameters are others than the defaults"]
    );
}

#[test]
fn moves_follow_the_dimensions_of_the_file() {
    let moved = [("source", ints(&[0])), ("destination", ints(&[-1]))];
    assert_eq!(
        operations(&one("movedim.intlist", &moved, &[3, 2])),
        [Operation::Permute { order: vec![1, 0] }]
    );
    assert_eq!(
        operations(&one("roll.default", &[("shifts", ints(&[1])), ("dims", ints(&[-1]))], &[2, 3])),
        [Operation::Roll { shifts: vec![(1, 1)] }]
    );
    let padded = one("constant_pad_nd.default", &[("pad", ints(&[1, 2, 0, 3]))], &[5, 6]);
    assert_eq!(operations(&padded), [Operation::Pad { before: vec![0, 1], after: vec![3, 2] }]);
    assert_eq!(
        lines(&one(
            "select.int",
            &[("dim", json!({"as_int": 1})), ("index", json!({"as_int": -1}))],
            &[2]
        )),
        ["Slice [2, 1]", "Reshape [2]"]
    );
    let ones = [("pad", ints(&[0, 1])), ("value", json!({"as_float": 1.0}))];
    assert_eq!(lines(&one("pad.default", &ones, &[2, 4])), ["Concat [2, 4]"]);
    let strided =
        |stride: &[i64]| one("as_strided.default", &[("stride", ints(stride))], &[2, 1, 3]);
    assert_eq!(lines(&strided(&[3, 9, 1])), ["Reshape [2, 1, 3]"]);
    assert_eq!(
        unsupported(&strided(&[1, 1, 2])),
        [
            "y (aten.as_strided.default): a view by distances in memory, which is not the whole value"
        ]
    );
    let repeated = one("repeat.default", &[("repeats", ints(&[4, 1, 1]))], &[4, 2, 3]);
    assert_eq!(lines(&repeated), ["Reshape [1, 2, 3]", "Expand [4, 2, 3]"]);
}

#[test]
fn several_outputs_are_parts() {
    let mut nodes = [
        node("unbind.int", "x", "a", &[("dim", json!({"as_int": 0}))]),
        node("relu.default", "b", "y", &[]),
    ];
    nodes[0]["outputs"] = json!([{"as_tensors": [{"name": "a"}, {"name": "b"}]}]);
    let graph = read(&nodes, &[("a", floats(&[3])), ("b", floats(&[3])), ("y", floats(&[3]))]);
    assert_eq!(lines(&graph), ["Slice [1, 3]", "Reshape [3]", "Relu [3]"]);
    assert_eq!(graph.nodes[0].operation, Operation::Slice { axis: 0, start: 1, step: 1 });
}

#[test]
fn masks_are_folded() {
    let full = [("size", ints(&[3])), ("fill_value", json!({"as_float": 2.0}))];
    let nodes = [
        node("full.default", "x", "f", &full),
        node("eq.Scalar", "f", "e", &[("other", json!({"as_int": 2}))]),
        node(
            "masked_fill.Scalar",
            "f",
            "m",
            &[("mask", tensor("e")), ("value", json!({"as_float": "-Infinity"}))],
        ),
        node("add.Tensor", "x", "y", &[("other", tensor("m"))]),
    ];
    let boolean = json!({"dtype": 12, "sizes": [{"as_int": 3}]});
    let tensors =
        [("f", floats(&[3])), ("e", boolean), ("m", floats(&[3])), ("y", floats(&[2, 3]))];
    let graph = read(&nodes, &tensors);
    assert_eq!(lines(&graph), ["Add [2, 3]"]);
    let mask = &graph.values[graph.nodes[0].inputs[1]];
    assert_eq!(mask.numbers.as_deref(), Some([f64::NEG_INFINITY; 3].as_slice()));
}

#[test]
fn a_map_without_a_batch_is_told() {
    // PyTorch takes [2, 3, 1] as two channels of a map.
    let pool = node("max_pool2d.default", "m", "y", &[("kernel_size", ints(&[1, 1]))]);
    let view = node("view.default", "x", "m", &[("size", ints(&[2, 3, 1]))]);
    let tensors = [("m", floats(&[2, 3, 1])), ("y", floats(&[2, 3, 1]))];
    assert_eq!(
        crate::refused(&crate::archive::packed(&crate::archive::program(&[view, pool], &tensors))),
        "y (aten.max_pool2d.default): its input [2, 3, 1] has no batch dimension: export the model with one in front, as \
         in [1, 2, 3, 1]"
    );
}

//! Single operators of ONNX.

use latlas_import::graph::{Function, Graph, Operation, Pooling};
use latlas_import::{ReadOptions, read_bytes};

use crate::proto::{
    input, int_attribute, int_input, ints_attribute, list, model, node, output, real,
    text_attribute, value, weight, whole,
};
use crate::{lines, unsupported};

/// The graph of nodes from `x` to `y`.
fn graph(opset: i64, dims: &[i64], parts: &[Vec<u8>]) -> Graph {
    let parts = [&[input("x", dims), output("y")], parts].concat();
    read_bytes(&model(opset, &parts), &ReadOptions::default()).unwrap()
}

fn operations(graph: &Graph) -> Vec<Operation> {
    graph.nodes.iter().map(|node| node.operation.clone()).collect()
}

#[test]
fn automatic_padding_becomes_numbers() {
    let conv = |auto: &str| {
        let attributes = [text_attribute("auto_pad", auto), ints_attribute("strides", &[2, 2])];
        let parts = [weight("w", &[4, 3, 3, 3]), node("Conv", &["x", "w"], &["y"], &attributes)];
        let graph = graph(17, &[1, 3, 8, 9], &parts);
        let Operation::Conv { before, after, .. } = operations(&graph).remove(0) else {
            panic!("no convolution")
        };
        (before, after, graph.values[graph.outputs[0]].dims.clone())
    };
    assert_eq!(conv("SAME_UPPER"), (vec![0, 1], vec![1, 1], vec![1, 4, 4, 5]));
    assert_eq!(conv("SAME_LOWER"), (vec![1, 1], vec![0, 1], vec![1, 4, 4, 5]));
    assert_eq!(conv("VALID"), (vec![0, 0], vec![0, 0], vec![1, 4, 3, 4]));
}

#[test]
fn a_transposed_convolution_may_have_a_wanted_size() {
    let attributes = [ints_attribute("strides", &[2]), ints_attribute("output_shape", &[9])];
    let parts = [weight("w", &[3, 4, 3]), node("ConvTranspose", &["x", "w"], &["y"], &attributes)];
    assert_eq!(lines(&graph(17, &[1, 3, 5], &parts)), ["ConvTranspose [1, 4, 9]"]);
}

#[test]
fn arithmetic_on_shapes_is_folded() {
    // x.view(x.shape[0], -1), as exporters write it.
    let parts = [
        whole("zero", 0),
        list("axes", &[0]),
        list("rest", &[-1]),
        node("Shape", &["x"], &["shape"], &[]),
        node("Gather", &["shape", "zero"], &["n"], &[int_attribute("axis", 0)]),
        node("Unsqueeze", &["n", "axes"], &["n1"], &[]),
        node("Concat", &["n1", "rest"], &["sizes"], &[int_attribute("axis", 0)]),
        node("Reshape", &["x", "sizes"], &["y"], &[]),
    ];
    assert_eq!(lines(&graph(17, &[2, 3, 4], &parts)), ["Reshape [2, 12]"]);
}

#[test]
fn a_product_with_a_constant_matrix_is_linear() {
    let parts = [weight("w", &[4, 6]), node("MatMul", &["x", "w"], &["y"], &[])];
    assert_eq!(
        operations(&graph(17, &[2, 3, 4], &parts)),
        [Operation::Linear { transposed: false }]
    );
    let gemm = node("Gemm", &["x", "w", "b"], &["y"], &[int_attribute("transB", 1)]);
    let parts = [weight("w", &[6, 4]), weight("b", &[6]), gemm];
    assert_eq!(operations(&graph(17, &[2, 4], &parts)), [Operation::Linear { transposed: true }]);
    let parts = [node("MatMul", &["x", "x"], &["y"], &[])];
    assert_eq!(operations(&graph(17, &[2, 3, 3], &parts)), [Operation::MatMul]);
}

#[test]
fn parts_of_a_value_are_slices() {
    let split = node("Split", &["x", "n"], &["a", "b"], &[int_attribute("axis", 1)]);
    let parts = [list("n", &[2, 4]), split, node("Relu", &["b"], &["y"], &[])];
    assert_eq!(lines(&graph(17, &[2, 6], &parts)), ["Slice [2, 4]", "Relu [2, 4]"]);
    let parts = [whole("i", -1), node("Gather", &["x", "i"], &["y"], &[int_attribute("axis", 1)])];
    let last = graph(17, &[2, 6], &parts);
    assert_eq!(operations(&last)[0], Operation::Slice { axis: 1, start: 5, step: 1 });
    assert_eq!(lines(&last), ["Slice [2, 1]", "Reshape [2]"]);
}

#[test]
fn rows_of_a_table_are_an_embedding() {
    let parts = [
        int_input("x", &[1, 7]),
        output("y"),
        weight("table", &[100, 8]),
        node("Gather", &["table", "x"], &["y"], &[]),
    ];
    let graph = read_bytes(&model(17, &parts), &ReadOptions::default()).unwrap();
    assert_eq!(lines(&graph), ["Embedding [1, 7, 8]"]);
}

#[test]
fn blocks_of_channels_are_in_the_order_of_pytorch() {
    let blocks = |operator: &str, dims: &[i64], mode: Option<&str>| {
        let mut attributes = vec![int_attribute("blocksize", 2)];
        attributes.extend(mode.map(|mode| text_attribute("mode", mode)));
        operations(&graph(17, dims, &[node(operator, &["x"], &["y"], &attributes)]))
    };
    let shuffle = Operation::PixelShuffle { block: 2 };
    assert_eq!(blocks("DepthToSpace", &[1, 8, 3, 3], Some("CRD")), std::slice::from_ref(&shuffle));
    assert_eq!(
        blocks("DepthToSpace", &[1, 8, 3, 3], None),
        [Operation::ChannelShuffle { groups: 4 }, shuffle.clone()]
    );
    assert_eq!(blocks("DepthToSpace", &[1, 4, 3, 3], None), [shuffle]);
    assert_eq!(
        blocks("SpaceToDepth", &[1, 3, 4, 4], None),
        [Operation::PixelUnshuffle { block: 2 }, Operation::ChannelShuffle { groups: 3 }]
    );
}

#[test]
fn limits_and_pools_have_their_names() {
    let clip = node("Clip", &["x", "low", "high"], &["y"], &[]);
    let parts = [real("low", 0.0), real("high", 6.0), clip];
    assert_eq!(
        operations(&graph(17, &[2], &parts)),
        [Operation::Apply(Function::Clip { min: 0.0, max: 6.0 })]
    );
    let parts = [node("GlobalAveragePool", &["x"], &["y"], &[])];
    let pooled = graph(17, &[2, 3, 5, 7], &parts);
    assert!(matches!(operations(&pooled)[0], Operation::AdaptivePool(Pooling::Average { .. })));
    assert_eq!(lines(&pooled), ["AdaptivePool [2, 3, 1, 1]"]);
}

#[test]
fn older_opsets_have_lists_as_attributes() {
    let parts = [node("Squeeze", &["x"], &["y"], &[ints_attribute("axes", &[0])])];
    assert_eq!(lines(&graph(11, &[1, 3], &parts)), ["Reshape [3]"]);
    let softmax = [node("Softmax", &["x"], &["y"], &[])];
    assert_eq!(
        unsupported(&graph(11, &[2, 3, 4], &softmax)),
        ["y (Softmax): a softmax over several dimensions: export with opset 13 or newer"]
    );
    assert_eq!(lines(&graph(13, &[2, 3, 4], &softmax)), ["Softmax [2, 3, 4]"]);
}

#[test]
fn unsupported_nodes_of_unknown_size_are_all_reported() {
    // Two of them in branches that meet, and one behind a value whose size the file has.
    let parts = [
        value("d", &[2, 3]),
        node("NonMaxSuppression", &["x"], &["a"], &[]),
        node("Relu", &["a"], &["b"], &[]),
        node("Unique", &["x"], &["c"], &[]),
        node("Add", &["b", "c"], &["d"], &[]),
        node("Det", &["d"], &["y"], &[]),
    ];
    let graph = graph(17, &[2, 3], &parts);
    assert_eq!(
        unsupported(&graph),
        ["a (NonMaxSuppression)", "c (Unique)", "y (Det)"]
            .map(|node| format!("{node}: no operator of this name is read"))
    );
    assert_eq!(
        lines(&graph)[1..4],
        ["Dependent []", "Unsupported []", "Dependent [2, 3]"],
        "what depends on them is not looked at"
    );
}

#[test]
fn after_an_unsupported_node_with_a_known_size_the_graph_goes_on() {
    let parts = [
        value("a", &[2, 4]),
        node("Custom", &["x"], &["a"], &[]),
        node("Relu", &["a"], &["y"], &[]),
    ];
    assert_eq!(lines(&graph(17, &[2, 3], &parts)), ["Unsupported [2, 4]", "Relu [2, 4]"]);
}

#[test]
fn why_something_is_unsupported_says_what_to_do() {
    let why = |operator: &str| {
        let graph = graph(17, &[2, 3], &[node(operator, &["x"], &["y"], &[])]);
        unsupported(&graph).remove(0)
    };
    assert_eq!(
        why("If"),
        "y (If): control flow: what it runs depends on the input; export a model without it"
    );
    for operator in ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "MatMulInteger"] {
        assert_eq!(
            why(operator),
            format!(
                "y ({operator}): a quantized graph: export the model before its quantization; a runtime measures int8"
            )
        );
    }
}

#[test]
fn outputs_that_nobody_reads_are_dropped() {
    let parts = [node("Dropout", &["x"], &["d", "mask"], &[]), node("Relu", &["d"], &["y"], &[])];
    assert_eq!(lines(&graph(17, &[2, 3], &parts)), ["Relu [2, 3]"]);
}

#[test]
fn a_softmax_that_is_safe_for_masked_rows_is_a_softmax() {
    let parts = [
        real("zero", 0.0),
        node("Softmax", &["x"], &["s"], &[]),
        node("IsNaN", &["s"], &["n"], &[]),
        node("Where", &["n", "zero", "s"], &["y"], &[]),
    ];
    assert_eq!(lines(&graph(17, &[2, 3], &parts)), ["Softmax [2, 3]"]);
}

#[test]
fn elements_of_constants_are_gathered() {
    let numbers = |operator: &str, dims: &[i64], positions: &[i64]| {
        let raw: Vec<u8> = positions.iter().flat_map(|n| n.to_le_bytes()).collect();
        let positions = crate::proto::bytes(5, &crate::proto::tensor("p", dims, 7, &raw));
        let gather = node(operator, &["t", "p"], &["g"], &[]);
        let add = node("Add", &["x", "g"], &["y"], &[]);
        let graph = graph(17, &[3], &[list("t", &[5, 6, 7]), positions, gather, add]);
        graph.values[graph.nodes[0].inputs[1]].numbers.as_deref().map(<[f64]>::to_vec)
    };
    assert_eq!(numbers("GatherElements", &[3], &[2, 0, -1]), Some(vec![7.0, 5.0, 7.0]));
    assert_eq!(numbers("GatherND", &[3, 1], &[2, 0, 1]), Some(vec![7.0, 5.0, 6.0]));
}

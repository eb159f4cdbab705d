//! The models of `tests/data`, which PyTorch wrote.

use std::collections::BTreeMap;

use latlas_import::graph::{Graph, Operation};
use latlas_import::{ReadOptions, read};

use crate::{data, fixture, lines, unsupported};

/// How often each kind of work occurs, in words that do not depend on how a format writes it.
fn work(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for node in &graph.nodes {
        let name = match &node.operation {
            Operation::Conv { .. } => "convolution",
            Operation::Linear { .. } => "linear",
            Operation::LayerNorm { .. } => "layer norm",
            Operation::Pool { .. } => "pool",
            Operation::Resize { .. } => "resize",
            Operation::PixelShuffle { .. } => "pixel shuffle",
            Operation::Prelu => "prelu",
            // One product of the scores and one of the values.
            Operation::Attention { .. } => {
                *counts.entry("product").or_default() += 1;
                "product"
            }
            Operation::MatMul => "product",
            _ => continue,
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn output_dims(graph: &Graph) -> Vec<u64> {
    graph.values[graph.outputs[0]].dims.clone()
}

#[test]
fn all_forms_of_a_model_have_the_same_work() {
    let forms: [(&str, &[&str]); 5] = [
        ("cnn", &["pt2", "core.pt2", "old.pt2", "dynamo.onnx", "11.onnx", "17.onnx"]),
        ("mobile", &["pt2", "dynamo.onnx", "17.onnx"]),
        ("transformer", &["pt2", "core.pt2", "dynamo.onnx", "14.onnx", "17.onnx"]),
        ("swin", &["pt2", "dynamo.onnx", "17.onnx"]),
        ("shuffle", &["pt2", "dynamo.onnx", "11.onnx", "20.onnx"]),
    ];
    for (name, suffixes) in forms {
        let first = fixture(&format!("{name}.{}", suffixes[0]));
        for suffix in suffixes {
            let graph = fixture(&format!("{name}.{suffix}"));
            assert_eq!(unsupported(&graph), [""; 0], "{name}.{suffix}");
            let mut expected = work(&first);
            // Before opset 17, a layer norm is written out.
            if suffix == &"14.onnx" {
                expected.remove("layer norm");
            }
            assert_eq!(work(&graph), expected, "{name}.{suffix}");
            assert_eq!(output_dims(&graph), output_dims(&first), "{name}.{suffix}");
        }
    }
}

#[test]
fn a_convolutional_network_is_read_node_by_node() {
    let graph = fixture("cnn.pt2");
    assert_eq!(
        lines(&graph),
        [
            "Conv [1, 8, 16, 16]",
            "BatchNorm [1, 8, 16, 16]",
            "Relu [1, 8, 16, 16]",
            "Pool [1, 8, 8, 8]",
            "Conv [1, 8, 8, 8]",
            "Add [1, 8, 8, 8]",
            "Relu [1, 8, 8, 8]",
            "AdaptivePool [1, 8, 1, 1]",
            "Reshape [1, 8]",
            "Linear [1, 10]",
        ]
    );
    let weight = &graph.values[graph.nodes[0].inputs[1]];
    assert_eq!((weight.name.as_str(), weight.constant), ("stem.0.weight", true));
    let classifier = graph.nodes.last().unwrap();
    assert_eq!(classifier.operation, Operation::Linear { transposed: true });
    assert_eq!(graph.values[classifier.inputs[1]].name, "fc.weight");
    // The second addend is what the pool wrote, and not what was added to.
    assert_eq!(graph.nodes[5].inputs, [graph.nodes[4].output, graph.nodes[3].output]);
}

#[test]
fn core_operators_keep_the_names_of_weights() {
    let graph = fixture("cnn.core.pt2");
    let classifier = graph.nodes.iter().find(|n| matches!(n.operation, Operation::Linear { .. }));
    let classifier = classifier.unwrap();
    assert_eq!(classifier.operation, Operation::Linear { transposed: true });
    assert_eq!(graph.values[classifier.inputs[1]].name, "fc.weight");
}

#[test]
fn masks_and_position_biases_are_constants() {
    for name in ["swin.pt2", "swin.dynamo.onnx", "swin.17.onnx"] {
        let graph = fixture(name);
        let added: Vec<&[u64]> = graph
            .nodes
            .iter()
            .filter(|node| matches!(node.operation, Operation::Binary(_)))
            .flat_map(|node| &node.inputs)
            .filter(|&&id| graph.values[id].constant)
            .map(|&id| graph.values[id].dims.as_slice())
            .collect();
        assert!(added.contains(&[1, 2, 16, 16].as_slice()), "{name}: {added:?}");
        assert!(added.contains(&[4, 1, 16, 16].as_slice()), "{name}: {added:?}");
    }
    let rolls = |node: &latlas_import::graph::Node| match &node.operation {
        Operation::Roll { shifts } => Some(shifts.clone()),
        _ => None,
    };
    let found: Vec<_> = fixture("swin.pt2").nodes.iter().filter_map(rolls).collect();
    assert_eq!(found, [vec![(1, -2), (2, -2)], vec![(1, 2), (2, 2)]]);
}

#[test]
fn open_sizes_of_an_archive_need_a_shape() {
    let path = data("transformer.dynamic.pt2");
    let with =
        |input: Option<&[u64]>| read(&path, &ReadOptions { input: input.map(<[u64]>::to_vec) });
    let message = with(None).unwrap_err().to_string();
    assert!(message.starts_with("the input `x` has the shape [s"), "{message}");
    assert!(
        message.ends_with(", 3, 32, 32]: give a number for each dimension (--input)"),
        "{message}"
    );
    assert_eq!(output_dims(&with(Some(&[3, 3, 32, 32])).unwrap()), [3, 10]);
    let message = with(Some(&[3, 4, 32, 32])).unwrap_err().to_string();
    assert!(message.contains("3, 32, 32], and [3, 4, 32, 32] was given: only what"), "{message}");
    let fixed = ReadOptions { input: Some(vec![1, 3, 64, 64]) };
    let message = read(&data("cnn.pt2"), &fixed).unwrap_err().to_string();
    assert!(message.contains("was exported with the fixed shape ["), "{message}");
}

#[test]
fn a_model_in_training_mode_is_refused() {
    let error = read(&data("cnn.train.pt2"), &ReadOptions::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "batch_norm (aten.batch_norm.default) is in training mode: call model.eval() before the export"
    );
}

#[test]
fn the_newest_operators_are_read() {
    let options = ReadOptions { input: Some(vec![2, 6, 16]) };
    let graph = read(&data("newest.onnx"), &options).unwrap();
    let lines = lines(&graph);
    assert_eq!(lines[0], "RmsNorm [2, 6, 16]");
    assert!(lines.contains(&"Attention [2, 4, 6, 4]".to_owned()), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "Silu [2, 6, 16]");
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let error = read(&data("huh.onnx"), &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with("it cannot be read: "), "{error}");
}

//! Archives that are damaged, that lie, or that contradict themselves.

use latlas_import::{ReadOptions, read_bytes};
use serde_json::{Value, json};

use crate::archive::{archive, floats, named, node, packed, program, read};
use crate::{data, refused, unsupported};

fn problem(nodes: &[Value], tensors: &[(&str, Value)]) -> String {
    refused(&packed(&program(nodes, tensors)))
}

#[test]
fn other_archives_are_no_models() {
    let tail = "write the model with torch.export.save(torch.export.export(model, inputs), FILE)";
    for (entry, what) in [
        ("m/data.pkl", "it has the weights of torch.save, without the graph"),
        ("m/constants.pkl", "it is a TorchScript model"),
        ("m/data/aotinductor/model/a.so", "it is a compiled model"),
        ("notes.txt", "it is a zip archive without models/NAME.json"),
    ] {
        assert_eq!(refused(&archive(&[(entry, b"")])), format!("{what}: {tail}"));
    }
}

#[test]
fn an_archive_cut_anywhere_is_refused_without_a_panic() {
    let whole = std::fs::read(data("cnn.pt2")).unwrap();
    for length in (4..whole.len()).step_by(101) {
        assert!(read_bytes(&whole[..length], &ReadOptions::default()).is_err(), "{length} bytes");
    }
    let message = refused(&whole[..whole.len() / 2]);
    assert!(message.starts_with("the archive: it is cut off or damaged"), "{message}");
    assert!(message.ends_with("export or copy it again"), "{message}");
}

#[test]
fn json_that_is_none_is_told_with_its_place() {
    assert_eq!(
        refused(&archive(&[("m/models/model.json", b"{\"graph_module\": [")])),
        "the entry m/models/model.json: EOF while parsing a list at line 1 column 18"
    );
    let inner = r#"{"nodes":[{"inputs":[{"arg":{"as_graph":{"graph":"#.repeat(10_000);
    let deep = format!(r#"{{"graph_module":{{"graph":{inner}"#);
    let message = refused(&archive(&[("m/models/model.json", deep.as_bytes())]));
    assert!(message.contains("recursion limit exceeded"), "{message}");
}

#[test]
fn an_entry_that_unpacks_to_too_much_is_refused() {
    let bomb = vec![b' '; (256 << 20) + 1];
    assert_eq!(
        refused(&archive(&[("m/models/model.json", &bomb)])),
        "the entry m/models/model.json is too large: at most 256 MiB are read"
    );
    let lists = format!("{{\"graph_module\": [{}]}}", "[],".repeat(6_000_000));
    assert_eq!(
        refused(&archive(&[("m/models/model.json", lists.as_bytes())])),
        "the entry m/models/model.json is too large: at most 10000000 elements are read"
    );
}

#[test]
fn many_tensors_that_nobody_reads_are_harmless() {
    let relu = node("relu.default", "x", "y", &[]);
    let program = program(&[relu], &[("y", floats(&[2, 3]))]).to_string();
    let more: String =
        (0..100_000).map(|i| format!(r#""t{i}": {{"dtype": 7, "sizes": []}},"#)).collect();
    let start = r#""tensor_values":{"#;
    let program = program.replace(start, &format!("{start}{more}"));
    let archive = archive(&[("m/models/model.json", program.as_bytes())]);
    let graph = read_bytes(&archive, &ReadOptions::default()).unwrap();
    assert_eq!(graph.values.len(), 2);
}

#[test]
fn more_nodes_than_are_read_are_refused() {
    let node = r#"{"target": "torch.ops.aten.sym_size.int", "inputs": [], "outputs": []}"#;
    let nodes = format!(r#""nodes":[{}]"#, vec![node; 200_001].join(","));
    let program = program(&[], &[]).to_string().replace(r#""nodes":[]"#, &nodes);
    assert_eq!(
        refused(&archive(&[("m/models/model.json", program.as_bytes())])),
        "the graph is too large: at most 200000 nodes are read"
    );
}

#[test]
fn names_have_to_be_written_once_and_before_they_are_read() {
    let y = ("y", floats(&[2, 3]));
    assert_eq!(
        problem(&[node("relu.default", "huh", "y", &[])], std::slice::from_ref(&y)),
        "y (aten.relu.default): the value `huh` is read, and nothing writes it before"
    );
    let twice = [node("relu.default", "x", "y", &[]), node("tanh.default", "x", "y", &[])];
    assert_eq!(
        problem(&twice, std::slice::from_ref(&y)),
        "y (aten.tanh.default): the value `y` is written twice"
    );
    assert_eq!(problem(&[], &[y]), "the outputs: nothing writes the value `y`");
    assert_eq!(
        problem(&[node("relu.default", "x", "y", &[])], &[]),
        "graph_module.graph.tensor_values: there is nothing about `y`"
    );
}

#[test]
fn sizes_have_to_be_those_that_follow_from_the_inputs() {
    assert_eq!(
        problem(&[node("relu.default", "x", "y", &[])], &[("y", floats(&[3, 2]))]),
        "y (aten.relu.default): it writes [2, 3], and the file says [3, 2]"
    );
    let huge = [("y", floats(&[1 << 60]))];
    let full = node("full.default", "x", "y", &[]);
    assert_eq!(
        problem(&[full], &huge),
        "the tensor `y (aten.full.default)` with the shape [1152921504606846976] is too large: at most 16 dimensions and 2^40 elements are read"
    );
    let argument = node("softmax.int", "x", "y", &[("dim", json!({"as_string": "last"}))]);
    assert_eq!(
        problem(&[argument], &[("y", floats(&[2, 3]))]),
        "y (aten.softmax.int): its argument `dim` should be a whole number"
    );
}

#[test]
fn newer_versions_are_refused() {
    let mut program = program(&[node("relu.default", "x", "y", &[])], &[("y", floats(&[2, 3]))]);
    program["schema_version"]["major"] = json!(9);
    assert_eq!(
        refused(&packed(&program)),
        "it has version 9 of the format of torch.export, and versions up to 8 are read: write it with an older torch"
    );
}

#[test]
fn a_graph_of_training_is_refused() {
    let dropout = node(
        "dropout.default",
        "x",
        "y",
        &[("p", json!({"as_float": 0.5})), ("train", json!({"as_bool": true}))],
    );
    assert_eq!(
        problem(&[dropout], &[("y", floats(&[2, 3]))]),
        "y (aten.dropout.default) is in training mode: call model.eval() before the export"
    );
}

#[test]
fn what_is_changed_in_place_is_read_as_changed() {
    let tensors = [("a", floats(&[2, 3])), ("y", floats(&[2, 3]))];
    // x.relu_(); y = x.tanh()
    let direct = read(
        &[node("relu_.default", "x", "a", &[]), node("tanh.default", "x", "y", &[])],
        &tensors,
    );
    assert_eq!(crate::lines(&direct), ["Relu [2, 3]", "Tanh [2, 3]"]);
    assert_eq!(direct.nodes[1].inputs, [direct.nodes[0].output]);
}

#[test]
fn what_is_changed_through_another_view_is_not_supported() {
    let tensors = [("a", floats(&[3, 2])), ("b", floats(&[3, 2])), ("y", floats(&[2, 3]))];
    let view = node("view.default", "x", "a", &[("size", json!({"as_ints": [3, 2]}))]);
    let nodes = [view, node("relu_.default", "a", "b", &[]), node("tanh.default", "x", "y", &[])];
    assert_eq!(
        unsupported(&read(&nodes, &tensors)),
        [
            "y (aten.tanh.default): `x` was changed in place through another view of its memory: export a model without such assignments"
        ]
    );
}

/// Swin V2 has zeros in a part of its biases.
#[test]
fn a_constant_of_which_a_slice_is_changed_in_place_is_known() {
    let ones = node("full.default", "x", "c", &[("fill_value", json!({"as_float": 1.0}))]);
    let range = [("start", json!({"as_int": 1})), ("end", json!({"as_int": 2}))];
    let nodes = [
        ones,
        node("slice.Tensor", "c", "s", &range),
        node("zero_.default", "s", "z", &[]),
        node("add.Tensor", "x", "y", &[("other", named("c"))]),
    ];
    let tensors =
        [("c", floats(&[3])), ("s", floats(&[1])), ("z", floats(&[1])), ("y", floats(&[2, 3]))];
    let graph = read(&nodes, &tensors);
    let added = &graph.values[graph.nodes[0].inputs[1]];
    assert_eq!(added.numbers.as_deref(), Some([1.0, 0.0, 1.0].as_slice()));
}

#[test]
fn why_something_is_unsupported_says_what_to_do() {
    let why = |target: &str| {
        let mut nodes = [node("x", "x", "y", &[])];
        nodes[0]["target"] = json!(format!("torch.ops.{target}"));
        unsupported(&read(&nodes, &[("y", floats(&[2, 3]))])).remove(0)
    };
    assert_eq!(
        why("higher_order.cond"),
        "y (higher_order.cond): control flow: what it runs depends on the input; export a model without it"
    );
    assert_eq!(
        why("quantized_decomposed.quantize_per_tensor.default"),
        "y (quantized_decomposed.quantize_per_tensor.default): a quantized graph: export the model before its quantization; a runtime measures int8"
    );
    assert_eq!(why("aten.huh.default"), "y (aten.huh.default): no operator of this name is read");
    assert_eq!(
        why("torchvision.nms.default"),
        "y (torchvision.nms.default): it is an operator of `torchvision`, and those of `aten` are read"
    );
}

//! Files that are damaged, that lie, or that contradict themselves, as ONNX.

use latlas_import::{ReadOptions, read_bytes};

use crate::proto::{
    bytes, input, int, int_attribute, ints_attribute, list, model, node, output, tensor, text,
    weight, whole,
};
use crate::{data, fixture, refused};

/// The error of a model of opset 17 with an input `x`.
fn problem(parts: &[Vec<u8>]) -> String {
    refused(&model(17, &[&[input("x", &[1, 3])], parts].concat()))
}

#[test]
fn other_files_are_no_models() {
    let other = "it is neither a model in ONNX nor the .pt2 that torch.export.save writes: write the model with \
                 torch.export.save(torch.export.export(model, inputs), FILE)";
    for bytes in [&[0xff; 64][..], &[0; 64], b"\x01\x02\x03"] {
        assert_eq!(refused(bytes), other);
    }
    assert!(refused(b"").starts_with("it is empty"));
    assert!(refused(b"\x1f\x8b\x08\0").contains("`gunzip FILE`"));
    assert!(refused(b"{\"layers\": []}").starts_with("it is a text"));
}

#[test]
fn a_file_cut_anywhere_is_refused_without_a_panic() {
    let whole = std::fs::read(data("cnn.17.onnx")).unwrap();
    for length in (0..whole.len()).step_by(7) {
        // A model that ends between two fields of the whole file has no opset, so none is complete.
        assert!(read_bytes(&whole[..length], &ReadOptions::default()).is_err(), "{length} bytes");
    }
    let message = refused(&whole[..100]);
    assert!(message.contains("the file is cut off or damaged, for a field of"), "{message}");
    assert!(message.ends_with("export or copy it again"), "{message}");
}

#[test]
fn a_cycle_is_told() {
    let parts =
        [node("Add", &["x", "b"], &["a"], &[]), node("Relu", &["a"], &["b"], &[]), output("b")];
    assert_eq!(
        problem(&parts),
        "a (Add): the value `b` is only written after it is read: the graph has a cycle, or its nodes are out of order"
    );
}

#[test]
fn names_have_to_be_written_once() {
    assert_eq!(
        problem(&[node("Relu", &["huh"], &["y"], &[]), output("y")]),
        "y (Relu): the value `huh` is read, and nothing writes it"
    );
    assert_eq!(problem(&[output("y")]), "the graph: nothing writes the output `y`");
    let twice = [node("Relu", &["x"], &["y"], &[]), node("Tanh", &["x"], &["y"], &[]), output("y")];
    assert_eq!(problem(&twice), "y (Tanh): the value `y` is written twice");
}

#[test]
fn sizes_are_bounded() {
    let parts = [weight("w", &[1 << 60]), node("Add", &["x", "w"], &["y"], &[]), output("y")];
    assert_eq!(
        problem(&parts),
        "the tensor `w` with the shape [1152921504606846976] is too large: at most 16 dimensions and 2^40 elements are read"
    );
    let negative = [weight("w", &[-4])];
    assert_eq!(problem(&negative), "the tensor `w`: a dimension of [-4] is negative");
    let expanded =
        [list("s", &[1 << 40, 3]), node("Expand", &["x", "s"], &["y"], &[]), output("y")];
    assert_eq!(
        problem(&expanded),
        "the tensor `y` with the shape [1099511627776, 3] is too large: at most 16 dimensions and 2^40 elements are read"
    );
    let range = [
        whole("a", 0),
        whole("b", i64::MAX),
        whole("c", 1),
        node("Range", &["a", "b", "c"], &["y"], &[]),
        output("y"),
    ];
    assert!(problem(&range).ends_with("at most 16 dimensions and 2^40 elements are read"));
}

#[test]
fn shapes_that_do_not_fit_are_told_with_their_node() {
    let parts = [
        weight("w", &[4, 5, 3, 3]),
        node("Reshape", &["x", "s"], &["m"], &[]),
        list("s", &[1, 3, 1, 1]),
        node("Conv", &["m", "w"], &["y"], &[]),
        output("y"),
    ];
    assert_eq!(
        problem(&parts),
        "y (Conv): a weight of [4, 5, 3, 3] in 1 groups does not fit 3 channels"
    );
    let unbatched =
        [weight("w", &[4, 3, 1, 1]), node("Conv", &["m", "w"], &["y"], &[]), output("y")];
    let maps = [node("Reshape", &["x", "s"], &["m"], &[]), list("s", &[3, 1, 1])];
    assert_eq!(
        problem(&[&maps[..], &unbatched].concat()),
        "y (Conv): its input [3, 1, 1] has no batch dimension: export the model with one in front, as in [1, 3, 1, 1]"
    );
    let pool =
        [node("MaxPool", &["m"], &["y"], &[ints_attribute("kernel_shape", &[1, 1])]), output("y")];
    let said = problem(&[&maps[..], &pool].concat());
    assert!(said.starts_with("y (MaxPool): its input [3, 1, 1] has no batch dimension"), "{said}");
    let attribute = [node("Softmax", &["x"], &["y"], &[int_attribute("axis", 7)]), output("y")];
    assert_eq!(problem(&attribute), "y (Softmax): there is no dimension 7 of 2");
    let missing = [node("MatMul", &["x"], &["y"], &[]), output("y")];
    assert_eq!(problem(&missing), "y (MatMul): its input 1 is missing");
}

#[test]
fn data_outside_the_folder_are_not_read() {
    let entry = |key: &str, value: &str| bytes(13, &[text(1, key), text(2, value)].concat());
    for path in ["../x", "/etc/passwd"] {
        let outside = [tensor("w", &[3], 1, &[]), entry("location", path), int(14, 1)].concat();
        assert_eq!(
            problem(&[bytes(5, &outside)]),
            format!(
                "the tensor `w` names the file `{path}` for its data: only files in the folder of the model are read"
            )
        );
    }
}

#[test]
fn opsets_of_the_past_and_of_the_future_are_refused() {
    for opset in [10, 29] {
        assert_eq!(
            refused(&model(opset, &[])),
            format!(
                "it uses opset {opset} of ONNX, and opsets 11 to 28 are read: export it with one of them"
            )
        );
    }
    let graph = bytes(7, &[]);
    assert_eq!(
        refused(&[int(1, 8), graph].concat()),
        "the model: it does not say which opset of ONNX it uses; a file that was cut off can lack it"
    );
}

#[test]
fn functions_that_call_themselves_end() {
    let call = [text(1, "x"), text(2, "y"), text(4, "F"), text(7, "own")].concat();
    let function =
        [text(1, "F"), text(4, "x"), text(5, "y"), bytes(7, &call), text(10, "own")].concat();
    let graph = [input("x", &[1]), bytes(1, &call), output("y")].concat();
    let model = [
        int(1, 8),
        bytes(7, &graph),
        bytes(8, &[text(1, ""), int(2, 17)].concat()),
        bytes(25, &function),
    ];
    assert_eq!(
        refused(&model.concat()),
        "the depth of functions is too large: at most 16 calls of functions inside one another are read"
    );
}

#[test]
fn deep_messages_are_passed_over() {
    // A graph in an attribute in a graph, a thousand times.
    let mut nested = Vec::new();
    for _ in 0..1000 {
        let attribute = bytes(5, &[text(1, "body"), bytes(6, &nested), int(20, 5)].concat());
        nested = bytes(1, &[text(4, "Loop"), attribute].concat());
    }
    let parts = [input("x", &[1]), nested, output("x")];
    let graph = read_bytes(&model(17, &parts), &ReadOptions::default()).unwrap();
    assert!(graph.nodes.is_empty());
}

#[test]
fn open_dimensions_need_a_shape() {
    let path = data("cnn.dynamic.onnx");
    let refused = |input: Option<&[u64]>| {
        let options = ReadOptions { input: input.map(<[u64]>::to_vec) };
        latlas_import::read(&path, &options).unwrap_err().to_string()
    };
    assert_eq!(
        refused(None),
        "the input `x` has the shape [n, 3, h, 32]: give a number for each dimension (--input)"
    );
    assert_eq!(
        refused(Some(&[1, 4, 32, 32])),
        "--input: the input `x` has the shape [n, 3, h, 32], and [1, 4, 32, 32] was given: only what is no number there \
         can be chosen"
    );
    let fixed = ReadOptions { input: Some(vec![1, 3, 64, 64]) };
    assert_eq!(
        latlas_import::read(&data("cnn.17.onnx"), &fixed).unwrap_err().to_string(),
        "--input: the input `input.1` was exported with the fixed shape [1, 3, 32, 32], and [1, 3, 64, 64] was given: leave it \
         out, or export the model with an input of that shape"
    );
    let options = ReadOptions { input: Some(vec![5, 3, 48, 32]) };
    let graph = latlas_import::read(&path, &options).unwrap();
    assert_eq!(graph.values[graph.outputs[0]].dims, [5, 10]);
    assert_eq!(fixture("cnn.17.onnx").nodes.len(), graph.nodes.len());
}

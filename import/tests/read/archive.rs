//! Archives of `torch.export`, written by hand.

use std::io::{Cursor, Write};

use latlas_import::{ReadOptions, read_bytes};
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// An archive with these entries.
pub(crate) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(1));
    for (name, content) in entries {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The type of a tensor of floats.
pub(crate) fn floats(sizes: &[i64]) -> Value {
    let sizes: Vec<Value> = sizes.iter().map(|size| json!({"as_int": size})).collect();
    json!({"dtype": 7, "sizes": sizes})
}

/// A tensor as an argument.
pub(crate) fn named(name: &str) -> Value {
    json!({"as_tensor": {"name": name}})
}

/// A node that reads `self` and further arguments.
pub(crate) fn node(target: &str, input: &str, output: &str, arguments: &[(&str, Value)]) -> Value {
    let mut inputs = vec![json!({"name": "self", "arg": named(input)})];
    inputs.extend(arguments.iter().map(|(name, arg)| json!({"name": name, "arg": arg})));
    json!({"target": format!("torch.ops.aten.{target}"), "inputs": inputs, "outputs": [named(output)],
        "metadata": {}})
}

/// A program from `x`, of `[2, 3]`, to `y`.
pub(crate) fn program(nodes: &[Value], tensors: &[(&str, Value)]) -> Value {
    let mut values = serde_json::Map::new();
    values.insert("x".to_owned(), floats(&[2, 3]));
    values.extend(tensors.iter().map(|(name, meta)| ((*name).to_owned(), meta.clone())));
    json!({
        "graph_module": {
            "graph": {"inputs": [named("x")], "outputs": [named("y")], "nodes": nodes,
                "tensor_values": values, "sym_int_values": {}},
            "signature": {
                "input_specs": [{"user_input": {"arg": named("x")}}],
                "output_specs": [{"user_output": {"arg": named("y")}}]
            }
        },
        "schema_version": {"major": 8, "minor": 1}
    })
}

/// The archive of a program.
pub(crate) fn packed(program: &Value) -> Vec<u8> {
    archive(&[("m/models/model.json", program.to_string().as_bytes())])
}

/// The graph of such a program.
pub(crate) fn read(nodes: &[Value], tensors: &[(&str, Value)]) -> latlas_import::graph::Graph {
    read_bytes(&packed(&program(nodes, tensors)), &ReadOptions::default()).unwrap()
}

//! Models in both formats, and files that are none. `tests/make.py` writes those of `tests/data`.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod archive;
mod aten;
mod fixtures;
mod hostile_archives;
mod hostile_onnx;
mod operators;
mod proto;

use std::path::PathBuf;

use latlas_import::graph::{Graph, Node, Operation};
use latlas_import::{ImportError, ReadOptions, read, read_bytes};

/// A model of `tests/data`.
fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Reads a model of `tests/data`.
fn fixture(name: &str) -> Graph {
    read(&data(name), &ReadOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The error of a file in memory.
fn refused(bytes: &[u8]) -> String {
    let error: ImportError = read_bytes(bytes, &ReadOptions::default()).unwrap_err();
    error.to_string()
}

/// An operation by its name, with the dimensions that it writes.
fn line(graph: &Graph, node: &Node) -> String {
    let name = match &node.operation {
        Operation::Apply(function) => format!("{function:?}"),
        Operation::Binary(function) => format!("{function:?}"),
        other => format!("{other:?}"),
    };
    let end = name.find([' ', '{', '(']).unwrap_or(name.len());
    format!("{} {:?}", &name[..end], graph.values[node.output].dims)
}

/// All operations of a graph.
fn lines(graph: &Graph) -> Vec<String> {
    graph.nodes.iter().map(|node| line(graph, node)).collect()
}

/// What is unsupported, with its place and why.
fn unsupported(graph: &Graph) -> Vec<String> {
    let why = |node: &Node| match &node.operation {
        Operation::Unsupported { why } => {
            Some(format!("{} ({}): {why}", node.place, node.operator))
        }
        _ => None,
    };
    graph.nodes.iter().filter_map(why).collect()
}

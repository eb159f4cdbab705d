//! The rules of the catalog, told through its public interface, and the data that is built in.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod arch_spaces;
mod canonical;
mod digests;
mod documentation;
mod draw;
mod forms;
mod generate;
mod hostile;
mod laws;
mod networks;
mod ops;
mod people;
mod refused_networks;
mod refused_ops;
mod spaces;

use ops_catalog::{Catalog, Invalid, Op, OpDef, Shape, Space, SpaceDef};

fn builtin() -> &'static Catalog {
    Catalog::builtin()
}

/// A square map at batch 1.
fn map(size: u32, c_in: u32, c_out: u32, stride: u32) -> Shape {
    Shape { batch: 1, input_h: size, input_w: size, channels_in: c_in, channels_out: c_out, stride }
}

/// An op named `Test` from the flow form of its nodes.
fn op(nodes: &str) -> Op {
    try_op(&format!("name: Test\nnodes: {nodes}")).unwrap_or_else(|e| panic!("{nodes}: {e}"))
}

fn try_op(yaml: &str) -> Result<Op, Invalid> {
    OpDef::from_yaml(yaml).and_then(Op::new)
}

fn resolve(yaml: &str) -> Result<Space, Invalid> {
    SpaceDef::from_yaml(yaml)?.resolve(builtin())
}

/// Asserts that something was refused, with a message that has all of the parts.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Invalid>, parts: &[&str]) {
    let message = result.expect_err("it should have been refused").to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(!message.contains('\n'), "a message is one line: {message}");
    assert!(message.len() < 1500, "a message is short: {message}");
}

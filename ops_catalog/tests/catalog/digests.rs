//! The digest changes with what an op computes, and with nothing else.

use std::collections::HashMap;

use ops_catalog::{Op, OpDef};
use proptest::prelude::*;

use crate::{builtin, generate, op, try_op};

const BASE: &str = "\
name: Base
nodes:
  - {id: parts, apply: {split: {parts: 2}}}
  - {inputs: [parts.0], apply: {conv2d: {out: c_in/2, kernel: 3, stride: stride}}}
  - {id: left, apply: {squeeze_excite: {squeeze: c_in/4}}}
  - {id: right, inputs: [parts.1], apply: {max_pool: {kernel: 3, stride: stride}}}
  - {id: body, inputs: [left, right], apply: concat}
  - {apply: add, inputs: [body, input], when: keeps_shape}
";

fn digest(yaml: &str) -> String {
    try_op(yaml).unwrap_or_else(|e| panic!("{e}: {yaml}")).digest().to_string()
}

/// The base definition with one text replaced.
fn edited(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "{from}");
    BASE.replace(from, to)
}

#[test]
fn names_and_prose_do_not_change_it() {
    for (from, to) in [
        ("name: Base", "name: Other"),
        ("name: Base", "name: Base\ndoc: What it is."),
        ("name: Base", "name: Base\naliases: [Foundation]"),
        ("name: Base", "name: Base\nusual_stride: 2"),
        ("name: Base", "name: Base\ninput: map"),
        ("left", "l"),
        ("body", "BODY"),
    ] {
        assert_eq!(digest(&edited(from, to)), digest(BASE), "{from} -> {to}");
    }
}

#[test]
fn what_is_spelled_out_does_not_change_it() {
    for (from, to) in [
        (
            "stride: stride}}}\n  - {id: left",
            "stride: stride, groups: 1, dilation: 1, bias: true}}}\n  - {id: left",
        ),
        ("squeeze: c_in/4", "squeeze: c_in/4, divisor: 1, activation: relu, gate: sigmoid"),
        ("squeeze: c_in/4", "squeeze: 0.25*c_in"),
        ("kernel: 3", "kernel: '3'"),
        (
            "kernel: 3, stride: stride}}}\n  - {id: left",
            "kernel: [3, 3], stride: [stride, stride]}}}\n  - {id: left",
        ),
        ("max_pool: {", "max_pool: {ceil_mode: false, dilation: 1, "),
        ("{id: left, apply", "{id: left, inputs: [conv], apply"),
    ] {
        let text =
            edited(from, to).replace("- {inputs: [parts.0]", "- {id: conv, inputs: [parts.0]");
        assert_eq!(digest(&text), digest(BASE), "{from} -> {to}");
    }
}

#[test]
fn every_parameter_wire_and_condition_changes_it() {
    let mut seen = HashMap::from([(digest(BASE), "the base".to_owned())]);
    for (from, to) in [
        ("name: Base", "name: Base\ninput: tokens"),
        ("split: {parts: 2}", "split: {parts: 4}"),
        ("out: c_in/2", "out: c_out/2"),
        ("out: c_in/2", "out: c_in/4"),
        ("out: c_in/2", "out: 16"),
        (
            "conv2d: {out: c_in/2, kernel: 3, stride: stride",
            "conv2d: {out: c_in/2, kernel: 5, stride: stride",
        ),
        (
            "conv2d: {out: c_in/2, kernel: 3, stride: stride",
            "conv2d: {out: c_in/2, kernel: 3, stride: 1",
        ),
        ("conv2d: {", "conv2d: {groups: 2, "),
        ("conv2d: {", "conv2d: {groups: c_in, "),
        ("conv2d: {", "conv2d: {dilation: 2, "),
        ("conv2d: {", "conv2d: {padding: 0, "),
        ("conv2d: {", "conv2d: {bias: false, "),
        ("squeeze: c_in/4", "squeeze: c_in/8"),
        ("squeeze: c_in/4", "squeeze: c_in/4, divisor: 8"),
        ("squeeze: c_in/4", "squeeze: c_in/4, activation: silu"),
        ("squeeze: c_in/4", "squeeze: c_in/4, gate: hardsigmoid"),
        (
            "conv2d: {out: c_in/2, kernel: 3, stride: stride",
            "conv2d: {out: c_in/2, kernel: [3, 5], stride: stride",
        ),
        (
            "conv2d: {out: c_in/2, kernel: 3, stride: stride",
            "conv2d: {out: c_in/2, kernel: [5, 3], stride: stride",
        ),
        (
            "conv2d: {out: c_in/2, kernel: 3, stride: stride",
            "conv2d: {out: c_in/2, kernel: 3, stride: [stride, 1]",
        ),
        ("conv2d: {", "conv2d: {dilation: [1, 2], "),
        ("conv2d: {", "conv2d: {padding: same, "),
        ("conv2d: {", "conv2d: {padding: [0, 1], "),
        ("conv2d: {", "conv2d: {padding: [0, 1, 0, 1], "),
        ("max_pool: {", "max_pool: {ceil_mode: true, "),
        ("max_pool: {", "max_pool: {dilation: 2, "),
        ("max_pool: {", "avg_pool: {count_include_pad: false, "),
        ("max_pool", "avg_pool"),
        ("max_pool: {kernel: 3", "max_pool: {kernel: 2"),
        ("max_pool: {", "max_pool: {padding: 1, "),
        ("inputs: [parts.1]", "inputs: [parts.0]"),
        ("inputs: [left, right]", "inputs: [right, left]"),
        ("inputs: [left, right]", "inputs: [left, right, right]"),
        ("inputs: [body, input]", "inputs: [input, body]"),
        ("apply: add", "apply: mul"),
        ("when: keeps_shape", "when: changes_shape"),
        (", when: keeps_shape", ""),
        (
            "{apply: add, inputs: [body, input], when: keeps_shape}",
            "{apply: add, inputs: [body, input], when: keeps_shape}\n  - apply: relu",
        ),
    ] {
        let text = edited(from, to);
        let label = format!("{from} -> {to}");
        if let Some(other) = seen.insert(digest(&text), label.clone()) {
            panic!("`{label}` has the digest of `{other}`");
        }
    }
}

#[test]
fn the_order_of_nodes_changes_it() {
    let one = op(
        "[{id: a, apply: relu}, {id: b, inputs: [input], apply: silu}, {inputs: [a, b], apply: add}]",
    );
    let two = op(
        "[{id: b, apply: silu}, {id: a, inputs: [input], apply: relu}, {inputs: [a, b], apply: add}]",
    );
    assert_ne!(one.digest(), two.digest());
}

/// Measurements refer to ops by digest for ever: a change here makes every stored row an orphan.
#[test]
fn digests_of_the_builtin_ops_are_pinned() {
    let lines: Vec<String> =
        builtin().ops().map(|op| format!("{} {}", op.digest(), op.name())).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn different_builtin_ops_have_different_digests() {
    let mut seen = HashMap::new();
    for op in builtin().ops() {
        if let Some(other) = seen.insert(op.digest(), op.name()) {
            panic!("{} and {other} compute the same", op.name());
        }
    }
}

/// The form in which definitions travel and are stored.
#[test]
fn the_json_form_of_an_op_is_pinned() {
    let op = builtin().op("MBConv3_5x5_SE_ReLU").unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(op.def()).unwrap());
}

#[test]
fn every_builtin_op_survives_json_and_yaml() {
    for op in builtin().ops() {
        let json = serde_json::to_string(op.def()).unwrap();
        let back: OpDef = serde_json::from_str(&json).unwrap();
        assert_eq!(&back, op.def());
        assert_eq!(OpDef::from_yaml(&json).unwrap(), back);
        assert_eq!(Op::new(back).unwrap().digest(), op.digest());
    }
}

proptest! {
    #[test]
    fn renaming_everything_leaves_it(def in generate::chain(), salt in "[a-z]{1,8}") {
        let mut renamed = def.clone();
        renamed.name = format!("{}_{salt}", def.name);
        renamed.doc = format!("Renamed to {salt}.");
        for (index, node) in renamed.nodes.iter_mut().enumerate() {
            node.id = Some(format!("{salt}{index}"));
        }
        let (op, renamed) = (Op::new(def).unwrap(), Op::new(renamed).unwrap());
        prop_assert_eq!(op.digest(), renamed.digest());
    }

    #[test]
    fn equal_digests_mean_equal_graphs(a in generate::chain(), b in generate::chain()) {
        let same = a.nodes.iter().map(|n| (&n.apply, n.when)).eq(b.nodes.iter().map(|n| (&n.apply, n.when)));
        let (a, b) = (Op::new(a).unwrap(), Op::new(b).unwrap());
        prop_assert_eq!(a.digest() == b.digest(), same);
    }
}

//! `latlas ops export` and `latlas networks export`, as users meet them. What the files compute is compared with
//! libtorch by `scripts/check_onnx.py`.

use std::fs;

use latlas_export::{Model, Random, Weight, Weights};
use ops_catalog::{Catalog, OpKey};

use crate::common::{Desk, SMALL};

const KEY: &str = "MBConv3_3x3:n1-h8-w8-i4-o4-s1";

fn model() -> Model {
    let key: OpKey = KEY.parse().unwrap();
    Model::of_op(KEY, &Catalog::builtin().op(&key.op).unwrap().at(&key.shape).unwrap())
}

/// The file of the op with the weights of a seed.
fn file(seed: u64) -> Vec<u8> {
    let mut file = vec![];
    model().write(&Random::seeded(seed), &mut file).unwrap();
    file
}

/// A safetensors file of these weights.
fn safetensors<'a>(weights: impl Iterator<Item = &'a Weight>) -> Vec<u8> {
    let (mut header, mut values) = (serde_json::Map::new(), vec![]);
    for weight in weights {
        let start = values.len();
        let made = Random::seeded(7).get(weight).unwrap();
        values.extend(made.iter().flat_map(|value| value.to_le_bytes()));
        let entry = serde_json::json!({
            "dtype": "F32", "shape": weight.dims, "data_offsets": [start, values.len()]
        });
        header.insert(weight.name.clone(), entry);
    }
    let header = serde_json::to_string(&header).unwrap();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &values].concat()
}

#[test]
fn an_op_is_written_with_random_weights() {
    let desk = Desk::new();
    let ran = desk.run(&format!("ops export --key {KEY} -o op.onnx"));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.report());
    let said = "wrote op.onnx: 6 operators, ";
    assert!(ran.stderr.starts_with(said), "{}", ran.stderr);
    assert!(ran.stderr.ends_with(", ONNX opset 17, random weights of seed 0\n"), "{}", ran.stderr);
    assert_eq!(fs::read(desk.path("op.onnx")).unwrap(), file(0));
    desk.run(&format!("ops export --key {KEY} --seed 5 --output op.onnx"));
    assert_eq!(fs::read(desk.path("op.onnx")).unwrap(), file(5));
    let alias = desk.run("ops export --key MBConv3:n1-h8-w8-i4-o4-s1 --seed 5 -o alias.onnx");
    assert_eq!(alias.code, 0, "{}", alias.report());
    assert_eq!(fs::read(desk.path("alias.onnx")).unwrap(), file(5));
}

#[test]
fn given_weights_are_taken_from_a_safetensors_file() {
    let desk = Desk::new();
    desk.put("all.safetensors", safetensors(model().weights()));
    let export = format!("ops export --key {KEY} -o op.onnx --weights");
    let ran = desk.run(&format!("{export} all.safetensors"));
    assert_eq!(ran.code, 0, "{}", ran.report());
    assert!(ran.stderr.ends_with("weights of all.safetensors\n"), "{}", ran.stderr);
    assert_eq!(fs::read(desk.path("op.onnx")).unwrap(), file(7));

    let extra =
        Weight { name: "other.bias".to_owned(), ..model().weights().next().unwrap().clone() };
    desk.put("more.safetensors", safetensors(model().weights().chain([&extra])));
    let ran = desk.run(&format!("{export} more.safetensors"));
    let warning = "warning: more.safetensors: 1 tensor is not used, such as `other.bias`\n";
    assert!(ran.code == 0 && ran.stderr.ends_with(warning), "{}", ran.report());

    desk.put("few.safetensors", safetensors(model().weights().skip(1)));
    desk.put("none.safetensors", "PK\x03\x04 and so on");
    for (file, problem) in [
        (
            "few.safetensors",
            "error: --weights few.safetensors: there is no weight `conv2d-0.weight`, which has the shape [12, 4, 1, 1]\n",
        ),
        (
            "none.safetensors",
            "error: none.safetensors: it is no safetensors file: it has 14 bytes, and a header of \
             7236828441365138256\n",
        ),
        ("absent.safetensors", "error: absent.safetensors: it cannot be read: No such file"),
    ] {
        fs::remove_file(desk.path("op.onnx")).ok();
        let ran = desk.run(&format!("{export} {file}"));
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.report());
        assert!(ran.stderr.starts_with(problem), "{}", ran.stderr);
        assert!(!desk.path("op.onnx").exists(), "nothing is left behind");
    }
}

#[test]
fn a_network_is_written_from_any_source() {
    let desk = Desk::new();
    desk.put("small.json", SMALL);
    for (source, layer) in [("--network demo_conv", "nodes.1."), ("--arch small.json", "layers.1.")]
    {
        let ran = desk.run(&format!("networks export {source} -o net.onnx"));
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.report());
        let written = fs::read(desk.path("net.onnx")).unwrap();
        let names = String::from_utf8_lossy(&written);
        assert!(names.contains(layer), "{source}");
    }
    let mut command = desk.command("networks export --arch small.json -o -");
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    assert_eq!(output.stdout, fs::read(desk.path("net.onnx")).unwrap());
    assert_eq!(desk.files(), ["net.onnx", "small.json"]);
}

#[test]
fn ops_of_the_users_own_are_exported() {
    let desk = Desk::new();
    desk.put("mine.yaml", "name: m\nops: [{name: Mine, nodes: [{apply: relu}]}]\n");
    let export = "ops export --key Mine:n1-h8-w8-i3-o3-s1 -o mine.onnx";
    let ran = desk.run(export);
    assert!(ran.code == 1 && ran.stderr.contains("there is no such op"), "{}", ran.report());
    let ran = desk.run(&format!("{export} --op-file mine.yaml"));
    assert!(ran.code == 0 && ran.stderr.contains("1 operator, "), "{}", ran.report());
}

#[test]
fn mistakes_are_named() {
    let desk = Desk::new();
    desk.put("two.ndjson", format!("{SMALL}\n{SMALL}\n"));
    for (arguments, code, problem) in [
        ("networks export --arch two.ndjson -o a.onnx", 2, "one network, and these are 2"),
        ("networks export --network demo_conv", 2, "--output <FILE>"),
        ("networks export -o a.onnx", 2, "--arch <FILE>"),
        ("networks export --network nobody -o a.onnx", 1, "nobody"),
        (
            "networks export --network demo_conv -o none/a.onnx",
            1,
            "none/a.onnx: it cannot be written",
        ),
        ("ops export --key Conv3x3 -o a.onnx", 2, "a key looks like `Conv3x3:n1-"),
        ("ops export --key Conv3x3:n1-h8-w8-i4-o4-s1 --weights w --seed 3 -o a", 2, "--seed"),
    ] {
        let ran = desk.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{arguments}: {}", ran.report());
        assert!(ran.stderr.contains(problem), "{arguments}: {}", ran.stderr);
    }
    assert_eq!(desk.files(), ["two.ndjson"]);
}

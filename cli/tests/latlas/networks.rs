//! `latlas networks`, as users meet it.

use std::collections::BTreeSet;

use crate::common::farm::FakeCoordinator;
use crate::common::{Desk, GRAPH, SMALL, keys, plausible, row, table};
use insta::assert_snapshot;
use latlas_export::{Model, Safetensors, Weights};
use ops_catalog::{Catalog, Network, NetworkSpec, OpKey, SpaceDef};

/// The keys of a space that the command printed.
fn printed(text: &str) -> BTreeSet<OpKey> {
    let space = SpaceDef::from_yaml(text).unwrap().resolve(Catalog::builtin()).unwrap();
    space.entries.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn the_built_in_networks_are_listed() {
    let desk = Desk::new();
    let ran = desk.run("networks list");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let count = Catalog::builtin().networks().count();
    assert_eq!(ran.stdout.lines().count(), 1 + count);
    let line = ran.stdout.lines().find(|line| line.starts_with("mobilenet_v2 ")).unwrap();
    let cells: Vec<&str> =
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[1..5], ["mobilenet", "300.8 M", "3.5 M", "21"]);
    let json = desk.run("networks list --json").json();
    assert_eq!(json.len(), count);
    let vit = json.iter().find(|network| network["name"] == "vit_b_32").unwrap();
    assert_eq!(
        (
            vit["family"].as_str(),
            vit["flops"].as_u64(),
            vit["params"].as_u64(),
            vit["ops"].as_u64()
        ),
        (Some("transformer"), Some(4_409_186_304), Some(88_224_232), Some(14))
    );
}

#[test]
fn a_definition_is_shown_as_predict_reads_it() {
    let desk = Desk::new();
    let ran = desk.run("networks show demo_conv");
    let line = desk.run("networks show demo_conv --json");
    assert_eq!((ran.code, line.code, line.stdout.lines().count()), (0, 0, 1));
    for text in [&ran.stdout, &line.stdout] {
        let all = NetworkSpec::read_all(text).unwrap();
        assert_eq!(&all[0].1, Catalog::builtin().network_spec("demo_conv").unwrap());
    }
}

#[test]
fn drawn_networks_are_predicted_from_the_keys_that_they_need() {
    let desk = Desk::new();
    let drawn = desk.run("networks draw --family mobilenet --count 3 --seed 5");
    assert_eq!((drawn.code, drawn.stderr.as_str()), (0, ""));
    desk.put("set.ndjson", &drawn.stdout);
    let space = desk.run("networks keys --arch set.ndjson");
    assert_eq!((space.code, space.stderr.as_str()), (0, ""));
    assert_eq!(printed(&space.stdout), keys(&drawn.stdout.lines().collect::<Vec<_>>()));

    let rows = printed(&space.stdout).iter().map(|key| row(key, plausible(key))).collect();
    desk.put("table.json", serde_json::to_string(&table(rows)).unwrap());
    let ran = desk.run_with("predict --table table.json --arch - --json", &drawn.stdout);
    assert_eq!(ran.code, 0, "{}", ran.report());
    let names: Vec<_> = ran.json().iter().map(|line| line["name"].clone()).collect();
    assert_eq!(names, ["mobilenet-5-0", "mobilenet-5-1", "mobilenet-5-2"]);
}

#[test]
fn without_a_seed_the_networks_are_new_and_the_seed_is_said() {
    let desk = Desk::new();
    let ran = desk.run("networks draw --family mobilenet --count 1");
    let seed: u64 = ran.stderr.trim().strip_prefix("seed ").unwrap().parse().unwrap();
    let again = desk.run(&format!("networks draw --family mobilenet --count 1 --seed {seed}"));
    assert_eq!(ran.stdout, again.stdout);
    assert_ne!(ran.stdout, desk.run("networks draw --family mobilenet --count 1").stdout);
}

#[test]
fn keys_of_several_networks_are_one_space() {
    let desk = Desk::new();
    desk.put("graph.json", GRAPH);
    let ran = desk.run_with("networks keys --arch graph.json --arch -", SMALL);
    assert_snapshot!(ran.report());
    let both = desk.run_with("networks keys --network demo_conv --arch - --json", SMALL);
    assert_eq!(both.stdout.lines().count(), 1);
    let demo = desk.run("networks keys --network demo_conv").stdout;
    let expected: BTreeSet<OpKey> = printed(&demo).union(&keys(&[SMALL])).cloned().collect();
    assert_eq!(printed(&both.stdout), expected);
}

#[test]
fn ops_that_were_submitted_come_with_the_space() {
    let def = r#"{"name": "Mine", "nodes": [{"apply": "relu"}]}"#;
    let entry = format!(
        r#"{{"digest": "op1-abababababababababababababababab", "builtin": false, "definition": {def}}}"#
    );
    let page = format!(r#"{{"items": [{entry}], "next_cursor": null}}"#);
    let farm = FakeCoordinator::new(&[("GET /v1/ops", "200", &page)]);
    let mut desk = Desk::new();
    desk.coordinator = Some(farm.address.clone());
    let network = r#"{"name": "mine", "input": {"n": 1, "c": 3, "h": 8, "w": 8}, "layers": [{"op": "Mine", "c_out": 3, "stride": 1}]}"#;
    let ran = desk.run_with("networks keys --arch - --farm", network);
    assert_eq!(ran.code, 0, "{}", ran.report());
    assert_eq!(printed(&ran.stdout), BTreeSet::from(["Mine:n1-h8-w8-i3-o3-s1".parse().unwrap()]));
}

#[test]
fn mistakes_are_named() {
    let desk = Desk::new();
    desk.put("bad.ndjson", format!("{SMALL}\n{}\n", SMALL.replace("Conv3x3", "Conv3x4")));
    desk.put("broken.ndjson", format!("{SMALL}\n{{\n")).put("empty.ndjson", "\n");
    let mut report = String::new();
    for arguments in [
        "networks show resnet",
        "networks draw --family resnet --count 1",
        "networks draw --family mobilenet --count -1",
        "networks keys",
        "networks keys --arch - --arch -",
        "networks keys --network resnet",
        "networks keys --arch absent.json",
        "networks keys --arch bad.ndjson",
        "networks keys --arch broken.ndjson",
        "networks keys --arch empty.ndjson",
    ] {
        let ran = desk.run(arguments);
        assert_eq!(ran.stdout, "");
        report.push_str(&format!("latlas {arguments}: exit code {}\n{}\n", ran.code, ran.stderr));
    }
    // The list of networks grows, and is of no interest here.
    let known: Vec<&str> =
        Catalog::builtin().networks().filter_map(|spec| spec.name.as_deref()).collect();
    assert_snapshot!(report.replace(&known.join(", "), "NETWORKS"));
}

#[test]
fn costs_need_no_table() {
    let desk = Desk::new();
    desk.put("set.ndjson", format!("{SMALL}\n{GRAPH}"));
    assert_snapshot!(desk.run("networks cost --network demo_conv").report());
    assert_snapshot!(desk.run("networks cost --network resnet18 --arch set.ndjson").report());
    let json = desk.run("networks cost --network mobilenet_v2 --dtype f16 --json").json();
    let network = &json[0];
    let known = [("flops", 300_774_272), ("params", 3_487_816), ("weight_bytes", 2 * 3_487_816)];
    for (name, value) in known {
        assert_eq!(network[name].as_u64(), Some(value), "{name}");
        let ops = network["ops"].as_array().unwrap();
        assert_eq!(ops.iter().map(|op| op[name].as_u64().unwrap()).sum::<u64>(), value);
    }
    // The first depthwise convolution of stride 2 on 96 channels, beside the caller's image.
    let peak = 2 * (3 * 224 * 224 + 96 * (112 * 112 + 56 * 56));
    assert_eq!(network["peak_activation_bytes"].as_u64(), Some(peak));
    let unknown = desk.run("networks cost --network nobody");
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
}

/// A small model that the importer's own tests have.
fn model(name: &str) -> String {
    format!("{}/../import/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_model_is_imported_by_both_formats() {
    let desk = Desk::new();
    let mut costs = vec![];
    for name in ["cnn.pt2", "cnn.17.onnx", "cnn.dynamo.onnx"] {
        let ran = desk.run(&format!("networks import {} --name small -o net.json", model(name)));
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
        assert!(ran.stderr.starts_with("small: "), "{}", ran.stderr);
        assert!(ran.stderr.ends_with("wrote net.json\n"), "{}", ran.stderr);
        let cost = desk.run("networks cost --arch net.json --json").json().remove(0);
        assert_eq!(cost["name"], "small");
        costs.push((cost["flops"].clone(), cost["params"].clone()));
    }
    assert!(costs[0].0.as_u64() > Some(0) && costs[0].1.as_u64() > Some(0), "{costs:?}");
    assert_eq!(costs[0], costs[1]);
    // This exporter drops biases of zeros, which a model has before it is trained.
    assert_eq!(costs[0].0, costs[2].0);
    // The file has the definitions of its ops for other commands too.
    let other = desk.run("networks cost --network demo_conv --op-file net.json");
    assert_eq!(other.code, 0, "{}", other.stderr);
    let printed = desk.run(&format!("networks import {}", model("cnn.pt2")));
    let spec = NetworkSpec::from_json(&printed.stdout).unwrap();
    assert_eq!(spec.name.as_deref(), Some("cnn"));
}

#[test]
fn what_is_no_model_is_told_by_its_file() {
    let desk = Desk::new();
    let gone = desk.run("networks import gone.onnx");
    assert_eq!(gone.code, 1);
    assert_eq!(gone.stderr, "error: gone.onnx: there is no such file\n");
    let folder = desk.run("networks import .");
    assert_eq!(folder.stderr, "error: .: it is a directory; name a file in it\n");
    let open = desk.run(&format!("networks import {} -o net.json", model("cnn.dynamic.onnx")));
    assert_eq!(open.code, 1);
    assert!(open.stderr.contains("give a number for each dimension (--input)"), "{}", open.stderr);
    let training = desk.run(&format!("networks import {}", model("cnn.train.pt2")));
    assert_eq!((training.code, training.stdout.as_str()), (1, ""));
    assert!(training.stderr.contains("call model.eval() before the export"), "{}", training.stderr);
    let wrong = desk.run("networks import x.onnx --input batchx3");
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("as in 1x3x224x224"), "{}", wrong.stderr);
}

#[test]
fn a_model_can_come_through_a_pipe() {
    let desk = Desk::new();
    for name in ["cnn.pt2", "cnn.17.onnx"] {
        let model = std::fs::read(model(name)).unwrap();
        let ran = desk.run_with("networks import - --name piped", &model);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let spec = NetworkSpec::from_json(&ran.stdout).unwrap();
        assert_eq!(spec.name.as_deref(), Some("piped"));
    }
    let ran = desk.run_with("networks import -", "hello");
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.starts_with("error: stdin: it is a text"), "{}", ran.stderr);
}

#[test]
fn an_imported_model_is_exported_with_its_weights() {
    let desk = Desk::new();
    let mut values: Vec<Vec<f32>> = vec![];
    for (name, format) in [("cnn.pt2", "pt2"), ("cnn.17.onnx", "onnx")] {
        let import = format!("networks import {} -o {format}.json", model(name));
        let ran = desk.run(&format!("{import} --weights {format}.safetensors"));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("wrote {format}.safetensors: 6 weights, ")));
        let export = format!("networks export --arch {format}.json --weights {format}.safetensors");
        let exported = desk.run(&format!("{export} -o {format}.onnx"));
        assert_eq!(exported.code, 0, "{}", exported.stderr);
        assert!(!exported.stderr.contains("warning"), "{}", exported.stderr);
        let text = std::fs::read_to_string(desk.path(&format!("{format}.json"))).unwrap();
        let spec = NetworkSpec::from_json(&text).unwrap();
        let plan = Network::new(&spec, Catalog::builtin()).unwrap().plan(Catalog::builtin());
        let plan = plan.unwrap();
        let stored = Safetensors::open(&desk.path(&format!("{format}.safetensors"))).unwrap();
        let graph = Model::of_network("cnn", &plan);
        values.push(graph.weights().flat_map(|weight| stored.get(weight).unwrap()).collect());
    }
    // One file has batch norms, and the other one has them folded by PyTorch.
    let [own, folded] = &values[..] else { panic!("two files") };
    assert_eq!(own.len(), folded.len());
    let worst = own.iter().zip(folded).map(|(own, other)| (own - other).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-6, "{worst}");
    assert!(own.iter().any(|&value| value != 0.0));
    // The weights of a model through a pipe, and a format that has none that can be read.
    let bytes = std::fs::read(model("cnn.pt2")).unwrap();
    let piped = desk.run_with("networks import - -o piped.json --weights piped.safetensors", bytes);
    assert_eq!(piped.code, 0, "{}", piped.stderr);
    let bytes = |name: &str| std::fs::read(desk.path(name)).unwrap();
    assert_eq!(bytes("piped.safetensors"), bytes("pt2.safetensors"));
    let old =
        desk.run(&format!("networks import {} --weights old.safetensors", model("cnn.old.pt2")));
    assert_eq!((old.code, old.stdout.as_str()), (1, ""));
    assert!(
        old.stderr.contains("write the model with torch 2.8 or newer, or as ONNX"),
        "{}",
        old.stderr
    );
    assert!(!desk.path("old.safetensors").exists());
}

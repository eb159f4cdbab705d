//! Ten parsers of input from outside, each followed by everything that is done with the parsed value. The law is the
//! same for all: an input is accepted, or refused with a sentence, in bounded time and memory.
//!
//! `cargo test` runs the same functions on `fuzz/seeds`, where every input that ever broke one is kept.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use jiff::Timestamp;
use latlas_import::ReadOptions;
use latlas_import::graph::Graph;
use latlas_predict::merge::{Observation, merge_all, merge_network, merge_row};
use latlas_predict::{Predictor, TableContent, TableIndex};
use latlas_search::constraints::Constraints;
use latlas_shared::api::{EnrolRequest, ProfileRequest};
use latlas_shared::{Measurement, Missing, Subject, Table, WholeNetwork, samples as packed};
use ops_catalog::{Catalog, NetworkSpec, Op, OpDef, OpKey, Shape, SpaceDef};

/// A parser and its name, which is also the name of its fuzz target and of its folder of seeds.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Parser; 10] = [
    ("op_definition", |bytes| op_definition(&String::from_utf8_lossy(bytes))),
    ("space", |bytes| space(&String::from_utf8_lossy(bytes))),
    ("op_key", |bytes| op_key(&String::from_utf8_lossy(bytes))),
    ("network", |bytes| network(&String::from_utf8_lossy(bytes))),
    ("table", |bytes| table(&String::from_utf8_lossy(bytes))),
    ("measurement", |bytes| measurement(&String::from_utf8_lossy(bytes))),
    ("samples", |bytes| samples(&String::from_utf8_lossy(bytes))),
    ("constraints", |bytes| constraints(&String::from_utf8_lossy(bytes))),
    ("model", model),
    ("program", |bytes| program(&String::from_utf8_lossy(bytes))),
];

/// Keys of a space that are planned here: a space may have far more than a fuzzer has time for.
const PLANNED: usize = 20;

/// A definition of an op: checked, hashed, planned at shapes, written and read again.
pub fn op_definition(text: &str) {
    let Ok(def) = OpDef::from_yaml(text) else { return };
    let Ok(op) = Op::new(def) else { return };
    let json = serde_json::to_string(op.def()).expect("a definition is plain data");
    let again = Op::new(OpDef::from_yaml(&json).expect("JSON is YAML")).expect("it was valid");
    assert_eq!(again.digest(), op.digest(), "writing a definition changes nothing");
    for (size, channels, stride) in [(1, 1, 1), (8, 16, 2), (224, 3, 1), (65_536, 65_536, 4)] {
        let shape = Shape {
            batch: 1,
            input_h: size,
            input_w: size,
            channels_in: channels,
            channels_out: channels,
            stride,
        };
        if let Ok(plan) = op.at(&shape) {
            assert!(!plan.steps.is_empty());
        }
    }
}

/// A space: read, spelled out, planned.
pub fn space(text: &str) {
    let Ok(def) = SpaceDef::from_yaml(text) else { return };
    let Ok(space) = def.resolve(Catalog::builtin()) else { return };
    for (key, op) in space.entries.iter().take(PLANNED) {
        assert_eq!(key.to_string().parse::<OpKey>().as_ref(), Ok(key));
        op.at(&key.shape).expect("a space holds what can be measured");
    }
    // The same as the body of a request.
    let body = serde_json::json!({"hardware_id": "a.cpu", "definition": def});
    serde_json::from_value::<ProfileRequest>(body).expect("what was read can be sent");
}

/// An op key: what is read is written as it was.
pub fn op_key(text: &str) {
    let Ok(key) = text.parse::<OpKey>() else { return };
    assert_eq!(key.to_string().parse(), Ok(key.clone()));
    if let Ok(op) = Catalog::builtin().op(&key.op) {
        let _ = op.at(&key.shape);
    }
}

/// Networks of a file: planned, made ready to be measured, checked as a coordinator does.
pub fn network(text: &str) {
    let _ = NetworkSpec::from_json(text);
    let _ = serde_json::from_str::<EnrolRequest>(text);
    let Ok(networks) = NetworkSpec::read_all(text) else { return };
    for (_, spec) in networks.iter().take(PLANNED) {
        let Ok(network) = WholeNetwork::new(spec, Catalog::builtin()) else { continue };
        network.plan().expect("it was just planned");
        let json = serde_json::to_string(&network).expect("a network is plain data");
        let again: WholeNetwork =
            serde_json::from_str(&json).expect("what was written can be read");
        assert_eq!(again, network);
    }
}

/// A table: checked, indexed, asked for a prediction of each kind.
pub fn table(text: &str) {
    let Ok(table) = Table::from_json(text) else { return };
    let Ok(index) = TableIndex::new(table).map(std::sync::Arc::new) else { return };
    let network = Catalog::builtin().network("demo_conv").expect("it is built in");
    for missing in [Missing::Error, Missing::Interpolate] {
        let _ = Predictor::new(std::sync::Arc::clone(&index), missing).predict(&network);
    }
}

/// Lines of measurements: checked one by one, merged alone and together, made into a table.
pub fn measurement(text: &str) {
    let read = |line: &str| serde_json::from_str::<Measurement>(line).ok();
    let valid = |m: &Measurement| m.check_result().is_ok() && subject_is_valid(&m.subject);
    let measurements: Vec<Measurement> = text.lines().filter_map(read).filter(valid).collect();
    for measurement in &measurements {
        if let Some(samples) = &measurement.samples {
            let _ = packed::unpack(samples);
        }
        let alone = [Observation { agent: "a".to_owned(), measurement: measurement.clone() }];
        let _ = (merge_row(&alone), merge_network(&alone));
    }
    let Some(first) = measurements.first().cloned() else { return };
    let alike =
        |m: &Measurement| m.hardware_id == first.hardware_id && m.run_config == first.run_config;
    let (rows, networks) = merge_all(measurements.into_iter().filter(alike).collect());
    let content = TableContent {
        hardware_id: first.hardware_id.clone(),
        run_config: first.run_config.clone(),
        fingerprints: BTreeMap::new(),
        rows,
        networks,
    };
    let Ok(table) = latlas_predict::assemble(content, Catalog::builtin(), Timestamp::UNIX_EPOCH)
    else {
        return;
    };
    let json = serde_json::to_string(&table).expect("a table is plain data");
    if let Err(error) = Table::from_json(&json) {
        panic!("what was admitted makes a table that nobody can read: {error}");
    }
}

fn subject_is_valid(subject: &Subject) -> bool {
    match subject {
        Subject::Op { key, digest } => Catalog::builtin()
            .op(&key.op)
            .is_ok_and(|op| op.digest() == digest && op.at(&key.shape).is_ok()),
        Subject::Network(network) => network.plan().is_ok(),
    }
}

/// Packed samples.
pub fn samples(text: &str) {
    let Ok(samples) = packed::unpack(text) else { return };
    let again = packed::unpack(&packed::pack(&samples)).expect("what was packed can be unpacked");
    assert!(again.micros.keys().eq(samples.micros.keys()));
}

/// The configuration of a search.
pub fn constraints(text: &str) {
    let _ = Constraints::from_yaml(text, Catalog::builtin());
}

/// A model: ONNX, or an archive of `torch.export`.
pub fn model(bytes: &[u8]) {
    for input in [None, Some(vec![1, 3, 32, 32])] {
        if let Ok(graph) = latlas_import::read_bytes(bytes, &ReadOptions { input }) {
            check(&graph);
        }
    }
}

/// The program of an archive of `torch.export`. In an archive a fuzzer would have to guess a checksum as well.
pub fn program(text: &str) {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("m/models/model.json", options).expect("the name is short");
    archive.write_all(text.as_bytes()).expect("memory can be written");
    model(archive.finish().expect("memory can be written").get_ref());
}

/// What later stages rely on: each value is written once, before it is read.
fn check(graph: &Graph) {
    let mut written: Vec<bool> = graph.values.iter().map(|value| value.constant).collect();
    for &input in &graph.inputs {
        written[input] = true;
    }
    for node in &graph.nodes {
        assert!(node.inputs.iter().all(|&id| written[id]), "{node:?}");
        assert!(!written[node.output], "{node:?}");
        written[node.output] = true;
    }
    assert!(graph.outputs.iter().all(|&id| written[id]));
    for value in &graph.values {
        if let Some(numbers) = &value.numbers {
            assert_eq!(numbers.len() as u64, value.dims.iter().product::<u64>(), "{value:?}");
        }
    }
}

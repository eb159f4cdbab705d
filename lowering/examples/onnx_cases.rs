//! Writes ops and networks as ONNX files, each with an input and the output that libtorch computes for it.
//!
//!     cargo run -p latlas_lowering --example onnx_cases -- FOLDER
//!
//! `scripts/check_onnx.py` runs the files on ONNX Runtime and compares. Both sides have the weights of one safetensors
//! file. The cases are those that were recorded from PyTorch, every op of the catalog, and networks; together they have
//! every primitive.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use latlas_export::{Model, Safetensors};
use latlas_lowering::{Form, LoweredNetwork, LoweredOp, Placement, Random, Weight};
use ops_catalog::{
    Catalog, Network, NetworkPlan, NetworkSpec, Op, OpDef, OpPlan, Primitive, Shape,
};
use serde_json::{Value, json};
use tch::Tensor;

type Outcome<T> = Result<T, Box<dyn Error>>;

const RECORDED: &str = include_str!("../src/tests/torch.json");

const BUILT_IN: [&str; 5] =
    ["demo_conv", "mobilenet_v3_large", "shufflenet_v2_x1_0", "mnasnet1_0", "regnet_y_400mf"];

/// A graph with merges of each kind, and a transformer.
const NETWORKS: [&str; 2] = [
    r#"{"name": "merges", "input": {"n": 2, "c": 3, "h": 16, "w": 16}, "output": 4, "nodes": [
        {"op": "Conv3x3", "c_out": 8, "stride": 1, "inputs": [-1]},
        {"op": "Conv1x1", "c_out": 8, "stride": 1, "inputs": [-1]},
        {"op": "Conv3x3", "c_out": 8, "stride": 2, "inputs": [0, 1]},
        {"op": "Conv3x3", "c_out": 8, "stride": 2, "inputs": [0, 1], "merge": "mul"},
        {"op": "Identity", "c_out": 24, "stride": 1, "inputs": [2, 3, 2], "merge": "concat"}]}"#,
    r#"{"name": "transformer", "input": {"n": 2, "c": 3, "h": 64, "w": 64}, "layers": [
        {"op": "PatchEmbed", "c_out": 64, "stride": 16},
        {"op": "TransformerEncoder", "c_out": 64, "stride": 1},
        {"op": "TransformerEncoder_MLP2", "c_out": 64, "stride": 1},
        {"op": "ClassTokenHead", "c_out": 10, "stride": 1}]}"#,
];

/// Shapes of which every op of the catalog can take at least one.
fn candidates() -> Vec<Shape> {
    let shape = |h, w, channels_in, channels_out, stride| Shape {
        batch: 2,
        input_h: h,
        input_w: w,
        channels_in,
        channels_out,
        stride,
    };
    vec![
        shape(16, 16, 64, 64, 1),
        shape(16, 16, 64, 64, 2),
        shape(16, 16, 64, 128, 2),
        shape(16, 16, 80, 112, 1),
        shape(16, 16, 64, 32, 1),
        shape(16, 16, 64, 256, 1),
        shape(1, 1, 64, 10, 1),
        shape(50, 1, 128, 128, 1),
        shape(64, 64, 3, 64, 32),
    ]
}

/// The folder, and what was written to it.
struct Cases {
    folder: PathBuf,
    index: Vec<Value>,
    primitives: BTreeSet<&'static str>,
}

impl Cases {
    /// Writes a case: weights, model, input and output. With `apart`, the weights of the model are in a file of their
    /// own.
    fn add<'a>(
        &mut self,
        name: &str,
        model: &Model,
        weights: impl Iterator<Item = &'a Weight>,
        [input, output]: [&Tensor; 2],
        apart: bool,
    ) -> Outcome<()> {
        let folder = self.folder.join(self.index.len().to_string());
        fs::create_dir(&folder)?;
        let tensors: Vec<(&str, &Tensor)> =
            weights.map(|weight| (weight.name.as_str(), &weight.tensor)).collect();
        let path = folder.join("weights.safetensors");
        Tensor::write_safetensors(&tensors, &path)?;
        let stored = Safetensors::open(&path)?;
        let asked: BTreeSet<&str> = model.weights().map(|weight| weight.name.as_str()).collect();
        if asked != stored.names().collect() {
            return Err(format!("{name}: the weights differ: {asked:?}").into());
        }
        let mut file = File::create(folder.join("model.onnx"))?;
        match apart {
            true => {
                let mut data = File::create(folder.join("model.onnx.data"))?;
                model.write_apart(&stored, &mut file, "model.onnx.data", &mut data)?;
            }
            false => model.write(&stored, &mut file)?,
        }
        input.write_npy(folder.join("input.npy"))?;
        output.write_npy(folder.join("output.npy"))?;
        self.index.push(json!({"name": name, "folder": folder}));
        Ok(())
    }

    fn op(&mut self, name: &str, plan: &OpPlan) -> Outcome<()> {
        self.primitives.extend(plan.steps.iter().map(|step| step.primitive.name()));
        let weights = Random::seeded(1);
        let lowered = LoweredOp::new(plan, Placement::default(), Form::Deployed, &weights)?;
        let input = lowered.random_input()?;
        let output = lowered.forward(&input)?;
        self.add(name, &Model::of_op(name, plan), lowered.weights(), [&input, &output], false)
    }

    fn network(&mut self, name: &str, plan: &NetworkPlan, apart: bool) -> Outcome<()> {
        let weights = Random::seeded(1);
        let lowered = LoweredNetwork::new(plan, Placement::default(), Form::Deployed, &weights)?;
        let input = lowered.random_input()?;
        let output = lowered.forward(&input)?;
        let model = Model::of_network(name, plan);
        self.add(name, &model, lowered.weights(), [&input, &output], apart)
    }
}

fn write(folder: &Path) -> Outcome<()> {
    tch::manual_seed(1);
    let catalog = Catalog::builtin();
    let (index, primitives) = (vec![], BTreeSet::new());
    let mut cases = Cases { folder: folder.to_owned(), index, primitives };
    let recorded: Vec<Value> = serde_json::from_str(RECORDED)?;
    for case in &recorded {
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let yaml = format!("{{name: T, input: {}, nodes: {}}}", text("input"), text("nodes"));
        let shape: Shape = serde_json::from_value(case["shape"].clone())?;
        cases.op(text("name"), &Op::new(OpDef::from_yaml(&yaml)?)?.at(&shape)?)?;
    }
    for op in catalog.ops() {
        // The cheapest shape of each stride: a block with and without its shortcut.
        let plans = candidates().into_iter().filter_map(|shape| Some((shape, op.at(&shape).ok()?)));
        let mut cheapest: BTreeMap<u32, (Shape, OpPlan)> = BTreeMap::new();
        for (shape, plan) in plans {
            let work = |plan: &OpPlan| plan.cost.flops + plan.cost.params;
            let known = cheapest.get(&shape.stride);
            if known.is_none_or(|(_, known)| work(&plan) < work(known)) {
                cheapest.insert(shape.stride, (shape, plan));
            }
        }
        for (shape, plan) in cheapest.values() {
            cases.op(&op.key(*shape).to_string(), plan)?;
        }
    }
    let missing: Vec<&&str> =
        Primitive::NAMES.iter().filter(|name| !cases.primitives.contains(*name)).collect();
    if !missing.is_empty() {
        return Err(format!("no case has these primitives: {missing:?}").into());
    }
    for name in BUILT_IN {
        cases.network(name, &catalog.network(name)?.plan(catalog)?, false)?;
    }
    for text in NETWORKS {
        let spec = NetworkSpec::from_json(text)?;
        let name = spec.name.clone().unwrap_or_default();
        cases.network(&name, &Network::new(&spec, catalog)?.plan(catalog)?, true)?;
    }
    fs::write(folder.join("cases.json"), serde_json::to_string(&cases.index)?)?;
    println!("{} cases, {} primitives", cases.index.len(), Primitive::NAMES.len());
    Ok(())
}

fn main() -> Outcome<()> {
    let folder = std::env::args_os().nth(1).ok_or("usage: onnx_cases FOLDER (an empty one)")?;
    write(Path::new(&folder))
}

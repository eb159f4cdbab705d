//! Providers of weights.

use std::collections::HashMap;

use ops_catalog::{Catalog, Network, NetworkSpec, OpPlan};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::{CPU, candidates, deployed, op, shape, vary_norms};
use crate::{
    Form, LoweredNetwork, LoweredOp, Placement, Random, Sliced, Stored, Variables, Weights,
};

fn build(plan: &OpPlan, weights: &dyn Weights) -> Result<LoweredOp, crate::WeightError> {
    LoweredOp::new(plan, CPU, Form::Deployed, weights)
}

fn stored(lowered: &LoweredOp) -> Stored {
    lowered.weights().map(|weight| (weight.name.clone(), weight.tensor.shallow_clone())).collect()
}

#[test]
fn folded_norms_compute_what_kept_norms_compute() {
    let double = Placement { kind: Kind::Double, ..CPU };
    for placement in [CPU, double] {
        for op in Catalog::builtin().ops() {
            let plans = candidates().into_iter().filter_map(|s| op.at(&s).ok());
            let plan = plans.min_by_key(|plan| plan.cost.flops + plan.cost.params).unwrap();
            let kept =
                LoweredOp::new(&plan, placement, Form::Training, &Random::seeded(5)).unwrap();
            vary_norms(&kept);
            let folded = stored(&kept).folded().unwrap();
            let folded = LoweredOp::new(&plan, placement, Form::Deployed, &folded).unwrap();
            let input = kept.random_input().unwrap();
            let (a, b) = (kept.forward(&input).unwrap(), folded.forward(&input).unwrap());
            let worst = f64::try_from((&a - &b).abs().max()).unwrap();
            let scale = f64::try_from(a.abs().max()).unwrap();
            assert!(worst <= 1e-5 * scale, "{}: {worst} of {scale}", op.name());
        }
    }
}

#[test]
fn training_updates_running_statistics_and_evaluation_reads_them() {
    let plan = Catalog::builtin().op("Conv3x3").unwrap().at(&shape(8, 8, 4, 4, 1)).unwrap();
    let lowered = LoweredOp::new(&plan, CPU, Form::Training, &Random::seeded(5)).unwrap();
    let input = lowered.random_input().unwrap();
    let before = lowered.forward(&input).unwrap();
    for _ in 0..200 {
        drop(lowered.forward_train(&input).unwrap());
    }
    let after = lowered.forward(&input).unwrap();
    assert!(f64::try_from((&after - &before).abs().max()).unwrap() > 1e-3);
    // Now the running statistics are those of this batch, except for Bessel's correction.
    let trained = lowered.forward_train(&input).unwrap();
    assert!(f64::try_from((after - trained).abs().max()).unwrap() < 0.05);
}

#[test]
fn a_seed_and_a_name_decide_on_random_weights() {
    let plan = Catalog::builtin().op("Conv3x3_ReLU").unwrap().at(&shape(8, 8, 4, 4, 1)).unwrap();
    let bias = |seed: u64| {
        let lowered = build(&plan, &Random::seeded(seed)).unwrap();
        let bias = lowered.weights().find(|w| w.name == "conv2d-0.bias").unwrap();
        bias.tensor.copy()
    };
    assert!(bias(1).equal(&bias(1)));
    assert!(!bias(1).equal(&bias(2)));
}

#[test]
fn stored_weights_are_computed_with_and_checked() {
    let plan = Catalog::builtin().op("MBConv3_3x3").unwrap().at(&shape(8, 8, 4, 4, 1)).unwrap();
    let original = deployed(&plan);
    let input = original.random_input().unwrap();
    let again = build(&plan, &stored(&original)).unwrap();
    super::close(&original.forward(&input).unwrap(), &again.forward(&input).unwrap());

    let empty = build(&plan, &Stored::default()).unwrap_err().to_string();
    assert_eq!(empty, "there is no weight `conv2d-0.weight`, which has the shape [12, 4, 1, 1]");
    let wider = Catalog::builtin().op("MBConv3_3x3").unwrap().at(&shape(8, 8, 8, 8, 1)).unwrap();
    let narrow = build(&wider, &stored(&original)).unwrap_err().to_string();
    assert_eq!(
        narrow,
        "the weight `conv2d-0.weight` has the shape [12, 4, 1, 1], but the shape [24, 8, 1, 1] is needed"
    );
}

#[test]
fn weights_survive_a_safetensors_file() {
    let plan = Catalog::builtin().op("MBConv3_3x3").unwrap().at(&shape(8, 8, 4, 4, 1)).unwrap();
    let original = deployed(&plan);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let tensors: Vec<_> = original.weights().map(|w| (w.name.as_str(), &w.tensor)).collect();
    Tensor::write_safetensors(&tensors, &path).unwrap();
    let read = build(&plan, &Stored::read_safetensors(&path).unwrap()).unwrap();
    let input = original.random_input().unwrap();
    super::close(&original.forward(&input).unwrap(), &read.forward(&input).unwrap());
    assert!(Stored::read_safetensors(&folder.path().join("none")).is_err());
}

#[test]
fn a_narrow_op_with_a_small_kernel_uses_a_part_of_larger_weights() {
    let def = |kernel: u32| {
        op(&format!(
            "{{name: E, nodes: [{{id: expand, apply: {{conv2d: {{out: 2*c_in, kernel: 1}}}}}},
               {{id: filter, apply: {{conv2d: {{out: 2*c_in, kernel: {kernel}, groups: 2*c_in}}}}}},
               {{apply: {{self_attention: {{heads: c_in/4}}}}}},
               {{id: project, apply: {{conv2d: {{out: c_out, kernel: 1}}}}}}]}}"
        ))
    };
    let large = deployed(&def(7).at(&shape(5, 5, 16, 16, 1)).unwrap());
    let large: HashMap<String, Tensor> =
        large.weights().map(|w| (w.name.clone(), w.tensor.set_requires_grad(true))).collect();
    let shared = large.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
    let sliced = Sliced::new(shared.collect());
    let small = build(&def(3).at(&shape(5, 5, 8, 12, 1)).unwrap(), &sliced).unwrap();
    let weight = |name: &str| &small.weights().find(|w| w.name == name).unwrap().tensor;
    let expand = &large["expand.weight"];
    assert!(weight("expand.weight").equal(&expand.narrow(0, 0, 16).narrow(1, 0, 8)));
    let filter = large["filter.weight"].narrow(0, 0, 16).narrow(2, 2, 3).narrow(3, 2, 3);
    assert!(weight("filter.weight").equal(&filter));
    let qkv = &large["self_attention-2.qkv.bias"];
    let parts = [0, 32, 64].map(|start| qkv.narrow(0, start, 16));
    assert!(weight("self_attention-2.qkv.bias").equal(&Tensor::cat(&parts, 0)));
    // Only the part that is used gets gradients.
    let output = small.forward(&small.random_input().unwrap()).unwrap();
    output.square().sum(Kind::Float).backward();
    let gradient = expand.grad();
    let sum = |t: Tensor| f64::try_from(t.abs().sum(Kind::Float)).unwrap();
    let used = sum(gradient.narrow(0, 0, 16).narrow(1, 0, 8));
    assert!(used > 0.0 && sum(gradient) - used < 1e-6 * used);

    let wide = build(&def(3).at(&shape(5, 5, 32, 12, 1)).unwrap(), &sliced).unwrap_err();
    assert!(wide.to_string().contains("`expand.weight` has the shape [32, 16, 1, 1]"), "{wide}");
    // An even kernel has no centre in an odd one.
    assert!(build(&def(4).at(&shape(5, 5, 8, 12, 1)).unwrap(), &sliced).is_err());
}

#[test]
fn a_store_gets_the_variables_of_a_network_and_gives_them_again() {
    let spec: NetworkSpec = serde_saphyr::from_str(
        "{input: {n: 1, c: 3, h: 16, w: 16}, layers: [{op: Conv3x3, c_out: 8, stride: 2},
          {op: MBConv3_3x3_SE, c_out: 8, stride: 1}]}",
    )
    .unwrap();
    let catalog = Catalog::builtin();
    let plan = Network::new(&spec, catalog).unwrap().plan(catalog).unwrap();
    let store = VarStore::new(Device::Cpu);
    let variables = Variables::new(&store, Random::seeded(1));
    let build = || LoweredNetwork::new(&plan, CPU, Form::Training, &variables).unwrap();
    let network = build();
    let names: Vec<&str> = network.weights().map(|weight| weight.name.as_str()).collect();
    assert!(names.contains(&"layers.1.body.weight"), "{names:?}");
    assert!(names.contains(&"layers.1.squeeze_excite-4.reduce.bias"), "{names:?}");
    assert_eq!(store.variables().len(), names.len());
    let trained = network.weights().filter(|weight| weight.trained).count();
    assert_eq!(store.trainable_variables().len(), trained);

    let input = network.random_input().unwrap();
    network.forward_train(&input).unwrap().square().sum(Kind::Float).backward();
    assert!(store.trainable_variables().iter().all(|variable| variable.grad().defined()));
    super::close(
        &network.forward(&input).unwrap().detach(),
        &build().forward(&input).unwrap().detach(),
    );
}

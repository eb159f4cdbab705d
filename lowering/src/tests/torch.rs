//! Primitives, compared with what PyTorch computed: `torch.json`, which `scripts/primitives.py` writes.

use ops_catalog::{Op, OpDef, Shape};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::CPU;
use crate::{Form, LoweredOp, Spec, WeightError, Weights};

const RECORDED: &str = include_str!("torch.json");

/// The values that the script gives to a tensor of this name.
fn wave(name: &str, dims: &[i64]) -> Tensor {
    let phase = f64::from(name.bytes().map(u32::from).sum::<u32>() % 100);
    let positive = if name.ends_with("running_var") { 1.0 } else { 0.0 };
    let count = dims.iter().product::<i64>();
    let values: Vec<f32> = (0..count)
        .map(|index| ((0.37 * index as f64 + phase).sin() * 0.5 + positive) as f32)
        .collect();
    Tensor::from_slice(&values).reshape(dims)
}

struct Waves;

impl Weights for Waves {
    fn get(&self, name: &str, spec: &Spec) -> Result<Tensor, WeightError> {
        Ok(wave(name, &spec.dims()))
    }
}

#[test]
fn primitives_compute_what_pytorch_computes() {
    let cases: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    assert!(cases.len() > 10);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let text = |field: &str| case[field].as_str().unwrap();
        let yaml = format!("{{name: T, input: {}, nodes: {}}}", text("input"), text("nodes"));
        let op =
            OpDef::from_yaml(&yaml).and_then(Op::new).unwrap_or_else(|e| panic!("{name}: {e}"));
        let shape: Shape = serde_json::from_value(case["shape"].clone()).unwrap();
        let plan = op.at(&shape).unwrap_or_else(|e| panic!("{name}: {e}"));
        let output: Vec<i64> = serde_json::from_value(case["output"].clone()).unwrap();
        assert_eq!(plan.output.dims(), output, "{name}");
        assert_eq!(plan.cost.params, case["params"].as_u64().unwrap(), "parameters of {name}");
        assert_eq!(plan.cost.flops, case["flops"].as_u64().unwrap(), "FLOPs of {name}");

        let lowered = LoweredOp::new(&plan, CPU, Form::Deployed, &Waves).unwrap();
        let input = wave("input", &plan.input.dims());
        let found = lowered.forward(&input).unwrap();
        assert_eq!(found.size(), output, "{name}");
        let flat = found.to_kind(Kind::Double).flatten(0, -1);
        let factors =
            (Tensor::arange(flat.numel() as i64, (Kind::Double, tch::Device::Cpu)) * 0.7).cos();
        let close = |found: f64, field: &Value, tolerance: f64, what: &str| {
            let wanted = field.as_f64().unwrap();
            let difference = (found - wanted).abs();
            assert!(difference <= tolerance, "{what} of {name}: {found}, in PyTorch {wanted}");
        };
        // Single precision, with sums in another order.
        let size = f64::try_from(flat.square().sum(Kind::Double)).unwrap().sqrt();
        let tolerance = 1e-4 * size.max(1.0);
        let sum = f64::try_from((&flat * &factors).sum(Kind::Double)).unwrap();
        close(sum, &case["sum"], tolerance, "the sum");
        for (index, first) in case["first"].as_array().unwrap().iter().enumerate() {
            let scale = tolerance / (flat.numel() as f64).sqrt();
            close(flat.double_value(&[index as i64]), first, 10.0 * scale.max(1e-6), "an element");
        }
        let elements: usize = lowered.weights().map(|weight| weight.tensor.numel()).sum();
        assert_eq!(elements as u64, plan.cost.weight_elements, "weights of {name}");
    }
}

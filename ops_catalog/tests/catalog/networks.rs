//! The networks that are built in, against what others published about them.

use ops_catalog::{NetworkPlan, Primitive};

use crate::builtin;

fn plan(name: &str) -> NetworkPlan {
    builtin()
        .network(name)
        .and_then(|network| network.plan(builtin()))
        .unwrap_or_else(|e| panic!("{e}"))
}

/// A batch norm has two parameters for each channel where a folded convolution has a bias.
fn params_as_trained(plan: &NetworkPlan) -> u64 {
    let primitives = plan.steps.iter().flat_map(|step| &step.plan.steps);
    let convolved: u64 = primitives
        .map(|step| match step.primitive {
            Primitive::Conv2d { out, .. } => u64::from(out),
            _ => 0,
        })
        .sum();
    plan.cost.params + convolved
}

#[test]
fn params_are_exactly_and_flops_nearly_as_published() {
    let mut checked = Vec::new();
    for spec in builtin().networks() {
        let Some(published) = &spec.published else { continue };
        let name = spec.name.as_deref().unwrap();
        let plan = plan(name);
        let params = match published.batch_norm_folded {
            true => params_as_trained(&plan),
            false => plan.cost.params,
        };
        assert_eq!(params, published.params, "{name}");
        // Figures are published in thousandths of a billion; what is left is their rounding.
        let off = plan.cost.flops.abs_diff(published.flops);
        assert!(off <= 500_000, "{name}: {off} from {}", published.flops);
        checked.push(name);
    }
    assert_eq!(
        checked,
        [
            "convnext_tiny",
            "efficientnet_b0",
            "mnasnet1_0",
            "mobilenet_v2",
            "mobilenet_v3_large",
            "regnet_y_400mf",
            "resnet18",
            "resnet50",
            "shufflenet_v2_x1_0",
            "squeezenet1_1",
            "vit_b_32"
        ]
    );
}

#[test]
fn classifiers_end_in_one_score_for_each_class() {
    for (name, classes) in
        [("resnet18", 1000), ("vit_b_32", 1000), ("demo_mobile", 100), ("demo_conv", 100)]
    {
        assert_eq!(plan(name).output.dims(), [1, classes, 1, 1], "{name}");
    }
}

#[test]
fn demonstration_networks_are_small() {
    for name in ["demo_mobile", "demo_conv"] {
        let plan = plan(name);
        assert!((8..=14).contains(&plan.steps.len()), "{name}");
        assert!(plan.cost.flops < 50_000_000, "{name}: {} multiply-accumulates", plan.cost.flops);
    }
}

#[test]
fn a_network_is_the_sum_of_its_steps() {
    for spec in builtin().networks() {
        let plan = plan(spec.name.as_deref().unwrap());
        let mut sum = ops_catalog::Cost::default();
        for step in &plan.steps {
            sum += step.op.at(&step.key.shape).unwrap().cost;
        }
        assert_eq!(plan.cost, sum, "{:?}", spec.name);
    }
}

#[test]
fn the_keys_of_a_network_are_pinned() {
    let keys: Vec<String> = plan("demo_conv")
        .steps
        .iter()
        .map(|step| format!("{} {:?} at {}", step.key, step.inputs, step.place))
        .collect();
    insta::assert_snapshot!(keys.join("\n"));
}

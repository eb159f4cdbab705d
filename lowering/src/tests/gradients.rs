//! Gradients of lowered ops, compared with finite differences.

use ops_catalog::{Catalog, OpPlan, Primitive};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::{CPU, candidates, deployed, op, shape, vary_norms};
use crate::{Form, LoweredOp, Placement, Random, Variables};

/// Finite differences need double precision.
const DOUBLE: Placement = Placement { kind: Kind::Double, ..CPU };

/// An op whose trained weights require gradients.
fn trainable(plan: &OpPlan, form: Form) -> (VarStore, LoweredOp) {
    let mut store = VarStore::new(Device::Cpu);
    store.set_kind(Kind::Double);
    let lowered =
        LoweredOp::new(plan, DOUBLE, form, &Variables::new(&store, Random::seeded(3))).unwrap();
    // Otherwise a ReLU after a norm without a shift can get exact zeros, where it has no derivative.
    vary_norms(&lowered);
    (store, lowered)
}

/// The op's output as one number: a weighted sum with a different weight for each element.
fn loss(lowered: &LoweredOp, input: &Tensor, train: bool) -> Tensor {
    let output = if train { lowered.forward_train(input) } else { lowered.forward(input) }.unwrap();
    let count = output.numel() as i64;
    let factors = (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.7).sin();
    (output.flatten(0, -1) * factors).sum(Kind::Double)
}

/// Compares the derivative along a random direction of each tensor with a finite difference.
fn check_gradients(plan: &OpPlan, form: Form, train: bool, what: &str) {
    let (_store, lowered) = trainable(plan, form);
    let input = lowered.random_input().unwrap().set_requires_grad(true);
    loss(&lowered, &input, train).backward();
    let trained = lowered.weights().filter(|weight| weight.trained);
    let trained = trained.map(|weight| (weight.name.as_str(), &weight.tensor));
    for (name, tensor) in trained.chain([("input", &input)]) {
        let gradient = tensor.grad();
        assert!(gradient.defined(), "{what}: {name} has no gradient");
        let direction = Tensor::randn_like(tensor);
        let derivative = f64::try_from((&gradient * &direction).sum(Kind::Double)).unwrap();
        let difference = |step: f64| {
            let moved = |by: f64| {
                let _guard = tch::no_grad_guard();
                let mut tensor = tensor.shallow_clone();
                let before = tensor.copy();
                let _ = tensor.g_add_(&(&direction * by));
                let value = f64::try_from(loss(&lowered, &input, train)).unwrap();
                tensor.copy_(&before);
                value
            };
            (moved(step) - moved(-step)) / (2.0 * step)
        };
        let agrees = |difference: f64| {
            let scale = derivative.abs().max(difference.abs()).max(1.0);
            (derivative - difference).abs() < 1e-4 * scale
        };
        // A large step sometimes crosses the kink of a ReLU.
        let steps = [1e-6, 1e-7, 1e-8];
        assert!(
            steps.into_iter().map(difference).any(agrees),
            "{what}: along {name}, the derivative is {derivative} and the difference {}",
            difference(1e-7)
        );
    }
}

#[test]
#[cfg_attr(torch_before_2_5, ignore = "stores of variables are f32 only in the older bindings")]
fn gradients_of_every_catalog_op_are_those_of_its_values() {
    // Zeros depend on nothing.
    for op in Catalog::builtin().ops().filter(|op| op.name() != "Zero") {
        // The smallest suitable shape.
        let small = [
            shape(4, 4, 16, 16, 1),
            shape(4, 4, 16, 16, 2),
            shape(4, 4, 16, 32, 2),
            shape(4, 4, 16, 8, 1),
            shape(4, 4, 16, 64, 1),
            shape(4, 4, 64, 64, 1),
            shape(6, 1, 64, 64, 1),
            shape(8, 8, 3, 16, 4),
        ];
        let shapes = small.into_iter().chain(candidates());
        let plans = shapes.filter_map(|shape| op.at(&shape).ok());
        let plan = plans.min_by_key(|plan| plan.cost.flops + plan.cost.params).unwrap();
        check_gradients(&plan, Form::Deployed, false, op.name());
        if plan.steps.iter().any(|step| step.folded_norm) {
            check_gradients(&plan, Form::Training, false, &format!("{}, with norms", op.name()));
            check_gradients(&plan, Form::Training, true, &format!("{}, training", op.name()));
        }
    }
}

/// The value of `x` is the result of an addition, which a kernel may overwrite if no gradients are needed.
#[test]
#[cfg_attr(torch_before_2_5, ignore = "stores of variables are f32 only in the older bindings")]
fn gradients_of_every_primitive_are_those_of_its_values() {
    let mut left: Vec<&str> = Primitive::NAMES.to_vec();
    let with_parameters = [
        ("conv2d", "{conv2d: {out: c_in, kernel: 3}}"),
        ("conv_transpose2d", "{conv_transpose2d: {out: c_in, kernel: 4, stride: 2}}"),
        ("prelu", "{prelu: {}}"),
        ("group_norm", "{group_norm: {groups: 2}}"),
        ("adaptive_avg_pool", "{adaptive_avg_pool: {size: [3, 2]}}"),
        ("adaptive_max_pool", "{adaptive_max_pool: {size: [3, 2]}}"),
        ("window_attention", "{window_attention: {heads: 2, window: 3, shift: 1}}"),
        ("window_attention", "{window_attention: {heads: 2, window: 3, shift: 1, cosine: true}}"),
        ("window_attention", "{window_attention: {heads: 2, window: 3, position_bias: false}}"),
        ("pad", "{pad: {padding: [1, 0, 2, 0]}}"),
        ("space_to_depth", "{space_to_depth: {block: 2}}"),
        ("depth_to_space", "{depth_to_space: {block: 2}}"),
        ("max_pool", "{max_pool: {kernel: 2, stride: 2}}"),
        ("avg_pool", "{avg_pool: {kernel: 3, stride: 1}}"),
        ("self_attention", "{self_attention: {heads: 2}}"),
        ("squeeze_excite", "{squeeze_excite: {squeeze: 4, activation: silu}}"),
        ("shuffle", "{shuffle: {groups: 2}}"),
        ("upsample", "{upsample: {scale: 2}}"),
    ];
    let of_maps = with_parameters.into_iter().chain(
        [
            "batch_norm",
            "layer_norm",
            "layer_scale",
            "layer_shift",
            "scale",
            "shift",
            "response_norm",
            "relu",
            "relu6",
            "hardswish",
            "silu",
            "gelu",
            "sigmoid",
            "softmax",
            "rms_norm",
            "leaky_relu",
            "elu",
            "gelu_tanh",
            "tanh",
            "hardsigmoid",
            "mish",
            "position_embedding",
            "global_avg_pool",
            "identity",
        ]
        .map(|name| (name, name)),
    );
    let twice = "{id: x, apply: add, inputs: [input, input]}";
    let mut ops: Vec<(Vec<&str>, String)> = of_maps
        .map(|(name, apply)| (vec![name], format!("[{twice}, {{apply: {apply}}}]")))
        .collect();
    for merge in ["add", "sub", "mul", "concat"] {
        // The last reader of `x` may overwrite it, but the backward pass needs a factor.
        let nodes = format!(
            "[{twice}, {{id: y, apply: {merge}, inputs: [x, input]}}, {{id: z, apply: silu, inputs: [x]}},
              {{apply: concat, inputs: [y, z]}}]"
        );
        ops.push((vec![merge], nodes));
    }
    ops.push((
        vec!["split"],
        "[{id: p, apply: {split: {parts: 2}}}, {id: a, apply: relu6, inputs: [p.0]},
          {apply: mul, inputs: [a, p.1]}]"
            .to_owned(),
    ));
    ops.push((
        vec!["slice"],
        format!("[{twice}, {{apply: {{slice: {{along: height, start: 1, length: 2, step: 2}}}}}}, {{apply: relu}}]"),
    ));
    ops.push((
        vec!["flatten"],
        format!(
            "[{twice}, {{apply: flatten}}, {{apply: relu}}, {{apply: {{linear: {{out: 8}}}}}}]"
        ),
    ));
    ops.push((
        vec!["to_map", "rotary"],
        format!(
            "[{twice}, {{apply: {{to_tokens: {{class_token: false, positions: false}}}}}}, {{apply: {{rotary: {{heads: 2}}}}}},
              {{id: t, apply: silu}}, {{inputs: [t, x], apply: to_map}}, {{apply: relu6}}]"
        ),
    ));
    ops.push((
        vec!["unfold", "fold"],
        format!(
            "[{twice}, {{apply: {{unfold: {{patch: 2}}}}}}, {{id: t, apply: {{self_attention: {{heads: 2}}}}}},
              {{inputs: [t, x], apply: {{fold: {{patch: 2}}}}}}]"
        ),
    ));
    ops.push((
        vec!["prepend_tokens", "select_token", "concat_tokens"],
        "[{apply: {to_tokens: {class_token: false}}}, {id: t, apply: {prepend_tokens: {count: 2}}},
          {id: s, apply: silu}, {inputs: [s, t], apply: concat_tokens}, {apply: {self_attention: {heads: 2}}},
          {apply: {select_token: {index: 3}}}]"
            .to_owned(),
    ));
    ops.push((
        vec!["zero"],
        format!("[{twice}, {{id: z, apply: {{zero: {{}}}}}}, {{apply: add, inputs: [x, z]}}]"),
    ));
    ops.push((
        vec!["conv1d", "attention"],
        "[{apply: {to_tokens: {class_token: false}}}, {id: x, apply: {conv1d: {out: 8, kernel: 3}}},
          {id: q, inputs: [x], apply: {linear: {out: 16}}}, {id: k, inputs: [x], apply: {linear: {out: 8}}},
          {id: v, inputs: [x], apply: {linear: {out: 4}}},
          {inputs: [q, k, v], apply: {attention: {heads: 4, kv_heads: 2, causal: true}}}]"
            .to_owned(),
    ));
    ops.push((
        vec!["attention"],
        "[{id: k, apply: {avg_pool: {kernel: 2, stride: 2}}},
          {inputs: [input, k, k], apply: {attention: {heads: 2, position_bias: true}}}]"
            .to_owned(),
    ));
    ops.push((
        vec!["attention"],
        "[{apply: {to_tokens: {class_token: false}}},
          {id: x, apply: {linear: {out: 8}}},
          {inputs: [x, x, x], apply: {attention: {heads: 2, causal: true, cosine: true}}}]"
            .to_owned(),
    ));
    ops.push((
        vec!["channel_attention"],
        format!(
            "[{twice}, {{id: y, inputs: [x, input, x], apply: {{channel_attention: {{heads: 2}}}}}},
              {{inputs: [y, x, y], apply: {{channel_attention: {{heads: 4, cosine: true}}}}}}]"
        ),
    ));
    ops.push((
        vec!["to_map_of"],
        "[{apply: {to_tokens: {class_token: false}}}, {apply: silu}, {apply: {to_map_of: {size: 4}}}, {apply: relu6}]"
            .to_owned(),
    ));
    ops.push((
        vec!["transpose"],
        "[{id: t, apply: {to_tokens: {class_token: false}}}, {apply: transpose}, {apply: {linear: {out: 16}}},
          {apply: gelu}, {apply: transpose}, {apply: {linear: {out: c_out}}}]"
            .to_owned(),
    ));
    ops.push((
        vec!["to_tokens", "class_token", "linear"],
        "[{apply: {to_tokens: {class_token: true}}}, {apply: {self_attention: {heads: 2}}},
          {apply: class_token}, {apply: {linear: {out: 8}}}]"
            .to_owned(),
    ));
    for (names, nodes) in ops {
        left.retain(|name| !names.contains(name));
        let op = op(&format!("{{name: G, nodes: {nodes}}}"));
        let suits = |&out: &u32| op.at(&shape(4, 4, 8, out, 1)).is_ok();
        let out =
            [8, 4, 16, 24, 32, 2].into_iter().find(suits).unwrap_or_else(|| panic!("{nodes}"));
        check_gradients(&op.at(&shape(4, 4, 8, out, 1)).unwrap(), Form::Training, true, &nodes);
        check_gradients(&op.at(&shape(4, 4, 8, out, 1)).unwrap(), Form::Deployed, false, &nodes);
    }
    // Its input is numbers of rows, which have no gradient.
    left.retain(|&name| name != "embedding");
    assert!(left.is_empty(), "not tested: {left:?}");
}

#[test]
fn two_backward_passes_go_through_a_shared_value() {
    let plan = Catalog::builtin().op("MBConv6_3x3_SE").unwrap().at(&shape(8, 8, 8, 8, 1)).unwrap();
    let (_store, lowered) = trainable(&plan, Form::Training);
    let input = lowered.random_input().unwrap().set_requires_grad(true);
    let shared = lowered.forward_train(&input).unwrap();
    let gradient = |loss: &Tensor| {
        let gradients = Tensor::run_backward(&[loss], &[&input], true, false);
        gradients.into_iter().next().unwrap()
    };
    let once = gradient(&shared.sum(Kind::Double));
    let twice = gradient(&(&shared * 2.0).sum(Kind::Double));
    let worst = f64::try_from((twice - once * 2.0).abs().max()).unwrap();
    assert!(worst < 1e-9, "differs by {worst}");
}

/// The fast path overwrites values; the same op does not overwrite them once the input requires gradients.
#[test]
fn values_are_overwritten_only_without_gradients() {
    let nodes = "[{id: x, apply: add, inputs: [input, input]}, {id: y, apply: mul, inputs: [x, x]},
                  {id: z, apply: relu6, inputs: [x]}, {apply: add, inputs: [y, z]}]";
    let plan = op(&format!("{{name: O, nodes: {nodes}}}")).at(&shape(4, 4, 8, 8, 1)).unwrap();
    let lowered = deployed(&plan);
    assert!(lowered.in_place);
    let input = lowered.random_input().unwrap();
    let fast = lowered.forward(&input).unwrap();
    let input = input.set_requires_grad(true);
    let output = lowered.forward(&input).unwrap();
    super::close(&output.detach(), &fast);
    output.sum(Kind::Float).backward();
    assert!(input.grad().defined());
}

#[test]
fn a_batch_norm_follows_each_biased_convolution_unless_the_definition_normalizes() {
    let norms = |nodes: &str| {
        let plan = op(&format!("{{name: N, nodes: [{nodes}]}}")).at(&shape(4, 4, 8, 8, 1)).unwrap();
        let (_store, lowered) = trainable(&plan, Form::Training);
        let names: Vec<String> = lowered.weights().map(|weight| weight.name.clone()).collect();
        names.into_iter().filter(|name| name.ends_with("running_mean")).collect::<Vec<_>>()
    };
    let conv = "{apply: {conv2d: {out: 8, kernel: 3}}}";
    let bare = "{id: bare, apply: {conv2d: {out: 8, kernel: 3, bias: false}}}";
    assert_eq!(norms(conv), ["conv2d-0.norm.running_mean"]);
    assert_eq!(norms(&format!("{bare}, {conv}")), ["conv2d-1.norm.running_mean"]);
    let kept = format!("{conv}, {{id: kept, apply: batch_norm}}");
    assert_eq!(norms(&kept), ["kept.running_mean"]);
    assert!(norms(&format!("{conv}, {{apply: layer_norm}}")).is_empty());
}

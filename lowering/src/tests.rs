//! Compares lowered ops with shape inference, and with the same computation written directly.

mod gradients;
mod providers;
mod torch;

use ops_catalog::{Catalog, Network, NetworkSpec, Op, OpDef, OpPlan, Pair, Primitive, Shape};
use tch::{Kind, Tensor};

use super::{Form, LoweredNetwork, LoweredOp, Placement, Random};

const CPU: Placement =
    Placement { device: tch::Device::Cpu, kind: Kind::Float, channels_last: false };

/// An op in deployed form with random weights.
fn deployed(plan: &OpPlan) -> LoweredOp {
    LoweredOp::new(plan, CPU, Form::Deployed, &Random::seeded(1)).unwrap()
}

fn deployed_network(plan: &ops_catalog::NetworkPlan) -> LoweredNetwork {
    LoweredNetwork::new(plan, CPU, Form::Deployed, &Random::seeded(1)).unwrap()
}

/// Statistics and affine parameters as after training, far from the initial values of a batch norm.
fn vary_norms(lowered: &LoweredOp) {
    let _guard = tch::no_grad_guard();
    for weight in lowered.weights().filter(|weight| weight.name.contains("norm.")) {
        let mut tensor = weight.tensor.shallow_clone();
        let random = Tensor::rand_like(&tensor) + 0.5;
        tensor.copy_(&random);
    }
}

fn shape(h: u32, w: u32, channels_in: u32, channels_out: u32, stride: u32) -> Shape {
    Shape { batch: 2, input_h: h, input_w: w, channels_in, channels_out, stride }
}

/// Shapes of which every op of the catalog can take at least one.
fn candidates() -> Vec<Shape> {
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

fn op(yaml: &str) -> Op {
    let def: OpDef = serde_saphyr::from_str(yaml).unwrap();
    Op::new(def).unwrap()
}

fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.size(), b.size());
    let worst = f64::try_from((a - b).abs().max()).unwrap();
    assert!(worst < 1e-4, "differs by {worst}");
}

#[test]
fn every_catalog_op_gives_the_shape_that_was_inferred() {
    for op in Catalog::builtin().ops() {
        let plans: Vec<_> = candidates().iter().filter_map(|s| op.at(s).ok()).collect();
        assert!(!plans.is_empty(), "no candidate shape suits {}", op.name());
        for plan in plans {
            let lowered = deployed(&plan);
            let input = lowered.random_input().unwrap();
            let before = input.copy();
            let output = lowered.forward(&input).unwrap();
            assert_eq!(output.size(), plan.output.dims(), "{}", op.name());
            assert!(f64::try_from(output.sum(Kind::Double)).unwrap().is_finite(), "{}", op.name());
            close(&input, &before);
        }
    }
}

/// The weights of a lowered op, by step.
struct Parts<'a> {
    plan: &'a OpPlan,
    lowered: &'a LoweredOp,
}

impl Parts<'_> {
    fn weight(&self, step: usize, part: &str) -> &Tensor {
        let name = format!("{}.{part}", self.plan.steps[step].name);
        let found = self.lowered.weights().find(|weight| weight.name == name);
        &found.unwrap_or_else(|| panic!("no {name}")).tensor
    }

    /// The same convolution, written directly.
    fn conv(&self, step: usize, x: &Tensor) -> Tensor {
        let Primitive::Conv2d { stride, groups, dilation, padding, .. } =
            self.plan.steps[step].primitive
        else {
            panic!("step {step} is no convolution")
        };
        let pair = |pair: Pair<u32>| pair.parts().map(i64::from);
        x.conv2d(
            self.weight(step, "weight"),
            Some(self.weight(step, "bias")),
            pair(stride),
            padding.unwrap().sides().as_symmetric().unwrap().map(i64::from),
            pair(dilation),
            groups.into(),
        )
    }
}

/// Runs a definition and hands its weights, input and output to a check.
fn check(yaml: &str, shape: Shape, expected: impl Fn(&Parts, &Tensor) -> Tensor) {
    let plan = op(yaml).at(&shape).unwrap();
    let lowered = deployed(&plan);
    let input = lowered.random_input().unwrap();
    let output = lowered.forward(&input).unwrap();
    close(&output, &expected(&Parts { plan: &plan, lowered: &lowered }, &input));
}

#[test]
fn an_inverted_residual_is_what_the_paper_says() {
    let def = Catalog::builtin().op("MBConv6_3x3").unwrap().def().clone();
    let yaml = serde_json::to_string(&def).unwrap();
    check(&yaml, shape(14, 14, 8, 8, 1), |parts, x| {
        let expanded = parts.conv(0, x).clamp(0.0, 6.0);
        let filtered = parts.conv(2, &expanded).clamp(0.0, 6.0);
        parts.conv(4, &filtered) + x
    });
    check(&yaml, shape(14, 14, 8, 16, 2), |parts, x| {
        let expanded = parts.conv(0, x).clamp(0.0, 6.0);
        let filtered = parts.conv(2, &expanded).clamp(0.0, 6.0);
        assert_eq!(filtered.size(), [2, 48, 7, 7]);
        parts.conv(4, &filtered)
    });
}

#[test]
fn attention_is_softmax_of_scaled_products() {
    check(
        "{name: A, input: tokens, nodes: [{apply: {self_attention: {heads: 4}}}]}",
        shape(10, 1, 32, 32, 1),
        |parts, x| {
            let heads = 4;
            let (n, l, c) = x.size3().unwrap();
            let projected =
                x.linear(parts.weight(0, "qkv.weight"), Some(parts.weight(0, "qkv.bias")));
            let part = |index: i64| {
                projected.narrow(2, index * c, c).reshape([n, l, heads, c / heads]).transpose(1, 2)
            };
            let scores = part(0).matmul(&part(1).transpose(2, 3)) / ((c / heads) as f64).sqrt();
            let mixed = scores.softmax(-1, Kind::Float).matmul(&part(2));
            let joined = mixed.transpose(1, 2).reshape([n, l, c]);
            joined.linear(parts.weight(0, "out.weight"), Some(parts.weight(0, "out.bias")))
        },
    );
}

#[test]
fn attention_over_a_map_is_attention_over_its_positions() {
    let over_tokens = "{name: A, input: tokens, nodes: [{apply: {self_attention: {heads: 4}}}]}";
    let over_tokens = deployed(&op(over_tokens).at(&shape(15, 1, 32, 32, 1)).unwrap());
    let over_map = "{name: A, nodes: [{apply: {self_attention: {heads: 4}}}]}";
    // Weights depend on their names and the seed, so both ops have equal weights.
    check(over_map, shape(3, 5, 32, 32, 1), |_, x| {
        let same = over_tokens.forward(&x.flatten(2, -1).transpose(1, 2)).unwrap();
        same.transpose(1, 2).reshape(x.size())
    });
}

#[test]
fn squeeze_and_excite_gates_channels() {
    check(
        "{name: S, nodes: [{apply: {squeeze_excite: {squeeze: c_in/4, gate: hardsigmoid}}}]}",
        shape(6, 6, 16, 16, 1),
        |parts, x| {
            let pooled = x.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
            let dense = |x: &Tensor, part: &str| {
                let weight = parts.weight(0, &format!("{part}.weight")).flatten(1, -1);
                x.linear(&weight, Some(parts.weight(0, &format!("{part}.bias"))))
            };
            let gate = dense(&dense(&pooled, "reduce").relu(), "expand").hardsigmoid();
            x * gate.unsqueeze(-1).unsqueeze(-1)
        },
    );
}

#[test]
fn elementwise_primitives_are_their_formulas() {
    type Formula = fn(&Tensor) -> Tensor;
    let cases: [(&str, Formula); 6] = [
        ("relu", |x| x.clamp_min(0.0)),
        ("relu6", |x| x.clamp(0.0, 6.0)),
        ("hardswish", |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
        ("silu", |x| x / ((-x).exp() + 1.0)),
        ("gelu", |x| x * (((x / std::f64::consts::SQRT_2).erf() + 1.0) / 2.0)),
        ("sigmoid", |x| ((-x).exp() + 1.0).reciprocal()),
    ];
    for (name, formula) in cases {
        // Once on the op's own input, which must stay unchanged, and once in place on a sum.
        let alone = format!("{{name: E, nodes: [{{apply: {name}}}]}}");
        check(&alone, shape(4, 4, 8, 8, 1), |_, x| formula(x));
        let after = format!(
            "{{name: E, nodes: [{{apply: add, inputs: [input, input]}}, {{apply: {name}}}]}}"
        );
        check(&after, shape(4, 4, 8, 8, 1), |_, x| formula(&(x + x)));
    }
}

#[test]
fn shapes_are_moved_as_torch_moves_them() {
    check(
        "{name: G, nodes: [{id: a, apply: {split: {parts: 2}}}, {id: r, apply: relu, inputs: [a.1]},
          {apply: concat, inputs: [r, a.0]}, {apply: {shuffle: {groups: 4}}}, {apply: {upsample: {scale: 2}}}]}",
        shape(3, 3, 8, 8, 1),
        |_, x| {
            let joined = Tensor::cat(&[x.narrow(1, 4, 4).relu(), x.narrow(1, 0, 4)], 1);
            let shuffled = joined.view([2, 4, 2, 3, 3]).transpose(1, 2).reshape([2, 8, 3, 3]);
            shuffled.repeat_interleave_self_int(2, 2, None).repeat_interleave_self_int(2, 3, None)
        },
    );
    check(
        "{name: P, nodes: [{apply: {max_pool: {kernel: 3, stride: 2}}}, {apply: {avg_pool: {kernel: 2, stride: 1}}},
          {apply: global_avg_pool}, {apply: {linear: {out: c_out}}}]}",
        shape(9, 9, 8, 5, 1),
        |parts, x| {
            let pooled = x
                .max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)
                .avg_pool2d([2, 2], [1, 1], [0, 0], false, true, None);
            let mean = pooled.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
            mean.linear(parts.weight(3, "weight"), Some(parts.weight(3, "bias"))).view([2, 5, 1, 1])
        },
    );
}

#[test]
fn tokens_carry_class_and_position() {
    check(
        "{name: T, nodes: [{apply: {to_tokens: {class_token: true}}}, {apply: layer_norm}, {apply: class_token}]}",
        shape(2, 2, 6, 6, 1),
        |parts, _| {
            let (token, positions) = (parts.weight(0, "class_token"), parts.weight(0, "positions"));
            let (weight, bias) = (parts.weight(1, "weight"), parts.weight(1, "bias"));
            let first = token + positions.select(1, 0).squeeze();
            let normed = first.layer_norm([6], Some(weight), Some(bias), 1e-6, true);
            normed.view([1, 6, 1, 1]).expand([2, 6, 1, 1], false)
        },
    );
}

#[test]
fn a_batch_norm_that_is_kept_normalizes() {
    check("{name: B, nodes: [{apply: batch_norm}]}", shape(3, 3, 4, 4, 1), |parts, x| {
        let channel = |part: &str| parts.weight(0, part).view([1, 4, 1, 1]);
        let root = (channel("running_var") + 1e-5).sqrt();
        (x - channel("running_mean")) / root * channel("weight") + channel("bias")
    });
}

#[test]
fn layer_scale_is_a_factor_for_each_channel() {
    for (input, shape) in [("map", shape(3, 5, 6, 6, 1)), ("tokens", shape(7, 1, 6, 6, 1))] {
        let yaml = format!("{{name: L, input: {input}, nodes: [{{apply: layer_scale}}]}}");
        check(&yaml, shape, |parts, x| {
            let channels = super::primitive::channel_dim(x);
            let factors =
                Vec::<f64>::try_from(parts.weight(0, "factor").to_kind(Kind::Double)).unwrap();
            let scaled = factors
                .iter()
                .enumerate()
                .map(|(channel, &factor)| x.narrow(channels, channel as i64, 1) * factor);
            Tensor::cat(&scaled.collect::<Vec<_>>(), channels)
        });
    }
}

#[test]
fn a_convnext_block_is_what_the_paper_says() {
    let def = Catalog::builtin().op("ConvNeXtBlock").unwrap().def().clone();
    check(&serde_json::to_string(&def).unwrap(), shape(9, 9, 8, 8, 1), |parts, x| {
        // The form of the paper: all computation after the depthwise convolution is per position.
        let last = parts.conv(0, x).permute([0, 2, 3, 1]);
        let normed = last.layer_norm(
            [8],
            Some(parts.weight(1, "weight")),
            Some(parts.weight(1, "bias")),
            1e-6,
            true,
        );
        let dense = |step: usize, x: &Tensor| {
            x.linear(&parts.weight(step, "weight").flatten(1, -1), Some(parts.weight(step, "bias")))
        };
        let hidden = dense(2, &normed).gelu("none");
        let scaled = dense(4, &hidden) * parts.weight(5, "factor");
        scaled.permute([0, 3, 1, 2]) + x
    });
}

#[test]
fn a_shuffle_unit_mixes_a_half_that_it_keeps_with_one_that_it_computes() {
    let def = Catalog::builtin().op("ShuffleUnit").unwrap().def().clone();
    check(&serde_json::to_string(&def).unwrap(), shape(6, 6, 8, 8, 1), |parts, x| {
        let hidden = parts.conv(1, &x.narrow(1, 4, 4)).relu();
        let branch = parts.conv(4, &parts.conv(3, &hidden)).relu();
        // Channels of the two halves alternate.
        let turns = (0..4).flat_map(|c| [x.narrow(1, c, 1), branch.narrow(1, c, 1)]);
        Tensor::cat(&turns.collect::<Vec<_>>(), 1)
    });
}

#[test]
fn a_regnet_block_gates_its_grouped_convolution() {
    let def = Catalog::builtin().op("RegNetYBlock_G8").unwrap().def().clone();
    check(&serde_json::to_string(&def).unwrap(), shape(6, 6, 16, 24, 2), |parts, x| {
        let expanded = parts.conv(0, x).relu();
        let Primitive::Conv2d { groups, .. } = parts.plan.steps[2].primitive else { panic!() };
        assert_eq!((groups, parts.weight(4, "reduce.weight").size()[0]), (3, 4));
        let filtered = parts.conv(2, &expanded).relu();
        let pooled = filtered.mean_dim([2i64, 3].as_slice(), true, Kind::Float);
        let pointwise = |x: &Tensor, part: &str| {
            let weight = parts.weight(4, &format!("{part}.weight"));
            x.conv2d(weight, Some(parts.weight(4, &format!("{part}.bias"))), 1, 0, 1, 1)
        };
        let gate = pointwise(&pointwise(&pooled, "reduce").relu(), "expand").sigmoid();
        (parts.conv(5, &(filtered * gate)) + parts.conv(6, x)).relu()
    });
}

/// In-place computation must never change the op's own input through a view of it.
#[test]
fn in_place_work_spares_what_a_view_shows() {
    for def in [
        "{name: V, nodes: [{apply: identity}, {apply: relu}]}",
        "{name: V, nodes: [{id: a, apply: {split: {parts: 2}}}, {id: b, apply: relu, inputs: [a.0]}, {apply: concat, inputs: [b, a.1]}]}",
    ] {
        let plan = op(def).at(&shape(4, 4, 8, 8, 1)).unwrap();
        let lowered = deployed(&plan);
        let input = lowered.random_input().unwrap();
        let before = input.copy();
        drop(lowered.forward(&input).unwrap());
        close(&input, &before);
    }
}

#[test]
fn a_network_is_its_ops_in_order() {
    let spec: NetworkSpec = serde_saphyr::from_str(
        "{input: {n: 1, c: 3, h: 16, w: 16}, output: 3, nodes: [
           {op: Conv3x3, c_out: 8, stride: 1, inputs: [-1]},
           {op: Conv1x1, c_out: 8, stride: 1, inputs: [-1]},
           {op: Conv3x3, c_out: 8, stride: 2, inputs: [0, 1]},
           {op: Identity, c_out: 16, stride: 1, inputs: [2, 2], merge: concat}]}",
    )
    .unwrap();
    let catalog = Catalog::builtin();
    let plan = Network::new(&spec, catalog).unwrap().plan(catalog).unwrap();
    let lowered = deployed_network(&plan);
    let input = lowered.random_input().unwrap();
    let output = lowered.forward(&input).unwrap();
    assert_eq!(output.size(), [1, 16, 8, 8]);
    let run = |key: &str, x: &Tensor| {
        let step = plan.steps.iter().position(|s| s.place == key && s.merge.is_none()).unwrap();
        let super::NetworkStep::Op(op) = &lowered.steps[step].run else { panic!() };
        op.forward(x).unwrap()
    };
    let sum = run("nodes[0]", &input) + run("nodes[1]", &input);
    let third = run("nodes[2]", &sum);
    close(&output, &Tensor::cat(&[&third, &third], 1));
}

#[test]
fn sequences_are_merged_along_their_channels() {
    let spec: NetworkSpec = serde_saphyr::from_str(
        "{input: {n: 1, c: 3, h: 32, w: 32}, output: 2, nodes: [
           {op: PatchEmbed, c_out: 64, stride: 16, inputs: [-1]},
           {op: TransformerEncoder, c_out: 64, stride: 1, inputs: [0]},
           {op: TransformerEncoder, c_out: 128, stride: 1, inputs: [0, 1], merge: concat}]}",
    )
    .unwrap();
    let catalog = Catalog::builtin();
    let plan = Network::new(&spec, catalog).unwrap().plan(catalog).unwrap();
    let lowered = deployed_network(&plan);
    let output = lowered.forward(&lowered.random_input().unwrap()).unwrap();
    assert_eq!(output.size(), plan.output.dims());
}

#[test]
fn real_networks_run() {
    let catalog = Catalog::builtin();
    for name in [
        "demo_mobile",
        "demo_conv",
        "mobilenet_v3_large",
        "squeezenet1_1",
        "shufflenet_v2_x1_0",
        "mnasnet1_0",
        "regnet_y_400mf",
        "convnext_tiny",
        "vit_b_32",
    ] {
        let plan = catalog.network(name).unwrap().plan(catalog).unwrap();
        let lowered = deployed_network(&plan);
        let output = lowered.forward(&lowered.random_input().unwrap()).unwrap();
        assert_eq!(output.size(), plan.output.dims(), "{name}");
        assert!(f64::try_from(output.sum(Kind::Double)).unwrap().is_finite(), "{name}");
    }
}

#[test]
fn parameters_of_a_lowered_op_are_those_that_the_catalog_counts() {
    for op in Catalog::builtin().ops() {
        for plan in candidates().iter().filter_map(|s| op.at(s).ok()) {
            let lowered = deployed(&plan);
            let elements: usize = lowered.weights().map(|weight| weight.tensor.numel()).sum();
            assert_eq!(elements as u64, plan.cost.weight_elements, "{}", op.name());
        }
    }
}

/// The catalog defines the widths of the parts of a split, and libtorch creates the parts.
#[test]
fn an_odd_number_of_channels_is_split_as_planned() {
    for (parts, channels) in [(2, 9), (3, 7), (2, 8)] {
        let ids: Vec<String> = (0..parts).map(|part| format!("p.{part}")).collect();
        let def = format!(
            "name: Cut\nnodes:\n- {{id: p, apply: {{split: {{parts: {parts}}}}}}}\n\
             - {{apply: concat, inputs: [{}]}}\n",
            ids.join(", ")
        );
        let op = Op::new(OpDef::from_yaml(&def).unwrap()).unwrap();
        let plan = op.at(&shape(4, 4, channels, channels, 1)).unwrap();
        let lowered = deployed(&plan);
        let output = lowered.forward(&lowered.random_input().unwrap()).unwrap();
        assert_eq!(output.size(), plan.output.dims());
        let x = Tensor::zeros([1, i64::from(channels), 4, 4], (Kind::Float, tch::Device::Cpu));
        let widths: Vec<i64> = x.chunk(parts, 1).iter().map(|part| part.size()[1]).collect();
        let planned: Vec<i64> =
            plan.steps[0].outputs.iter().map(|part| i64::from(part.channels())).collect();
        assert_eq!(widths, planned, "{parts} of {channels}");
    }
}

#[test]
fn every_placement_computes_the_same_op() {
    let plan =
        Catalog::builtin().op("MBConv6_3x3_SE").unwrap().at(&shape(14, 14, 8, 8, 1)).unwrap();
    for (kind, channels_last) in [(Kind::Float, true), (Kind::BFloat16, false), (Kind::Half, true)]
    {
        // Older releases have no convolutions in half precision on a processor.
        if kind == Kind::Half && cfg!(torch_before_2_5) {
            continue;
        }
        let lowered = {
            let placement = Placement { kind, channels_last, ..CPU };
            LoweredOp::new(&plan, placement, Form::Deployed, &Random::default()).unwrap()
        };
        let input = lowered.random_input().unwrap();
        let output = lowered.forward(&input).unwrap();
        assert_eq!((output.kind(), output.size()), (kind, plan.output.dims()));
        let last = |t: &Tensor| t.stride()[1] == 1;
        assert_eq!((last(&input), last(&output)), (channels_last, channels_last), "{kind:?}");
    }
}

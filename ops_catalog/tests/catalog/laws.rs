//! Laws of shapes and costs.

use ops_catalog::{Cost, Network, Op, OpDef, OpPlan, Primitive, Shape, Source};
use proptest::prelude::*;

use crate::{builtin, generate, map, op};

fn cost(nodes: &str, shape: &Shape) -> Cost {
    op(nodes).at(shape).unwrap_or_else(|e| panic!("{nodes}: {e}")).cost
}

proptest! {
    #[test]
    fn an_odd_kernel_at_stride_1_keeps_the_size(
        h in 1u32..300, w in 1u32..300, half in 0u32..6, dilation in 1u32..4, c in 1u32..9,
    ) {
        let kernel = 2 * half + 1;
        let nodes = format!("[apply: {{conv2d: {{out: c_out, kernel: {kernel}, dilation: {dilation}}}}}]");
        let shape = Shape { input_h: h, input_w: w, ..map(1, 3, c, 1) };
        let plan = op(&nodes).at(&shape).unwrap();
        prop_assert_eq!(plan.output.dims(), [1, i64::from(c), i64::from(h), i64::from(w)]);
    }

    #[test]
    fn a_stride_divides_the_size_and_rounds_up(size in 1u32..300, stride in 1u32..5, half in 0u32..4) {
        prop_assume!(stride <= size);
        let nodes = format!("[apply: {{conv2d: {{out: c_out, kernel: {}, stride: stride}}}}]", 2 * half + 1);
        let plan = op(&nodes).at(&map(size, 3, 8, stride)).unwrap();
        prop_assert_eq!(plan.output.dims()[2], i64::from(size.div_ceil(stride)));
    }

    #[test]
    fn costs_of_ops_in_a_row_add_up(a in generate::chain(), b in generate::chain(), size in 8u32..20) {
        let shape = map(size, 16, 16, 1);
        let mut joined = a.clone();
        joined.nodes.extend(b.nodes.iter().cloned());
        let cost_of = |def: OpDef| Op::new(def).unwrap().at(&shape).unwrap().cost;
        let mut sum = cost_of(a);
        sum += cost_of(b);
        prop_assert_eq!(cost_of(joined), sum);
    }

    #[test]
    fn a_condition_that_does_not_hold_costs_nothing(def in generate::chain(), size in 8u32..20) {
        // Every conditional node of a chain holds at a shape that is kept, and this one is.
        let shape = map(size, 16, 16, 1);
        let mut bare = def.clone();
        bare.nodes.retain(|node| node.when.is_none());
        prop_assume!(!bare.nodes.is_empty());
        let strided = |mut def: OpDef| {
            // A pool that halves the map makes the op one that changes its shape.
            let pool = "{max_pool: {kernel: 1, stride: stride}}";
            def.nodes.insert(0, op(&format!("[apply: {pool}]")).def().nodes[0].clone());
            Op::new(def).unwrap().at(&Shape { stride: 2, ..shape }).unwrap().cost
        };
        prop_assert_eq!(strided(def), strided(bare));
    }

    #[test]
    fn groups_divide_the_work(groups in prop_oneof![Just(1u32), Just(2), Just(4), Just(8)], size in 1u32..50) {
        let conv = |groups: u32| {
            let nodes = format!("[apply: {{conv2d: {{out: c_out, kernel: 3, groups: {groups}, bias: false}}}}]");
            cost(&nodes, &map(size, 16, 24, 1))
        };
        let (dense, grouped) = (conv(1), conv(groups));
        prop_assert_eq!(grouped.flops * u64::from(groups), dense.flops);
        prop_assert_eq!(grouped.params * u64::from(groups), dense.params);
        prop_assert_eq!(grouped.activation_elements, dense.activation_elements);
    }

    /// Every product of a convolution is one of the transposed convolution back, which undoes its size.
    #[test]
    fn a_transposed_convolution_works_as_much_as_the_convolution(
        size in 1u32..20, kernel in 1u32..5, stride in 1u32..4, c_in in 1u32..9, c_out in 1u32..9,
    ) {
        let window = format!("kernel: {kernel}, stride: {stride}, padding: 0, bias: false");
        let there = op(&format!("[apply: {{conv_transpose2d: {{out: c_out, {window}}}}}]"));
        let there = there.at(&map(size, c_in, c_out, 1)).unwrap();
        let grown = (size - 1) * stride + kernel;
        prop_assert_eq!(there.output.dims()[2], i64::from(grown));
        let back = cost(&format!("[apply: {{conv2d: {{out: c_out, {window}}}}}]"), &map(grown, c_out, c_in, 1));
        prop_assert_eq!((there.cost.flops, there.cost.params), (back.flops, back.params));
        prop_assert_eq!(there.cost.activation_elements, back.activation_elements);
    }

    /// A kernel of one column costs what the kernel of one row costs on the map that is turned.
    #[test]
    fn a_turned_kernel_costs_the_same_on_a_turned_map(
        (h, w) in (5u32..20, 5u32..20), (kernel, other) in (1u32..6, 1u32..6), stride in 1u32..4, same in any::<bool>(),
    ) {
        let turned = |kernel: u32, other: u32, strides: [u32; 2], h: u32, w: u32| {
            let padding = if same { ", padding: same" } else { "" };
            let conv = format!("conv2d: {{out: c_out, kernel: [{kernel}, {other}], stride: {strides:?}{padding}}}");
            cost(&format!("[apply: {{{conv}}}]"), &Shape { input_h: h, input_w: w, ..map(1, 3, 5, 1) })
        };
        prop_assert_eq!(turned(kernel, other, [stride, 1], h, w), turned(other, kernel, [1, stride], w, h));
    }

    /// Changes of shape that have an inverse give the shape back, and move every element.
    #[test]
    fn changes_of_shape_are_undone(rows in 1u32..9, columns in 1u32..9, block in 1u32..5, c in 1u32..9) {
        let shape = Shape { input_h: rows * block, input_w: columns * block, ..map(1, c, c, 1) };
        for nodes in [
            format!("[apply: {{space_to_depth: {{block: {block}}}}}, apply: {{depth_to_space: {{block: {block}}}}}]"),
            format!("[{{id: t, apply: {{unfold: {{patch: {block}}}}}}}, {{inputs: [t, input], apply: {{fold: {{patch: {block}}}}}}}]"),
            "[{id: t, apply: {to_tokens: {class_token: false, positions: false}}}, {inputs: [t, input], apply: to_map}]"
                .to_owned(),
        ] {
            let plan = op(&nodes).at(&shape).unwrap();
            prop_assert_eq!(plan.output, plan.input);
            let moved = plan.cost.activation_elements;
            prop_assert!(moved == 0 || moved == 4 * plan.input.elements(), "{} {}", nodes, moved);
        }
    }

    /// Windows that divide a map are as many batches of attention over a window.
    #[test]
    fn windows_are_a_batch(rows in 1u32..5, columns in 1u32..5, window in 1u32..6, shift in 0u32..6) {
        let shift = shift % window;
        let windows = cost(
            &format!("[apply: {{window_attention: {{heads: 2, window: {window}, shift: {shift}}}}}]"),
            &Shape { input_h: rows * window, input_w: columns * window, ..map(1, 8, 8, 1) },
        );
        let one = cost("[apply: {self_attention: {heads: 2}}]", &map(window, 8, 8, 1));
        prop_assert_eq!(windows.flops, u64::from(rows * columns) * one.flops);
        let bias = u64::from(2 * (2 * window - 1).pow(2));
        prop_assert_eq!(windows.params, one.params + bias);
    }

    /// Heads that share keys and values save the weights of those, and none of the products.
    #[test]
    fn grouped_queries_save_weights_only(length in 1u32..50, size in 1u32..9, shared in 0u32..3) {
        let attention = |kv_heads: u32| {
            let linear = |id: &str, heads: u32| {
                format!("{{id: {id}, inputs: [x], apply: {{linear: {{out: {}, bias: false}}}}}}", heads * size)
            };
            let nodes = [
                "{id: x, apply: {to_tokens: {class_token: false}}}".to_owned(),
                linear("q", 8), linear("k", kv_heads), linear("v", kv_heads),
                format!("{{inputs: [q, k, v], apply: {{attention: {{heads: 8, kv_heads: {kv_heads}}}}}}}"),
            ];
            let shape = Shape { input_h: length, input_w: 1, ..map(1, 16, 8 * size, 1) };
            op(&format!("[{}]", nodes.join(", "))).at(&shape).unwrap()
        };
        let (all, some) = (attention(8), attention(8 >> shared));
        let products = |plan: &OpPlan| plan.steps.last().unwrap().cost.flops;
        prop_assert_eq!(products(&all), products(&some));
        let saved = u64::from(2 * 16 * (8 - (8 >> shared)) * size);
        prop_assert_eq!(all.cost.params - some.cost.params, saved);
    }

    #[test]
    fn a_batch_multiplies_the_work_and_shares_the_weights(
        def in generate::chain(), size in 8u32..20, batch in 1u32..65,
    ) {
        let op = Op::new(def).unwrap();
        let one = op.at(&map(size, 16, 16, 1)).unwrap().cost;
        let many = op.at(&Shape { batch, ..map(size, 16, 16, 1) }).unwrap().cost;
        prop_assert_eq!(many.flops, one.flops * u64::from(batch));
        prop_assert_eq!(many.activation_elements, one.activation_elements * u64::from(batch));
        prop_assert_eq!((many.params, many.weight_elements), (one.params, one.weight_elements));
    }

    #[test]
    fn steps_are_consistent_with_one_another(def in generate::chain(), size in 8u32..20) {
        let plan = Op::new(def).unwrap().at(&map(size, 16, 16, 1)).unwrap();
        prop_assert_eq!(plan.output, plan.input);
        for (index, step) in plan.steps.iter().enumerate() {
            prop_assert_eq!(step.outputs.len(), 1);
            for source in &step.inputs {
                let earlier = match source {
                    Source::Input => true,
                    Source::Node { index: read, port } => *read < index && *port == 0,
                };
                prop_assert!(earlier);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Numbers of any size, wires of any kind: refused or planned, and never a panic or an overflow.
    #[test]
    fn nonsense_is_refused_and_does_no_harm(
        def in generate::nonsense(),
        (batch, h, w) in (0u32..5000, 0u32..20_000, 0u32..20_000),
        (c_in, c_out, stride) in (0u32..70_000, 0u32..70_000, prop_oneof![0u32..4, any::<u32>()]),
        square in any::<bool>(),
    ) {
        let Ok(op) = Op::new(def) else { return Ok(()) };
        let shape = Shape {
            batch, input_h: h, input_w: if square { h } else { w }, channels_in: c_in, channels_out: c_out, stride,
        };
        for shape in [shape, map(64, 64, 64, 1), map(1, 1, 1, 1), map(16_384, 65_536, 65_536, 1)] {
            if let Ok(plan) = op.at(&shape) {
                prop_assert!(plan.cost.flops < 1 << 62);
                for step in &plan.steps {
                    prop_assert!(step.outputs.iter().all(|shape| shape.elements() <= 1 << 40));
                }
            }
        }
    }

    #[test]
    fn nonsense_networks_are_refused_and_do_no_harm(spec in generate::nonsense_network()) {
        if let Ok(plan) = Network::new(&spec, builtin()).and_then(|network| network.plan(builtin())) {
            prop_assert!(!plan.steps.is_empty());
        }
    }
}

#[test]
fn a_batch_scales_every_builtin_op() {
    for (name, shape) in [
        ("MBConv6_3x3_SE", map(28, 24, 40, 2)),
        ("BasicBlock", map(28, 64, 128, 2)),
        ("SelfAttention", map(7, 128, 128, 1)),
        ("TransformerEncoder", Shape { input_w: 1, ..map(50, 64, 64, 1) }),
        ("PatchEmbed", map(64, 3, 128, 16)),
    ] {
        let op = builtin().op(name).unwrap();
        let one = op.at(&shape).unwrap().cost;
        let seven = op.at(&Shape { batch: 7, ..shape }).unwrap().cost;
        assert_eq!(seven.flops, 7 * one.flops, "{name}");
        assert_eq!(seven.activation_elements, 7 * one.activation_elements, "{name}");
        assert_eq!(seven.params, one.params, "{name}");
    }
}

#[test]
fn views_move_nothing_and_copies_do() {
    let shape = map(8, 16, 16, 1);
    let map_elements = 8 * 8 * 16;
    assert_eq!(cost("[apply: identity]", &shape).activation_elements, 0);
    assert_eq!(cost("[apply: relu]", &shape).activation_elements, 2 * map_elements);
    let halves = "[{id: p, apply: {split: {parts: 2}}}, {apply: concat, inputs: [p.1, p.0]}]";
    assert_eq!(cost(halves, &shape).activation_elements, 2 * map_elements);
}

#[test]
fn a_batch_norm_stores_its_statistics_beside_its_parameters() {
    let cost = cost("[apply: batch_norm]", &map(8, 16, 16, 1));
    assert_eq!((cost.params, cost.weight_elements, cost.flops), (32, 64, 0));
    assert_eq!((cost.weight_bytes(4), cost.activation_bytes(4)), (256, 4 * 2 * 8 * 8 * 16));
}

/// A node that is passed over hands on what it would have read, be it the part of a split.
#[test]
fn a_node_that_is_passed_over_hands_on_its_first_input() {
    let op = op("[{id: p, apply: {split: {parts: 2}}}, \
                  {id: a, inputs: [p.1], when: changes_shape, apply: relu}, \
                  {id: b, inputs: [a], when: changes_shape, apply: silu}, \
                  {inputs: [b, p.0], apply: concat}]");
    let kept = op.at(&map(8, 16, 16, 1)).unwrap();
    assert_eq!(kept.steps.len(), 2);
    let part = |port| Source::Node { index: 0, port };
    assert_eq!(kept.steps[1].inputs, [part(1), part(0)]);
    assert!(matches!(kept.steps[1].primitive, Primitive::Concat));
}

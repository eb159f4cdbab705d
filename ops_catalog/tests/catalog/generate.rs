//! Random definitions and networks for the properties.

use ops_catalog::{
    Activation, Dimension, Gate, Input, Interpolation, LayerSpec, Layout, Merge, NetworkSpec, Node,
    NodeSpec, OpDef, Padding, Pair, Primitive, Sides, Size, Variable, When,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn c_in() -> Size {
    Size::of(Variable::CIn)
}

/// A primitive that takes a map of `c_in` channels and gives one, at any size of 8 or more and for
/// channels that 8 divides.
fn link() -> impl Strategy<Value = Primitive> {
    let odd = || prop_oneof![Just(1u32), Just(3), Just(5)];
    let groups = prop_oneof![Just(Size::Number(1)), Just(Size::Number(4)), Just(c_in())];
    prop_oneof![
        (odd(), odd(), groups, 1u32..3, any::<[bool; 2]>()).prop_map(
            |(kernel, width, groups, dilation, [same, bias])| {
                Primitive::Conv2d {
                    out: c_in(),
                    kernel: Pair { h: Size::Number(kernel), w: Size::Number(width) },
                    stride: Pair::square(Size::Number(1)),
                    groups,
                    dilation: Pair::square(dilation),
                    padding: same.then_some(Padding::Same),
                    bias,
                }
            }
        ),
        (1u32..16, prop_oneof![Just(1u32), Just(8)]).prop_map(|(squeeze, divisor)| {
            Primitive::SqueezeExcite {
                squeeze: Size::Number(squeeze),
                divisor,
                activation: Activation::Relu,
                gate: Gate::Hardsigmoid,
            }
        }),
        Just(Primitive::SelfAttention { heads: Size::Number(4) }),
        any::<[bool; 2]>().prop_map(|[ceil_mode, count_include_pad]| Primitive::AvgPool {
            kernel: Pair::square(Size::Number(3)),
            stride: Pair::square(Size::Number(1)),
            padding: None,
            ceil_mode,
            count_include_pad,
        }),
        Just(Primitive::Shuffle { groups: 2 }),
        any::<bool>().prop_map(|shared| Primitive::Prelu { shared }),
        Just(Primitive::Softmax),
        (1u32..5, 0u32..4, any::<[bool; 3]>()).prop_map(
            |(window, shift, [grid, biased, cosine])| {
                let shift = if grid { 0 } else { shift % window };
                // A grid divides every map only at one position.
                let window = if grid { 1 } else { window };
                let heads = Size::Number(4);
                let position_bias = biased;
                Primitive::WindowAttention { heads, window, shift, grid, position_bias, cosine }
            }
        ),
        Just(Primitive::GroupNorm { groups: Size::Number(4) }),
        Just(Primitive::RmsNorm),
        Just(Primitive::GeluTanh),
        Just(Primitive::LeakyRelu),
        Just(Primitive::Elu),
        Just(Primitive::Tanh),
        Just(Primitive::Hardsigmoid),
        Just(Primitive::Mish),
        Just(Primitive::PositionEmbedding),
        Just(Primitive::Slice { along: Dimension::Channels, start: 0, length: c_in(), step: 1 }),
        Just(Primitive::Zero { out: None, stride: Pair::square(Size::Number(1)) }),
        Just(Primitive::ConvTranspose2d {
            out: c_in(),
            kernel: Pair::square(Size::Number(3)),
            stride: Pair::square(Size::Number(1)),
            groups: Size::Number(2),
            dilation: Pair::square(1),
            padding: Some(Padding::Same),
            output_padding: Pair::square(0),
            bias: true,
        }),
        Just(Primitive::BatchNorm),
        Just(Primitive::LayerNorm),
        Just(Primitive::LayerScale),
        Just(Primitive::Relu),
        Just(Primitive::Relu6),
        Just(Primitive::Hardswish),
        Just(Primitive::Silu),
        Just(Primitive::Gelu),
        Just(Primitive::Sigmoid),
        Just(Primitive::Identity),
    ]
}

/// A valid op: primitives one after the other, some of them only where the op keeps its shape.
pub fn chain() -> impl Strategy<Value = OpDef> {
    let node = (link(), option::weighted(0.2, Just(When::KeepsShape)));
    vec(node, 1..8).prop_map(|nodes| OpDef {
        name: "Chain".to_owned(),
        doc: String::new(),
        aliases: vec![],
        input: Layout::Map,
        usual_stride: 1,
        nodes: nodes
            .into_iter()
            .map(|(apply, when)| Node { id: None, inputs: None, when, apply })
            .collect(),
    })
}

/// Anything in the form of a definition: sizes, wires and parameters with little regard to sense.
pub fn nonsense() -> impl Strategy<Value = OpDef> {
    let number = || prop_oneof![4 => 1u32..4, 2 => 0u32..2000, 1 => Just(1 << 20), 1 => Just(u32::MAX), 1 => any::<u32>()];
    let size = move || {
        let variable =
            prop_oneof![Just(Variable::CIn), Just(Variable::COut), Just(Variable::Stride)];
        prop_oneof![
            2 => number().prop_map(Size::Number),
            2 => Just(Size::Number(1)),
            2 => Just(c_in()),
            2 => (variable, 1..=u32::MAX, 1u32..9).prop_map(|(variable, numerator, denominator)| {
                Size::Multiple { variable, numerator: numerator >> (numerator % 32), denominator }
            }),
        ]
    };
    let sizes = move || {
        prop_oneof![
            4 => size().prop_map(Pair::square),
            1 => (size(), size()).prop_map(|(h, w)| Pair { h, w }),
        ]
    };
    let dilation = || {
        let any = prop_oneof![2 => Just(1), 1 => number()];
        (any, option::weighted(0.1, number())).prop_map(|(h, w)| Pair { h, w: w.unwrap_or(h) })
    };
    let padding = || {
        let sides =
            [number(), number(), number(), number()].prop_map(|[top, bottom, left, right]| {
                Padding::Sides(Sides { top, bottom, left, right })
            });
        let all =
            number().prop_map(|n| Padding::Sides(Sides { top: n, bottom: n, left: n, right: n }));
        option::weighted(0.4, prop_oneof![3 => all, 1 => sides, 1 => Just(Padding::Same)])
    };
    let conv = (size(), sizes(), sizes(), size(), dilation(), padding(), any::<bool>());
    let pool = (sizes(), sizes(), dilation(), padding(), any::<[bool; 3]>());
    let line = (
        size(),
        size(),
        size(),
        size(),
        number(),
        option::weighted(0.3, number()),
        any::<[bool; 2]>(),
    );
    let grown = (size(), sizes(), sizes(), dilation(), padding(), number());
    let apply = prop_oneof![
        2 => line.prop_map(|(out, kernel, stride, groups, dilation, padding, [causal, bias])| {
            Primitive::Conv1d { out, kernel, stride, groups, dilation, padding, causal, bias }
        }),
        2 => grown.prop_map(|(out, kernel, stride, dilation, padding, added)| Primitive::ConvTranspose2d {
            out,
            kernel,
            stride,
            groups: Size::Number(1),
            dilation,
            padding,
            output_padding: Pair::square(added),
            bias: true,
        }),
        2 => (size(), option::weighted(0.5, size()), any::<[bool; 3]>()).prop_map(
            |(heads, kv_heads, [causal, position_bias, cosine])| {
                Primitive::Attention { heads, kv_heads, causal, position_bias, cosine }
            }
        ),
        1 => (size(), any::<bool>())
            .prop_map(|(heads, cosine)| Primitive::ChannelAttention { heads, cosine }),
        1 => Just(Primitive::Transpose),
        1 => sizes().prop_map(|size| Primitive::ToMapOf { size }),
        1 => Just(Primitive::Scale),
        1 => Just(Primitive::Shift),
        1 => Just(Primitive::LayerShift),
        1 => Just(Primitive::ResponseNorm),
        1 => (option::weighted(0.5, size()), sizes()).prop_map(|(out, stride)| Primitive::Zero { out, stride }),
        4 => conv.prop_map(|(out, kernel, stride, groups, dilation, padding, bias)| {
            Primitive::Conv2d { out, kernel, stride, groups, dilation, padding, bias }
        }),
        4 => pool.prop_map(|(kernel, stride, dilation, padding, [max, ceil_mode, count_include_pad])| {
            match max {
                true => Primitive::MaxPool { kernel, stride, dilation, padding, ceil_mode },
                false => Primitive::AvgPool { kernel, stride, padding, ceil_mode, count_include_pad },
            }
        }),
        2 => (size(), number()).prop_map(|(squeeze, divisor)| Primitive::SqueezeExcite {
            squeeze,
            divisor,
            activation: Activation::Silu,
            gate: Gate::Sigmoid,
        }),
        2 => (size(), any::<bool>()).prop_map(|(out, bias)| Primitive::Linear { out, bias }),
        2 => size().prop_map(|heads| Primitive::SelfAttention { heads }),
        2 => (number(), any::<bool>()).prop_map(|(scale, linear)| Primitive::Upsample {
            scale,
            mode: if linear { Interpolation::Bilinear } else { Interpolation::Nearest },
        }),
        2 => (size(), number(), number(), any::<[bool; 3]>()).prop_map(
            |(heads, window, shift, [grid, position_bias, cosine])| {
                Primitive::WindowAttention { heads, window, shift, grid, position_bias, cosine }
            }
        ),
        1 => size().prop_map(|heads| Primitive::Rotary { heads }),
        1 => size().prop_map(|groups| Primitive::GroupNorm { groups }),
        1 => sizes().prop_map(|size| Primitive::AdaptiveAvgPool { size }),
        1 => number().prop_map(|block| Primitive::SpaceToDepth { block }),
        1 => number().prop_map(|block| Primitive::DepthToSpace { block }),
        1 => number().prop_map(|patch| Primitive::Unfold { patch }),
        1 => number().prop_map(|patch| Primitive::Fold { patch }),
        1 => Just(Primitive::ToMap),
        1 => Just(Primitive::Flatten),
        1 => number().prop_map(|count| Primitive::PrependTokens { count }),
        1 => number().prop_map(|index| Primitive::SelectToken { index }),
        1 => (size(), size()).prop_map(|(rows, out)| Primitive::Embedding { rows, out }),
        1 => Just(Primitive::PositionEmbedding),
        1 => padding().prop_map(|padding| Primitive::Pad { padding: padding.unwrap_or(Padding::Same) }),
        2 => (0usize..4, number(), size(), number()).prop_map(|(along, start, length, step)| Primitive::Slice {
            along: [Dimension::Channels, Dimension::Height, Dimension::Width, Dimension::Tokens][along],
            start,
            length,
            step,
        }),
        1 => Just(Primitive::ConcatTokens),
        1 => Just(Primitive::Sub),
        1 => Just(Primitive::Mul),
        1 => number().prop_map(|groups| Primitive::Shuffle { groups }),
        1 => (0u32..5).prop_map(|parts| Primitive::Split { parts }),
        1 => any::<[bool; 2]>()
            .prop_map(|[class_token, positions]| Primitive::ToTokens { class_token, positions }),
        1 => Just(Primitive::ClassToken),
        1 => Just(Primitive::GlobalAvgPool),
        1 => Just(Primitive::BatchNorm),
        2 => Just(Primitive::Concat),
        2 => Just(Primitive::Add),
        2 => Just(Primitive::Relu),
    ];
    // How many nodes back a wire goes (0 is the op's input), and which part of a split it takes.
    let wire = (0usize..4, option::weighted(0.2, 0usize..3));
    let node = (
        option::weighted(0.05, vec(wire, 1..4)),
        option::weighted(0.1, prop_oneof![Just(When::KeepsShape), Just(When::ChangesShape)]),
        apply,
    );
    (vec(node, 0..6), any::<bool>()).prop_map(|(nodes, tokens)| OpDef {
        name: "Nonsense".to_owned(),
        doc: String::new(),
        aliases: vec![],
        input: if tokens { Layout::Tokens } else { Layout::Map },
        usual_stride: 1,
        nodes: wired(nodes),
    })
}

type Loose = (Option<Vec<(usize, Option<usize>)>>, Option<When>, Primitive);

/// Nodes with the wires that they have by chance, or else with enough wires to be valid.
fn wired(nodes: Vec<Loose>) -> Vec<Node> {
    let split = |index: usize| matches!(nodes[index].2, Primitive::Split { .. });
    let inputs = |index: usize| {
        let (wires, _, apply) = &nodes[index];
        if let Some(wires) = wires {
            return Some(wires.iter().map(|&wire| name(index, wire)).collect());
        }
        let merges = matches!(
            apply,
            Primitive::Add
                | Primitive::Sub
                | Primitive::Mul
                | Primitive::Concat
                | Primitive::ConcatTokens
                | Primitive::ToMap
                | Primitive::Fold { .. }
        );
        let after_split = index > 0 && split(index - 1);
        let before = name(index, (index.min(1), after_split.then_some(0)));
        let attends =
            matches!(apply, Primitive::Attention { .. } | Primitive::ChannelAttention { .. });
        match (merges, attends, after_split) {
            (_, true, _) => Some(vec![before; 3]),
            (true, ..) => Some(vec![before.clone(), before]),
            (false, false, true) => Some(vec![before]),
            (false, false, false) => None,
        }
    };
    (0..nodes.len())
        .map(|index| Node {
            id: Some(format!("n{index}")),
            inputs: inputs(index),
            when: nodes[index].1,
            apply: nodes[index].2.clone(),
        })
        .collect()
}

fn name(index: usize, (back, port): (usize, Option<usize>)) -> String {
    match (index.checked_sub(back), port) {
        (_, _) if back == 0 => "input".to_owned(),
        (Some(target), None) => format!("n{target}"),
        (Some(target), Some(port)) => format!("n{target}.{port}"),
        (None, _) => "nowhere".to_owned(),
    }
}

/// Layers of a sequence that is valid from 64 pixels on; channels are multiples of 8.
pub fn layers() -> impl Strategy<Value = Vec<NodeSpec>> {
    let ops = prop_oneof![
        Just("Conv3x3"),
        Just("Conv1x1_ReLU"),
        Just("Conv5x5"),
        Just("MBConv3_3x3"),
        Just("MBConv6_5x5_SE"),
        Just("MBConv6_3x3_SE_Hardswish"),
        Just("BasicBlock"),
        Just("Bottleneck"),
    ];
    (vec((ops, 1u32..9, 0u32..4), 1..12), any::<bool>()).prop_map(|(layers, pooled)| {
        let mut c = 8;
        let mut nodes = vec![layer("Conv3x3_ReLU6", c, 2)];
        for (op, width, choice) in layers {
            // Five strides at most, the first layer's included, leave 2 pixels of 64.
            let strided = choice == 0 && nodes.iter().filter(|n| n.stride == Some(2)).count() < 5;
            c = if choice == 1 { 8 * width } else { c };
            nodes.push(layer(op, c, if strided { 2 } else { 1 }));
        }
        if pooled {
            nodes.push(layer("GlobalAvgPool", c, 1));
            nodes.push(layer("Linear", 10, 1));
        }
        nodes
    })
}

pub fn layer(op: &str, c_out: u32, stride: u32) -> NodeSpec {
    NodeSpec {
        op: Some(op.to_owned()),
        c_out: Some(c_out),
        stride: Some(stride),
        inputs: None,
        merge: None,
    }
}

pub fn sequence(size: u32, layers: Vec<NodeSpec>) -> NetworkSpec {
    NetworkSpec {
        input: Some(Input { n: 1, c: 3, h: size, w: size }),
        layers: Some(layers.into_iter().map(LayerSpec::Full).collect()),
        ..NetworkSpec::default()
    }
}

/// A graph of any builtin ops with any sizes and wires, most of them impossible.
pub fn nonsense_network() -> impl Strategy<Value = NetworkSpec> {
    let names: Vec<String> = crate::builtin()
        .ops()
        .map(|op| op.name().to_owned())
        .chain(["Nothing".to_owned()])
        .collect();
    let size = || prop_oneof![8 => Just(3u32), 4 => 1u32..70, 1 => any::<u32>()];
    let stride = prop_oneof![8 => Just(1u32), 2 => 0u32..40, 1 => any::<u32>()];
    let node = (
        proptest::sample::select(names),
        size(),
        stride,
        vec(prop_oneof![4 => 1i64..4, 1 => -1i64..2, 1 => any::<i64>()], 0..4),
        option::of(prop_oneof![Just(Merge::Add), Just(Merge::Mul), Just(Merge::Concat)]),
    );
    let input = (size(), size(), size(), size());
    let output = option::weighted(0.1, any::<i64>());
    (input, vec(node, 1..6), output).prop_map(|((n, c, h, w), nodes, output)| NetworkSpec {
        input: Some(Input { n, c, h, w }),
        output: Some(output.unwrap_or(nodes.len() as i64 - 1)),
        nodes: Some(
            nodes
                .into_iter()
                .enumerate()
                .map(|(index, (op, c_out, stride, back, merge))| NodeSpec {
                    inputs: Some(
                        back.into_iter().map(|b| (index as i64).saturating_sub(b)).collect(),
                    ),
                    merge,
                    ..layer(&op, c_out, stride)
                })
                .collect(),
        ),
        ..NetworkSpec::default()
    })
}

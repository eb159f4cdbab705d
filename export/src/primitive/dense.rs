//! Convolutions, linear layers, and normalizations.

use ops_catalog::{
    BATCH_NORM_EPSILON, Init, LAYER_NORM_EPSILON, Padding, Pair, Primitive, Sides, Step,
    TensorShape,
};

use super::{aligned, channel_axis, map_dims};
use crate::builder::{Builder, float, int, ints};
use crate::model::Value;

/// Height and width.
pub(super) fn pair(pair: Pair<u32>) -> [i64; 2] {
    pair.parts().map(i64::from)
}

/// Padding in ONNX's order: the beginnings of all dimensions, then their ends.
pub(super) fn pads(padding: Option<Padding>) -> [i64; 4] {
    let Sides { top, bottom, left, right } = padding.map_or_else(Sides::default, Padding::sides);
    [top, left, bottom, right].map(i64::from)
}

/// An operator of a value and a weight, and of a bias if there is one.
fn biased<const N: usize>(
    operator: &'static str,
    [x, weight]: [&Value; 2],
    bias: Option<i64>,
    attributes: [(&'static str, crate::model::Attribute); N],
    b: &mut Builder,
) -> Value {
    match bias {
        Some(out) => {
            let bias = b.weight("bias", &[out], Init::SMALL);
            b.node(operator, &[x, weight, &bias], attributes)
        }
        None => b.node(operator, &[x, weight], attributes),
    }
}

pub(super) fn conv2d(step: &Step, x: &Value, c: i64, b: &mut Builder) -> Value {
    let Primitive::Conv2d { out, kernel, stride, groups, dilation, padding, bias } = step.primitive
    else {
        unreachable!("the caller has a convolution")
    };
    let (out, [h, w], groups) = (i64::from(out), pair(kernel), i64::from(groups));
    let per_group = c / groups;
    let weight = b.weight("weight", &[out, per_group, h, w], Init::scaled(per_group * h * w));
    let attributes = [
        ints("kernel_shape", [h, w]),
        ints("strides", pair(stride)),
        ints("dilations", pair(dilation)),
        ints("pads", pads(padding)),
        int("group", groups),
    ];
    biased("Conv", [x, &weight], bias.then_some(out), attributes, b)
}

/// A convolution over the length of a sequence: one of two dimensions over a map of width 1, or one of one dimension
/// over tokens.
pub(super) fn conv1d(step: &Step, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let Primitive::Conv1d { out, kernel, stride, groups, dilation, padding, causal, bias } =
        step.primitive
    else {
        unreachable!("the caller has a convolution")
    };
    let [out, kernel, stride, groups, dilation] =
        [out, kernel, stride, groups, dilation].map(i64::from);
    let padding = i64::from(padding.unwrap_or(0));
    let [before, after] = if causal { [dilation * (kernel - 1), 0] } else { [padding, padding] };
    let per_group = i64::from(shape.channels()) / groups;
    let (dims, init) = ([out, per_group, kernel], Init::scaled(per_group * kernel));
    let bias = bias.then_some(out);
    match shape {
        TensorShape::Map { .. } => {
            let weight = b.viewed("weight", &dims, init, &[out, per_group, kernel, 1]);
            let attributes = [
                ints("kernel_shape", [kernel, 1]),
                ints("strides", [stride, 1]),
                ints("dilations", [dilation, 1]),
                ints("pads", [before, 0, after, 0]),
                int("group", groups),
            ];
            biased("Conv", [x, &weight], bias, attributes, b)
        }
        TensorShape::Tokens { .. } => {
            let first = b.transpose(x, [0, 2, 1]);
            let weight = b.weight("weight", &dims, init);
            let attributes = [
                ints("kernel_shape", [kernel]),
                ints("strides", [stride]),
                ints("dilations", [dilation]),
                ints("pads", [before, after]),
                int("group", groups),
            ];
            let y = biased("Conv", [&first, &weight], bias, attributes, b);
            b.transpose(&y, [0, 2, 1])
        }
    }
}

pub(super) fn conv_transpose2d(step: &Step, x: &Value, c: i64, b: &mut Builder) -> Value {
    let Primitive::ConvTranspose2d {
        out,
        kernel,
        stride,
        groups,
        dilation,
        padding,
        output_padding,
        bias,
    } = step.primitive
    else {
        unreachable!("the caller has a transposed convolution")
    };
    let (out, [h, w], groups) = (i64::from(out), pair(kernel), i64::from(groups));
    let dims = [c, out / groups, h, w];
    let weight = b.weight("weight", &dims, Init::scaled(c / groups * h * w));
    let attributes = [
        ints("kernel_shape", [h, w]),
        ints("strides", pair(stride)),
        ints("dilations", pair(dilation)),
        ints("pads", pads(padding)),
        ints("output_padding", pair(output_padding)),
        int("group", groups),
    ];
    biased("ConvTranspose", [x, &weight], bias.then_some(out), attributes, b)
}

pub(super) fn linear(
    out: u32,
    bias: bool,
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let (out, c) = (i64::from(out), i64::from(shape.channels()));
    match shape {
        TensorShape::Tokens { .. } => over_last(out, bias, x, c, b),
        TensorShape::Map { n, .. } => {
            let flat = b.node("Flatten", &[x], [int("axis", 1)]);
            let weight = b.weight("weight", &[out, c], Init::scaled(c));
            let attributes = [int("transB", 1)];
            let y = biased("Gemm", [&flat, &weight], bias.then_some(out), attributes, b);
            b.reshape(&y, [n.into(), out, 1, 1])
        }
    }
}

/// A linear layer over the last dimension, from `c` to `out` channels.
pub(super) fn over_last(out: i64, bias: bool, x: &Value, c: i64, b: &mut Builder) -> Value {
    let weight = b.transposed("weight", [out, c], Init::scaled(c));
    let y = b.binary("MatMul", x, &weight);
    if !bias {
        return y;
    }
    let bias = b.weight("bias", &[out], Init::SMALL);
    b.binary("Add", &y, &bias)
}

pub(super) fn batch_norm(x: &Value, c: i64, b: &mut Builder) -> Value {
    let mean = b.weight("running_mean", &[c], Init::SMALL);
    let variance = b.weight("running_var", &[c], Init::Ones);
    let weight = b.weight("weight", &[c], Init::Ones);
    let bias = b.weight("bias", &[c], Init::SMALL);
    let inputs = [x, &weight, &bias, &mean, &variance];
    b.node("BatchNormalization", &inputs, [float("epsilon", BATCH_NORM_EPSILON)])
}

pub(super) fn layer_norm(x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let c = i64::from(shape.channels());
    let weight = b.weight("weight", &[c], Init::Ones);
    let bias = b.weight("bias", &[c], Init::SMALL);
    let norm = |x: &Value, b: &mut Builder| {
        let attributes = [int("axis", -1), float("epsilon", LAYER_NORM_EPSILON)];
        b.node("LayerNormalization", &[x, &weight, &bias], attributes)
    };
    match shape {
        TensorShape::Tokens { .. } => norm(x, b),
        TensorShape::Map { .. } => {
            let last = b.transpose(x, [0, 2, 3, 1]);
            let normed = norm(&last, b);
            b.transpose(&normed, [0, 3, 1, 2])
        }
    }
}

/// A norm of instances whose channels are the groups, and factors for the channels: the group norm of this version of
/// ONNX has factors for groups only.
pub(super) fn group_norm(groups: u32, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let [n, c, h, w] = map_dims(shape);
    let groups = i64::from(groups);
    let seen = aligned(shape);
    let weight = b.viewed("weight", &[c], Init::Ones, &seen);
    let bias = b.viewed("bias", &[c], Init::SMALL, &seen);
    let grouped = b.reshape(x, [n, groups, -1]);
    let ones = b.numbers(&[groups], |_| 1.0);
    let zeros = b.numbers(&[groups], |_| 0.0);
    let epsilon = float("epsilon", BATCH_NORM_EPSILON);
    let normed = b.node("InstanceNormalization", &[&grouped, &ones, &zeros], [epsilon]);
    let map = b.reshape(&normed, [n, c, h, w]);
    let scaled = b.binary("Mul", &map, &weight);
    b.binary("Add", &scaled, &bias)
}

pub(super) fn rms_norm(x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let c = i64::from(shape.channels());
    let weight = b.viewed("weight", &[c], Init::Ones, &aligned(shape));
    let squares = b.binary("Mul", x, x);
    let axes = ints("axes", [channel_axis(shape)]);
    let mean = b.node("ReduceMean", &[&squares], [axes, int("keepdims", 1)]);
    let shifted = b.with_number("Add", &mean, LAYER_NORM_EPSILON);
    let root = b.unary("Sqrt", &shifted);
    let normed = b.binary("Div", x, &root);
    b.binary("Mul", &normed, &weight)
}

pub(super) fn layer_scale(x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let c = i64::from(shape.channels());
    let factor = b.viewed("factor", &[c], Init::SMALL, &aligned(shape));
    b.binary("Mul", x, &factor)
}

pub(super) fn layer_shift(x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let c = i64::from(shape.channels());
    let shift = b.viewed("shift", &[c], Init::SMALL, &aligned(shape));
    b.binary("Add", x, &shift)
}

pub(super) fn response_norm(x: &Value, c: i64, b: &mut Builder) -> Value {
    let [weight, bias] =
        ["weight", "bias"].map(|name| b.viewed(name, &[c], Init::SMALL, &[c, 1, 1]));
    let lengths = b.node("ReduceL2", &[x], [ints("axes", [2, 3]), int("keepdims", 1)]);
    let mean = b.node("ReduceMean", &[&lengths], [ints("axes", [1]), int("keepdims", 1)]);
    let mean = b.with_number("Add", &mean, LAYER_NORM_EPSILON);
    let shares = b.binary("Div", &lengths, &mean);
    let normed = b.binary("Mul", x, &shares);
    let scaled = b.binary("Mul", &normed, &weight);
    let shifted = b.binary("Add", &scaled, &bias);
    b.binary("Add", x, &shifted)
}

//! The operators of each primitive. They compute what `latlas_lowering` computes in deployed form, in the form in which
//! exporters of PyTorch write it, since that is what runtimes recognize and fuse.

mod attention;
mod dense;
mod elementwise;
mod shifted;
mod tokens;
mod windows;

use ops_catalog::{Dimension, Init, Interpolation, Primitive, Step, TensorShape};

use crate::builder::{Builder, float, int, text};
use crate::model::Value;

/// Adds the operators of a step, and gives its outputs. `shapes` are those of `inputs`.
pub(crate) fn add(
    step: &Step,
    inputs: &[Value],
    shapes: &[TensorShape],
    b: &mut Builder,
) -> Vec<Value> {
    if let Primitive::Split { .. } = step.primitive {
        let lengths: Vec<i64> = step.outputs.iter().map(|part| part.channels().into()).collect();
        return b.split(&inputs[0], channel_axis(shapes[0]), &lengths);
    }
    vec![with_one_output(step, inputs, shapes, b)]
}

fn with_one_output(
    step: &Step,
    inputs: &[Value],
    shapes: &[TensorShape],
    b: &mut Builder,
) -> Value {
    let (x, shape) = (&inputs[0], shapes[0]);
    let c = i64::from(shape.channels());
    match step.primitive {
        Primitive::Conv2d { .. } => dense::conv2d(step, x, c, b),
        Primitive::Conv1d { .. } => dense::conv1d(step, x, shape, b),
        Primitive::ConvTranspose2d { .. } => dense::conv_transpose2d(step, x, c, b),
        Primitive::Linear { out, bias } => dense::linear(out, bias, x, shape, b),
        Primitive::BatchNorm => dense::batch_norm(x, c, b),
        Primitive::LayerNorm => dense::layer_norm(x, shape, b),
        Primitive::GroupNorm { groups } => dense::group_norm(groups, x, shape, b),
        Primitive::RmsNorm => dense::rms_norm(x, shape, b),
        Primitive::LayerScale => dense::layer_scale(x, shape, b),
        Primitive::LayerShift => dense::layer_shift(x, shape, b),
        Primitive::Scale => {
            let factor = b.weight("factor", &[1], Init::Ones);
            b.binary("Mul", x, &factor)
        }
        Primitive::Shift => {
            let shift = b.weight("shift", &[1], Init::Zeros);
            b.binary("Add", x, &shift)
        }
        Primitive::ResponseNorm => dense::response_norm(x, c, b),
        Primitive::Relu => b.unary("Relu", x),
        Primitive::Relu6 => elementwise::relu6(x, b),
        Primitive::Hardswish => b.unary("HardSwish", x),
        Primitive::Silu => elementwise::silu(x, b),
        Primitive::Gelu => elementwise::gelu(x, b),
        Primitive::Sigmoid => b.unary("Sigmoid", x),
        Primitive::LeakyRelu => b.node("LeakyRelu", &[x], [float("alpha", 0.01)]),
        Primitive::Elu => b.node("Elu", &[x], [float("alpha", 1.0)]),
        Primitive::GeluTanh => elementwise::gelu_tanh(x, b),
        Primitive::Tanh => b.unary("Tanh", x),
        Primitive::Hardsigmoid => elementwise::hardsigmoid(x, b),
        Primitive::Mish => elementwise::mish(x, b),
        Primitive::Prelu { shared } => elementwise::prelu(shared, x, shape, b),
        Primitive::Softmax => b.node("Softmax", &[x], [int("axis", channel_axis(shape))]),
        Primitive::MaxPool { .. } => windows::max_pool(step, x, shape, b),
        Primitive::AvgPool { .. } => windows::avg_pool(step, x, shape, b),
        Primitive::AdaptiveAvgPool { size } => windows::adaptive_avg_pool(size, x, shape, b),
        Primitive::AdaptiveMaxPool { size } => windows::adaptive_max_pool(size, x, shape, b),
        Primitive::GlobalAvgPool => windows::global_avg_pool(step, x, shape, b),
        Primitive::SelfAttention { heads } => attention::self_attention(heads, x, shape, b),
        Primitive::Attention { .. } => attention::attention(step, inputs, shapes, b),
        Primitive::ChannelAttention { heads, cosine } => {
            attention::of_channels((heads, cosine), inputs, shape, b)
        }
        Primitive::WindowAttention { .. } => shifted::window_attention(step, x, shape, b),
        Primitive::Rotary { heads } => attention::rotary(heads, x, shape, b),
        Primitive::SqueezeExcite { .. } => elementwise::squeeze_excite(step, x, c, b),
        Primitive::Add => b.fold("Add", inputs),
        Primitive::Mul => b.fold("Mul", inputs),
        Primitive::Sub => b.fold("Sub", inputs),
        Primitive::ConcatTokens => concat(inputs, 1, b),
        Primitive::Concat => concat(inputs, channel_axis(shape), b),
        Primitive::Slice { along, start, length, step } => {
            slice(along, [start, length, step].map(i64::from), x, shape, b)
        }
        Primitive::Pad { padding } => windows::pad(x, padding.sides(), 0.0, b),
        Primitive::Split { .. } => unreachable!("a split has several outputs"),
        Primitive::Shuffle { groups } => shuffle(groups, x, shape, b),
        Primitive::Upsample { scale, mode } => upsample(scale, mode, x, b),
        Primitive::SpaceToDepth { block } => space_to_depth(block, step, x, shape, b),
        Primitive::DepthToSpace { block } => {
            // The order of `torch.nn.PixelShuffle`: channels are the slowest.
            let attributes = [int("blocksize", block.into()), text("mode", "CRD")];
            b.node("DepthToSpace", &[x], attributes)
        }
        Primitive::Flatten => b.reshape_to(x, &step.outputs[0].dims()),
        Primitive::Identity => x.clone(),
        Primitive::Zero { .. } => {
            let dims = b.integers(&step.outputs[0].dims());
            b.unary("ConstantOfShape", &dims)
        }
        Primitive::ToTokens { class_token, positions } => {
            tokens::to_tokens(class_token, positions, x, shape, b)
        }
        Primitive::ToMap | Primitive::ToMapOf { .. } => tokens::to_map(step, x, b),
        Primitive::Transpose => b.transpose(x, [0, 2, 1]),
        Primitive::Unfold { patch } => tokens::unfold(patch, step, x, shape, b),
        Primitive::Fold { patch } => tokens::fold(patch, step, x, b),
        Primitive::Embedding { rows, out } => tokens::embedding([rows, out], x, shape, b),
        Primitive::PositionEmbedding => tokens::position_embedding(x, shape, b),
        Primitive::PrependTokens { count } => tokens::prepend(count, x, shape, b),
        Primitive::ClassToken => tokens::select(0, step, x, b),
        Primitive::SelectToken { index } => tokens::select(index, step, x, b),
    }
}

/// The dimension that holds channels: `[n, c, h, w]` or `[n, l, c]`.
pub(crate) fn channel_axis(shape: TensorShape) -> i64 {
    match shape {
        TensorShape::Map { .. } => 1,
        TensorShape::Tokens { .. } => 2,
    }
}

/// The dimensions of values for each channel, aligned with the channels of a map or of tokens.
fn aligned(shape: TensorShape) -> Vec<i64> {
    let c = i64::from(shape.channels());
    match shape {
        TensorShape::Map { .. } => vec![c, 1, 1],
        TensorShape::Tokens { .. } => vec![c],
    }
}

/// Batch, channels, height and width of a map.
fn map_dims(shape: TensorShape) -> [i64; 4] {
    let TensorShape::Map { n, c, h, w } = shape else {
        unreachable!("shape inference has checked that this is a map")
    };
    [n, c, h, w].map(i64::from)
}

/// Batch, length and channels of a sequence.
fn token_dims(shape: TensorShape) -> [i64; 3] {
    let TensorShape::Tokens { n, l, c } = shape else {
        unreachable!("shape inference has checked that these are tokens")
    };
    [n, l, c].map(i64::from)
}

/// Values, one after the other along a dimension.
pub(crate) fn concat(inputs: &[Value], axis: i64, b: &mut Builder) -> Value {
    let inputs: Vec<&Value> = inputs.iter().collect();
    b.node("Concat", &inputs, [int("axis", axis)])
}

fn slice(
    along: Dimension,
    [start, length, step]: [i64; 3],
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let axis = match along {
        Dimension::Channels => channel_axis(shape),
        Dimension::Tokens => 1,
        Dimension::Height => 2,
        Dimension::Width => 3,
    };
    b.slice(x, axis, start, start + (length - 1) * step + 1, step)
}

fn shuffle(groups: u32, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let [n, c, h, w] = map_dims(shape);
    let groups = i64::from(groups);
    let parts = b.reshape(x, [n, groups, c / groups, h, w]);
    let mixed = b.transpose(&parts, [0, 2, 1, 3, 4]);
    b.reshape(&mixed, [n, c, h, w])
}

fn upsample(scale: u32, mode: Interpolation, x: &Value, b: &mut Builder) -> Value {
    let scale = scale as f32;
    let scales = b.numbers(&[4], move |dim| if dim < 2 { 1.0 } else { scale });
    let left_out = Value::from("");
    let inputs = [x, &left_out, &scales];
    match mode {
        Interpolation::Nearest => b.node(
            "Resize",
            &inputs,
            [
                text("mode", "nearest"),
                text("coordinate_transformation_mode", "asymmetric"),
                text("nearest_mode", "floor"),
            ],
        ),
        Interpolation::Bilinear => b.node(
            "Resize",
            &inputs,
            [text("mode", "linear"), text("coordinate_transformation_mode", "half_pixel")],
        ),
    }
}

/// ONNX's own `SpaceToDepth` makes the channels the fastest, and `torch.nn.PixelUnshuffle` the slowest.
fn space_to_depth(
    block: u32,
    step: &Step,
    x: &Value,
    shape: TensorShape,
    b: &mut Builder,
) -> Value {
    let [n, c, h, w] = map_dims(shape);
    let block = i64::from(block);
    let parts = b.reshape(x, [n, c, h / block, block, w / block, block]);
    let moved = b.transpose(&parts, [0, 1, 3, 5, 2, 4]);
    b.reshape_to(&moved, &step.outputs[0].dims())
}

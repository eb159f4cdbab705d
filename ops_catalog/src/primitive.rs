//! The primitives that op definitions are made of, and their parameters.
//!
//! Only this module knows the effect of a primitive on shapes (`shapes`) and its cost (`cost`). Only the crate
//! `latlas_lowering` knows how to run it.

mod cost;
mod shapes;

use std::convert::Infallible;

use serde::{Deserialize, Serialize};

pub use self::cost::Cost;
use crate::Invalid;
use crate::key::Shape;
use crate::size::Size;
use crate::tensor::TensorShape;

/// The largest padding, as large as the largest map. More is a mistake, and would cost memory.
const MAX_PADDING: u32 = 1 << 14;

/// The activation inside a squeeze-and-excite block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`.
    #[default]
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
}

/// The function that turns a squeeze-and-excite block's output into a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// `1 / (1 + exp(-x))`.
    #[default]
    Sigmoid,
    /// `relu6(x + 3) / 6`.
    Hardsigmoid,
}

fn one<S: From<u32>>() -> S {
    S::from(1)
}

fn one_number() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl From<u32> for Size {
    fn from(n: u32) -> Size {
        Size::Number(n)
    }
}

/// A primitive with its parameters.
///
/// Sizes are [`Size`]s in a definition, and plain numbers (`Primitive<u32>`) at a shape.
///
/// The default of `padding` is `dilation * (kernel - 1) / 2`, rounded down. It keeps a map's size at stride 1 for an
/// odd kernel, and is 0 for a pooling window of 2.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantNames,
)]
#[strum(serialize_all = "snake_case")]
#[serde(
    rename_all = "snake_case",
    deny_unknown_fields,
    bound(deserialize = "S: Deserialize<'de> + From<u32>")
)]
pub enum Primitive<S = Size> {
    /// 2-D convolution over a map, with a square kernel and by default a bias (deployed form: a batch norm is folded
    /// into it).
    Conv2d {
        /// Output channels.
        out: S,
        /// Height and width of the kernel.
        kernel: S,
        /// Stride.
        #[serde(default = "one")]
        stride: S,
        /// Groups; equal to the input's channels for a depthwise convolution.
        #[serde(default = "one")]
        groups: S,
        /// Dilation.
        #[serde(default = "one_number")]
        dilation: u32,
        /// Padding on each side.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: Option<u32>,
        /// Whether there is a bias.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// Matrix product over the channels of tokens, or of a 1x1 map.
    Linear {
        /// Output channels.
        out: S,
        /// Whether there is a bias.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// Batch norm that was not folded, in eval mode.
    BatchNorm,
    /// Layer norm over the channels.
    LayerNorm,
    /// A learned factor for each channel.
    LayerScale,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x * relu6(x + 3) / 6`.
    Hardswish,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)`, exact form.
    Gelu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Maximum over a square window.
    MaxPool {
        /// Height and width of the window.
        kernel: S,
        /// Stride.
        stride: S,
        /// Padding on each side.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: Option<u32>,
    },
    /// Mean over a square window, padding included in the count.
    AvgPool {
        /// Height and width of the window.
        kernel: S,
        /// Stride.
        stride: S,
        /// Padding on each side.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: Option<u32>,
    },
    /// Mean over a whole map; the output is a 1x1 map.
    GlobalAvgPool,
    /// Multi-head self-attention with its input and output projections. A map is read as a sequence of `h * w` tokens,
    /// and the output is a map again.
    SelfAttention {
        /// Heads; they divide the channels.
        heads: S,
    },
    /// Squeeze-and-excite: pool, reduce, expand, gate, multiply.
    SqueezeExcite {
        /// Channels between the two layers, before `divisor`.
        squeeze: S,
        /// Rounds `squeeze` to a multiple of this, and never more than 10% down, as MobileNetV3 does.
        #[serde(default = "one_number")]
        divisor: u32,
        /// Activation between the two layers.
        #[serde(default)]
        activation: Activation,
        /// Activation after them.
        #[serde(default)]
        gate: Gate,
    },
    /// Sum of its inputs.
    Add,
    /// Product of its inputs.
    Mul,
    /// Its inputs, one after the other along the channels.
    Concat,
    /// Parts of its input along the channels, as with `torch.chunk`: equal if their number divides the channels, else
    /// the last one is smaller. A later node reads part 1 of node `a` as `a.1`.
    Split {
        /// Number of parts.
        parts: u32,
    },
    /// Channel shuffle.
    Shuffle {
        /// Groups that are interleaved.
        groups: u32,
    },
    /// Nearest-neighbour upsampling.
    Upsample {
        /// Factor for height and width.
        scale: u32,
    },
    /// Its input.
    Identity,
    /// A map as a sequence of tokens, with learned position embeddings added.
    ToTokens {
        /// Whether a learned class token is put in front.
        class_token: bool,
    },
    /// The first token, as a 1x1 map.
    ClassToken,
}

/// The number of inputs of a primitive.
pub(crate) enum Arity {
    One,
    AtLeastTwo,
}

/// Rounds to a multiple of `divisor`, at most a tenth down: `make_divisible` of the MobileNet reference code. A divisor
/// of 0 counts as 1, and a result beyond `u32` is its maximum.
pub fn make_divisible(value: u32, divisor: u32) -> u32 {
    let (value, divisor) = (u64::from(value), u64::from(divisor.max(1)));
    let rounded = ((value + divisor / 2) / divisor * divisor).max(divisor);
    let kept = if rounded * 10 < value * 9 { rounded + divisor } else { rounded };
    u32::try_from(kept).unwrap_or(u32::MAX)
}

impl Primitive {
    /// The names of all primitives.
    pub const NAMES: &[&str] = <Primitive as strum::VariantNames>::VARIANTS;
}

impl<S> Primitive<S> {
    /// The name in definitions and messages.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    pub(crate) fn arity(&self) -> Arity {
        self.ports().0
    }

    /// Number of outputs: more than one only for `split`.
    pub(crate) fn outputs(&self) -> usize {
        self.ports().1
    }

    /// Inputs and outputs.
    fn ports(&self) -> (Arity, usize) {
        match self {
            Primitive::Add | Primitive::Mul | Primitive::Concat => (Arity::AtLeastTwo, 1),
            Primitive::Split { parts } => (Arity::One, *parts as usize),
            Primitive::Conv2d { .. }
            | Primitive::Linear { .. }
            | Primitive::BatchNorm
            | Primitive::LayerNorm
            | Primitive::LayerScale
            | Primitive::Relu
            | Primitive::Relu6
            | Primitive::Hardswish
            | Primitive::Silu
            | Primitive::Gelu
            | Primitive::Sigmoid
            | Primitive::MaxPool { .. }
            | Primitive::AvgPool { .. }
            | Primitive::GlobalAvgPool
            | Primitive::SelfAttention { .. }
            | Primitive::SqueezeExcite { .. }
            | Primitive::Shuffle { .. }
            | Primitive::Upsample { .. }
            | Primitive::Identity
            | Primitive::ToTokens { .. }
            | Primitive::ClassToken => (Arity::One, 1),
        }
    }
}

impl Primitive<Size> {
    /// The sizes of the definition, for rules about the variables that it mentions.
    pub(crate) fn sizes(&self) -> Vec<Size> {
        let mut sizes = vec![];
        let walked = self.clone().with_sizes(|size| {
            sizes.push(size);
            Ok::<u32, Infallible>(0)
        });
        match walked {
            Ok(_) => sizes,
        }
    }

    /// The primitive at a shape: every size a number, every default filled in.
    pub(crate) fn at(&self, shape: &Shape) -> Result<Primitive<u32>, Invalid> {
        let mut primitive = self.clone().with_sizes(|size| size.at(shape))?;
        match &mut primitive {
            Primitive::Conv2d { kernel, dilation, padding, .. } => {
                check_factor("dilation", *dilation)?;
                *padding = same_padding(*padding, *kernel, *dilation)?;
            }
            Primitive::MaxPool { kernel, padding, .. }
            | Primitive::AvgPool { kernel, padding, .. } => {
                *padding = same_padding(*padding, *kernel, 1)?;
            }
            Primitive::SqueezeExcite { squeeze, divisor, .. } => {
                check_factor("divisor", *divisor)?;
                *squeeze = make_divisible(*squeeze, *divisor);
                *divisor = 1;
            }
            Primitive::Upsample { scale } => check_factor("scale", *scale)?,
            Primitive::Linear { .. }
            | Primitive::BatchNorm
            | Primitive::LayerNorm
            | Primitive::LayerScale
            | Primitive::Relu
            | Primitive::Relu6
            | Primitive::Hardswish
            | Primitive::Silu
            | Primitive::Gelu
            | Primitive::Sigmoid
            | Primitive::GlobalAvgPool
            | Primitive::SelfAttention { .. }
            | Primitive::Add
            | Primitive::Mul
            | Primitive::Concat
            | Primitive::Split { .. }
            | Primitive::Shuffle { .. }
            | Primitive::Identity
            | Primitive::ToTokens { .. }
            | Primitive::ClassToken => {}
        }
        Ok(primitive)
    }
}

impl<S> Primitive<S> {
    /// The same primitive with other sizes, each made from the old one.
    fn with_sizes<T, E>(self, mut size: impl FnMut(S) -> Result<T, E>) -> Result<Primitive<T>, E> {
        Ok(match self {
            Primitive::Conv2d { out, kernel, stride, groups, dilation, padding, bias } => {
                Primitive::Conv2d {
                    out: size(out)?,
                    kernel: size(kernel)?,
                    stride: size(stride)?,
                    groups: size(groups)?,
                    dilation,
                    padding,
                    bias,
                }
            }
            Primitive::Linear { out, bias } => Primitive::Linear { out: size(out)?, bias },
            Primitive::MaxPool { kernel, stride, padding } => {
                Primitive::MaxPool { kernel: size(kernel)?, stride: size(stride)?, padding }
            }
            Primitive::AvgPool { kernel, stride, padding } => {
                Primitive::AvgPool { kernel: size(kernel)?, stride: size(stride)?, padding }
            }
            Primitive::SelfAttention { heads } => Primitive::SelfAttention { heads: size(heads)? },
            Primitive::SqueezeExcite { squeeze, divisor, activation, gate } => {
                Primitive::SqueezeExcite { squeeze: size(squeeze)?, divisor, activation, gate }
            }
            Primitive::Split { parts } => Primitive::Split { parts },
            Primitive::Shuffle { groups } => Primitive::Shuffle { groups },
            Primitive::Upsample { scale } => Primitive::Upsample { scale },
            Primitive::ToTokens { class_token } => Primitive::ToTokens { class_token },
            Primitive::BatchNorm => Primitive::BatchNorm,
            Primitive::LayerNorm => Primitive::LayerNorm,
            Primitive::LayerScale => Primitive::LayerScale,
            Primitive::Relu => Primitive::Relu,
            Primitive::Relu6 => Primitive::Relu6,
            Primitive::Hardswish => Primitive::Hardswish,
            Primitive::Silu => Primitive::Silu,
            Primitive::Gelu => Primitive::Gelu,
            Primitive::Sigmoid => Primitive::Sigmoid,
            Primitive::GlobalAvgPool => Primitive::GlobalAvgPool,
            Primitive::Add => Primitive::Add,
            Primitive::Mul => Primitive::Mul,
            Primitive::Concat => Primitive::Concat,
            Primitive::Identity => Primitive::Identity,
            Primitive::ClassToken => Primitive::ClassToken,
        })
    }
}

fn check_factor(what: &str, value: u32) -> Result<(), Invalid> {
    if (1..=1024).contains(&value) {
        return Ok(());
    }
    Err(Invalid::here(format!("{what} is {value}; it lies between 1 and 1024")))
}

/// The given padding, or the documented default.
fn same_padding(padding: Option<u32>, kernel: u32, dilation: u32) -> Result<Option<u32>, Invalid> {
    let padding =
        padding.map_or_else(|| u64::from(dilation) * u64::from(kernel - 1) / 2, u64::from);
    match u32::try_from(padding) {
        Ok(small) if small <= MAX_PADDING => Ok(Some(small)),
        _ => Err(Invalid::here(format!("a padding of {padding} is too large"))),
    }
}

impl Primitive<u32> {
    /// Output shapes and cost for the given input shapes, of which there is at least one.
    pub(crate) fn infer(
        &self,
        inputs: &[TensorShape],
    ) -> Result<(Vec<TensorShape>, Cost), Invalid> {
        let outputs = self.output_shapes(inputs)?;
        let cost = self.cost(inputs, &outputs)?;
        Ok((outputs, cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_divisible_follows_the_reference() {
        for (value, divisor, expected) in
            [(18, 8, 24), (30, 8, 32), (120, 8, 120), (168, 8, 168), (4, 8, 8), (10, 1, 10)]
        {
            assert_eq!(make_divisible(value, divisor), expected, "{value}");
        }
    }

    #[test]
    fn make_divisible_has_no_panic() {
        for value in [0, 1, u32::MAX - 1, u32::MAX] {
            for divisor in [0, 1, 1024, u32::MAX] {
                make_divisible(value, divisor);
            }
        }
    }
}

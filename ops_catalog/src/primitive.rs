//! The primitives that op definitions are made of.
//!
//! A primitive is defined in two places: its variant of [`Primitive`] has its parameters, and its arm of
//! [`Primitive::infer`] has its effect on shapes and its cost. Only the crate `latlas_lowering` knows how to run it.

/// The pattern of functions of single elements, without weights, that can work in place.
macro_rules! activation {
    () => {
        Primitive::Relu
            | Primitive::Relu6
            | Primitive::Hardswish
            | Primitive::Silu
            | Primitive::Gelu
            | Primitive::Sigmoid
            | Primitive::LeakyRelu
            | Primitive::Elu
            | Primitive::GeluTanh
            | Primitive::Tanh
            | Primitive::Hardsigmoid
            | Primitive::Mish
    };
}

mod cost;
mod fields;
mod infer;
mod tokens;
mod windows;

use std::convert::Infallible;

use serde::{Deserialize, Serialize};

pub use self::cost::Cost;
pub use self::fields::{Activation, Dimension, Gate, Interpolation, Padding, Pair, Sides};
use crate::Invalid;
use crate::key::Shape;
use crate::size::Size;

fn one<S: From<u32>>() -> S {
    S::from(1)
}

fn one_each<S: From<u32> + Copy>() -> Pair<S> {
    Pair::square(S::from(1))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one_each(pair: &Pair<u32>) -> bool {
    *pair == Pair::square(1)
}

fn none_each() -> Pair<u32> {
    Pair::square(0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_each(pair: &Pair<u32>) -> bool {
    *pair == none_each()
}

fn one_number() -> u32 {
    1
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_nearest(mode: &Interpolation) -> bool {
    *mode == Interpolation::Nearest
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_no(value: &bool) -> bool {
    !*value
}

impl From<u32> for Size {
    fn from(n: u32) -> Size {
        Size::Number(n)
    }
}

/// Makes a parameter from one with other sizes: `size` makes each size of it, and other parameters stay as they are.
macro_rules! with_size {
    ($size:ident, $field:ident, S) => {
        $size($field)?
    };
    ($size:ident, $field:ident, Pair<S>) => {
        $field.with(&mut $size)?
    };
    ($size:ident, $field:ident, Option<S>) => {
        $field.map(&mut $size).transpose()?
    };
    ($size:ident, $field:ident, $($other:tt)+) => {
        $field
    };
}

/// Declares the enum, and what follows from the types of its fields. Each type is in brackets. In it, `S` is a size.
macro_rules! primitives {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $(
                $(#[$doc:meta])*
                $variant:ident $({ $( $(#[$attribute:meta])* $field:ident : [$($type:tt)+], )+ })?,
            )+
        }
    ) => {
        $(#[$about])*
        pub enum $name<S = Size> {
            $(
                $(#[$doc])*
                $variant $({ $( $(#[$attribute])* $field: $($type)+, )+ })?,
            )+
        }

        impl<S> $name<S> {
            /// The same primitive with other sizes, each made from the old one.
            fn with_sizes<T, E>(
                self,
                mut size: impl FnMut(S) -> Result<T, E>,
            ) -> Result<$name<T>, E> {
                Ok(match self {
                    $(
                        $name::$variant $({ $($field),+ })? => {
                            $name::$variant $({ $($field: with_size!(size, $field, $($type)+)),+ })?
                        }
                    )+
                })
            }
        }
    };
}

primitives! {
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
    bound(
        serialize = "S: Serialize + PartialEq",
        deserialize = "S: Deserialize<'de> + From<u32> + Copy"
    )
)]
pub enum Primitive {
    /// 2-D convolution over a map, by default with a bias (deployed form: a batch norm is folded into it). Output size:
    /// `torch.nn.Conv2d`.
    Conv2d {
        /// Output channels.
        out: [S],
        /// Kernel.
        kernel: [Pair<S>],
        /// Stride.
        #[serde(default = "one_each")]
        stride: [Pair<S>],
        /// Groups; equal to the input's channels for a depthwise convolution.
        #[serde(default = "one")]
        groups: [S],
        /// Dilation.
        #[serde(default = "one_each")]
        dilation: [Pair<u32>],
        /// Padding.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: [Option<Padding>],
        /// Whether there is a bias.
        #[serde(default = "yes")]
        bias: [bool],
    },
    /// 1-D convolution over the length of a sequence: tokens, or a map of width 1. By default with a bias (deployed
    /// form). Output size: `torch.nn.Conv1d`.
    Conv1d {
        /// Output channels.
        out: [S],
        /// Kernel.
        kernel: [S],
        /// Stride.
        #[serde(default = "one")]
        stride: [S],
        /// Groups; equal to the input's channels for a depthwise convolution.
        #[serde(default = "one")]
        groups: [S],
        /// Dilation.
        #[serde(default = "one_number")]
        dilation: [u32],
        /// Padding of both ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: [Option<u32>],
        /// Whether an output depends on earlier positions only: all the padding is at the beginning, and is
        /// `dilation * (kernel - 1)`.
        #[serde(default, skip_serializing_if = "is_no")]
        causal: [bool],
        /// Whether there is a bias.
        #[serde(default = "yes")]
        bias: [bool],
    },
    /// Transposed convolution over a map, by default with a bias of its own. Output size: `(size - 1) * stride +
    /// dilation * (kernel - 1) + output_padding + 1`, less the padding, as `torch.nn.ConvTranspose2d`.
    ConvTranspose2d {
        /// Output channels.
        out: [S],
        /// Kernel.
        kernel: [Pair<S>],
        /// Stride: the factor by which the map grows.
        #[serde(default = "one_each")]
        stride: [Pair<S>],
        /// Groups.
        #[serde(default = "one")]
        groups: [S],
        /// Dilation.
        #[serde(default = "one_each")]
        dilation: [Pair<u32>],
        /// What is cut off each side of the output. `same` gives an output of `size * stride`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: [Option<Padding>],
        /// Rows and columns that are added to the output, at the bottom and at the right.
        #[serde(default = "none_each", skip_serializing_if = "is_none_each")]
        output_padding: [Pair<u32>],
        /// Whether there is a bias.
        #[serde(default = "yes")]
        bias: [bool],
    },
    /// Matrix product over the channels of tokens, or of a 1x1 map.
    Linear {
        /// Output channels.
        out: [S],
        /// Whether there is a bias.
        #[serde(default = "yes")]
        bias: [bool],
    },
    /// Batch norm that was not folded, in eval mode.
    BatchNorm,
    /// Layer norm over the channels.
    LayerNorm,
    /// Group norm: channels are normalized together in groups. `groups: c_in` is an instance norm.
    GroupNorm {
        /// Groups; they divide the channels.
        groups: [S],
    },
    /// `x / sqrt(mean(x^2) + 1e-6)` over the channels, with a learned factor for each channel (arXiv 1910.07467).
    RmsNorm,
    /// A learned factor for each channel.
    LayerScale,
    /// A learned number added to each channel.
    LayerShift,
    /// Product with one number, which is no parameter: it is stored with the weights, as `factor`.
    Scale,
    /// Sum with one number, which is no parameter: it is stored with the weights, as `shift`.
    Shift,
    /// `x + shift + scale * x * n / (mean(n) + 1e-6)`, where `n` is the root of the sum of squares of each channel over all
    /// positions of a map, and its mean is one over the channels. Scale and shift are learned for each channel: the global
    /// response normalization of ConvNeXt V2 (arXiv 2301.00808).
    ResponseNorm,
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
    /// `max(x, 0) + 0.01 * min(x, 0)`.
    LeakyRelu,
    /// `max(x, 0) + min(exp(x) - 1, 0)`.
    Elu,
    /// GELU with a tanh: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`, as in GPT-2.
    GeluTanh,
    /// `tanh(x)`.
    Tanh,
    /// `relu6(x + 3) / 6`.
    Hardsigmoid,
    /// `x * tanh(ln(1 + exp(x)))`.
    Mish,
    /// `max(x, 0) + slope * min(x, 0)`, with a learned slope.
    Prelu {
        /// Whether all channels share one slope, as is the default of `torch.nn.PReLU`.
        #[serde(default)]
        shared: [bool],
    },
    /// `exp(x) / sum(exp(x))` over the channels.
    Softmax,
    /// Maximum over a window. Output size: `torch.nn.MaxPool2d`.
    MaxPool {
        /// Window.
        kernel: [Pair<S>],
        /// Stride.
        stride: [Pair<S>],
        /// Dilation.
        #[serde(default = "one_each", skip_serializing_if = "is_one_each")]
        dilation: [Pair<u32>],
        /// Padding, which is never the maximum.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: [Option<Padding>],
        /// Whether a last window may reach beyond the padded map: output sizes are rounded up instead of down.
        #[serde(default, skip_serializing_if = "is_no")]
        ceil_mode: [bool],
    },
    /// Mean over a window. Output size: `torch.nn.AvgPool2d`.
    AvgPool {
        /// Window.
        kernel: [Pair<S>],
        /// Stride.
        stride: [Pair<S>],
        /// Padding.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: [Option<Padding>],
        /// Whether a last window may reach beyond the padded map: output sizes are rounded up instead of down.
        #[serde(default, skip_serializing_if = "is_no")]
        ceil_mode: [bool],
        /// Whether the padding counts in the mean.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        count_include_pad: [bool],
    },
    /// Mean over windows whose number is given, whatever the size of the input: `torch.nn.AdaptiveAvgPool2d`.
    AdaptiveAvgPool {
        /// Height and width of the output.
        size: [Pair<S>],
    },
    /// Maximum over windows whose number is given: `torch.nn.AdaptiveMaxPool2d`.
    AdaptiveMaxPool {
        /// Height and width of the output.
        size: [Pair<S>],
    },
    /// Mean over all positions of a map or of a sequence; the output is a 1x1 map.
    GlobalAvgPool,
    /// Multi-head self-attention with its input and output projections. A map is read as a sequence of `h * w` tokens,
    /// and the output is a map again.
    SelfAttention {
        /// Heads; they divide the channels.
        heads: [S],
    },
    /// Scaled dot-product attention: `softmax(q k^T / sqrt(head size)) v`, for each head. It has no weights: its three
    /// inputs are queries, keys and values, as `linear` gives them. So the size of a head is independent of the width,
    /// and cross attention has keys and values of another sequence. Each input is a sequence or a map, read as `h * w`
    /// positions. The output has the positions of the queries, and the channels of a head's values for each head.
    Attention {
        /// Heads; they divide the channels of the queries.
        heads: [S],
        /// Heads of the keys and values, each of which serves several heads of the queries (grouped-query attention,
        /// arXiv 2305.13245). As many as `heads` if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kv_heads: [Option<S>],
        /// Whether a query sees only the keys up to its own position.
        #[serde(default, skip_serializing_if = "is_no")]
        causal: [bool],
        /// Whether a learned bias is added to the scores: one for each head, query and key. Attention with fewer
        /// biases, by relative position, has them in this form for inference, as EfficientFormer (arXiv 2206.01191).
        #[serde(default, skip_serializing_if = "is_no")]
        position_bias: [bool],
        /// Whether the scores are cosines: queries and keys of each head are divided by their lengths, and the scores
        /// are multiplied with a learned factor for each head instead of `1 / sqrt(head size)`, as in Swin V2
        /// (arXiv 2111.09883).
        #[serde(default, skip_serializing_if = "is_no")]
        cosine: [bool],
    },
    /// Attention of channels: `softmax(q^T k / sqrt(positions)) v^T` for each head, so each channel of a head sees all
    /// channels of the head, and the scores are sums over the positions, as in DaViT (arXiv 2204.03645). The three inputs
    /// are alike.
    ChannelAttention {
        /// Heads; they divide the channels.
        heads: [S],
        /// Whether the scores are cosines, as in `attention`: the cross-covariance attention of XCiT (arXiv 2106.09681).
        #[serde(default, skip_serializing_if = "is_no")]
        cosine: [bool],
    },
    /// Self-attention inside square windows of a map, with input and output projections, and by default a learned bias
    /// for each head and relative position: `shifted_window_attention` of Swin (arXiv 2103.14030), and the partitions of
    /// MaxViT (arXiv 2204.01697). The map is padded with zeros at the bottom and at the right to whole windows, which
    /// count.
    WindowAttention {
        /// Heads; they divide the channels.
        heads: [S],
        /// Height and width of a window.
        window: [u32],
        /// How far the windows are shifted along each dimension, without wrapping around. A dimension of one window is
        /// not shifted.
        #[serde(default, skip_serializing_if = "is_none")]
        shift: [u32],
        /// Whether the positions of a window are spread over the map at equal distances, as in the grid attention of
        /// MaxViT.
        #[serde(default, skip_serializing_if = "is_no")]
        grid: [bool],
        /// Whether there are biases. The attention of MobileViT is one over a grid without them.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        position_bias: [bool],
        /// Whether the scores are cosines, as in `attention`.
        #[serde(default, skip_serializing_if = "is_no")]
        cosine: [bool],
    },
    /// Rotary position embedding of queries or keys (arXiv 2104.09864): the two halves of each head are rotated against
    /// each other, by angles that grow with the position.
    Rotary {
        /// Heads. The channels of a head are even.
        heads: [S],
    },
    /// Squeeze-and-excite: pool, reduce, expand, gate, multiply.
    SqueezeExcite {
        /// Channels between the two layers, before `divisor`.
        squeeze: [S],
        /// Rounds `squeeze` to a multiple of this, and never more than 10% down, as MobileNetV3 does.
        #[serde(default = "one_number")]
        divisor: [u32],
        /// Activation between the two layers.
        #[serde(default)]
        activation: [Activation],
        /// Activation after them.
        #[serde(default)]
        gate: [Gate],
    },
    /// Sum of its inputs.
    Add,
    /// Its first input less its second.
    Sub,
    /// Product of its inputs. A 1x1 map is a factor for each channel, and a map of one channel is one for each
    /// position. The product of both is a map.
    Mul,
    /// Its inputs, one after the other along the channels.
    Concat,
    /// Sequences, one after the other.
    ConcatTokens,
    /// A part of its input along one dimension: `x[start : start + length * step : step]`.
    Slice {
        /// The dimension.
        along: [Dimension],
        /// First element.
        #[serde(default)]
        start: [u32],
        /// Number of elements.
        length: [S],
        /// Distance of the elements.
        #[serde(default = "one_number")]
        step: [u32],
    },
    /// Zeros around a map.
    Pad {
        /// Rows and columns of zeros.
        padding: [Padding],
    },
    /// Parts of its input along the channels, as with `torch.chunk`: equal if their number divides the channels, else
    /// the last one is smaller. A later node reads part 1 of node `a` as `a.1`.
    Split {
        /// Number of parts.
        parts: [u32],
    },
    /// Channel shuffle.
    Shuffle {
        /// Groups that are interleaved.
        groups: [u32],
    },
    /// Upsampling, nearest neighbour unless given.
    Upsample {
        /// Factor for height and width.
        scale: [u32],
        /// How values between elements are found.
        #[serde(default, skip_serializing_if = "is_nearest")]
        mode: [Interpolation],
    },
    /// Blocks of `block * block` positions as channels of one position: `torch.nn.PixelUnshuffle`.
    SpaceToDepth {
        /// Height and width of a block.
        block: [u32],
    },
    /// Channels as blocks of positions: `torch.nn.PixelShuffle`.
    DepthToSpace {
        /// Height and width of a block.
        block: [u32],
    },
    /// All elements as the channels of a 1x1 map, in their order in memory.
    Flatten,
    /// Its input.
    Identity,
    /// Zeros in the shape of a map after a stride: the op `none` of NAS-Bench-201 (arXiv 2001.00326). It reads nothing.
    Zero {
        /// Output channels; those of the input if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        out: [Option<S>],
        /// Stride.
        #[serde(default = "one_each")]
        stride: [Pair<S>],
    },
    /// A map as a sequence of tokens, with learned position embeddings added.
    ToTokens {
        /// Whether a learned class token is put in front.
        class_token: [bool],
        /// Whether learned position embeddings are added.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        positions: [bool],
    },
    /// Tokens as a map. Its second input is a map, of which only height and width matter.
    ToMap,
    /// Tokens as a map of a size.
    ToMapOf {
        /// Height and width of the map.
        size: [Pair<S>],
    },
    /// Tokens with positions and channels exchanged: `[n, l, c]` becomes `[n, c, l]`. A `linear` between two of them
    /// mixes positions, as in MLP-Mixer (arXiv 2105.01601).
    Transpose,
    /// The positions of a map as `patch * patch` sequences, one for each place in a patch, along the batch: the
    /// unfolding of MobileViT (arXiv 2110.02178).
    Unfold {
        /// Height and width of a patch.
        patch: [u32],
    },
    /// The inverse of `unfold`. Its second input is a map, of which only height and width matter.
    Fold {
        /// Height and width of a patch.
        patch: [u32],
    },
    /// The rows of a learned table, by number: a map of one channel and width 1 holds the numbers, and gives tokens. A
    /// number counts as its whole part, modulo the number of rows.
    Embedding {
        /// Rows of the table.
        rows: [S],
        /// Output channels.
        out: [S],
    },
    /// A learned vector added to each position of a map or of a sequence.
    PositionEmbedding,
    /// Learned tokens in front of a sequence, such as a class token.
    PrependTokens {
        /// Number of tokens.
        count: [u32],
    },
    /// The first token, as a 1x1 map.
    ClassToken,
    /// One token, as a 1x1 map.
    SelectToken {
        /// Its place in the sequence, from 0 on.
        index: [u32],
    },
}
}

/// The number of inputs of a primitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    Exactly(usize),
    AtLeastTwo,
}

/// Rounds to a multiple of `divisor`, at most a tenth down: `make_divisible` of the MobileNet reference code. A divisor
/// of 0 counts as 1, and a result beyond `u32` is its maximum.
pub fn make_divisible(value: u32, divisor: u32) -> u32 {
    divisible_fraction(u64::from(value), 1, divisor)
}

/// [`make_divisible`] of `numerator / denominator`, which are at most 48 bits long. A denominator of 0 counts as 1.
pub(crate) fn divisible_fraction(numerator: u64, denominator: u64, divisor: u32) -> u32 {
    let (value, one) = (u128::from(numerator), u128::from(denominator.max(1)));
    let divisor = u128::from(divisor.max(1));
    let nearest = (2 * value + divisor * one) / (2 * one);
    let rounded = (nearest / divisor * divisor).max(divisor);
    let kept = if rounded * 10 * one < value * 9 { rounded + divisor } else { rounded };
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
        match self {
            Primitive::Add | Primitive::Mul | Primitive::Concat | Primitive::ConcatTokens => {
                Arity::AtLeastTwo
            }
            Primitive::Sub | Primitive::ToMap | Primitive::Fold { .. } => Arity::Exactly(2),
            Primitive::Attention { .. } | Primitive::ChannelAttention { .. } => Arity::Exactly(3),
            _ => Arity::Exactly(1),
        }
    }

    /// Number of outputs: more than one only for `split`.
    pub(crate) fn outputs(&self) -> usize {
        if let Primitive::Split { parts } = self { *parts as usize } else { 1 }
    }

    /// Whether it is a function of single elements, without weights, that can work in place.
    pub fn is_activation(&self) -> bool {
        matches!(self, activation!())
    }

    /// Whether it normalizes its input.
    pub fn is_norm(&self) -> bool {
        matches!(
            self,
            Primitive::BatchNorm
                | Primitive::LayerNorm
                | Primitive::GroupNorm { .. }
                | Primitive::RmsNorm
                | Primitive::ResponseNorm
        )
    }

    /// Whether a batch norm after it can be folded into its bias.
    pub(crate) fn can_fold_norm(&self) -> bool {
        matches!(self, Primitive::Conv2d { bias: true, .. } | Primitive::Conv1d { bias: true, .. })
    }
}

impl Primitive<u32> {
    /// The same primitive in a definition that has this one shape.
    pub fn numbered(self) -> Primitive {
        match self.with_sizes(|number| Ok::<Size, Infallible>(Size::Number(number))) {
            Ok(primitive) => primitive,
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

    /// The primitive at a shape of its op: every size a number.
    pub(crate) fn at(&self, shape: &Shape) -> Result<Primitive<u32>, Invalid> {
        self.clone().with_sizes(|size| size.at(shape))
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

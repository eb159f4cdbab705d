//! A model's graph, as the readers of both file formats give it: values with known shapes, and operations of one
//! vocabulary.

use std::sync::Arc;

pub use crate::formula::Formula;
use crate::stored::Directory;

/// A value, by index into [`Graph::values`].
pub type ValueId = usize;

/// A model. Each value is written once, before it is read.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Name of the model, if the file has one.
    pub name: Option<String>,
    /// All values.
    pub values: Vec<Value>,
    /// Operations in an order in which they can run. None of them computes a constant.
    pub nodes: Vec<Node>,
    /// Inputs of the model, without weights.
    pub inputs: Vec<ValueId>,
    /// Outputs of the model.
    pub outputs: Vec<ValueId>,
    /// Where the stored tensors are.
    pub(crate) directory: Directory,
}

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Name in the file. For a weight, the name under which it is stored.
    pub name: String,
    /// Its dimensions, none for a scalar and for what has an unknown size because it depends on an unsupported
    /// operation.
    pub dims: Vec<u64>,
    /// Element type.
    pub kind: Kind,
    /// Whether it is a stored weight or a constant, and not computed from the model's input.
    pub constant: bool,
    /// Elements of a small constant, in their order in memory. None if it is large, or its data are not in the file.
    pub numbers: Option<Arc<[f64]>>,
    /// How a constant follows from the stored tensors, if that is known.
    pub formula: Option<Arc<Formula>>,
}

/// The kind of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Floating point of any width.
    Float,
    /// Whole numbers of any width.
    Integer,
    /// True or false.
    Boolean,
}

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands in the file, for messages: the name of the node, or of its first output.
    pub place: String,
    /// The file's name of the operator, for messages: `Conv`, `aten.conv2d.default`.
    pub operator: String,
    /// What it computes.
    pub operation: Operation,
    /// What it reads.
    pub inputs: Vec<ValueId>,
    /// What it writes: one value.
    pub output: ValueId,
}

/// What a node computes. Axes count from 0. Lists for spatial dimensions have one entry (1-D) or two (height, width).
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Convolution. Inputs: values `[n, c, spatial]`, weight `[out, c / groups, kernel]`, and a bias or none.
    Conv {
        /// Stride.
        stride: Vec<u32>,
        /// Dilation.
        dilation: Vec<u32>,
        /// Padding before the first element of each spatial dimension.
        before: Vec<u32>,
        /// Padding after the last element of each.
        after: Vec<u32>,
        /// Groups.
        groups: u32,
    },
    /// Transposed convolution. Inputs: values, weight `[c, out / groups, kernel]`, and a bias or none.
    ConvTranspose {
        /// Stride.
        stride: Vec<u32>,
        /// Dilation.
        dilation: Vec<u32>,
        /// What is cut off before the first element of each spatial dimension.
        before: Vec<u32>,
        /// What is cut off after the last element of each.
        after: Vec<u32>,
        /// Added after the last element of each.
        output_padding: Vec<u32>,
        /// Groups.
        groups: u32,
    },
    /// Product of the last dimension with a constant matrix. Inputs: values `[..., in]`, weight, and a bias `[out]` or
    /// none.
    Linear {
        /// Whether the weight is `[out, in]`, as in `torch.nn.Linear`. Otherwise it is `[in, out]`.
        transposed: bool,
    },
    /// Matrix product of two values, batched over all but the last two dimensions. One of them may be a constant, if it
    /// is the left one or has more than two dimensions.
    MatMul,
    /// Batch norm with running statistics. Inputs: values `[n, c, ...]`, scale, shift, mean, variance, each `[c]`.
    BatchNorm {
        /// Added to the variance.
        epsilon: f64,
    },
    /// Layer norm. Inputs: values, and a scale or none, and a shift or none.
    LayerNorm {
        /// Number of last dimensions that are normalized together.
        dimensions: usize,
        /// Added to the variance.
        epsilon: f64,
    },
    /// Root-mean-square norm over the last dimension. Inputs: values, scale.
    RmsNorm {
        /// Added to the mean square.
        epsilon: f64,
    },
    /// Group norm; an instance norm has as many groups as channels. Inputs: values `[n, c, ...]`, and a scale and a
    /// shift or none.
    GroupNorm {
        /// Groups.
        groups: u32,
        /// Added to the variance.
        epsilon: f64,
    },
    /// A function of each element.
    Apply(Function),
    /// `max(x, 0) + slope * min(x, 0)`. Inputs: values `[n, c, ...]`, slope `[c]` or `[1]`.
    Prelu,
    /// Two values, element by element, the smaller one broadcast as in NumPy. Inputs: left, right.
    Binary(Binary),
    /// Reduction of dimensions.
    Reduce {
        /// What is computed.
        reduction: Reduction,
        /// The dimensions, in ascending order.
        axes: Vec<usize>,
        /// Whether they stay, with size 1.
        keep: bool,
    },
    /// Softmax along one dimension.
    Softmax {
        /// The dimension.
        axis: usize,
    },
    /// Pooling of `[n, c, spatial]`.
    Pool {
        /// What is computed.
        pooling: Pooling,
        /// Window.
        kernel: Vec<u32>,
        /// Stride.
        stride: Vec<u32>,
        /// Dilation.
        dilation: Vec<u32>,
        /// Padding before the first element of each spatial dimension.
        before: Vec<u32>,
        /// Padding after the last element of each.
        after: Vec<u32>,
        /// Whether output sizes are rounded up.
        ceil_mode: bool,
    },
    /// Pooling to the spatial size of the output.
    AdaptivePool(Pooling),
    /// The same elements in the same order, with the dimensions of the output: view, flatten, squeeze, unsqueeze.
    Reshape,
    /// Another order of dimensions: output dimension `i` is input dimension `order[i]`.
    Permute {
        /// The order.
        order: Vec<usize>,
    },
    /// Dimensions of size 1 are repeated to the dimensions of the output, which are as many.
    Expand,
    /// Values one after the other.
    Concat {
        /// Along this dimension.
        axis: usize,
    },
    /// `x[start : : step]` along one dimension. The output has the length.
    Slice {
        /// The dimension.
        axis: usize,
        /// First element.
        start: u64,
        /// Distance of elements.
        step: u64,
    },
    /// Zeros before and after each dimension.
    Pad {
        /// Before the first element of each dimension.
        before: Vec<u32>,
        /// After the last element of each dimension.
        after: Vec<u32>,
    },
    /// Another spatial size, that of the output.
    Resize {
        /// Whether linear between the centres of elements (`align_corners=False`); otherwise the nearest element.
        linear: bool,
    },
    /// Elements that leave one end of a dimension come back at the other.
    Roll {
        /// How far each dimension is shifted, by dimension.
        shifts: Vec<(usize, i64)>,
    },
    /// Scaled dot-product attention. Inputs: queries `[n, heads, l, d]`, keys `[n, kv_heads, s, d]`, values
    /// `[n, kv_heads, s, e]`, and something that is added to the scores, or none. If that is a constant of booleans, true
    /// adds nothing, and false minus infinity. By cosines, a constant factor of each head `[heads, 1, 1]` comes before
    /// that.
    Attention {
        /// Whether a query sees only the keys up to its own position.
        causal: bool,
        /// Factor of the scores; `1 / sqrt(d)` if none.
        scale: Option<f64>,
        /// Whether queries and keys are divided by their lengths. The readers do not make it.
        cosine: bool,
    },
    /// `x / max(|x|, 1e-12)` over the last dimension. The readers do not make it; it is found in the graph.
    Normalize,
    /// `x + shift + scale * x * n / (mean(n) + 1e-6)`, where `n` is the length of each channel over all positions, and its
    /// mean is one over the channels. Inputs: a map with its channels first or last, scale, shift. The readers do not make
    /// it; it is found in the graph.
    ResponseNorm,
    /// Rotary position embedding (arXiv 2104.09864) of `[n, heads, l, d]`: the halves of each head are rotated against each
    /// other. The readers do not make it; it is found in the graph.
    Rotary,
    /// Rows of a table. Inputs: table `[rows, c]`, numbers.
    Embedding,
    /// Channels as blocks of positions, in the order of `torch.nn.PixelShuffle`.
    PixelShuffle {
        /// Height and width of a block.
        block: u32,
    },
    /// Blocks of positions as channels, in the order of `torch.nn.PixelUnshuffle`.
    PixelUnshuffle {
        /// Height and width of a block.
        block: u32,
    },
    /// Groups of channels, interleaved.
    ChannelShuffle {
        /// Groups.
        groups: u32,
    },
    /// Something that has no place here.
    Unsupported {
        /// Why, and what to do.
        why: String,
    },
    /// Something that reads a value of unknown size, so it was not looked at.
    Dependent,
}

/// A function of one element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, min), max)`. ReLU6 is a clip.
    Clip {
        /// Lower limit.
        min: f64,
        /// Upper limit.
        max: f64,
    },
    /// `max(x, 0) + slope * min(x, 0)`.
    LeakyRelu {
        /// The slope.
        slope: f64,
    },
    /// `max(x, 0) + min(alpha * (exp(x) - 1), 0)`.
    Elu {
        /// The factor.
        alpha: f64,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(x / 6 + 0.5, 0), 1)`.
    Hardsigmoid,
    /// `x * hardsigmoid(x)`.
    Hardswish,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)`.
    Gelu,
    /// GELU with a tanh.
    GeluTanh,
    /// `x * tanh(softplus(x))`.
    Mish,
    /// `tanh(x)`.
    Tanh,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// The error function.
    Erf,
    /// `exp(x)`.
    Exp,
    /// `sqrt(x)`.
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// `1 / x`.
    Reciprocal,
    /// `-x`.
    Negate,
    /// `|x|`.
    Abs,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
}

/// A function of two elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// Left plus right.
    Add,
    /// Left minus right.
    Sub,
    /// Left times right.
    Mul,
    /// Left over right.
    Div,
    /// Left to the power of right.
    Pow,
    /// The larger one.
    Max,
    /// The smaller one.
    Min,
}

/// What a reduction computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Mean.
    Mean,
    /// Sum.
    Sum,
    /// Maximum.
    Max,
}

/// What a pooling computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Maximum.
    Max,
    /// Mean.
    Average {
        /// Whether the padding counts in the mean.
        count_include_pad: bool,
    },
}

//! The computation of each primitive. No other module defines it.
//!
//! A primitive is one function here: it requests its weights and returns a [`Kernel`].

mod attention;
mod dense;
mod elementwise;
mod shifted;
mod tokens;
mod windows;

use std::fmt;

use ops_catalog::{Dimension, Init, Interpolation, Primitive, Sides, Step, TensorShape};
use tch::{Kind, TchError, Tensor};

use self::elementwise::Elementwise;
use crate::Form;
use crate::weights::{Source, WeightError};

/// A value that a kernel reads.
pub(crate) enum Argument<'a> {
    Shared(&'a Tensor),
    /// Nothing reads it afterwards, so the kernel may overwrite it.
    Owned(Tensor),
}

impl Argument<'_> {
    pub(crate) fn tensor(&self) -> &Tensor {
        match self {
            Argument::Shared(tensor) => tensor,
            Argument::Owned(tensor) => tensor,
        }
    }
}

/// How a kernel runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    /// Whether values without further readers may be overwritten. A backward pass reads them.
    pub(crate) in_place: bool,
    /// Whether batch norms use the statistics of their input, and update the running ones.
    pub(crate) train: bool,
}

type Outcome = Result<Tensor, TchError>;
type Run = dyn Fn(Vec<Argument>, Mode) -> Result<Vec<Tensor>, TchError> + Send;

/// A primitive that is ready to run.
pub(crate) struct Kernel {
    run: Box<Run>,
    gives_view: bool,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("gives_view", &self.gives_view).finish_non_exhaustive()
    }
}

impl Kernel {
    /// A kernel of several values.
    fn merging(compute: impl Fn(&[Argument], Mode) -> Outcome + Send + 'static) -> Kernel {
        let run = move |arguments: Vec<Argument>, mode: Mode| Ok(vec![compute(&arguments, mode)?]);
        Kernel { run: Box::new(run), gives_view: false }
    }

    /// A kernel of one value.
    fn of_one(compute: impl Fn(&Tensor) -> Outcome + Send + 'static) -> Kernel {
        Kernel::merging(move |arguments, _| compute(arguments[0].tensor()))
    }

    /// A kernel of one value that depends on the mode.
    fn in_mode(compute: impl Fn(&Tensor, Mode) -> Outcome + Send + 'static) -> Kernel {
        Kernel::merging(move |arguments, mode| compute(arguments[0].tensor(), mode))
    }

    /// A kernel of one value that it may overwrite.
    fn overwriting(function: Elementwise) -> Kernel {
        let run = move |mut arguments: Vec<Argument>, _: Mode| {
            Ok(vec![function.run(arguments.swap_remove(0))?])
        };
        Kernel { run: Box::new(run), gives_view: false }
    }

    /// Declares that the outputs share memory with the input.
    fn giving_view(self) -> Kernel {
        Kernel { gives_view: true, ..self }
    }

    /// Whether its outputs share memory with its input.
    pub(crate) fn gives_view(&self) -> bool {
        self.gives_view
    }

    /// Runs it once.
    pub(crate) fn run(
        &self,
        arguments: Vec<Argument>,
        mode: Mode,
    ) -> Result<Vec<Tensor>, TchError> {
        (self.run)(arguments, mode)
    }

    /// The kernel of a step whose inputs have the given shapes.
    pub(crate) fn new(
        step: &Step,
        inputs: &[TensorShape],
        form: Form,
        weights: &mut Source,
    ) -> Result<Kernel, WeightError> {
        let input = inputs[0];
        let c = i64::from(input.channels());
        Ok(match step.primitive {
            Primitive::Conv2d { .. } => dense::conv2d(step, c, form, weights)?,
            Primitive::Conv1d { .. } => dense::conv1d(step, c, form, weights)?,
            Primitive::ConvTranspose2d { .. } => dense::conv_transpose2d(step, c, weights)?,
            Primitive::Linear { out, bias } => dense::linear(out, bias, input, weights)?,
            Primitive::BatchNorm => dense::batch_norm(c, weights)?,
            Primitive::LayerNorm => dense::layer_norm(input, weights)?,
            Primitive::GroupNorm { groups } => dense::group_norm(groups, c, weights)?,
            Primitive::RmsNorm => dense::rms_norm(input, weights)?,
            Primitive::LayerScale => dense::layer_scale(input, weights)?,
            Primitive::LayerShift => dense::layer_shift(input, weights)?,
            Primitive::Scale => dense::with_number("factor", Init::Ones, Tensor::f_mul, weights)?,
            Primitive::Shift => dense::with_number("shift", Init::Zeros, Tensor::f_add, weights)?,
            Primitive::ResponseNorm => dense::response_norm(c, weights)?,
            Primitive::Relu => Kernel::overwriting(elementwise::RELU),
            Primitive::Relu6 => Kernel::overwriting(elementwise::RELU6),
            Primitive::Hardswish => Kernel::overwriting(elementwise::HARDSWISH),
            Primitive::Silu => Kernel::overwriting(elementwise::SILU),
            Primitive::Gelu => Kernel::overwriting(elementwise::GELU),
            Primitive::Sigmoid => Kernel::overwriting(elementwise::SIGMOID),
            Primitive::LeakyRelu => Kernel::overwriting(elementwise::LEAKY_RELU),
            Primitive::Elu => Kernel::overwriting(elementwise::ELU),
            Primitive::GeluTanh => Kernel::overwriting(elementwise::GELU_TANH),
            Primitive::Tanh => Kernel::overwriting(elementwise::TANH),
            Primitive::Hardsigmoid => Kernel::overwriting(elementwise::HARDSIGMOID),
            Primitive::Mish => Kernel::overwriting(elementwise::MISH),
            Primitive::Prelu { shared } => elementwise::prelu(shared, c, weights)?,
            Primitive::Softmax => Kernel::of_one(|x| x.f_softmax(channel_dim(x), None::<Kind>)),
            Primitive::MaxPool { .. } => windows::max_pool(step),
            Primitive::AvgPool { .. } => windows::avg_pool(step),
            Primitive::AdaptiveAvgPool { size } => {
                let size = windows::pair(size);
                Kernel::of_one(move |x| x.f_adaptive_avg_pool2d(size))
            }
            Primitive::AdaptiveMaxPool { size } => {
                let size = windows::pair(size);
                Kernel::of_one(move |x| Ok(x.f_adaptive_max_pool2d(size)?.0))
            }
            Primitive::GlobalAvgPool => Kernel::of_one(|x| match x.dim() {
                3 => x
                    .f_mean_dim([1i64].as_slice(), true, None::<Kind>)?
                    .f_transpose(1, 2)?
                    .f_unsqueeze(3),
                _ => x.f_adaptive_avg_pool2d([1, 1]),
            }),
            Primitive::SelfAttention { heads } => attention::self_attention(heads, c, weights)?,
            Primitive::Attention { .. } => attention::attention(step, inputs, weights)?,
            Primitive::ChannelAttention { heads, cosine } => {
                attention::of_channels(heads, cosine, weights)?
            }
            Primitive::WindowAttention { .. } => shifted::window_attention(step, input, weights)?,
            Primitive::Rotary { heads } => attention::rotary(heads, input, weights)?,
            Primitive::SqueezeExcite { squeeze, activation, gate, .. } => {
                elementwise::squeeze_excite(squeeze, activation, gate, c, weights)?
            }
            Primitive::Add => Kernel::merging(|arguments, _| fold(arguments, Tensor::f_add)),
            Primitive::Mul => Kernel::merging(|arguments, _| fold(arguments, Tensor::f_mul)),
            Primitive::Sub => Kernel::merging(|arguments, _| fold(arguments, Tensor::f_sub)),
            Primitive::ConcatTokens => Kernel::merging(|arguments, _| {
                let tensors: Vec<&Tensor> = arguments.iter().map(Argument::tensor).collect();
                Tensor::f_cat(&tensors, 1)
            }),
            Primitive::Slice { along, start, length, step } => slice(along, start, length, step),
            Primitive::Pad { padding } => {
                let Sides { top, bottom, left, right } = padding.sides();
                let sides = [left, right, top, bottom].map(i64::from);
                Kernel::of_one(move |x| x.f_pad(sides, "constant", Some(0.0)))
            }
            Primitive::Concat => Kernel::merging(|arguments, _| concat(arguments)),
            Primitive::Split { parts } => split(parts),
            Primitive::Shuffle { groups } => {
                Kernel::of_one(move |x| x.f_channel_shuffle(groups.into()))
            }
            Primitive::Upsample { scale, mode } => Kernel::of_one(move |x| {
                let (_, _, h, w) = x.size4()?;
                let size = [h, w].map(|size| size * i64::from(scale));
                match mode {
                    Interpolation::Nearest => x.f_upsample_nearest2d(size, None, None),
                    Interpolation::Bilinear => x.f_upsample_bilinear2d(size, false, None, None),
                }
            }),
            Primitive::SpaceToDepth { block } => {
                Kernel::of_one(move |x| x.f_pixel_unshuffle(block.into()))
            }
            Primitive::DepthToSpace { block } => {
                Kernel::of_one(move |x| x.f_pixel_shuffle(block.into()))
            }
            Primitive::Flatten => {
                let flat = |x: &Tensor| x.f_flatten(1, -1)?.f_unsqueeze(2)?.f_unsqueeze(3);
                Kernel::of_one(flat).giving_view()
            }
            Primitive::Identity => Kernel::of_one(|x| Ok(x.shallow_clone())).giving_view(),
            Primitive::Zero { .. } => {
                let output = step.outputs[0].dims();
                Kernel::of_one(move |x| Tensor::f_zeros(&output, (x.kind(), x.device())))
            }
            Primitive::ToTokens { class_token, positions } => {
                tokens::to_tokens(class_token, positions, input, weights)?
            }
            Primitive::ToMap | Primitive::ToMapOf { .. } => tokens::to_map(step),
            Primitive::Transpose => Kernel::of_one(|x| x.f_transpose(1, 2)).giving_view(),
            Primitive::Unfold { patch } => tokens::unfold(patch),
            Primitive::Fold { patch } => tokens::fold(patch, step),
            Primitive::Embedding { rows, out } => tokens::embedding(rows, out, weights)?,
            Primitive::PositionEmbedding => tokens::position_embedding(input, weights)?,
            Primitive::PrependTokens { count } => tokens::prepend(count, c, weights)?,
            Primitive::ClassToken => tokens::select(0),
            Primitive::SelectToken { index } => tokens::select(index),
        })
    }
}

/// The dimension that holds channels: `[n, c, h, w]` or `[n, l, c]`.
pub(crate) fn channel_dim(x: &Tensor) -> i64 {
    if x.dim() == 4 { 1 } else { 2 }
}

fn slice(along: Dimension, start: u32, length: u32, step: u32) -> Kernel {
    let (start, step) = (i64::from(start), i64::from(step));
    let end = start + (i64::from(length) - 1) * step + 1;
    let cut = move |x: &Tensor| {
        let dim = match along {
            Dimension::Channels => channel_dim(x),
            Dimension::Tokens => 1,
            Dimension::Height => 2,
            Dimension::Width => 3,
        };
        x.f_slice(dim, start, end, step)
    };
    Kernel::of_one(cut).giving_view()
}

fn split(parts: u32) -> Kernel {
    let run = move |arguments: Vec<Argument>, _: Mode| {
        let x = arguments[0].tensor();
        x.f_chunk(parts.into(), channel_dim(x))
    };
    Kernel { run: Box::new(run), gives_view: true }
}

pub(crate) fn concat(arguments: &[Argument]) -> Outcome {
    let tensors: Vec<&Tensor> = arguments.iter().map(Argument::tensor).collect();
    Tensor::f_cat(&tensors, channel_dim(tensors[0]))
}

fn fold(arguments: &[Argument], combine: impl Fn(&Tensor, &Tensor) -> Outcome) -> Outcome {
    let mut result = combine(arguments[0].tensor(), arguments[1].tensor())?;
    for argument in &arguments[2..] {
        result = combine(&result, argument.tensor())?;
    }
    Ok(result)
}

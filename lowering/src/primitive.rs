//! One primitive with its weights.

use ops_catalog::{Activation, Gate, Primitive, TensorShape};
use tch::{Kind, TchError, Tensor};

use super::{Argument, Placement};

/// A primitive that is ready to run.
#[derive(Debug)]
pub(super) enum Kernel {
    Conv2d {
        weight: Tensor,
        bias: Option<Tensor>,
        stride: i64,
        padding: i64,
        dilation: i64,
        groups: i64,
    },
    Linear {
        weight: Tensor,
        bias: Option<Tensor>,
        on_map: bool,
    },
    BatchNorm {
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
    },
    LayerNorm {
        weight: Tensor,
        bias: Tensor,
        on_map: bool,
    },
    LayerScale {
        /// As many dimensions as make it meet the channels of its input.
        factor: Tensor,
    },
    Elementwise(Elementwise),
    MaxPool {
        kernel: i64,
        stride: i64,
        padding: i64,
    },
    AvgPool {
        kernel: i64,
        stride: i64,
        padding: i64,
    },
    GlobalAvgPool,
    SelfAttention {
        qkv: (Tensor, Tensor),
        out: (Tensor, Tensor),
        heads: i64,
    },
    SqueezeExcite {
        reduce: (Tensor, Tensor),
        expand: (Tensor, Tensor),
        activation: Activation,
        gate: Gate,
    },
    Add,
    Mul,
    Concat,
    Split {
        parts: i64,
    },
    Shuffle {
        groups: i64,
    },
    Upsample {
        scale: i64,
    },
    Identity,
    ToTokens {
        class_token: Option<Tensor>,
        positions: Tensor,
    },
    ClassToken,
}

/// Functions of one element, which can overwrite their input.
#[derive(Debug, Clone, Copy)]
pub(super) enum Elementwise {
    Relu,
    Relu6,
    Hardswish,
    Silu,
    Gelu,
    Sigmoid,
}

/// Makes weights.
#[derive(Clone, Copy)]
struct Weights(Placement);

impl Weights {
    /// Normal values whose products over `fan_in` terms keep unit variance.
    fn scaled(self, dims: &[i64], fan_in: i64) -> Result<Tensor, TchError> {
        let factor = 1.0 / (fan_in.max(1) as f64).sqrt();
        // Scaling in place keeps the memory format.
        self.0.normal(dims)?.f_mul_scalar_(factor)
    }

    fn small(self, length: i64) -> Result<Tensor, TchError> {
        self.0.normal(&[length])?.f_mul_scalar_(0.1)
    }

    fn ones(self, length: i64) -> Result<Tensor, TchError> {
        self.0.place(&Tensor::f_ones([length], (Kind::Float, tch::Device::Cpu))?)
    }

    /// A 1x1 convolution's weight and bias.
    fn pointwise(self, out: i64, channels: i64) -> Result<(Tensor, Tensor), TchError> {
        Ok((self.scaled(&[out, channels, 1, 1], channels)?, self.small(out)?))
    }

    /// A linear layer's weight and bias.
    fn dense(self, out: i64, channels: i64) -> Result<(Tensor, Tensor), TchError> {
        Ok((self.scaled(&[out, channels], channels)?, self.small(out)?))
    }
}

impl Kernel {
    /// Makes the weights for an input of the given shape.
    pub(super) fn new(
        primitive: &Primitive<u32>,
        input: TensorShape,
        placement: Placement,
    ) -> Result<Kernel, TchError> {
        let make = Weights(placement);
        let c = i64::from(input.channels());
        let on_map = matches!(input, TensorShape::Map { .. });
        Ok(match *primitive {
            Primitive::Conv2d { out, kernel, stride, groups, dilation, padding, bias } => {
                let (out, kernel, groups) = (i64::from(out), i64::from(kernel), i64::from(groups));
                let per_group = c / groups;
                Kernel::Conv2d {
                    weight: make
                        .scaled(&[out, per_group, kernel, kernel], per_group * kernel * kernel)?,
                    bias: bias.then(|| make.small(out)).transpose()?,
                    stride: stride.into(),
                    padding: padding.unwrap_or(0).into(),
                    dilation: dilation.into(),
                    groups,
                }
            }
            Primitive::Linear { out, bias } => {
                let out = i64::from(out);
                Kernel::Linear {
                    weight: make.scaled(&[out, c], c)?,
                    bias: bias.then(|| make.small(out)).transpose()?,
                    on_map,
                }
            }
            Primitive::BatchNorm => Kernel::BatchNorm {
                weight: make.ones(c)?,
                bias: make.small(c)?,
                mean: make.small(c)?,
                variance: make.ones(c)?,
            },
            Primitive::LayerNorm => {
                Kernel::LayerNorm { weight: make.ones(c)?, bias: make.small(c)?, on_map }
            }
            Primitive::LayerScale => {
                let factor = make.small(c)?;
                let factor = if on_map { factor.f_view([c, 1, 1])? } else { factor };
                Kernel::LayerScale { factor }
            }
            Primitive::Relu => Kernel::Elementwise(Elementwise::Relu),
            Primitive::Relu6 => Kernel::Elementwise(Elementwise::Relu6),
            Primitive::Hardswish => Kernel::Elementwise(Elementwise::Hardswish),
            Primitive::Silu => Kernel::Elementwise(Elementwise::Silu),
            Primitive::Gelu => Kernel::Elementwise(Elementwise::Gelu),
            Primitive::Sigmoid => Kernel::Elementwise(Elementwise::Sigmoid),
            Primitive::MaxPool { kernel, stride, padding } => Kernel::MaxPool {
                kernel: kernel.into(),
                stride: stride.into(),
                padding: padding.unwrap_or(0).into(),
            },
            Primitive::AvgPool { kernel, stride, padding } => Kernel::AvgPool {
                kernel: kernel.into(),
                stride: stride.into(),
                padding: padding.unwrap_or(0).into(),
            },
            Primitive::GlobalAvgPool => Kernel::GlobalAvgPool,
            Primitive::SelfAttention { heads } => Kernel::SelfAttention {
                qkv: make.dense(3 * c, c)?,
                out: make.dense(c, c)?,
                heads: heads.into(),
            },
            Primitive::SqueezeExcite { squeeze, activation, gate, .. } => {
                let squeeze = i64::from(squeeze);
                Kernel::SqueezeExcite {
                    reduce: make.pointwise(squeeze, c)?,
                    expand: make.pointwise(c, squeeze)?,
                    activation,
                    gate,
                }
            }
            Primitive::Add => Kernel::Add,
            Primitive::Mul => Kernel::Mul,
            Primitive::Concat => Kernel::Concat,
            Primitive::Split { parts } => Kernel::Split { parts: parts.into() },
            Primitive::Shuffle { groups } => Kernel::Shuffle { groups: groups.into() },
            Primitive::Upsample { scale } => Kernel::Upsample { scale: scale.into() },
            Primitive::Identity => Kernel::Identity,
            Primitive::ToTokens { class_token } => {
                let (h, w) = match input {
                    TensorShape::Map { h, w, .. } => (i64::from(h), i64::from(w)),
                    TensorShape::Tokens { .. } => unreachable!("shape inference refuses tokens"),
                };
                let length = h * w + i64::from(class_token);
                Kernel::ToTokens {
                    class_token: class_token.then(|| make.small(c)).transpose()?,
                    positions: make.scaled(&[1, length, c], c)?,
                }
            }
            Primitive::ClassToken => Kernel::ClassToken,
        })
    }

    /// Whether its outputs share memory with its input.
    pub(super) fn gives_view(&self) -> bool {
        matches!(self, Kernel::Identity | Kernel::Split { .. } | Kernel::ClassToken)
    }

    /// Runs it once.
    pub(super) fn run(&self, mut arguments: Vec<Argument>) -> Result<Vec<Tensor>, TchError> {
        if let Kernel::Elementwise(function) = self
            && let Some(argument) = arguments.pop()
        {
            return Ok(vec![function.run(argument)?]);
        }
        let x = arguments[0].tensor();
        if let Kernel::Split { parts } = *self {
            return x.f_chunk(parts, channel_dim(x));
        }
        Ok(vec![self.run_single(x, &arguments)?])
    }

    fn run_single(&self, x: &Tensor, arguments: &[Argument]) -> Result<Tensor, TchError> {
        match self {
            Kernel::Conv2d { weight, bias, stride, padding, dilation, groups } => x.f_conv2d(
                weight,
                bias.as_ref(),
                [*stride, *stride],
                [*padding, *padding],
                [*dilation, *dilation],
                *groups,
            ),
            Kernel::Linear { weight, bias, on_map: false } => x.f_linear(weight, bias.as_ref()),
            Kernel::Linear { weight, bias, on_map: true } => {
                let flat = x.f_flatten(1, -1)?.f_linear(weight, bias.as_ref())?;
                let (n, c) = flat.size2()?;
                flat.f_view([n, c, 1, 1])
            }
            Kernel::BatchNorm { weight, bias, mean, variance } => x.f_batch_norm(
                Some(weight),
                Some(bias),
                Some(mean),
                Some(variance),
                false,
                0.1,
                1e-5,
                true,
            ),
            Kernel::LayerNorm { weight, bias, on_map: false } => {
                x.f_layer_norm(weight.size(), Some(weight), Some(bias), 1e-6, true)
            }
            Kernel::LayerNorm { weight, bias, on_map: true } => x
                .f_permute([0, 2, 3, 1])?
                .f_layer_norm(weight.size(), Some(weight), Some(bias), 1e-6, true)?
                .f_permute([0, 3, 1, 2])?
                .f_contiguous(),
            Kernel::LayerScale { factor } => x.f_mul(factor),
            Kernel::MaxPool { kernel, stride, padding } => x.f_max_pool2d(
                [*kernel, *kernel],
                [*stride, *stride],
                [*padding, *padding],
                [1, 1],
                false,
            ),
            Kernel::AvgPool { kernel, stride, padding } => x.f_avg_pool2d(
                [*kernel, *kernel],
                [*stride, *stride],
                [*padding, *padding],
                false,
                true,
                None,
            ),
            Kernel::GlobalAvgPool => x.f_adaptive_avg_pool2d([1, 1]),
            Kernel::SelfAttention { qkv, out, heads } => self_attention(x, qkv, out, *heads),
            Kernel::SqueezeExcite { reduce, expand, activation, gate } => {
                squeeze_excite(x, reduce, expand, *activation, *gate)
            }
            Kernel::Add => fold(arguments, Tensor::f_add),
            Kernel::Mul => fold(arguments, Tensor::f_mul),
            Kernel::Concat => {
                let tensors: Vec<&Tensor> = arguments.iter().map(Argument::tensor).collect();
                Tensor::f_cat(&tensors, channel_dim(x))
            }
            Kernel::Shuffle { groups } => x.f_channel_shuffle(*groups),
            Kernel::Upsample { scale } => {
                let (_, _, h, w) = x.size4()?;
                x.f_upsample_nearest2d([h * scale, w * scale], None, None)
            }
            Kernel::Identity => Ok(x.shallow_clone()),
            Kernel::ToTokens { class_token, positions } => {
                let tokens = x.f_flatten(2, -1)?.f_transpose(1, 2)?;
                let tokens = match class_token {
                    Some(token) => {
                        let (n, _, c) = tokens.size3()?;
                        Tensor::f_cat(&[token.f_expand([n, 1, c], false)?, tokens], 1)?
                    }
                    None => tokens,
                };
                tokens.f_add(positions)
            }
            Kernel::ClassToken => {
                let (n, _, c) = x.size3()?;
                x.f_select(1, 0)?.f_reshape([n, c, 1, 1])
            }
            Kernel::Elementwise(_) | Kernel::Split { .. } => {
                unreachable!("handled by the caller")
            }
        }
    }
}

/// The dimension that holds channels: `[n, c, h, w]` or `[n, l, c]`.
pub(super) fn channel_dim(x: &Tensor) -> i64 {
    if x.dim() == 4 { 1 } else { 2 }
}

fn fold(
    arguments: &[Argument],
    combine: impl Fn(&Tensor, &Tensor) -> Result<Tensor, TchError>,
) -> Result<Tensor, TchError> {
    let mut result = combine(arguments[0].tensor(), arguments[1].tensor())?;
    for argument in &arguments[2..] {
        result = combine(&result, argument.tensor())?;
    }
    Ok(result)
}

impl Elementwise {
    fn run(self, argument: Argument) -> Result<Tensor, TchError> {
        match argument {
            Argument::Owned(mut x) => match self {
                Elementwise::Relu => x.f_relu_(),
                Elementwise::Relu6 => x.f_relu6_(),
                Elementwise::Hardswish => x.f_hardswish_(),
                Elementwise::Silu => x.f_silu_(),
                Elementwise::Gelu => x.f_gelu_("none"),
                Elementwise::Sigmoid => x.f_sigmoid_(),
            },
            Argument::Shared(x) => match self {
                Elementwise::Relu => x.f_relu(),
                Elementwise::Relu6 => x.f_relu6(),
                Elementwise::Hardswish => x.f_hardswish(),
                Elementwise::Silu => x.f_silu(),
                Elementwise::Gelu => x.f_gelu("none"),
                Elementwise::Sigmoid => x.f_sigmoid(),
            },
        }
    }
}

/// Multi-head self-attention with fused projections, over tokens or over the positions of a map.
fn self_attention(
    x: &Tensor,
    qkv: &(Tensor, Tensor),
    out: &(Tensor, Tensor),
    heads: i64,
) -> Result<Tensor, TchError> {
    let map = (x.dim() == 4).then(|| x.size());
    let tokens = match map {
        Some(_) => x.f_flatten(2, -1)?.f_transpose(1, 2)?,
        None => x.shallow_clone(),
    };
    let (n, l, c) = tokens.size3()?;
    let projected = tokens
        .f_linear(&qkv.0, Some(&qkv.1))?
        .f_view([n, l, 3, heads, c / heads])?
        .f_permute([2, 0, 3, 1, 4])?;
    let part = |index| projected.f_select(0, index);
    let attended = Tensor::f_scaled_dot_product_attention(
        &part(0)?,
        &part(1)?,
        &part(2)?,
        None::<&Tensor>,
        0.0,
        false,
        None,
        false,
    )?;
    let joined = attended.f_transpose(1, 2)?.f_reshape([n, l, c])?;
    let result = joined.f_linear(&out.0, Some(&out.1))?;
    match map {
        Some(size) => result.f_transpose(1, 2)?.f_reshape(size.as_slice()),
        None => Ok(result),
    }
}

fn squeeze_excite(
    x: &Tensor,
    reduce: &(Tensor, Tensor),
    expand: &(Tensor, Tensor),
    activation: Activation,
    gate: Gate,
) -> Result<Tensor, TchError> {
    let pointwise = |x: &Tensor, (weight, bias): &(Tensor, Tensor)| {
        x.f_conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1)
    };
    let mut squeezed = pointwise(&x.f_adaptive_avg_pool2d([1, 1])?, reduce)?;
    let squeezed = match activation {
        Activation::Relu => squeezed.f_relu_()?,
        Activation::Silu => squeezed.f_silu_()?,
    };
    let mut scale = pointwise(&squeezed, expand)?;
    let scale = match gate {
        Gate::Sigmoid => scale.f_sigmoid_()?,
        Gate::Hardsigmoid => scale.f_hardsigmoid_()?,
    };
    x.f_mul(&scale)
}

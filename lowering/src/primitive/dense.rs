//! Convolutions, linear layers, and normalizations.

use ops_catalog::{
    BATCH_NORM_EPSILON, Init, LAYER_NORM_EPSILON, Padding, Primitive, Sides, Step, TensorShape,
};
use tch::{Kind, Tensor};

use super::windows::{Padded, pair};
use super::{Kernel, Mode, Outcome, channel_dim};
use crate::Form;
use crate::weights::{Axis, Source, Spec, WeightError};

/// A convolution; in [`Form::Training`], with the batch norm that the deployed form folds into it.
pub(super) fn conv2d(
    step: &Step,
    c: i64,
    form: Form,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let Primitive::Conv2d { out, kernel, stride, groups, dilation, padding, bias } = step.primitive
    else {
        unreachable!("the caller has a convolution")
    };
    let (out, [h, w], groups) = (i64::from(out), pair(kernel), i64::from(groups));
    let per_group = c / groups;
    let axes = [Axis::Channels(out), Axis::Channels(per_group), Axis::Window(h), Axis::Window(w)];
    let weight = weights.scaled("weight", &axes, per_group * h * w)?;
    let (norm, bias) = norm_or_bias(step, out, bias, form, weights)?;
    let (stride, dilation, padded) = (pair(stride), pair(dilation), Padded::new(padding));
    Ok(Kernel::in_mode(move |x, mode| {
        let x = padded.pad(x, 0.0)?;
        let y = x.f_conv2d(&weight, bias.as_ref(), stride, padded.inside, dilation, groups)?;
        match &norm {
            Some(norm) => norm.run(&y, mode),
            None => Ok(y),
        }
    }))
}

/// What follows a convolution: the batch norm of the training form, or else the bias if it has one.
fn norm_or_bias(
    step: &Step,
    out: i64,
    bias: bool,
    form: Form,
    weights: &mut Source,
) -> Result<(Option<BatchNorm>, Option<Tensor>), WeightError> {
    if step.folded_norm && form == Form::Training {
        let norm = weights.within("norm", |weights| BatchNorm::new(out, Init::Zeros, weights))?;
        return Ok((Some(norm), None));
    }
    let bias = bias.then(|| weights.small("bias", Axis::Channels(out))).transpose()?;
    Ok((None, bias))
}

/// A convolution over the length of a sequence.
pub(super) fn conv1d(
    step: &Step,
    c: i64,
    form: Form,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let Primitive::Conv1d { out, kernel, stride, groups, dilation, padding, causal, bias } =
        step.primitive
    else {
        unreachable!("the caller has a convolution")
    };
    let [out, kernel, stride, groups, dilation] =
        [out, kernel, stride, groups, dilation].map(i64::from);
    let per_group = c / groups;
    let axes = [Axis::Channels(out), Axis::Channels(per_group), Axis::Window(kernel)];
    let weight = weights.scaled("weight", &axes, per_group * kernel)?;
    let (norm, bias) = norm_or_bias(step, out, bias, form, weights)?;
    let padding = i64::from(padding.unwrap_or(0));
    Ok(Kernel::in_mode(move |x, mode| {
        // libtorch takes channels first, then positions.
        let x_first = match x.dim() {
            3 => x.f_transpose(1, 2)?,
            _ => x.f_squeeze_dim(3)?,
        };
        let padded = match causal {
            true => x_first.f_pad([dilation * (kernel - 1), 0], "constant", Some(0.0))?,
            false => x_first,
        };
        let y = padded.f_conv1d(&weight, bias.as_ref(), stride, padding, dilation, groups)?;
        let y = match &norm {
            Some(norm) => norm.run(&y, mode)?,
            None => y,
        };
        if x.dim() == 3 { y.f_transpose(1, 2) } else { y.f_unsqueeze(3) }
    }))
}

/// A transposed convolution. Its bias is its own: no batch norm was folded into it.
pub(super) fn conv_transpose2d(
    step: &Step,
    c: i64,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
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
    let per_group = out / groups;
    let axes = [Axis::Channels(c), Axis::Channels(per_group), Axis::Window(h), Axis::Window(w)];
    let weight = weights.scaled("weight", &axes, c / groups * h * w)?;
    let bias = bias.then(|| weights.small("bias", Axis::Channels(out))).transpose()?;
    let sides = padding.map_or_else(Sides::default, Padding::sides);
    let inside = sides.as_symmetric().map(|both| both.map(i64::from));
    let (stride, dilation) = (pair(stride), pair(dilation));
    let output_padding = pair(output_padding);
    let output = step.outputs[0].dims();
    Ok(Kernel::of_one(move |x| {
        let y = x.f_conv_transpose2d(
            &weight,
            bias.as_ref(),
            stride,
            inside.unwrap_or([0, 0]),
            output_padding,
            groups,
            dilation,
        )?;
        match inside {
            Some(_) => Ok(y),
            // libtorch cuts opposite sides alike.
            None => y.f_narrow(2, sides.top.into(), output[2])?.f_narrow(
                3,
                sides.left.into(),
                output[3],
            ),
        }
    }))
}

pub(super) fn linear(
    out: u32,
    bias: bool,
    input: TensorShape,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let (out, c) = (i64::from(out), i64::from(input.channels()));
    let axes = [Axis::Channels(out), Axis::Channels(c)];
    let weight = weights.scaled("weight", &axes, c)?;
    let bias = bias.then(|| weights.small("bias", Axis::Channels(out))).transpose()?;
    Ok(match input {
        TensorShape::Tokens { .. } => Kernel::of_one(move |x| x.f_linear(&weight, bias.as_ref())),
        TensorShape::Map { .. } => Kernel::of_one(move |x| {
            let flat = x.f_flatten(1, -1)?.f_linear(&weight, bias.as_ref())?;
            let (n, c) = flat.size2()?;
            flat.f_view([n, c, 1, 1])
        }),
    })
}

struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl BatchNorm {
    /// `shift` initializes bias and mean.
    fn new(c: i64, shift: Init, weights: &mut Source) -> Result<BatchNorm, WeightError> {
        let axes = [Axis::Channels(c)];
        let mut running = |name: &str, init: Init| {
            weights.get(name, &Spec { axes: axes.to_vec(), init, trained: false })
        };
        let mean = running("running_mean", shift)?;
        let variance = running("running_var", Init::Ones)?;
        let weight = weights.trained("weight", &axes, Init::Ones)?;
        let bias = weights.trained("bias", &axes, shift)?;
        Ok(BatchNorm { weight, bias, mean, variance })
    }

    fn run(&self, x: &Tensor, mode: Mode) -> Outcome {
        x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.mean),
            Some(&self.variance),
            mode.train,
            0.1,
            BATCH_NORM_EPSILON,
            true,
        )
    }
}

pub(super) fn batch_norm(c: i64, weights: &mut Source) -> Result<Kernel, WeightError> {
    let norm = BatchNorm::new(c, Init::SMALL, weights)?;
    Ok(Kernel::in_mode(move |x, mode| norm.run(x, mode)))
}

pub(super) fn layer_norm(input: TensorShape, weights: &mut Source) -> Result<Kernel, WeightError> {
    let c = i64::from(input.channels());
    let weight = weights.trained("weight", &[Axis::Channels(c)], Init::Ones)?;
    let bias = weights.small("bias", Axis::Channels(c))?;
    let norm =
        move |x: &Tensor| x.f_layer_norm([c], Some(&weight), Some(&bias), LAYER_NORM_EPSILON, true);
    Ok(match input {
        TensorShape::Tokens { .. } => Kernel::of_one(norm),
        TensorShape::Map { .. } => Kernel::of_one(move |x| {
            norm(&x.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])?.f_contiguous()
        }),
    })
}

pub(super) fn layer_scale(input: TensorShape, weights: &mut Source) -> Result<Kernel, WeightError> {
    let c = i64::from(input.channels());
    let factor = weights.small("factor", Axis::Channels(c))?;
    let factor = weights.viewed("factor", &factor, &aligned(input, c))?;
    Ok(Kernel::of_one(move |x| x.f_mul(&factor)))
}

pub(super) fn layer_shift(input: TensorShape, weights: &mut Source) -> Result<Kernel, WeightError> {
    let c = i64::from(input.channels());
    let shift = weights.small("shift", Axis::Channels(c))?;
    let shift = weights.viewed("shift", &shift, &aligned(input, c))?;
    Ok(Kernel::of_one(move |x| x.f_add(&shift)))
}

/// A value and one number that is not trained.
pub(super) fn with_number(
    name: &str,
    init: Init,
    combine: fn(&Tensor, &Tensor) -> Outcome,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let spec = Spec { axes: vec![Axis::Fixed(1)], init, trained: false };
    let number = weights.get(name, &spec)?;
    Ok(Kernel::of_one(move |x| combine(x, &number)))
}

/// Written out, as timm does.
pub(super) fn response_norm(c: i64, weights: &mut Source) -> Result<Kernel, WeightError> {
    let mut of_channels = |name: &str| {
        let weight = weights.small(name, Axis::Channels(c))?;
        weights.viewed(name, &weight, &[c, 1, 1])
    };
    let (weight, bias) = (of_channels("weight")?, of_channels("bias")?);
    Ok(Kernel::of_one(move |x| {
        let positions = [2i64, 3].as_slice();
        let lengths = x.f_square()?.f_sum_dim_intlist(positions, true, None::<Kind>)?.f_sqrt()?;
        let mean = lengths.f_mean_dim([1i64].as_slice(), true, None::<Kind>)?;
        let shares = lengths.f_div(&mean.f_add_scalar(LAYER_NORM_EPSILON)?)?;
        x.f_add(&bias.f_addcmul(&weight, &x.f_mul(&shares)?)?)
    }))
}

pub(super) fn group_norm(groups: u32, c: i64, weights: &mut Source) -> Result<Kernel, WeightError> {
    let weight = weights.trained("weight", &[Axis::Channels(c)], Init::Ones)?;
    let bias = weights.small("bias", Axis::Channels(c))?;
    let groups = i64::from(groups);
    Ok(Kernel::of_one(move |x| {
        x.f_group_norm(groups, Some(&weight), Some(&bias), BATCH_NORM_EPSILON, true)
    }))
}

/// Written out, as models of the Llama family do: older releases have no function for it.
pub(super) fn rms_norm(input: TensorShape, weights: &mut Source) -> Result<Kernel, WeightError> {
    let c = i64::from(input.channels());
    let weight = weights.trained("weight", &[Axis::Channels(c)], Init::Ones)?;
    let weight = weights.viewed("weight", &weight, &aligned(input, c))?;
    Ok(Kernel::of_one(move |x| {
        let squares = x.f_square()?;
        let mean = squares.f_mean_dim([channel_dim(x)].as_slice(), true, None::<Kind>)?;
        x.f_mul(&mean.f_add_scalar(LAYER_NORM_EPSILON)?.f_rsqrt()?)?.f_mul(&weight)
    }))
}

/// The dimensions of a value for each channel, aligned with the channels of a map or of tokens.
fn aligned(input: TensorShape, c: i64) -> Vec<i64> {
    match input {
        TensorShape::Map { .. } => vec![c, 1, 1],
        TensorShape::Tokens { .. } => vec![c],
    }
}

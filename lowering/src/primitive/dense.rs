//! Convolutions, linear layers, and normalizations.

use ops_catalog::{Primitive, Step, TensorShape};
use tch::Tensor;

use super::windows::{Padded, pair};
use super::{Kernel, Mode, Outcome};
use crate::Form;
use crate::weights::{Axis, BATCH_NORM_EPSILON, Init, Source, Spec, WeightError};

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
    let norm = if step.folded_norm && form == Form::Training {
        Some(weights.within("norm", |weights| BatchNorm::new(out, Init::Zeros, weights))?)
    } else {
        None
    };
    let bias = if bias && norm.is_none() {
        Some(weights.small("bias", Axis::Channels(out))?)
    } else {
        None
    };
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
    let norm = BatchNorm::new(c, Init::Normal { deviation: 0.1 }, weights)?;
    Ok(Kernel::in_mode(move |x, mode| norm.run(x, mode)))
}

pub(super) fn layer_norm(input: TensorShape, weights: &mut Source) -> Result<Kernel, WeightError> {
    let c = i64::from(input.channels());
    let weight = weights.trained("weight", &[Axis::Channels(c)], Init::Ones)?;
    let bias = weights.small("bias", Axis::Channels(c))?;
    let norm = move |x: &Tensor| x.f_layer_norm([c], Some(&weight), Some(&bias), 1e-6, true);
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
    // The number of dimensions that aligns it with the channels of its input.
    let dims = match input {
        TensorShape::Map { .. } => vec![c, 1, 1],
        TensorShape::Tokens { .. } => vec![c],
    };
    let factor = weights.viewed("factor", &factor, &dims)?;
    Ok(Kernel::of_one(move |x| x.f_mul(&factor)))
}

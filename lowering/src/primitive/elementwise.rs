//! Elementwise functions, and the gate that is made of them.

use ops_catalog::{Activation, Gate};
use tch::Tensor;

use super::{Argument, Kernel, Mode, Outcome};
use crate::weights::{Axis, Source, WeightError};

/// An elementwise function, with a variant that overwrites its input.
#[derive(Clone, Copy)]
pub(super) struct Elementwise {
    pure: fn(&Tensor) -> Outcome,
    in_place: fn(&mut Tensor) -> Outcome,
}

pub(super) const RELU: Elementwise =
    Elementwise { pure: Tensor::f_relu, in_place: Tensor::f_relu_ };
pub(super) const RELU6: Elementwise =
    Elementwise { pure: Tensor::f_relu6, in_place: Tensor::f_relu6_ };
pub(super) const HARDSWISH: Elementwise =
    Elementwise { pure: Tensor::f_hardswish, in_place: Tensor::f_hardswish_ };
pub(super) const SILU: Elementwise =
    Elementwise { pure: Tensor::f_silu, in_place: Tensor::f_silu_ };
pub(super) const GELU: Elementwise =
    Elementwise { pure: |x| x.f_gelu("none"), in_place: |x| x.f_gelu_("none") };
pub(super) const SIGMOID: Elementwise =
    Elementwise { pure: Tensor::f_sigmoid, in_place: Tensor::f_sigmoid_ };
pub(super) const HARDSIGMOID: Elementwise =
    Elementwise { pure: Tensor::f_hardsigmoid, in_place: Tensor::f_hardsigmoid_ };

pub(super) const LEAKY_RELU: Elementwise =
    Elementwise { pure: Tensor::f_leaky_relu, in_place: Tensor::f_leaky_relu_ };
pub(super) const ELU: Elementwise = Elementwise { pure: Tensor::f_elu, in_place: Tensor::f_elu_ };
pub(super) const GELU_TANH: Elementwise =
    Elementwise { pure: |x| x.f_gelu("tanh"), in_place: |x| x.f_gelu_("tanh") };
pub(super) const TANH: Elementwise =
    Elementwise { pure: Tensor::f_tanh, in_place: Tensor::f_tanh_ };
pub(super) const MISH: Elementwise =
    Elementwise { pure: Tensor::f_mish, in_place: Tensor::f_mish_ };

impl Elementwise {
    pub(super) fn run(self, argument: Argument) -> Outcome {
        match argument {
            Argument::Owned(mut x) => (self.in_place)(&mut x),
            Argument::Shared(x) => (self.pure)(x),
        }
    }

    /// Applies it to a value that nothing else in this pass reads.
    fn of(self, x: Tensor, mode: Mode) -> Outcome {
        self.run(if mode.in_place { Argument::Owned(x) } else { Argument::Shared(&x) })
    }
}

/// A ReLU with a learned slope for negative values: one, or one for each channel.
pub(super) fn prelu(shared: bool, c: i64, weights: &mut Source) -> Result<Kernel, WeightError> {
    let axis = if shared { Axis::Fixed(1) } else { Axis::Channels(c) };
    let slope = weights.small("slope", axis)?;
    Ok(Kernel::of_one(move |x| match x.dim() {
        // libtorch takes the second dimension for the channels.
        3 => x.f_transpose(1, 2)?.f_prelu(&slope)?.f_transpose(1, 2),
        _ => x.f_prelu(&slope),
    }))
}

/// A 1x1 convolution's weight and bias.
fn pointwise(
    weights: &mut Source,
    part: &str,
    out: i64,
    channels: i64,
) -> Result<(Tensor, Tensor), WeightError> {
    let axes = [Axis::Channels(out), Axis::Channels(channels), Axis::Fixed(1), Axis::Fixed(1)];
    weights.within(part, |weights| {
        Ok((
            weights.scaled("weight", &axes, channels)?,
            weights.small("bias", Axis::Channels(out))?,
        ))
    })
}

pub(super) fn squeeze_excite(
    squeeze: u32,
    activation: Activation,
    gate: Gate,
    c: i64,
    weights: &mut Source,
) -> Result<Kernel, WeightError> {
    let squeeze = i64::from(squeeze);
    let reduce = pointwise(weights, "reduce", squeeze, c)?;
    let expand = pointwise(weights, "expand", c, squeeze)?;
    let activation = match activation {
        Activation::Relu => RELU,
        Activation::Silu => SILU,
    };
    let gate = match gate {
        Gate::Sigmoid => SIGMOID,
        Gate::Hardsigmoid => HARDSIGMOID,
    };
    let conv = |x: &Tensor, (weight, bias): &(Tensor, Tensor)| {
        x.f_conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1)
    };
    Ok(Kernel::in_mode(move |x, mode| {
        let squeezed = conv(&x.f_adaptive_avg_pool2d([1, 1])?, &reduce)?;
        let squeezed = activation.of(squeezed, mode)?;
        let scale = gate.of(conv(&squeezed, &expand)?, mode)?;
        x.f_mul(&scale)
    }))
}

//! Elementwise functions, and the gate that is made of them.

use std::f64::consts::{FRAC_2_PI, SQRT_2};

use ops_catalog::{Activation, Gate, Init, Primitive, Step, TensorShape};

use super::aligned;
use crate::builder::{Builder, float, ints};
use crate::model::Value;

pub(super) fn relu6(x: &Value, b: &mut Builder) -> Value {
    let (low, high) = (b.number(0.0), b.number(6.0));
    b.node("Clip", &[x, &low, &high], [])
}

pub(super) fn hardsigmoid(x: &Value, b: &mut Builder) -> Value {
    b.node("HardSigmoid", &[x], [float("alpha", 1.0 / 6.0), float("beta", 0.5)])
}

pub(super) fn silu(x: &Value, b: &mut Builder) -> Value {
    let gate = b.unary("Sigmoid", x);
    b.binary("Mul", x, &gate)
}

/// `x (1 + erf(x / sqrt(2))) / 2`, in the order that ONNX Runtime fuses.
pub(super) fn gelu(x: &Value, b: &mut Builder) -> Value {
    let scaled = b.with_number("Div", x, SQRT_2);
    let erf = b.unary("Erf", &scaled);
    let shifted = b.with_number("Add", &erf, 1.0);
    let product = b.binary("Mul", x, &shifted);
    b.with_number("Mul", &product, 0.5)
}

pub(super) fn gelu_tanh(x: &Value, b: &mut Builder) -> Value {
    let cube = b.with_number("Pow", x, 3.0);
    let small = b.with_number("Mul", &cube, 0.044_715);
    let sum = b.binary("Add", x, &small);
    let scaled = b.with_number("Mul", &sum, FRAC_2_PI.sqrt());
    let tanh = b.unary("Tanh", &scaled);
    let shifted = b.with_number("Add", &tanh, 1.0);
    let half = b.with_number("Mul", x, 0.5);
    b.binary("Mul", &half, &shifted)
}

pub(super) fn mish(x: &Value, b: &mut Builder) -> Value {
    let softplus = b.unary("Softplus", x);
    let tanh = b.unary("Tanh", &softplus);
    b.binary("Mul", x, &tanh)
}

/// A ReLU with a learned slope for negative values: one, or one for each channel.
pub(super) fn prelu(shared: bool, x: &Value, shape: TensorShape, b: &mut Builder) -> Value {
    let seen = match shared {
        true => vec![1; aligned(shape).len()],
        false => aligned(shape),
    };
    let count = if shared { 1 } else { shape.channels().into() };
    let slope = b.viewed("slope", &[count], Init::SMALL, &seen);
    b.binary("PRelu", x, &slope)
}

pub(super) fn squeeze_excite(step: &Step, x: &Value, c: i64, b: &mut Builder) -> Value {
    let Primitive::SqueezeExcite { squeeze, activation, gate, .. } = step.primitive else {
        unreachable!("the caller has a squeeze-and-excite")
    };
    let squeeze = i64::from(squeeze);
    let pooled = b.unary("GlobalAveragePool", x);
    let reduced = pointwise("reduce", [squeeze, c], &pooled, b);
    let active = match activation {
        Activation::Relu => b.unary("Relu", &reduced),
        Activation::Silu => silu(&reduced, b),
    };
    let expanded = pointwise("expand", [c, squeeze], &active, b);
    let factors = match gate {
        Gate::Sigmoid => b.unary("Sigmoid", &expanded),
        Gate::Hardsigmoid => hardsigmoid(&expanded, b),
    };
    b.binary("Mul", x, &factors)
}

/// A 1x1 convolution from `c` to `out` channels.
fn pointwise(part: &str, [out, c]: [i64; 2], x: &Value, b: &mut Builder) -> Value {
    b.within(part, |b| {
        let weight = b.weight("weight", &[out, c, 1, 1], Init::scaled(c));
        let bias = b.weight("bias", &[out], Init::SMALL);
        b.node("Conv", &[x, &weight, &bias], [ints("kernel_shape", [1, 1])])
    })
}

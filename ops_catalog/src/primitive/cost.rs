//! The cost of each primitive.

use serde::{Deserialize, Serialize};

use super::Primitive;
use crate::Invalid;
use crate::tensor::{MAX_ELEMENTS, TensorShape};

/// The cost of an op or a network, from its definition alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Multiply-accumulates of convolutions, linear layers and attention products, each counted once. Papers on mobile
    /// networks and torchvision's model tables call them FLOPs. As there, elementwise work, pooling and normalization
    /// count zero.
    pub flops: u64,
    /// Learned parameters.
    pub params: u64,
    /// Elements that are stored to run it: the parameters, and the running statistics of batch norms that were not
    /// folded.
    pub weight_elements: u64,
    /// Elements that its primitives read and write: the inputs and outputs of each, once.
    pub activation_elements: u64,
}

impl Cost {
    /// Bytes of weights at `element_bytes` per element.
    pub fn weight_bytes(&self, element_bytes: u64) -> u64 {
        self.weight_elements.saturating_mul(element_bytes)
    }

    /// Bytes of activations read and written at `element_bytes` per element.
    pub fn activation_bytes(&self, element_bytes: u64) -> u64 {
        self.activation_elements.saturating_mul(element_bytes)
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops = self.flops.saturating_add(other.flops);
        self.params = self.params.saturating_add(other.params);
        self.weight_elements = self.weight_elements.saturating_add(other.weight_elements);
        self.activation_elements =
            self.activation_elements.saturating_add(other.activation_elements);
    }
}

impl Primitive<u32> {
    pub(super) fn cost(
        &self,
        inputs: &[TensorShape],
        outputs: &[TensorShape],
    ) -> Result<Cost, Invalid> {
        let input = inputs[0];
        let channels = u64::from(input.channels());
        let batch = u64::from(input.batch());
        let (flops, params) = match *self {
            Primitive::Conv2d { out, kernel, groups, bias, .. } => {
                let (kernel, out) = (u64::from(kernel), u64::from(out));
                let per_output = product(&[kernel, kernel, channels / u64::from(groups)])?;
                let flops = product(&[outputs[0].elements(), per_output])?;
                (flops, weights(&[out, per_output])? + if bias { out } else { 0 })
            }
            Primitive::Linear { out, bias } => {
                let out = u64::from(out);
                let flops = product(&[input.elements(), out])?;
                (flops, weights(&[channels, out])? + if bias { out } else { 0 })
            }
            Primitive::BatchNorm | Primitive::LayerNorm => (0, 2 * channels),
            Primitive::LayerScale => (0, channels),
            Primitive::SelfAttention { .. } => {
                let length = input.positions();
                let projections = product(&[4, batch, length, channels, channels])?;
                let products = product(&[2, batch, length, length, channels])?;
                (projections + products, weights(&[4, channels, channels])? + 4 * channels)
            }
            Primitive::SqueezeExcite { squeeze, .. } => {
                let squeeze = u64::from(squeeze);
                let flops = product(&[2, batch, channels, squeeze])?;
                (flops, weights(&[2, channels, squeeze])? + squeeze + channels)
            }
            Primitive::ToTokens { class_token } => {
                let embeddings = outputs[0].positions() + u64::from(class_token);
                (0, weights(&[embeddings, channels])?)
            }
            Primitive::Relu
            | Primitive::Relu6
            | Primitive::Hardswish
            | Primitive::Silu
            | Primitive::Gelu
            | Primitive::Sigmoid
            | Primitive::MaxPool { .. }
            | Primitive::AvgPool { .. }
            | Primitive::GlobalAvgPool
            | Primitive::Add
            | Primitive::Mul
            | Primitive::Concat
            | Primitive::Shuffle { .. }
            | Primitive::Upsample { .. }
            | Primitive::ClassToken => (0, 0),
            // A view moves nothing.
            Primitive::Identity | Primitive::Split { .. } => return Ok(Cost::default()),
        };
        // The running mean and variance.
        let statistics = if matches!(self, Primitive::BatchNorm) { 2 * channels } else { 0 };
        let moved = inputs.iter().chain(outputs).map(TensorShape::elements).sum();
        Ok(Cost { flops, params, weight_elements: params + statistics, activation_elements: moved })
    }
}

fn weights(factors: &[u64]) -> Result<u64, Invalid> {
    let count = product(factors)?;
    if count <= MAX_ELEMENTS {
        return Ok(count);
    }
    Err(Invalid::here(format!("{count} weights are too many to measure")))
}

/// A product that is small enough for a sum of a few such products to fit.
fn product(factors: &[u64]) -> Result<u64, Invalid> {
    factors
        .iter()
        .try_fold(1u64, |product, &factor| product.checked_mul(factor))
        .filter(|&product| product < 1 << 60)
        .ok_or_else(|| Invalid::here("is too large to measure"))
}

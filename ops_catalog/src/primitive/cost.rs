//! Costs.

use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::tensor::MAX_ELEMENTS;

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

/// The number of weights of a tensor with these dimensions.
pub(super) fn weights(factors: &[u64]) -> Result<u64, Invalid> {
    let count = product(factors)?;
    if count <= MAX_ELEMENTS {
        return Ok(count);
    }
    Err(Invalid::here(format!("{count} weights are too many to measure")))
}

/// A product that is small enough for a sum of a few such products to fit.
pub(super) fn product(factors: &[u64]) -> Result<u64, Invalid> {
    factors
        .iter()
        .try_fold(1u64, |product, &factor| product.checked_mul(factor))
        .filter(|&product| product < 1 << 60)
        .ok_or_else(|| Invalid::here("is too large to measure"))
}

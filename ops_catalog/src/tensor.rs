//! Shapes of tensors.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The most elements of a tensor of values or weights in a valid op (4 TiB in `f32`): far beyond any device, and small
/// enough that sums of costs stay inside 64 bits.
pub(crate) const MAX_ELEMENTS: u64 = 1 << 40;

/// The shape of a tensor between primitives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorShape {
    /// A feature map, `[n, c, h, w]`.
    Map {
        /// Batch.
        n: u32,
        /// Channels.
        c: u32,
        /// Height.
        h: u32,
        /// Width.
        w: u32,
    },
    /// A sequence of tokens, `[n, l, c]`.
    Tokens {
        /// Batch.
        n: u32,
        /// Length of the sequence.
        l: u32,
        /// Channels of a token.
        c: u32,
    },
}

impl TensorShape {
    /// Channels.
    pub fn channels(&self) -> u32 {
        match *self {
            TensorShape::Map { c, .. } | TensorShape::Tokens { c, .. } => c,
        }
    }

    /// The dimensions in libtorch's order.
    pub fn dims(&self) -> Vec<i64> {
        match *self {
            TensorShape::Map { n, c, h, w } => [n, c, h, w].map(i64::from).to_vec(),
            TensorShape::Tokens { n, l, c } => [n, l, c].map(i64::from).to_vec(),
        }
    }

    /// Number of elements; the largest `u64` if it does not fit, which no valid op has.
    pub fn elements(&self) -> u64 {
        self.factors().into_iter().fold(1, u64::saturating_mul)
    }

    pub(crate) fn batch(&self) -> u32 {
        match *self {
            TensorShape::Map { n, .. } | TensorShape::Tokens { n, .. } => n,
        }
    }

    /// Number of positions: pixels of a map, tokens of a sequence.
    pub fn positions(&self) -> u64 {
        match *self {
            TensorShape::Map { h, w, .. } => u64::from(h) * u64::from(w),
            TensorShape::Tokens { l, .. } => u64::from(l),
        }
    }

    /// Height and width in an op key; for a sequence, its length and 1.
    pub(crate) fn rows(&self) -> (u32, u32) {
        match *self {
            TensorShape::Map { h, w, .. } => (h, w),
            TensorShape::Tokens { l, .. } => (l, 1),
        }
    }

    pub(crate) fn with_channels(self, channels: u32) -> TensorShape {
        match self {
            TensorShape::Map { n, h, w, .. } => TensorShape::Map { n, c: channels, h, w },
            TensorShape::Tokens { n, l, .. } => TensorShape::Tokens { n, l, c: channels },
        }
    }

    pub(crate) fn checked(self) -> Result<TensorShape, Invalid> {
        if self.elements() <= MAX_ELEMENTS {
            return Ok(self);
        }
        Err(Invalid::here(format!("a tensor of {self} is too large to measure")))
    }

    fn factors(&self) -> [u64; 4] {
        match *self {
            TensorShape::Map { n, c, h, w } => [n, c, h, w].map(u64::from),
            TensorShape::Tokens { n, l, c } => [n, l, c, 1].map(u64::from),
        }
    }
}

impl fmt::Display for TensorShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TensorShape::Map { n, c, h, w } => write!(f, "[{n}, {c}, {h}, {w}] (n, c, h, w)"),
            TensorShape::Tokens { n, l, c } => write!(f, "[{n}, {l}, {c}] (n, tokens, c)"),
        }
    }
}

/// The shape of a concatenation along the channels.
pub(crate) fn concatenated(inputs: &[TensorShape]) -> Result<TensorShape, Invalid> {
    let first = inputs[0];
    let mut channels = 0u32;
    for shape in inputs {
        if shape.with_channels(1) != first.with_channels(1) {
            return Err(Invalid::here(format!(
                "its inputs differ in more than channels: {first} and {shape}"
            )));
        }
        channels = channels
            .checked_add(shape.channels())
            .ok_or_else(|| Invalid::here("its inputs have too many channels together"))?;
    }
    first.with_channels(channels).checked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_overflows_is_too_large_and_not_small() {
        let shape = TensorShape::Map { n: u32::MAX, c: u32::MAX, h: u32::MAX, w: 2 };
        assert_eq!(shape.elements(), u64::MAX);
        assert!(shape.checked().is_err());
    }

    #[test]
    fn concatenation_adds_channels_and_nothing_else() {
        let map = |c, h| TensorShape::Map { n: 1, c, h, w: 8 };
        assert_eq!(concatenated(&[map(3, 8), map(5, 8), map(1, 8)]), Ok(map(9, 8)));
        let error = concatenated(&[map(3, 8), map(3, 9)]).unwrap_err().to_string();
        assert!(error.contains("differ in more than channels"), "{error}");
        assert!(concatenated(&[map(u32::MAX, 8), map(1, 8)]).is_err());
        let tokens = TensorShape::Tokens { n: 1, l: 64, c: 3 };
        assert!(concatenated(&[map(3, 8), tokens]).is_err());
    }
}

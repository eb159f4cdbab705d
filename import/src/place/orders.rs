//! Values in the order of a map or of a sequence.

use ops_catalog::{Pair, Primitive, TensorShape};

use super::{Placed, Placer, Why, number, sequence_of, told};
use crate::flat::Source;
use crate::view::{Axis, Digits, whole};

impl Placer<'_> {
    /// The value as a map `[n, c, h, w]`, with a copy if it lies in another order.
    pub(super) fn as_map(&mut self, placed: &Placed) -> Result<Source, Why> {
        let shape = self.shape(placed);
        if placed.rolled == [0, 0] && matches!(shape, TensorShape::Map { .. }) {
            let natural = Digits::natural(shape);
            // A 1x1 map as `[n, c]`, and the like.
            if placed.digits == natural
                || placed.digits.reshaped(&natural.sizes()).as_ref() == Some(&natural)
            {
                return Ok(placed.source);
            }
            if let Some(groups) = shuffled(&placed.digits, &natural) {
                return self.push(Primitive::Shuffle { groups }, vec![placed.source], vec![]);
            }
        }
        if let Some(source) = self.map_of_tokens(placed)? {
            return Ok(source);
        }
        Err(format!("a tensor in the order {} should be a map [n, c, h, w]", told(&placed.digits)))
    }

    /// A sequence that is read as a map `[n, c, h, w]`, as the map that it was before.
    pub(super) fn map_of_tokens(&mut self, placed: &Placed) -> Result<Option<Source>, Why> {
        let TensorShape::Tokens { n, c, .. } = self.shape(placed) else { return Ok(None) };
        let &[_, _, h, w] = placed.digits.sizes().as_slice() else { return Ok(None) };
        let natural = Digits::natural(self.shape(placed));
        let in_order = natural
            .permuted(&[0, 2, 1])
            .and_then(|digits| digits.reshaped(&[n.into(), c.into(), h, w]));
        if in_order.as_ref() != Some(&placed.digits) {
            return Ok(None);
        }
        if !self.has_map_of_size(n, [h, w]) {
            return Ok(None);
        }
        let size = Pair { h: number(h)?, w: number(w)? };
        self.push(Primitive::ToMapOf { size }, vec![placed.source], vec![]).map(Some)
    }

    /// Whether there was a map of a height and a width.
    pub(super) fn has_map_of_size(&self, batch: u32, [height, width]: [u64; 2]) -> bool {
        let fits = |shape: TensorShape| match shape {
            TensorShape::Map { n, h, w, .. } => {
                (n, u64::from(h), u64::from(w)) == (batch, height, width)
            }
            TensorShape::Tokens { .. } => false,
        };
        fits(self.flat.input) || self.flat.steps.iter().any(|step| fits(step.output))
    }

    /// The value as a sequence `[n, l, c]`.
    pub(super) fn as_tokens(&mut self, placed: &Placed) -> Result<Source, Why> {
        let shape = self.shape(placed);
        let natural = Digits::natural(shape);
        if placed.rolled == [0, 0] {
            match shape {
                TensorShape::Tokens { .. } if placed.digits == natural => return Ok(placed.source),
                TensorShape::Map { .. } if placed.digits == sequence_of(&natural) => {
                    let primitive = Primitive::ToTokens { class_token: false, positions: false };
                    return self.push(primitive, vec![placed.source], vec![]);
                }
                TensorShape::Tokens { .. }
                    if natural.permuted(&[0, 2, 1]).as_ref() == Some(&placed.digits) =>
                {
                    return self.push(Primitive::Transpose, vec![placed.source], vec![]);
                }
                _ => {}
            }
        }
        Err(format!("a tensor in the order {} should be a sequence", told(&placed.digits)))
    }

    /// A primitive of a map that keeps the number of dimensions.
    pub(super) fn on_map(&mut self, primitive: Primitive<u32>) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let map = self.as_map(&input)?;
        let source = self.push(primitive, vec![map], vec![])?;
        self.as_wanted(source)
    }

    /// A new value with the dimensions of the node's output.
    pub(super) fn as_wanted(&self, source: Source) -> Result<Placed, Why> {
        let placed = self.natural(source);
        let digits = placed.digits.reshaped(self.wanted()).ok_or_else(|| {
            format!(
                "its output {} is not of the shape {:?}",
                self.flat.shape(source),
                self.wanted()
            )
        })?;
        Ok(Placed { digits, ..placed })
    }

    /// The result of a primitive that works on each position alone, in the order of its input.
    pub(super) fn in_order_of(&self, input: &Placed, source: Source) -> Result<Placed, Why> {
        let channels = u64::from(self.flat.shape(source).channels());
        let same = self.flat.shape(input.source).channels() == self.flat.shape(source).channels();
        let digits = if same {
            input.digits.clone()
        } else {
            resized(&input.digits, channels)
                .ok_or("the channels of its input are spread over several dimensions")?
        };
        Ok(Placed { source, digits, rolled: input.rolled })
    }

    /// Whether the last dimension of a value is its channels.
    pub(super) fn channels_last(&self, placed: &Placed) -> bool {
        let channels = u64::from(self.shape(placed).channels());
        placed.digits.0.last().is_some_and(|last| *last == whole(Axis::Channels, channels))
    }
}

/// The digits with another number of channels, which are one dimension.
fn resized(digits: &Digits, channels: u64) -> Option<Digits> {
    digits.resized(Axis::Channels, channels).or_else(|| {
        // One channel has no digit: the last dimension without any is it.
        let mut digits = digits.clone();
        let last = digits.0.last_mut().filter(|last| last.is_empty())?;
        *last = whole(Axis::Channels, channels);
        Some(digits)
    })
}

/// The number of groups, if the digits are those of a map whose channels were shuffled.
fn shuffled(digits: &Digits, natural: &Digits) -> Option<u32> {
    let [batch, channels, rows, columns] = &digits.0[..] else { return None };
    let others = [batch, rows, columns] == [&natural.0[0], &natural.0[2], &natural.0[3]];
    match channels[..] {
        [low, high]
            if others
                && low.axis == Axis::Channels
                && high.axis == Axis::Channels
                && low.stride == 1
                && high.stride == low.size =>
        {
            u32::try_from(high.size).ok()
        }
        _ => None,
    }
}

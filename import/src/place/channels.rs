//! Values whose last dimension is read as channels.

use ops_catalog::{Primitive, TensorShape};

use super::{Placed, Placer, Why, number, sequence_of, told};
use crate::flat::{Given, Source};
use crate::view::{Axis, Digit, Digits, extent, whole};

impl Placer<'_> {
    /// A value whose last dimension is its channels, in any order, for what works on each position alone. A flattened map
    /// becomes channels, and `[n, h * w, c]` becomes a sequence.
    pub(super) fn channels_of(&mut self, input: &Placed) -> Result<(Placed, Source), Why> {
        let shape = self.shape(input);
        if let Some(merged) = self.merged_blocks(input)? {
            let source = merged.source;
            return Ok((merged, source));
        }
        if self.channels_last(input) || shape.channels() == 1 || self.channels_mixed(input) {
            let natural = Digits::natural(shape);
            let is_map = matches!(shape, TensorShape::Map { .. }) && shape.positions() > 1;
            if is_map && input.digits == sequence_of(&natural) {
                let source = self.as_tokens(input)?;
                return Ok((self.natural(source), source));
            }
            return Ok((input.clone(), input.source));
        }
        if let Some(source) = self.transposed(input)? {
            return Ok((self.natural(source), source));
        }
        // All that is left of a map or a sequence, in one dimension.
        let natural = Digits::natural(shape);
        let batch = natural.sizes()[0];
        let all = shape.elements() / batch;
        if input.rolled == [0, 0] && natural.reshaped(&[batch, all]).as_ref() == Some(&input.digits)
        {
            let source = self.push(Primitive::Flatten, vec![input.source], vec![])?;
            let digits = Digits(vec![whole(Axis::Batch, batch), whole(Axis::Channels, all)]);
            return Ok((Placed { source, digits, rolled: [0, 0] }, source));
        }
        Err(format!(
            "it works along the last dimension of a tensor in the order {}, which should be the channels",
            told(&input.digits)
        ))
    }

    /// Whether the last dimension of a value is its channels in another order.
    fn channels_mixed(&self, placed: &Placed) -> bool {
        let channels = u64::from(self.shape(placed).channels());
        placed.digits.0.last().is_some_and(|last| {
            last.iter().all(|digit| digit.axis == Axis::Channels) && extent(last) == channels
        })
    }

    /// Square blocks of a map whose positions stand in the last dimension with the channels, in any order, as more
    /// channels: patch merging.
    fn merged_blocks(&mut self, placed: &Placed) -> Result<Option<Placed>, Why> {
        let TensorShape::Map { c, h, w, .. } = self.shape(placed) else { return Ok(None) };
        let [others @ .., last] = &placed.digits.0[..] else { return Ok(None) };
        let along = |axis: Axis| last.iter().find(|digit| digit.axis == axis);
        let (Some(row), Some(column)) = (along(Axis::Rows), along(Axis::Columns)) else {
            return Ok(None);
        };
        let block = row.size;
        let coarse =
            |axis: Axis, size: u32| Digit { axis, size: u64::from(size) / block, stride: block };
        let all = [coarse(Axis::Rows, h), coarse(Axis::Columns, w)];
        let is_map = last.len() == 2 + usize::from(c > 1)
            && (row.stride, column.stride, column.size) == (1, 1, block)
            && all
                .iter()
                .filter(|digit| digit.size > 1)
                .all(|digit| others.concat().contains(digit))
            && extent(last) == u64::from(c) * block * block
            && placed.rolled == [0, 0];
        if !is_map {
            return Ok(None);
        }
        let map = Primitive::SpaceToDepth { block: number(block)? };
        let source = self.push(map, vec![placed.source], vec![])?;
        // Channels are the slowest, and columns the fastest.
        let moved = |digit: &Digit| match digit.axis {
            Axis::Rows => Digit { axis: Axis::Channels, size: block, stride: block },
            Axis::Columns => Digit { axis: Axis::Channels, size: block, stride: 1 },
            _ => Digit { stride: digit.stride * block * block, ..*digit },
        };
        let positions = |digits: &Vec<Digit>| {
            let apart = |digit: &Digit| match digit.axis {
                Axis::Rows | Axis::Columns => Digit { stride: digit.stride / block, ..*digit },
                _ => *digit,
            };
            digits.iter().map(apart).collect::<Vec<Digit>>()
        };
        let mut digits: Vec<Vec<Digit>> = others.iter().map(positions).collect();
        digits.push(last.iter().map(moved).collect());
        Ok(Some(Placed { source, digits: Digits(digits), rolled: [0, 0] }))
    }

    /// A value whose last dimension is its positions, `[n, c, l]`, as a sequence of its channels.
    fn transposed(&mut self, input: &Placed) -> Result<Option<Source>, Why> {
        let shape = self.shape(input);
        let natural = Digits::natural(shape);
        let exchanged = match shape {
            TensorShape::Tokens { .. } => natural.permuted(&[0, 2, 1]),
            TensorShape::Map { n, c, .. } => {
                natural.reshaped(&[n.into(), c.into(), shape.positions()])
            }
        };
        if input.rolled != [0, 0] || exchanged.as_ref() != Some(&input.digits) {
            return Ok(None);
        }
        let tokens = match shape {
            TensorShape::Tokens { .. } => input.source,
            TensorShape::Map { .. } => {
                let primitive = Primitive::ToTokens { class_token: false, positions: false };
                self.push(primitive, vec![input.source], vec![])?
            }
        };
        self.push(Primitive::Transpose, vec![tokens], vec![]).map(Some)
    }
}

/// A weight for channels that a model has in the order of digits, for the channels in their own order.
pub(super) fn ordered(given: Given, axis: usize, channels: Option<&Vec<Digit>>) -> Given {
    let Some(digits) = channels.filter(|digits| digits.len() > 1) else { return given };
    // The channel at each place of the model's order.
    let mut channels = vec![0_u64];
    for digit in digits {
        channels = channels
            .iter()
            .flat_map(|channel| (0..digit.size).map(move |at| channel + at * digit.stride))
            .collect();
    }
    let mut places: Vec<usize> = (0..channels.len()).collect();
    places.sort_by_key(|&place| channels[place]);
    Given::Ordered { given: Box::new(given), axis, order: places.into() }
}

//! What moves elements: reshapes, permutations, slices, concatenations, padding.

use ops_catalog::{Dimension, Padding, Pair, Primitive, Sides, TensorShape};

use super::dense::{named, stored};
use super::{Placed, Placer, Why, number, told};
use crate::flat::{Given, Source};
use crate::view::{Axis, Digit, Digits, axes, extent, whole};

impl Placer<'_> {
    pub(super) fn reshape(&mut self) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        if let Ok(digits) = self.reshaped_digits(&input) {
            let placed = Placed { digits, ..input };
            return Ok(self.apart(&placed)?.unwrap_or(placed));
        }
        // Digits that are not neighbours in memory: a copy puts them in order, as it does in libtorch.
        let source = match self.as_map(&input) {
            Ok(source) => source,
            Err(_) => self.as_tokens(&input)?,
        };
        let natural = self.natural(source);
        Ok(Placed { digits: self.reshaped_digits(&natural)?, ..natural })
    }

    /// The digits of a value with the dimensions of the node's output.
    pub(super) fn reshaped_digits(&self, input: &Placed) -> Result<Digits, Why> {
        input.digits.reshaped(self.wanted()).ok_or_else(|| {
            format!("a tensor in the order {} as {:?}", told(&input.digits), self.wanted())
        })
    }

    pub(super) fn permute(&mut self, order: &[usize]) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let digits = input.digits.permuted(order).ok_or("its order of dimensions is none")?;
        Ok(Placed { digits, ..input })
    }

    pub(super) fn expand(&mut self) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let wanted = self.wanted();
        let skipped =
            wanted.len().checked_sub(input.digits.0.len()).ok_or("it loses dimensions")?;
        let mut dims = vec![vec![]; skipped];
        dims.extend(input.digits.0.iter().cloned());
        for (digits, &size) in dims.iter_mut().zip(wanted) {
            if digits.is_empty() && size > 1 {
                digits.push(Digit { axis: Axis::Repeated, size, stride: 1 });
            }
        }
        Ok(Placed { digits: Digits(dims), ..input })
    }

    pub(super) fn slice(&mut self, axis: usize, start: u64, step: u64) -> Result<Placed, Why> {
        let mut input = self.argument(0)?;
        let length = *self.wanted().get(axis).ok_or("its dimension does not exist")?;
        let size = input.digits.sizes().get(axis).copied().unwrap_or(1);
        if (start, step, length) == (0, 1, size) {
            return Ok(input);
        }
        if input.digits.0[axis].len() != 1 {
            // Shuffled channels, or the positions of a map as one dimension.
            let source = match self.as_map(&input) {
                Ok(source) => source,
                Err(_) => self.as_tokens(&input)?,
            };
            let natural = self.natural(source);
            input = Placed { digits: regrouped(&natural, &input)?, ..natural };
        }
        let [digit] = input.digits.0[axis][..] else {
            return Err(format!("a part of dimension {axis} of {}", told(&input.digits)));
        };
        self.cut(&input, axis, digit, (start, length, step))
    }

    /// A sequence whose positions are apart as rows and columns, as a map of that size, if there was one.
    fn apart(&mut self, placed: &Placed) -> Result<Option<Placed>, Why> {
        let TensorShape::Tokens { n, l, .. } = self.shape(placed) else { return Ok(None) };
        let at_positions = |digit: &&Digit| digit.axis == Axis::Tokens;
        let digits: Vec<Digit> =
            placed.digits.0.iter().flatten().filter(at_positions).copied().collect();
        let [row, column] = digits[..] else { return Ok(None) };
        let is_map = column.stride == 1
            && row.stride == column.size
            && row.size * column.size == u64::from(l)
            && placed.digits.0.iter().any(|digits| digits[..] == [row])
            && placed.digits.0.iter().any(|digits| digits[..] == [column]);
        if !is_map || !self.has_map_of_size(n, [row.size, column.size]) {
            return Ok(None);
        }
        let size = Pair { h: number(row.size)?, w: number(column.size)? };
        let source = self.push(Primitive::ToMapOf { size }, vec![placed.source], vec![])?;
        let moved = |digits: &Vec<Digit>| match digits[..] {
            [digit] if digit == row => whole(Axis::Rows, row.size),
            [digit] if digit == column => whole(Axis::Columns, column.size),
            _ => digits.clone(),
        };
        let digits = Digits(placed.digits.0.iter().map(moved).collect());
        Ok(Some(Placed { source, digits, rolled: [0, 0] }))
    }

    /// A part of one digit.
    fn cut(
        &mut self,
        input: &Placed,
        axis: usize,
        digit: Digit,
        (start, length, step): (u64, u64, u64),
    ) -> Result<Placed, Why> {
        if input.rolled != [0, 0] && matches!(digit.axis, Axis::Rows | Axis::Columns) {
            return Err("a part of a map that is rolled".into());
        }
        let shape = self.shape(input);
        let full = axes(shape)
            .into_iter()
            .find(|(axis, _)| *axis == digit.axis)
            .map_or(1, |(_, size)| size);
        let is_top = digit.size * digit.stride == full;
        // Elements of the axis: the first one, their number and their distance.
        let (first, count, distance) = match digit.stride {
            1 if is_top => (start, length, step),
            stride if is_top && step == 1 => (start * stride, length * stride, 1),
            1 if length == 1 => (start, full / digit.size, digit.size),
            _ => return Err(format!("a part of dimension {axis} of {}", told(&input.digits))),
        };
        let mut digits = input.digits.clone();
        digits.0[axis] = if length == 1 { vec![] } else { vec![Digit { size: length, ..digit }] };
        if digit.stride == 1 && length == 1 && !is_top {
            // Only every `digit.size`-th element is left, so the slower digits stand closer together.
            for other in digits.0.iter_mut().flatten().filter(|other| other.axis == digit.axis) {
                other.stride /= digit.size;
            }
        }
        if digit.axis == Axis::Tokens && count == 1 {
            let index = number(first)?;
            let select =
                if index == 0 { Primitive::ClassToken } else { Primitive::SelectToken { index } };
            let source = self.push(select, vec![input.source], vec![])?;
            return Ok(Placed { source, digits, rolled: input.rolled });
        }
        let along = match digit.axis {
            Axis::Channels => Dimension::Channels,
            Axis::Rows => Dimension::Height,
            Axis::Columns => Dimension::Width,
            Axis::Tokens => Dimension::Tokens,
            Axis::Batch => return Err("a part of the batch".into()),
            Axis::Repeated => return Err("a part of what is repeated".into()),
        };
        let primitive = Primitive::Slice {
            along,
            start: number(first)?,
            length: number(count)?,
            step: number(distance)?,
        };
        let source = self.push(primitive, vec![input.source], vec![])?;
        Ok(Placed { source, digits, rolled: input.rolled })
    }

    pub(super) fn concat(&mut self, axis: usize) -> Result<Placed, Why> {
        let constants: Vec<bool> = (0..self.node.inputs.len())
            .map(|i| self.value(i).map(|value| value.constant))
            .collect::<Result<_, _>>()?;
        match constants[..] {
            [true, false] => return self.prepend(axis),
            _ if constants.iter().any(|&constant| constant) => {
                return Err(
                    "a concatenation with a constant that is not in front of one sequence".into()
                );
            }
            _ => {}
        }
        let inputs: Vec<Placed> =
            (0..constants.len()).map(|index| self.argument(index)).collect::<Result<_, _>>()?;
        let along = |placed: &Placed| {
            placed.digits.0.get(axis).and_then(|digits| digits.first()).map(|digit| digit.axis)
        };
        let (sources, first): (Vec<Source>, Placed) = if inputs
            .iter()
            .any(|placed| along(placed) == Some(Axis::Tokens) || is_sequence(placed, axis))
        {
            let sources: Vec<Source> =
                inputs.iter().map(|placed| self.as_tokens(placed)).collect::<Result<_, _>>()?;
            let first = self.natural(sources[0]);
            (sources, first)
        } else {
            let same = |placed: &Placed| {
                let channels = u64::from(self.shape(placed).channels());
                placed.digits.0.get(axis) == Some(&whole(Axis::Channels, channels))
                    && placed.rolled == inputs[0].rolled
                    && resized_alike(placed, &inputs[0], axis)
            };
            if inputs.iter().all(same) {
                (inputs.iter().map(|placed| placed.source).collect(), inputs[0].clone())
            } else {
                let sources: Vec<Source> =
                    inputs.iter().map(|placed| self.as_map(placed)).collect::<Result<_, _>>()?;
                let first = self.natural(sources[0]);
                (sources, first)
            }
        };
        let is_tokens = matches!(self.flat.shape(sources[0]), TensorShape::Tokens { .. });
        let channels = u64::from(self.flat.shape(sources[0]).channels());
        let over_channels = first.digits.0.get(axis) == Some(&whole(Axis::Channels, channels))
            && !(is_tokens && axis == 1);
        if sources.len() == 1 {
            return Ok(Placed { source: sources[0], ..first });
        }
        let primitive = match (over_channels, is_tokens, axis) {
            (true, ..) => Primitive::Concat,
            (false, true, 1) => Primitive::ConcatTokens,
            _ => {
                return Err(format!(
                    "a concatenation along dimension {axis} of {}; the catalog has channels and tokens",
                    told(&first.digits)
                ));
            }
        };
        let source = self.push(primitive, sources, vec![])?;
        let shape = self.flat.shape(source);
        if !over_channels {
            return Ok(self.natural(source));
        }
        let mut digits = first.digits;
        digits.0[axis] = whole(Axis::Channels, shape.channels().into());
        Ok(Placed { source, digits, rolled: first.rolled })
    }

    /// Learned tokens in front of a sequence.
    fn prepend(&mut self, axis: usize) -> Result<Placed, Why> {
        let constant = self.value(0)?;
        let input = self.argument(1)?;
        let tokens = self.as_tokens(&input)?;
        let &[_, count, channels] = constant.dims.as_slice() else {
            return Err("what stands in front of a sequence is no sequence".into());
        };
        if axis != 1 {
            return Err("a constant stands in front of channels".into());
        }
        let given = Given::Reshaped(Box::new(stored(constant)), vec![1, count, channels]);
        let primitive = Primitive::PrependTokens { count: number(count)? };
        let source = self.push(primitive, vec![tokens], vec![named("tokens", given)])?;
        Ok(self.natural(source))
    }

    pub(super) fn pad(&mut self, before: &[u32], after: &[u32]) -> Result<Placed, Why> {
        let input = self.argument(0)?;
        let (h, w) = match self.shape(&input) {
            TensorShape::Map { h, w, .. } => (u64::from(h), u64::from(w)),
            TensorShape::Tokens { .. } => (0, 0),
        };
        let mut sides = Sides::default();
        let mut digits = input.digits.clone();
        for (axis, (&before, &after)) in before.iter().zip(after).enumerate() {
            if (before, after) == (0, 0) {
                continue;
            }
            let padded = &mut digits.0[axis];
            if *padded == whole(Axis::Rows, h) && h > 1 {
                (sides.top, sides.bottom) = (before, after);
                *padded = whole(Axis::Rows, h + u64::from(before) + u64::from(after));
            } else if *padded == whole(Axis::Columns, w) && w > 1 {
                (sides.left, sides.right) = (before, after);
                *padded = whole(Axis::Columns, w + u64::from(before) + u64::from(after));
            } else {
                return Err(format!("zeros around dimension {axis} of {}", told(&input.digits)));
            }
        }
        if sides == Sides::default() {
            return Ok(input);
        }
        if input.rolled != [0, 0] {
            return Err("zeros around a map that is rolled".into());
        }
        let primitive = Primitive::Pad { padding: Padding::Sides(sides) };
        let source = self.push(primitive, vec![input.source], vec![])?;
        Ok(Placed { source, digits, rolled: [0, 0] })
    }

    pub(super) fn roll(&mut self, shifts: &[(usize, i64)]) -> Result<Placed, Why> {
        let mut input = self.argument(0)?;
        let TensorShape::Map { h, w, .. } = self.shape(&input) else {
            return Err("a roll of a sequence".into());
        };
        for &(axis, shift) in shifts {
            let digits = input.digits.0.get(axis);
            if shift == 0 {
                continue;
            } else if digits == Some(&whole(Axis::Rows, h.into())) {
                input.rolled[0] = turned(input.rolled[0] + shift, h);
            } else if digits == Some(&whole(Axis::Columns, w.into())) {
                input.rolled[1] = turned(input.rolled[1] + shift, w);
            } else {
                return Err(format!("a roll of dimension {axis} of {}", told(&input.digits)));
            }
        }
        Ok(input)
    }
}

/// A shift of a dimension as the nearest one: 3 forwards of 56 are also 53 backwards.
fn turned(shift: i64, size: u32) -> i64 {
    let size = i64::from(size);
    let forwards = shift.rem_euclid(size);
    if forwards > size / 2 { forwards - size } else { forwards }
}

/// Whether a value is a map as `[n, h * w, c]`, and `axis` counts the positions.
fn is_sequence(placed: &Placed, axis: usize) -> bool {
    let digits = placed.digits.0.get(axis);
    axis == 1
        && digits.is_some_and(|digits| {
            matches!(digits[..], [row, column]
            if row.axis == Axis::Rows && column.axis == Axis::Columns)
        })
}

/// Whether two values lie alike but for the size of dimension `axis`.
fn resized_alike(one: &Placed, other: &Placed, axis: usize) -> bool {
    let rest = |placed: &Placed| {
        let mut digits = placed.digits.0.clone();
        digits[axis] = vec![];
        digits
    };
    one.digits.0.len() == other.digits.0.len() && rest(one) == rest(other)
}

/// The digits of a copy that lies in the order in which `original` is read.
fn regrouped(copy: &Placed, original: &Placed) -> Result<Digits, Why> {
    copy.digits
        .reshaped(&original.digits.0.iter().map(|digits| extent(digits)).collect::<Vec<_>>())
        .ok_or_else(|| format!("a part of a tensor in the order {}", told(&original.digits)))
}

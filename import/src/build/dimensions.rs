//! Operations that move elements, with the conventions that both formats share: negative axes, and sizes that follow
//! from others. What changes nothing is left out of the graph.

use super::Builder;
use crate::error::{Step, Stop, malformed, unsupported};
use crate::fold::{MOST_NUMBERS, OnConstants};
use crate::graph::{Binary, Function, Kind, Operation, Reduction, ValueId};
use crate::shapes;

/// An axis that may count from the end.
///
/// # Errors
/// If there is no such dimension.
pub(crate) fn axis(axis: i64, rank: usize) -> Step<usize> {
    let from_start = if axis < 0 { axis.saturating_add_unsigned(rank as u64) } else { axis };
    match usize::try_from(from_start) {
        Ok(position) if position < rank => Ok(position),
        _ => malformed(format!("there is no dimension {axis} of {rank}")),
    }
}

/// Several axes, in ascending order.
///
/// # Errors
/// If there is no such dimension, or one is named twice.
pub(crate) fn axes(list: &[i64], rank: usize) -> Step<Vec<usize>> {
    let mut axes: Vec<usize> = list.iter().map(|&n| axis(n, rank)).collect::<Step<_>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|pair| pair[0] == pair[1]) {
        return malformed(format!("{list:?} name a dimension twice"));
    }
    Ok(axes)
}

/// A size or a number of groups: not negative, and small enough for what is computed from it.
///
/// # Errors
/// If it is negative, or larger than a million.
pub(crate) fn small(number: i64) -> Step<u32> {
    match u32::try_from(number) {
        Ok(small) if small <= 1_000_000 => Ok(small),
        _ => malformed(format!("{number} is out of range: 0 to 1000000 are read")),
    }
}

/// A list of such numbers.
///
/// # Errors
/// As [`small`].
pub(crate) fn smalls(numbers: &[i64]) -> Step<Vec<u32>> {
    numbers.iter().map(|&n| small(n)).collect()
}

/// A position from the start, limited to a dimension.
fn position(at: i64, length: u64) -> u64 {
    if at < 0 { length.saturating_sub(at.unsigned_abs()) } else { at.unsigned_abs().min(length) }
}

impl Builder {
    /// Checks that the input of windows over some spatial dimensions has a batch: PyTorch takes one without, too.
    ///
    /// # Errors
    /// If it has none.
    pub(crate) fn batched(&self, x: ValueId, spatial: usize) -> Step<()> {
        let dims = self.dims(x);
        if spatial == 0 || dims.len() != spatial + 1 {
            return Ok(());
        }
        malformed(format!(
            "its input {dims:?} has no batch dimension: export the model with one in front, as in {:?}",
            [&[1], dims].concat()
        ))
    }

    /// The same elements with other dimensions.
    pub(crate) fn reshape(&mut self, x: ValueId, dims: &[u64]) -> Step<ValueId> {
        if self.dims(x) == dims {
            return Ok(x);
        }
        self.apply_to(Operation::Reshape, &[x], Some(dims))
    }

    /// As [`Builder::reshape`], where one size may be -1. With `zero_copies`, a size of 0 is the one of the input.
    pub(crate) fn reshape_as(
        &mut self,
        x: ValueId,
        sizes: &[i64],
        zero_copies: bool,
    ) -> Step<ValueId> {
        let own = self.dims(x).to_vec();
        let mut dims = Vec::new();
        let mut free = None;
        for (i, &size) in sizes.iter().enumerate() {
            let copied = own.get(i).copied().filter(|_| zero_copies && size == 0);
            match (copied, u64::try_from(size)) {
                (Some(size), _) | (None, Ok(size)) => dims.push(size),
                _ if size == -1 && free.is_none() => {
                    free = Some(i);
                    dims.push(1);
                }
                _ => return malformed(format!("{own:?} cannot become {sizes:?}")),
            }
        }
        if let Some(free) = free {
            // A product of 0 leaves the free size open.
            let rest = shapes::count(&dims).filter(|&n| n > 0);
            match (shapes::count(&own), rest) {
                (Some(count), Some(rest)) if count % rest == 0 => dims[free] = count / rest,
                _ => return malformed(format!("{own:?} cannot become {sizes:?}")),
            }
        }
        self.reshape(x, &dims)
    }

    /// The dimensions `first` to `last` become one.
    pub(crate) fn flatten(&mut self, x: ValueId, first: usize, last: usize) -> Step<ValueId> {
        let dims = self.dims(x);
        if dims.is_empty() {
            return self.reshape(x, &[1]);
        }
        if first > last || last >= dims.len() {
            return malformed(format!("{dims:?} has no dimensions {first} to {last}"));
        }
        let Some(joined) = shapes::count(&dims[first..=last]) else {
            return malformed(format!("{dims:?} is too large"));
        };
        let flat = [&dims[..first], &[joined], &dims[last + 1..]].concat();
        self.reshape(x, &flat)
    }

    /// Drops dimensions of size 1: those of a list, or all.
    pub(crate) fn squeeze(&mut self, x: ValueId, which: Option<&[usize]>) -> Step<ValueId> {
        let dims = self.dims(x);
        let dropped = |i: usize| dims[i] == 1 && which.is_none_or(|axes| axes.contains(&i));
        let rest: Vec<u64> = (0..dims.len()).filter(|&i| !dropped(i)).map(|i| dims[i]).collect();
        self.reshape(x, &rest)
    }

    /// Adds dimensions of size 1, at their positions in the result.
    pub(crate) fn unsqueeze(&mut self, x: ValueId, list: &[i64]) -> Step<ValueId> {
        let added = axes(list, self.rank(x) + list.len())?;
        let mut dims = self.dims(x).to_vec();
        for &at in &added {
            dims.insert(at, 1);
        }
        self.reshape(x, &dims)
    }

    /// Another order of dimensions.
    pub(crate) fn permute(&mut self, x: ValueId, order: Vec<usize>) -> Step<ValueId> {
        if order.iter().copied().eq(0..self.rank(x)) {
            return Ok(x);
        }
        self.apply(Operation::Permute { order }, &[x])
    }

    /// Swaps two dimensions.
    pub(crate) fn transpose(&mut self, x: ValueId, one: usize, other: usize) -> Step<ValueId> {
        let mut order: Vec<usize> = (0..self.rank(x)).collect();
        order.swap(one, other);
        self.permute(x, order)
    }

    /// Repeats dimensions of size 1, and adds others in front.
    pub(crate) fn expand(&mut self, x: ValueId, dims: &[u64]) -> Step<ValueId> {
        let own = self.dims(x).to_vec();
        if own == dims {
            return Ok(x);
        }
        let Some(missing) = dims.len().checked_sub(own.len()) else {
            return malformed(format!("{own:?} cannot become {dims:?}"));
        };
        let same_rank = [vec![1; missing], own].concat();
        let x = self.reshape(x, &same_rank)?;
        if same_rank == dims {
            return Ok(x);
        }
        self.apply_to(Operation::Expand, &[x], Some(dims))
    }

    /// `x[start : end : step]` along a dimension. Positions may count from the end, and are limited to the dimension.
    pub(crate) fn slice(
        &mut self,
        x: ValueId,
        axis: usize,
        (start, end, step): (i64, i64, i64),
    ) -> Step<ValueId> {
        let mut dims = self.dims(x).to_vec();
        let Ok(step) = u64::try_from(step) else {
            return self.reversed(x, axis, (start, end, step));
        };
        if step == 0 {
            return malformed("a slice has the step 0");
        }
        let (start, end) = (position(start, dims[axis]), position(end, dims[axis]));
        let length = end.saturating_sub(start).div_ceil(step);
        if length == dims[axis] {
            return Ok(x);
        }
        dims[axis] = length;
        self.apply_to(Operation::Slice { axis, start, step }, &[x], Some(&dims))
    }

    /// One position of a dimension, which is dropped.
    pub(crate) fn select(&mut self, x: ValueId, axis: usize, index: i64) -> Step<ValueId> {
        let length = self.dims(x)[axis];
        let from_end = if index < 0 { index.saturating_add_unsigned(length) } else { index };
        if from_end < 0 || from_end.unsigned_abs() >= length {
            return malformed(format!("there is no position {index} of {length}"));
        }
        let part = self.slice(x, axis, (from_end, from_end + 1, 1))?;
        self.squeeze(part, Some(&[axis]))
    }

    /// Consecutive parts of the given lengths along a dimension.
    pub(crate) fn split(&mut self, x: ValueId, axis: usize, lengths: &[u64]) -> Step<Vec<ValueId>> {
        let length = self.dims(x)[axis];
        let total = lengths.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n));
        if total != Some(length) {
            return malformed(format!("a dimension of {length} cannot be split into {lengths:?}"));
        }
        let mut start = 0;
        let mut parts = Vec::new();
        for &part in lengths {
            // The sum of all lengths is one of a dimension, which is below 2^40.
            let at = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            parts.push(self.slice(x, axis, (at(start), at(start + part), 1))?);
            start += part;
        }
        Ok(parts)
    }

    /// A number before and after each dimension. Another one than 0 is joined as a constant.
    pub(crate) fn pad(
        &mut self,
        x: ValueId,
        before: Vec<u32>,
        after: Vec<u32>,
        number: f64,
    ) -> Step<ValueId> {
        if number == 0.0 {
            return self.apply(Operation::Pad { before, after }, &[x]);
        }
        if before.len() != self.rank(x) || after.len() != self.rank(x) {
            return malformed(format!("{:?} has other dimensions than its padding", self.dims(x)));
        }
        let mut padded = x;
        for (axis, sides) in before.into_iter().zip(after).enumerate() {
            let mut parts = Vec::new();
            for part in [Some(sides.0), None, Some(sides.1)] {
                let Some(size) = part else {
                    parts.push(padded);
                    continue;
                };
                if size > 0 {
                    let mut dims = self.dims(padded).to_vec();
                    dims[axis] = u64::from(size);
                    parts.push(self.filled(dims, self.value(x).kind, Some(number))?);
                }
            }
            padded = self.concat(&parts, axis)?;
        }
        Ok(padded)
    }

    /// A constant of one number, or of one that is not known.
    pub(crate) fn filled(
        &mut self,
        dims: Vec<u64>,
        kind: Kind,
        number: Option<f64>,
    ) -> Step<ValueId> {
        let count = shapes::count(&dims).filter(|&n| n <= MOST_NUMBERS);
        let numbers = number.zip(count.and_then(|n| usize::try_from(n).ok()));
        let numbers = numbers.map(|(number, count)| vec![number; count]);
        let name = self.here();
        Ok(self.made(&name, dims, kind, numbers)?)
    }

    /// The same elements, repeated along each dimension: of a computed value only where a dimension is 1.
    pub(crate) fn tile(&mut self, x: ValueId, repeats: Vec<u64>) -> Step<ValueId> {
        if self.is_constant(x) {
            return self.on_constants(&OnConstants::Tile(repeats), &[x]);
        }
        let dims = self.dims(x);
        if repeats.len() != dims.len() {
            return malformed(format!("{dims:?} is not repeated {repeats:?} times"));
        }
        if dims.iter().zip(&repeats).any(|(&size, &n)| size != 1 && n != 1) {
            return unsupported(format!(
                "{dims:?} is repeated: repeats of dimensions of size 1 are read"
            ));
        }
        let wanted: Vec<u64> = dims.iter().zip(&repeats).map(|(size, n)| size * n).collect();
        self.expand(x, &wanted)
    }

    /// Evenly spaced numbers from `start` up to `limit`, which is left out.
    pub(crate) fn range(&mut self, start: f64, limit: f64, step: f64, kind: Kind) -> Step<ValueId> {
        let count = ((limit - start) / step).ceil().max(0.0);
        if step == 0.0 || !count.is_finite() {
            return malformed(format!("a range from {start} to {limit} in steps of {step}"));
        }
        // The count is a whole number, and larger ones than 2^40 are refused with the constant.
        let count = count as u64;
        let small = count <= MOST_NUMBERS;
        let numbers = small.then(|| (0..count).map(|i| start + i as f64 * step).collect());
        let name = self.here();
        Ok(self.made(&name, vec![count], kind, numbers)?)
    }

    /// A function of each element.
    pub(crate) fn function(&mut self, function: Function, x: ValueId) -> Step<ValueId> {
        self.apply(Operation::Apply(function), &[x])
    }

    /// A function of two values, element by element.
    pub(crate) fn binary(
        &mut self,
        function: Binary,
        left: ValueId,
        right: ValueId,
    ) -> Step<ValueId> {
        self.apply(Operation::Binary(function), &[left, right])
    }

    /// A reduction. Without axes, it is one of all dimensions.
    pub(crate) fn reduce(
        &mut self,
        reduction: Reduction,
        x: ValueId,
        list: &[i64],
        keep: bool,
    ) -> Step<ValueId> {
        let axes = match list {
            [] => (0..self.rank(x)).collect(),
            _ => axes(list, self.rank(x))?,
        };
        if axes.is_empty() {
            return Ok(x);
        }
        self.apply(Operation::Reduce { reduction, axes, keep }, &[x])
    }

    /// The square root of the sum of squares.
    pub(crate) fn norm(&mut self, x: ValueId, list: &[i64], keep: bool) -> Step<ValueId> {
        let squares = self.binary(Binary::Mul, x, x)?;
        let sum = self.reduce(Reduction::Sum, squares, list, keep)?;
        self.function(Function::Sqrt, sum)
    }

    /// The sizes of a list that is stored as a constant.
    pub(crate) fn list(&self, id: ValueId, what: &str) -> Step<Vec<i64>> {
        // The numbers are whole: shapes, axes and positions. Limits of 64 bits saturate.
        let whole = |numbers: &[f64]| numbers.iter().map(|&n| n as i64).collect();
        self.numbers(id)
            .map(whole)
            .ok_or_else(|| Stop::Unsupported(format!("{what} is computed, or not in the file")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(dims: &[u64]) -> (Builder, ValueId) {
        let mut builder = Builder::default();
        let x = builder.input("x", dims.to_vec(), Kind::Float).unwrap();
        (builder, x)
    }

    fn problem<T: std::fmt::Debug>(step: Step<T>) -> String {
        match step.unwrap_err() {
            Stop::Malformed(problem) | Stop::Unsupported(problem) => problem,
            Stop::Fatal(error) => error.to_string(),
        }
    }

    #[test]
    fn one_size_of_a_reshape_may_be_open() {
        let (mut b, x) = with(&[2, 3, 4]);
        let y = b.reshape_as(x, &[0, -1], true).unwrap();
        assert_eq!(b.dims(y), [2, 12]);
        assert_eq!(problem(b.reshape_as(x, &[-1, 5], false)), "[2, 3, 4] cannot become [-1, 5]");
        assert_eq!(problem(b.reshape_as(x, &[-1, -1], false)), "[2, 3, 4] cannot become [-1, -1]");
        assert_eq!(problem(b.reshape_as(x, &[0, -1], false)), "[2, 3, 4] cannot become [0, -1]");
    }

    #[test]
    fn positions_of_slices_count_from_both_ends_and_are_limited() {
        let (mut b, x) = with(&[2, 10]);
        let mut length = |range| {
            let y = b.slice(x, 1, range).unwrap();
            b.dims(y)[1]
        };
        assert_eq!(length((0, i64::MAX, 1)), 10);
        assert_eq!(length((-3, i64::MAX, 1)), 3);
        assert_eq!(length((1, -1, 2)), 4);
        assert_eq!(length((8, 2, 1)), 0);
        assert_eq!(length((i64::MIN, 4, 3)), 2);
        assert_eq!(
            problem(b.slice(x, 1, (0, 10, -1))),
            "a slice with the step -1: only forward slices are read"
        );
        let list = b.constant("list", vec![3], Kind::Integer, Some(vec![5.0, 6.0, 7.0])).unwrap();
        let all = b.slice(list, 0, (-1, i64::MIN, -1)).unwrap();
        assert_eq!(b.numbers(all), Some([7.0, 6.0, 5.0].as_slice()));
        let some = b.slice(list, 0, (9, 0, -2)).unwrap();
        assert_eq!(b.numbers(some), Some([7.0].as_slice()));
    }

    #[test]
    fn what_changes_nothing_is_no_node() {
        let (mut b, x) = with(&[1, 3]);
        assert_eq!(b.reshape(x, &[1, 3]).unwrap(), x);
        assert_eq!(b.permute(x, vec![0, 1]).unwrap(), x);
        assert_eq!(b.expand(x, &[1, 3]).unwrap(), x);
        assert_eq!(b.squeeze(x, Some(&[1])).unwrap(), x);
        let wide = b.expand(x, &[2, 4, 3]).unwrap();
        let graph = b.finish(None, &[wide]);
        let operations: Vec<_> = graph.nodes.iter().map(|node| &node.operation).collect();
        assert_eq!(operations, [&Operation::Reshape, &Operation::Expand]);
    }
}

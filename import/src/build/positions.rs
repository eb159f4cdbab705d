//! Positions along a dimension: evenly spaced ones are slices, and those in a circle are rolls. Exporters write both
//! in other ways.

use super::Builder;
use crate::error::{Step, malformed, unsupported};
use crate::fold::{MOST_NUMBERS, OnConstants};
use crate::graph::{Kind, Operation, ValueId};

/// Whether positions are all of a dimension, in a circle.
fn is_circle(list: &[i64], length: u64) -> bool {
    let next =
        |pair: &[i64]| pair[1] == pair[0] + 1 || (pair[1] == 0 && pair[0] + 1 == list.len() as i64);
    let inside = list.iter().all(|&at| at >= 0 && at.unsigned_abs() < length);
    list.len() as u64 == length && inside && list.windows(2).all(next)
}

impl Builder {
    /// Positions of a dimension, in a constant: one, or several at equal distances. Their dimensions replace the one
    /// of the value.
    pub(crate) fn positions(
        &mut self,
        x: ValueId,
        axis: usize,
        positions: ValueId,
    ) -> Step<ValueId> {
        let list = self.list(positions, "its positions")?;
        let own = self.dims(positions).to_vec();
        match (own.as_slice(), list.as_slice()) {
            ([], [position]) => self.select(x, axis, *position),
            (_, [first, others @ ..]) => {
                let step = others.first().map_or(1, |second| second.saturating_sub(*first));
                let length = self.dims(x)[axis];
                if own.len() == 1 && is_circle(&list, length) {
                    return self.rotate(x, axis, first.unsigned_abs());
                }
                let even = list.windows(2).all(|pair| pair[1].saturating_sub(pair[0]) == step);
                if !even || step < 1 {
                    return unsupported("positions of a dimension at unequal distances");
                }
                let start = if *first < 0 { first.saturating_add_unsigned(length) } else { *first };
                // A list has at most 4096 entries.
                let last = start.saturating_add(step.saturating_mul(others.len() as i64));
                if start < 0 || last.unsigned_abs() >= length {
                    return malformed(format!(
                        "there are no positions {start} to {last} of {length}"
                    ));
                }
                let part = self.slice(x, axis, (start, last + 1, step))?;
                let dims = self.dims(part);
                let wanted = [&dims[..axis], &own, &dims[axis + 1..]].concat();
                self.reshape(part, &wanted)
            }
            _ => unsupported("no positions of a dimension"),
        }
    }

    /// A slice from the end to the start, of a constant: exporters turn lists around.
    pub(super) fn reversed(
        &mut self,
        x: ValueId,
        axis: usize,
        (start, end, step): (i64, i64, i64),
    ) -> Step<ValueId> {
        let length = self.dims(x)[axis];
        if !self.is_constant(x) || length > MOST_NUMBERS {
            return unsupported(format!(
                "a slice with the step {step}: only forward slices are read"
            ));
        }
        let from_start = |at: i64| if at < 0 { at.saturating_add_unsigned(length) } else { at };
        // The length is at most 4096.
        let last = length as i64 - 1;
        let (start, end) = (from_start(start).min(last), from_start(end).max(-1));
        let distance = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
        let list: Vec<f64> = (end + 1..=start).rev().step_by(distance).map(|i| i as f64).collect();
        let name = self.here();
        let positions = self.made(&name, vec![list.len() as u64], Kind::Integer, Some(list))?;
        self.on_constants(&OnConstants::Gather(axis), &[x, positions])
    }

    /// Values one after the other along a dimension.
    pub(crate) fn concat(&mut self, parts: &[ValueId], axis: usize) -> Step<ValueId> {
        if let [left, right] = parts
            && let Some((x, first)) = self.halves(*left, *right, axis)
        {
            return self.rotate(x, axis, first);
        }
        match parts {
            [] => malformed("it joins nothing"),
            [part] => Ok(*part),
            _ => self.apply(Operation::Concat { axis }, parts),
        }
    }

    /// The value of which two values are the end and the beginning along a dimension, and where the end starts.
    fn halves(&self, left: ValueId, right: ValueId, along: usize) -> Option<(ValueId, u64)> {
        let part = |id: ValueId| {
            let node = self.producer(id)?;
            match node.operation {
                Operation::Slice { axis, start, step: 1 } if axis == along => {
                    Some((node.inputs[0], start, self.dims(id)[along]))
                }
                _ => None,
            }
        };
        let ((x, first, end), (same, 0, beginning)) = (part(left)?, part(right)?) else {
            return None;
        };
        let whole = x == same && first == beginning && first + end == self.dims(x)[along];
        whole.then_some((x, first))
    }

    /// The elements of a dimension in a circle, beginning with another one.
    fn rotate(&mut self, x: ValueId, axis: usize, first: u64) -> Step<ValueId> {
        let length = self.dims(x)[axis];
        let small = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let shift = if first > length / 2 { small(length - first) } else { -small(first) };
        if shift == 0 {
            return Ok(x);
        }
        // A roll of several dimensions is written as one after the other.
        let before = self.producer(x).and_then(|node| match &node.operation {
            Operation::Roll { shifts } if shifts.iter().all(|(other, _)| *other != axis) => {
                Some((node.inputs[0], shifts.clone()))
            }
            _ => None,
        });
        let (x, mut shifts) = before.unwrap_or_else(|| (x, Vec::new()));
        shifts.push((axis, shift));
        self.apply(Operation::Roll { shifts }, &[x])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stop;

    fn with(dims: &[u64]) -> (Builder, ValueId) {
        let mut builder = Builder::default();
        let x = builder.input("x", dims.to_vec(), Kind::Float).unwrap();
        (builder, x)
    }

    #[test]
    fn positions_at_equal_distances_are_a_slice() {
        let (mut b, x) = with(&[2, 10]);
        let two = b.constant("p", vec![2, 1], Kind::Integer, Some(vec![1.0, 4.0])).unwrap();
        let y = b.positions(x, 1, two).unwrap();
        assert_eq!(b.dims(y), [2, 2, 1]);
        let uneven = b.constant("p", vec![3], Kind::Integer, Some(vec![0.0, 1.0, 3.0])).unwrap();
        let step = b.positions(x, 1, uneven);
        assert!(matches!(step, Err(Stop::Unsupported(_))), "{step:?}");
        let outside = b.constant("p", vec![2], Kind::Integer, Some(vec![8.0, 10.0])).unwrap();
        let step = b.positions(x, 1, outside);
        assert!(matches!(step, Err(Stop::Malformed(_))), "{step:?}");
    }

    #[test]
    fn the_end_before_the_beginning_is_a_roll() {
        let (mut b, x) = with(&[1, 8, 8]);
        let mut turned = x;
        for axis in [1, 2] {
            let end = b.slice(turned, axis, (3, i64::MAX, 1)).unwrap();
            let beginning = b.slice(turned, axis, (0, 3, 1)).unwrap();
            turned = b.concat(&[end, beginning], axis).unwrap();
        }
        let list: Vec<f64> = (5..8).chain(0..5).map(f64::from).collect();
        let positions = b.constant("p", vec![8], Kind::Integer, Some(list)).unwrap();
        let back = b.positions(turned, 1, positions).unwrap();
        let graph = b.finish(None, &[back]);
        let operations: Vec<_> = graph.nodes.iter().map(|node| node.operation.clone()).collect();
        let roll = |shifts: &[(usize, i64)]| Operation::Roll { shifts: shifts.to_vec() };
        assert_eq!(operations, [roll(&[(1, -3), (2, -3)]), roll(&[(1, 3)])]);
    }
}

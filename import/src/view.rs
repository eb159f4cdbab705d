//! How a tensor of a model lies in a map or a sequence of the catalog.
//!
//! A model reshapes and permutes tensors: a map as tokens, channels as heads, a map as windows. The catalog has only
//! maps `[n, c, h, w]` and sequences `[n, l, c]`. A [`View`] says which digits of which axes make up each dimension of
//! the model's tensor, so a reshape or a permutation only moves digits and costs nothing, as in libtorch.

use ops_catalog::TensorShape;

/// An axis of a map or of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Axis {
    Batch,
    Channels,
    Rows,
    Columns,
    Tokens,
    /// No axis of the value: the same elements, repeated.
    Repeated,
}

/// A digit of an index along an axis: `index = ... + digit * stride + ...`, with `0 <= digit < size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digit {
    pub(crate) axis: Axis,
    pub(crate) size: u64,
    pub(crate) stride: u64,
}

/// The digits of each dimension, the slowest first. Digits of size 1 are left out. All digits together are the whole
/// axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digits(pub(crate) Vec<Vec<Digit>>);

/// The axes of a shape, in libtorch's order.
pub(crate) fn axes(shape: TensorShape) -> Vec<(Axis, u64)> {
    let named = match shape {
        TensorShape::Map { n, c, h, w } => {
            vec![(Axis::Batch, n), (Axis::Channels, c), (Axis::Rows, h), (Axis::Columns, w)]
        }
        TensorShape::Tokens { n, l, c } => {
            vec![(Axis::Batch, n), (Axis::Tokens, l), (Axis::Channels, c)]
        }
    };
    named.into_iter().map(|(axis, size)| (axis, u64::from(size))).collect()
}

/// A whole axis as one dimension.
pub(crate) fn whole(axis: Axis, size: u64) -> Vec<Digit> {
    if size == 1 { vec![] } else { vec![Digit { axis, size, stride: 1 }] }
}

/// The size of a dimension.
pub(crate) fn extent(digits: &[Digit]) -> u64 {
    digits.iter().map(|digit| digit.size).product()
}

impl Digits {
    /// A shape as it is.
    pub(crate) fn natural(shape: TensorShape) -> Digits {
        Digits(axes(shape).into_iter().map(|(axis, size)| whole(axis, size)).collect())
    }

    /// Sizes of the dimensions.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        self.0.iter().map(|digits| extent(digits)).collect()
    }

    /// The same elements in the same order with other dimensions. None if a dimension would contain a part of a digit
    /// that is not one of its factors.
    pub(crate) fn reshaped(&self, sizes: &[u64]) -> Option<Digits> {
        let mut rest: Vec<Digit> = self.0.iter().flatten().rev().copied().collect();
        let mut dims = Vec::with_capacity(sizes.len());
        for &size in sizes {
            let mut wanted = size;
            let mut digits = vec![];
            while wanted > 1 {
                let digit = rest.pop()?;
                if wanted.is_multiple_of(digit.size) {
                    wanted /= digit.size;
                    digits.push(digit);
                } else if digit.size.is_multiple_of(wanted) {
                    let below = digit.size / wanted;
                    digits.push(Digit { size: wanted, stride: digit.stride * below, ..digit });
                    rest.push(Digit { size: below, ..digit });
                    wanted = 1;
                } else {
                    return None;
                }
            }
            dims.push(joined(digits));
        }
        rest.is_empty().then_some(Digits(dims))
    }

    /// Dimension `i` of the result is dimension `order[i]`. None if `order` is no permutation.
    pub(crate) fn permuted(&self, order: &[usize]) -> Option<Digits> {
        let mut seen = vec![false; self.0.len()];
        for &from in order {
            let seen = seen.get_mut(from)?;
            if std::mem::replace(seen, true) {
                return None;
            }
        }
        (order.len() == self.0.len())
            .then(|| Digits(order.iter().map(|&from| self.0[from].clone()).collect()))
    }

    /// The dimensions with other sizes of whole axes: an axis whose size changed must be one digit.
    pub(crate) fn resized(&self, axis: Axis, size: u64) -> Option<Digits> {
        let count = self.0.iter().flatten().filter(|digit| digit.axis == axis).count();
        let mut found = false;
        let dims: Option<Vec<Vec<Digit>>> = self
            .0
            .iter()
            .map(|digits| {
                let mut kept = vec![];
                for &digit in digits {
                    if digit.axis != axis {
                        kept.push(digit);
                    } else if digit.stride == 1 && count == 1 {
                        found = true;
                        kept.extend(whole(axis, size));
                    } else {
                        return None;
                    }
                }
                Some(kept)
            })
            .collect();
        dims.filter(|_| found).map(Digits)
    }
}

/// Neighbouring digits of one axis that are one digit of it.
fn joined(digits: Vec<Digit>) -> Vec<Digit> {
    let mut joined: Vec<Digit> = Vec::with_capacity(digits.len());
    for digit in digits {
        match joined.last_mut() {
            Some(last) if last.axis == digit.axis && last.stride == digit.size * digit.stride => {
                last.size *= digit.size;
                last.stride = digit.stride;
            }
            _ => joined.push(digit),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Digits {
        Digits::natural(TensorShape::Map { n: 1, c: 12, h: 4, w: 6 })
    }

    #[test]
    fn a_map_becomes_tokens_and_a_map_again() {
        let tokens = map().reshaped(&[1, 12, 24]).unwrap().permuted(&[0, 2, 1]).unwrap();
        assert_eq!(tokens.sizes(), [1, 24, 12]);
        let again = tokens.permuted(&[0, 2, 1]).unwrap().reshaped(&[1, 12, 4, 6]).unwrap();
        assert_eq!(again, map());
    }

    #[test]
    fn windows_are_split_and_joined() {
        let windows = map()
            .permuted(&[0, 2, 3, 1])
            .and_then(|dims| dims.reshaped(&[1, 2, 2, 3, 2, 12]))
            .and_then(|dims| dims.permuted(&[0, 1, 3, 2, 4, 5]))
            .and_then(|dims| dims.reshaped(&[6, 4, 12]))
            .unwrap();
        let rows = |size, stride| Digit { axis: Axis::Rows, size, stride };
        let columns = |size, stride| Digit { axis: Axis::Columns, size, stride };
        assert_eq!(windows.0[0], [rows(2, 2), columns(3, 2)]);
        assert_eq!(windows.0[1], [rows(2, 1), columns(2, 1)]);
        let joined = windows
            .reshaped(&[1, 2, 3, 2, 2, 12])
            .and_then(|dims| dims.permuted(&[0, 1, 3, 2, 4, 5]))
            .and_then(|dims| dims.reshaped(&[1, 4, 6, 12]))
            .and_then(|dims| dims.permuted(&[0, 3, 1, 2]));
        assert_eq!(joined, Some(map()));
    }

    #[test]
    fn a_shuffle_of_channels_is_seen() {
        let shuffled = map()
            .reshaped(&[1, 3, 4, 4, 6])
            .and_then(|dims| dims.permuted(&[0, 2, 1, 3, 4]))
            .and_then(|dims| dims.reshaped(&[1, 12, 4, 6]))
            .unwrap();
        let channels = |size, stride| Digit { axis: Axis::Channels, size, stride };
        assert_eq!(shuffled.0[1], [channels(4, 1), channels(3, 4)]);
    }

    #[test]
    fn what_cuts_a_digit_in_pieces_that_are_no_factors_is_refused() {
        assert_eq!(map().reshaped(&[1, 8, 36]), None);
        assert_eq!(map().reshaped(&[1, 12, 23]), None);
        assert_eq!(map().reshaped(&[1, 12, 4]), None);
        assert_eq!(map().permuted(&[0, 1, 1, 2]), None);
        assert_eq!(map().permuted(&[0, 1]), None);
    }

    #[test]
    fn a_whole_axis_can_change_its_size() {
        let resized = map().resized(Axis::Channels, 5).unwrap();
        assert_eq!(resized.sizes(), [1, 5, 4, 6]);
        let split = map().reshaped(&[1, 3, 4, 4, 6]).unwrap();
        assert_eq!(split.resized(Axis::Channels, 5), None);
    }
}

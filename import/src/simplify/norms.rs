//! Normalizations that a file has as means, differences and roots.

use super::{Finder, Found};
use crate::graph::{Binary, Function, Node, Operation, Reduction, ValueId};

impl Finder<'_> {
    /// A layer norm or a root-mean-square norm with `node` as its last part.
    pub(super) fn norm(&self, node: &Node) -> Option<Found> {
        let &[left, right] = &node.inputs[..] else { return None };
        match node.operation {
            Operation::Binary(Binary::Div) => self.layer_norm(left, self.root(right)?),
            Operation::Binary(Binary::Mul) => {
                let plain =
                    self.inverse_root(right).and_then(|root| self.layer_norm(left, root)).or_else(
                        || self.inverse_root(left).and_then(|root| self.layer_norm(right, root)),
                    );
                plain.or_else(|| self.scaled(left, right)).or_else(|| self.scaled(right, left))
            }
            Operation::Binary(Binary::Add) => {
                self.shifted(left, right).or_else(|| self.shifted(right, left))
            }
            _ => None,
        }
    }

    /// The value under a root.
    fn root(&self, value: ValueId) -> Option<ValueId> {
        self.function(value, Function::Sqrt)
    }

    /// The value under a root in a denominator.
    fn inverse_root(&self, value: ValueId) -> Option<ValueId> {
        self.function(value, Function::Rsqrt).or_else(|| {
            let root = self.function(value, Function::Reciprocal)?;
            self.root(root)
        })
    }

    /// The value of which this is the mean over the last dimension.
    fn mean_of(&self, value: ValueId) -> Option<ValueId> {
        let node = self.producer(value)?;
        let input = *node.inputs.first()?;
        let last = self.graph.values[input].dims.len().checked_sub(1)?;
        match &node.operation {
            Operation::Reduce { reduction: Reduction::Mean, axes, .. } if *axes == [last] => {
                Some(input)
            }
            _ => None,
        }
    }

    /// The value of which this is the square.
    pub(super) fn square_of(&self, value: ValueId) -> Option<ValueId> {
        if let Some([base, by]) = self.binary(value, Binary::Pow) {
            return self.is_number(by, 2.0).then_some(base);
        }
        self.binary(value, Binary::Mul).filter(|[one, other]| one == other).map(|[one, _]| one)
    }

    /// `mean(y^2)` and epsilon of `mean(y^2) + epsilon`.
    fn mean_square(&self, value: ValueId) -> Option<(ValueId, f64)> {
        let [left, right] = self.binary(value, Binary::Add)?;
        let (mean, epsilon) = match (self.scalar(right), self.scalar(left)) {
            (Some(epsilon), _) => (left, epsilon),
            (None, Some(epsilon)) => (right, epsilon),
            (None, None) => return None,
        };
        Some((self.square_of(self.mean_of(mean)?)?, epsilon))
    }

    /// A layer norm without weights: the difference from the mean over the root of its mean square.
    fn layer_norm(&self, difference: ValueId, under_root: ValueId) -> Option<Found> {
        let (centred, epsilon) = self.mean_square(under_root)?;
        let [x, mean] = self.binary(difference, Binary::Sub)?;
        let same = centred == difference || self.binary(centred, Binary::Sub) == Some([x, mean]);
        if !same || self.mean_of(mean) != Some(x) {
            return None;
        }
        Found::new(Operation::LayerNorm { dimensions: 1, epsilon }, vec![x])
    }

    /// A norm times a weight for each channel.
    fn scaled(&self, weight: ValueId, norm: ValueId) -> Option<Found> {
        self.channel_weight(weight)?;
        let node = self.producer(norm)?;
        if let (Operation::LayerNorm { dimensions: 1, .. }, &[x]) =
            (&node.operation, &node.inputs[..])
        {
            return Found::new(node.operation.clone(), vec![x, weight]);
        }
        let [left, right] = self.binary(norm, Binary::Mul)?;
        [(left, right), (right, left)].into_iter().find_map(|(x, root)| {
            let (squared, epsilon) = self.mean_square(self.inverse_root(root)?)?;
            if squared != x {
                return None;
            }
            Found::new(Operation::RmsNorm { epsilon }, vec![x, weight])
        })
    }

    /// A norm with a weight, plus a weight for each channel.
    fn shifted(&self, shift: ValueId, norm: ValueId) -> Option<Found> {
        self.channel_weight(shift)?;
        let node = self.producer(norm)?;
        match (&node.operation, &node.inputs[..]) {
            (Operation::LayerNorm { dimensions: 1, .. }, &[x, scale]) => {
                Found::new(node.operation.clone(), vec![x, scale, shift])
            }
            _ => None,
        }
    }

    /// A group norm with weights for each channel, which older versions of ONNX have as a norm of instances without
    /// weights, on a map whose groups are its channels.
    pub(super) fn group_norm(&self, node: &Node) -> Option<Found> {
        let (Operation::Binary(Binary::Add), &[left, right]) = (&node.operation, &node.inputs[..])
        else {
            return None;
        };
        let (scaled, shift) = self.with_map_weight(left, right)?;
        let [left, right] = self.binary(scaled, Binary::Mul)?;
        let (map, scale) = self.with_map_weight(left, right)?;
        let reshape = |value: ValueId| {
            let node = self.producer(value)?;
            (node.operation == Operation::Reshape).then(|| node.inputs.first().copied()).flatten()
        };
        let norm = self.producer(reshape(map)?)?;
        let (&Operation::GroupNorm { groups, epsilon }, &[grouped, ones, zeros]) =
            (&norm.operation, &norm.inputs[..])
        else {
            return None;
        };
        let x = reshape(grouped)?;
        let dims = |value: ValueId| self.graph.values[value].dims.as_slice();
        let all = |value: ValueId, number: f64| {
            let numbers = self.graph.values[value].numbers.as_deref();
            numbers.is_some_and(|numbers| numbers.iter().all(|&own| own == number))
        };
        let is_grouped = dims(x) == dims(map)
            && dims(x).len() == 4
            && dims(grouped).len() == 3
            && dims(grouped)[..2] == [dims(x)[0], u64::from(groups)];
        if !is_grouped || !all(ones, 1.0) || !all(zeros, 0.0) {
            return None;
        }
        Found::new(Operation::GroupNorm { groups, epsilon }, vec![x, scale, shift])
    }

    /// `x + (shift + scale * (x * n / (mean(n) + epsilon)))`, with `node` as the sum: `n` is the length of each channel.
    pub(super) fn response_norm(&self, node: &Node) -> Option<Found> {
        let (Operation::Binary(Binary::Add), &[left, right]) = (&node.operation, &node.inputs[..])
        else {
            return None;
        };
        [(left, right), (right, left)].into_iter().find_map(|(x, shifted)| {
            let [left, right] = self.binary(shifted, Binary::Add)?;
            let constant = |value: ValueId| self.graph.values[value].constant;
            let (scaled, shift) = if constant(right) { (left, right) } else { (right, left) };
            let [left, right] = self.binary(scaled, Binary::Mul)?;
            let (product, scale) = if constant(right) { (left, right) } else { (right, left) };
            let [left, right] = self.binary(product, Binary::Mul)?;
            let shares = if left == x { right } else { left };
            let [lengths, mean] = self.binary(shares, Binary::Div)?;
            let axis = self.mean_of_lengths(lengths, self.plus(mean, 1e-6)?, x)?;
            let channels = self.graph.values[x].dims[axis];
            let own = |value: ValueId| {
                let value = &self.graph.values[value];
                value.constant && value.dims.iter().product::<u64>() == channels
            };
            let is_whole = own(shift) && own(scale) && (left == x || right == x);
            is_whole.then(|| Found::new(Operation::ResponseNorm, vec![x, scale, shift])).flatten()
        })
    }

    /// The dimension of the channels, if one value is the length of each channel of a map over all positions, and another
    /// is their mean over the channels.
    fn mean_of_lengths(&self, lengths: ValueId, mean: ValueId, x: ValueId) -> Option<usize> {
        let sum = self.producer(self.root(lengths)?)?;
        let mean = self.producer(mean)?;
        let axis = match (&sum.operation, &mean.operation) {
            (
                Operation::Reduce { reduction: Reduction::Sum, axes: positions, keep: true },
                Operation::Reduce { reduction: Reduction::Mean, axes, keep: true },
            ) => match (&positions[..], &axes[..]) {
                ([2, 3], [1]) => 1,
                ([1, 2], [3]) => 3,
                _ => return None,
            },
            _ => return None,
        };
        let four = self.graph.values[x].dims.len() == 4;
        let same = self.square_of(*sum.inputs.first()?) == Some(x);
        (four && same && mean.inputs == [lengths]).then_some(axis)
    }

    /// A map and a constant for each of its channels, `[c, 1, 1]`, of two values in any order.
    fn with_map_weight(&self, left: ValueId, right: ValueId) -> Option<(ValueId, ValueId)> {
        [(left, right), (right, left)].into_iter().find(|&(map, weight)| {
            let (map, weight) = (&self.graph.values[map], &self.graph.values[weight]);
            let channels = map.dims.get(1).copied().unwrap_or(0);
            let own = match weight.dims[..] {
                [c, 1, 1] | [1, c, 1, 1] => c,
                _ => 0,
            };
            weight.constant && !map.constant && map.dims.len() == 4 && own == channels
        })
    }

    /// A stored vector.
    fn channel_weight(&self, value: ValueId) -> Option<()> {
        let value = &self.graph.values[value];
        (value.constant && value.dims.len() == 1 && value.dims[0] > 1).then_some(())
    }
}

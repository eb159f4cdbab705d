//! Attention that a file has as products and a softmax, and rotary embeddings.

use super::{Finder, Found};
use crate::graph::{Binary, Function, Node, Operation, Reduction, ValueId};

impl Finder<'_> {
    /// `softmax(q k^T * scale + masks) v`, with `node` as the product with the values.
    pub(super) fn attention(&self, node: &Node) -> Option<Found> {
        let (Operation::MatMul, &[weights, values]) = (&node.operation, &node.inputs[..]) else {
            return None;
        };
        let softmax = self.producer(weights)?;
        let mut scores = *softmax.inputs.first()?;
        let last = self.graph.values[scores].dims.len().checked_sub(1)?;
        if softmax.operation != (Operation::Softmax { axis: last }) || last < 2 {
            return None;
        }
        let mut masks = vec![];
        let mut scale = 1.0;
        let mut factors = None;
        let (queries, keys) = loop {
            let (inner, factor) = self.factored(scores);
            scale *= factor;
            let producer = self.producer(inner)?;
            match (&producer.operation, &producer.inputs[..]) {
                (Operation::MatMul, &[queries, keys]) => break (queries, keys),
                (Operation::Binary(Binary::Add), &[left, right]) => {
                    let (mask, rest) = match self.graph.values[right].constant {
                        true => (right, left),
                        false => (left, right),
                    };
                    if !self.graph.values[mask].constant {
                        return None;
                    }
                    masks.push(mask);
                    scores = rest;
                }
                // Attention by cosines has a factor for each head.
                (Operation::Binary(Binary::Mul), _) => {
                    let (rest, constant) = self.head_factors(inner)?;
                    if factors.replace(constant).is_some() {
                        return None;
                    }
                    scores = rest;
                }
                // A map's windows get a dimension of their own for their masks.
                (Operation::Reshape, &[input]) => scores = input,
                _ => return None,
            }
        };
        let (queries, of_queries) = self.factored(queries);
        let (keys, mut of_keys) = self.factored(keys);
        // The keys come with their last two dimensions exchanged, often by a permutation that does more.
        let mut keys = keys;
        let mut order: Vec<usize> = (0..self.graph.values[keys].dims.len()).collect();
        if let Some(node) = self.producer(keys)
            && let (Operation::Permute { order: own }, &[input]) =
                (&node.operation, &node.inputs[..])
        {
            let (inner, factor) = self.factored(input);
            (keys, of_keys, order) = (inner, of_keys * factor, own.clone());
        }
        order.swap(last, last - 1);
        let scale = Some(scale * of_queries * of_keys);
        let (queries, keys, cosine) = match (self.normalized(queries), self.normalized(keys)) {
            (Some(queries), Some(keys)) if factors.is_some() => (queries, keys, true),
            (None, None) if factors.is_none() => (queries, keys, false),
            _ => return None,
        };
        let mut inputs = vec![queries, keys, values];
        inputs.extend(factors);
        inputs.extend(masks);
        Some(Found {
            operation: Operation::Attention { causal: false, scale, cosine },
            inputs,
            permuted: vec![(1, order)],
        })
    }

    /// A product with one constant for each head, `[heads, 1, 1]`: what is multiplied, and the constant.
    fn head_factors(&self, product: ValueId) -> Option<(ValueId, ValueId)> {
        let [left, right] = self.binary(product, Binary::Mul)?;
        let dims = |value: ValueId| self.graph.values[value].dims.as_slice();
        let constant = |value: ValueId| self.graph.values[value].constant;
        let (rest, factors) = match (constant(left), constant(right)) {
            (false, true) => (left, right),
            (true, false) => (right, left),
            _ => return None,
        };
        let &[.., heads, _, _] = dims(rest) else { return None };
        let for_heads = match dims(factors) {
            [own, 1, 1] | [1, own, 1, 1] => *own == heads,
            _ => false,
        };
        for_heads.then_some((rest, factors))
    }

    /// The input of a normalization.
    fn normalized(&self, value: ValueId) -> Option<ValueId> {
        let node = self.producer(value)?;
        (node.operation == Operation::Normalize).then(|| node.inputs.first().copied()).flatten()
    }

    /// `x / max(sqrt(sum(x^2)), tiny)` over the last dimension, with `node` as the quotient.
    pub(super) fn normalize(&self, node: &Node) -> Option<Found> {
        let (Operation::Binary(Binary::Div), &[x, mut length]) =
            (&node.operation, &node.inputs[..])
        else {
            return None;
        };
        if let Some(expand) = self.producer(length).filter(|p| p.operation == Operation::Expand) {
            length = expand.inputs[0];
        }
        let root = self.at_least_tiny(length)?;
        let sum = self.producer(self.function(root, Function::Sqrt)?)?;
        let last = self.graph.values[x].dims.len().checked_sub(1)?;
        let sums = matches!(&sum.operation, Operation::Reduce { reduction: Reduction::Sum, axes, keep: true }
            if axes[..] == [last]);
        let same = self.square_of(*sum.inputs.first()?) == Some(x);
        (sums && same).then(|| Found::new(Operation::Normalize, vec![x])).flatten()
    }

    /// The value of which this is the maximum with a tiny number.
    fn at_least_tiny(&self, value: ValueId) -> Option<ValueId> {
        let tiny = |number: f64| number > 0.0 && number <= 1e-6;
        if let Some([left, right]) = self.binary(value, Binary::Max) {
            return self.scalar(right).is_some_and(tiny).then_some(left);
        }
        let node = self.producer(value)?;
        match node.operation {
            Operation::Apply(Function::Clip { min, max }) if tiny(min) && max.is_infinite() => {
                node.inputs.first().copied()
            }
            _ => None,
        }
    }

    /// `x cos + rotated(x) sin`, where the halves of the last dimension are exchanged and the second one is negated.
    pub(super) fn rotary(&self, node: &Node) -> Option<Found> {
        if node.operation != Operation::Binary(Binary::Add) {
            return None;
        }
        let [left, right] = self.binary(node.output, Binary::Add)?;
        [(left, right), (right, left)].into_iter().find_map(|(plain, turned)| {
            let x = self.times_constant(plain)?;
            let rotated = self.times_constant(turned)?;
            let concat = self.producer(rotated)?;
            let (&Operation::Concat { axis }, &[first, second]) =
                (&concat.operation, &concat.inputs[..])
            else {
                return None;
            };
            let last = self.graph.values[x].dims.len().checked_sub(1)?;
            let half = self.graph.values[x].dims[last] / 2;
            let part = |value: ValueId, from: u64| {
                let node = self.producer(value)?;
                let wanted = Operation::Slice { axis: last, start: from, step: 1 };
                (node.operation == wanted && node.inputs == [x]).then_some(())
            };
            part(self.function(first, Function::Negate)?, half)?;
            part(second, 0).filter(|()| axis == last)?;
            Found::new(Operation::Rotary, vec![x])
        })
    }

    /// The computed factor of a product with a constant.
    fn times_constant(&self, value: ValueId) -> Option<ValueId> {
        let [left, right] = self.binary(value, Binary::Mul)?;
        match (self.graph.values[left].constant, self.graph.values[right].constant) {
            (false, true) => Some(left),
            (true, false) => Some(right),
            _ => None,
        }
    }
}

//! Finds what exporters take apart: activations, norms and attention that a file has as several operations.

mod attention;
mod heads;
mod norms;

use crate::graph::{Binary, Function, Graph, Node, Operation, ValueId};

/// The graph with the parts found, and without what does not lead to its first output; and the layers whose outputs were
/// put into another order.
pub(crate) fn simplify(mut graph: Graph) -> (Graph, Vec<String>) {
    graph.outputs.truncate(1);
    let mut producers = vec![None; graph.values.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        producers[node.output] = Some(index);
    }
    for index in 0..graph.nodes.len() {
        // A node that was found can be a part of the next pattern.
        let found = Finder { graph: &graph, producers: &producers }.at(&graph.nodes[index]);
        if let Some(found) = found {
            found.replace(&mut graph, index);
            producers.resize(graph.values.len(), None);
        }
    }
    let nodes = std::mem::take(&mut graph.nodes);
    graph.nodes = inserted(nodes);
    let reordered = heads::together(&mut graph);
    let nodes = std::mem::take(&mut graph.nodes);
    graph.nodes = inserted(nodes);
    prune(&mut graph);
    (graph, reordered)
}

/// A node in place of another, with permutations of some of its inputs.
struct Found {
    operation: Operation,
    inputs: Vec<ValueId>,
    /// Inputs, by index, whose dimensions are put into another order first.
    permuted: Vec<(usize, Vec<usize>)>,
}

impl Found {
    fn new(operation: Operation, inputs: Vec<ValueId>) -> Option<Found> {
        Some(Found { operation, inputs, permuted: vec![] })
    }

    fn replace(mut self, graph: &mut Graph, index: usize) {
        for (input, order) in std::mem::take(&mut self.permuted) {
            let value = graph.values[self.inputs[input]].clone();
            let dims = order.iter().map(|&from| value.dims[from]).collect();
            let output = graph.values.len();
            graph.values.push(crate::graph::Value { dims, numbers: None, formula: None, ..value });
            graph.nodes.push(Node {
                place: graph.nodes[index].place.clone(),
                operator: graph.nodes[index].operator.clone(),
                operation: Operation::Permute { order },
                inputs: vec![self.inputs[input]],
                output,
            });
            self.inputs[input] = output;
        }
        graph.nodes[index].operation = self.operation;
        graph.nodes[index].inputs = self.inputs;
    }
}

/// Nodes in an order in which they can run: new ones were added at the end, and move before their readers.
fn inserted(nodes: Vec<Node>) -> Vec<Node> {
    let mut producers = vec![None; nodes.iter().map(|node| node.output + 1).max().unwrap_or(0)];
    for (index, node) in nodes.iter().enumerate() {
        producers[node.output] = Some(index);
    }
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(nodes.len());
    for index in 0..nodes.len() {
        let mut waiting = vec![index];
        while let Some(&next) = waiting.last() {
            let late = |&input: &ValueId| {
                let producer = producers.get(input).copied().flatten()?;
                nodes[producer].is_some().then_some(producer)
            };
            match nodes[next].as_ref().and_then(|node| node.inputs.iter().find_map(late)) {
                Some(producer) => waiting.push(producer),
                None => {
                    ordered.extend(nodes[next].take());
                    waiting.pop();
                }
            }
        }
    }
    ordered
}

/// Drops the nodes that do not lead to an output.
fn prune(graph: &mut Graph) {
    let mut used = vec![false; graph.values.len()];
    graph.outputs.iter().for_each(|&output| used[output] = true);
    for node in graph.nodes.iter().rev() {
        if used[node.output] {
            node.inputs.iter().for_each(|&input| used[input] = true);
        }
    }
    graph.nodes.retain(|node| used[node.output]);
    if graph.inputs.iter().any(|&input| used[input]) {
        graph.inputs.retain(|&input| used[input]);
    }
}

/// A graph with the producers of its values.
struct Finder<'a> {
    graph: &'a Graph,
    producers: &'a [Option<usize>],
}

impl<'a> Finder<'a> {
    /// The operation of which a node is the last part.
    fn at(&self, node: &Node) -> Option<Found> {
        self.activation(node)
            .or_else(|| self.norm(node))
            .or_else(|| self.group_norm(node))
            .or_else(|| self.normalize(node))
            .or_else(|| self.response_norm(node))
            .or_else(|| self.rotary(node))
            .or_else(|| self.attention(node))
    }

    /// The node that computes a value.
    fn producer(&self, value: ValueId) -> Option<&'a Node> {
        self.producers[value].map(|index| &self.graph.nodes[index])
    }

    /// A constant of one element.
    fn scalar(&self, value: ValueId) -> Option<f64> {
        let value = &self.graph.values[value];
        match value.numbers.as_deref() {
            Some(&[number]) if value.constant => Some(number),
            _ => None,
        }
    }

    fn is_number(&self, value: ValueId, number: f64) -> bool {
        self.scalar(value).is_some_and(|found| (found - number).abs() <= 1e-4 * number.abs())
    }

    /// The inputs of a function of two values.
    fn binary(&self, value: ValueId, wanted: Binary) -> Option<[ValueId; 2]> {
        let node = self.producer(value)?;
        match (&node.operation, &node.inputs[..]) {
            (Operation::Binary(binary), &[left, right]) if *binary == wanted => Some([left, right]),
            _ => None,
        }
    }

    /// The input of a function of one value.
    fn function(&self, value: ValueId, wanted: Function) -> Option<ValueId> {
        let node = self.producer(value)?;
        (node.operation == Operation::Apply(wanted)).then(|| node.inputs.first().copied()).flatten()
    }

    /// A value as another one times a number: `(x, 0.5)` for `x * 0.5` and `x / 2`.
    fn factored(&self, mut value: ValueId) -> (ValueId, f64) {
        let mut factor = 1.0;
        loop {
            if let Some([left, right]) = self.binary(value, Binary::Mul) {
                if let Some(number) = self.scalar(right) {
                    (value, factor) = (left, factor * number);
                    continue;
                }
                if let Some(number) = self.scalar(left) {
                    (value, factor) = (right, factor * number);
                    continue;
                }
            }
            if let Some([left, right]) = self.binary(value, Binary::Div)
                && let Some(number) = self.scalar(right)
            {
                (value, factor) = (left, factor / number);
                continue;
            }
            return (value, factor);
        }
    }

    /// `x` of `x + number`.
    fn plus(&self, value: ValueId, number: f64) -> Option<ValueId> {
        let [left, right] = self.binary(value, Binary::Add)?;
        if self.is_number(right, number) {
            Some(left)
        } else {
            self.is_number(left, number).then_some(right)
        }
    }

    /// A product as its computed factors and one number.
    fn product(&self, value: ValueId) -> (Vec<ValueId>, f64) {
        let (inner, number) = self.factored(value);
        match self.binary(inner, Binary::Mul) {
            Some([left, right]) => {
                let (left, one) = self.factored(left);
                let (right, other) = self.factored(right);
                (vec![left, right], number * one * other)
            }
            None => (vec![inner], number),
        }
    }

    /// An activation that is written as arithmetic, with `node` as its last part.
    fn activation(&self, node: &Node) -> Option<Found> {
        if !matches!(node.operation, Operation::Binary(Binary::Mul | Binary::Div)) {
            return None;
        }
        let found = |function, x| Found::new(Operation::Apply(function), vec![x]);
        let is = |number: f64, wanted: f64| (number - wanted).abs() < 1e-4;
        let relu6 = Function::Clip { min: 0.0, max: 6.0 };
        let (factors, number) = self.product(node.output);
        let &[left, right] = &factors[..] else {
            let shifted = self.function(*factors.first()?, relu6)?;
            let x = self.plus(shifted, 3.0).filter(|_| is(number, 1.0 / 6.0))?;
            return found(Function::Hardsigmoid, x);
        };
        for (x, gate) in [(left, right), (right, left)] {
            if is(number, 1.0) {
                for (inner, whole) in [
                    (Function::Sigmoid, Function::Silu),
                    (Function::Hardsigmoid, Function::Hardswish),
                ] {
                    if self.function(gate, inner) == Some(x) {
                        return found(whole, x);
                    }
                }
                let soft = self.function(gate, Function::Tanh);
                if soft.and_then(|soft| self.function(soft, Function::Softplus)) == Some(x) {
                    return found(Function::Mish, x);
                }
            }
            let shifted = self.function(gate, relu6).and_then(|shifted| self.plus(shifted, 3.0));
            if is(number, 1.0 / 6.0) && shifted == Some(x) {
                return found(Function::Hardswish, x);
            }
            if is(number, 0.5)
                && let Some(curve) = self.plus(gate, 1.0)
            {
                let erf = self.function(curve, Function::Erf).map(|inner| self.factored(inner));
                if erf.is_some_and(|(inner, factor)| inner == x && is(factor, 0.5f64.sqrt())) {
                    return found(Function::Gelu, x);
                }
                let tanh = self.function(curve, Function::Tanh);
                if tanh.is_some_and(|inner| self.is_tanh_curve(inner, x)) {
                    return found(Function::GeluTanh, x);
                }
            }
        }
        None
    }

    /// Whether a value is `sqrt(2 / pi) * (x + 0.044715 * x^3)`.
    fn is_tanh_curve(&self, value: ValueId, x: ValueId) -> bool {
        let (sum, factor) = self.factored(value);
        let root = (2.0 / std::f64::consts::PI).sqrt();
        let Some([left, right]) = self.binary(sum, Binary::Add) else { return false };
        let cube = |value: ValueId| {
            let (cube, factor) = self.factored(value);
            let power = self.binary(cube, Binary::Pow);
            let is_power = power.is_some_and(|[base, by]| base == x && self.is_number(by, 3.0));
            let is_product = self.binary(cube, Binary::Mul).is_some_and(|[one, other]| {
                let square = |value| self.binary(value, Binary::Mul) == Some([x, x]);
                (one == x && square(other)) || (other == x && square(one))
            });
            (factor - 0.044_715).abs() < 1e-5 && (is_power || is_product)
        };
        (factor - root).abs() < 1e-4 && ((left == x && cube(right)) || (right == x && cube(left)))
    }
}

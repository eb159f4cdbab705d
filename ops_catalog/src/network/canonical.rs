//! One canonical text for all spellings of a network.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::order::post_order;
use super::{Merge, NetworkPlan, PlanStep, Value};
use crate::key::Shape;
use crate::op::OpDigest;

type Hash = [u8; 32];

/// A step of the canonical text.
#[derive(Serialize)]
struct Line<'a> {
    op: &'a OpDigest,
    shape: Shape,
    merge: Option<Merge>,
    /// Lines before this one; -1 is the network's input.
    inputs: Vec<i64>,
}

impl NetworkPlan {
    /// A text of the network's computation: its input, and its ops by digest, with shapes and wires. It does not
    /// contain names and does not depend on the form of the definition, nor on the order of nodes or of inputs that are added
    /// or multiplied.
    ///
    /// Networks with one text are equal. Two spellings of one network have one text, except if nodes have equal
    /// surroundings, near and far, but are wired differently.
    pub fn canonical(&self) -> String {
        let mut inputs = self.joined_merges();
        let ranks = self.ranks(&inputs);
        for (step, inputs) in self.steps.iter().zip(&mut inputs) {
            if commutes(step) {
                inputs.sort_by_key(|&input| rank(&ranks, input));
            }
        }
        let wires: Vec<&[Value]> = inputs.iter().map(Vec::as_slice).collect();
        let order = post_order(&wires, self.steps.len() - 1)
            .expect("a plan's steps stand after what they read");
        let mut places = vec![0; self.steps.len()];
        for (place, &step) in (0..).zip(&order) {
            places[step] = place;
        }
        let line = |&index: &usize| {
            let step = &self.steps[index];
            let mut inputs: Vec<i64> = inputs[index]
                .iter()
                .map(|&input| match input {
                    Value::Input => -1,
                    Value::Of(step) => places[step],
                })
                .collect();
            if commutes(step) {
                inputs.sort_unstable();
            }
            Line { op: step.op.digest(), shape: step.key.shape, merge: step.merge, inputs }
        };
        let lines: Vec<Line> = order.iter().map(line).collect();
        serde_json::to_string(&(self.input, lines)).expect("plain data serializes to JSON")
    }

    /// The inputs of each step. A plan adds several values by a chain of additions; here the chain becomes one
    /// addition. The same holds for products.
    fn joined_merges(&self) -> Vec<Vec<Value>> {
        let mut inputs: Vec<Vec<Value>> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let read = step.inputs.iter().flat_map(|&input| match input {
                Value::Of(other) if alike(step, &self.steps[other]) => inputs[other].clone(),
                input => vec![input],
            });
            let read = read.collect();
            inputs.push(read);
        }
        inputs
    }

    /// A hash of the surroundings of each step: all steps that lead to it, and all steps to which it leads.
    fn ranks(&self, inputs: &[Vec<Value>]) -> Vec<Hash> {
        let mut ranks: Vec<Hash> = Vec::with_capacity(self.steps.len());
        for (step, inputs) in self.steps.iter().zip(inputs) {
            let read = inputs.iter().map(|&input| rank(&ranks, input)).collect();
            let label = serde_json::to_string(&(step.op.digest(), step.key.shape, step.merge))
                .expect("plain data serializes to JSON");
            ranks.push(hash(label.as_bytes(), sorted_if_commuting(step, read)));
        }
        // An addition that became part of a larger one is read by nothing, and reads nothing.
        let mut joined = vec![true; self.steps.len()];
        for &input in inputs.iter().flatten() {
            if let Value::Of(input) = input {
                joined[input] = false;
            }
        }
        let last = self.steps.len() - 1;
        let mut readers: Vec<Vec<Hash>> = vec![vec![]; self.steps.len()];
        for (index, step) in self.steps.iter().enumerate().rev() {
            if joined[index] && index != last {
                continue;
            }
            let mut read_by = std::mem::take(&mut readers[index]);
            read_by.sort_unstable();
            ranks[index] = hash(&ranks[index], read_by);
            for (position, &input) in (0u64..).zip(&inputs[index]) {
                if let Value::Of(input) = input {
                    let position = if commutes(step) { 0 } else { position };
                    readers[input].push(hash(&position.to_be_bytes(), vec![ranks[index]]));
                }
            }
        }
        ranks
    }
}

/// Whether the order of its inputs makes no difference.
fn commutes(step: &PlanStep) -> bool {
    matches!(step.merge, Some(Merge::Add | Merge::Mul))
}

/// Whether both add, or both multiply.
fn alike(step: &PlanStep, other: &PlanStep) -> bool {
    commutes(step) && step.merge == other.merge
}

fn rank(ranks: &[Hash], value: Value) -> Hash {
    match value {
        Value::Input => [0; 32],
        Value::Of(step) => ranks[step],
    }
}

fn sorted_if_commuting(step: &PlanStep, mut hashes: Vec<Hash>) -> Vec<Hash> {
    if commutes(step) {
        hashes.sort_unstable();
    }
    hashes
}

fn hash(label: &[u8], parts: Vec<Hash>) -> Hash {
    let mut hasher = Sha256::new_with_prefix(label);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use crate::{Catalog, Network, NetworkSpec};

    fn canonical(nodes: &str, output: usize) -> String {
        let text = format!(
            "{{input: {{n: 1, c: 8, h: 8, w: 8}}, output: {output}, nodes: [{}]}}",
            nodes.replace("OP", "c_out: 8, stride: 1, op")
        );
        let spec = NetworkSpec::from_yaml(&text).unwrap();
        let catalog = Catalog::builtin();
        Network::new(&spec, catalog).unwrap().plan(catalog).unwrap().canonical()
    }

    /// Three branches that are added, and the sum of two of them.
    #[test]
    fn the_order_of_nodes_and_of_added_inputs_makes_no_difference() {
        let one = canonical(
            "{OP: Conv1x1, inputs: [-1]}, {OP: Conv3x3, inputs: [-1]}, {OP: Conv5x5, inputs: [0]},
             {OP: Identity, inputs: [0, 1, 2]}, {OP: ReLU, inputs: [3, 1]}",
            4,
        );
        let other = canonical(
            "{OP: ReLU, inputs: [2, 1]}, {OP: Conv3x3, inputs: [-1]},
             {OP: Identity, inputs: [4, 1, 3]}, {OP: Conv1x1, inputs: [-1]}, {OP: Conv5x5, inputs: [3]}",
            0,
        );
        assert_eq!(one, other);
    }

    /// A plan adds three values in two steps, and every order gives other steps.
    #[test]
    fn three_values_are_added_in_any_order() {
        let sum = |inputs: &str| {
            canonical(
                &format!(
                    "{{OP: Conv1x1, inputs: [-1]}}, {{OP: Conv3x3, inputs: [-1]}}, {{OP: Conv5x5, inputs: [-1]}},
                     {{OP: Identity, inputs: [{inputs}]}}"
                ),
                3,
            )
        };
        let orders = ["0, 1, 2", "0, 2, 1", "1, 0, 2", "1, 2, 0", "2, 0, 1", "2, 1, 0"];
        for order in orders {
            assert_eq!(sum(order), sum("0, 1, 2"), "{order}");
        }
        assert_ne!(sum("0, 1, 1, 2"), sum("0, 1, 2"));
    }

    #[test]
    fn what_is_computed_makes_a_difference() {
        let merge = |nodes: &str| canonical(nodes, 3);
        let nodes = |inputs: &str, merge: &str, last: &str| {
            let channels = if merge == "add" { 8 } else { 16 };
            format!(
                "{{OP: Conv1x1, inputs: [-1]}}, {{OP: Conv1x1, inputs: [-1]}},
                 {{OP: Conv3x3, inputs: [0]}},
                 {{op: {last}, c_out: {channels}, stride: 1, inputs: {inputs}, merge: {merge}}}"
            )
        };
        let added = merge(&nodes("[1, 2]", "add", "Identity"));
        assert_eq!(added, merge(&nodes("[2, 1]", "add", "Identity")));
        assert_ne!(
            merge(&nodes("[1, 2]", "concat", "Identity")),
            merge(&nodes("[2, 1]", "concat", "Identity"))
        );
        assert_ne!(added, merge(&nodes("[1, 2]", "add", "ReLU")));
        // A value that is read twice differs from two values with equal definitions.
        let twice = canonical("{OP: Conv1x1, inputs: [-1]}, {OP: ReLU, inputs: [0, 0]}", 1);
        let two = canonical(
            "{OP: Conv1x1, inputs: [-1]}, {OP: Conv1x1, inputs: [-1]}, {OP: ReLU, inputs: [0, 1]}",
            2,
        );
        assert_ne!(twice, two);
    }

    #[test]
    fn the_order_of_multiplied_inputs_makes_no_difference() {
        let product = |inputs: &str, merge: &str| {
            canonical(
                &format!(
                    "{{OP: Conv1x1, inputs: [-1]}}, {{OP: Sigmoid, inputs: [0]}},
                     {{OP: Identity, inputs: {inputs}, merge: {merge}}}"
                ),
                2,
            )
        };
        assert_eq!(product("[0, 1, -1]", "mul"), product("[-1, 0, 1]", "mul"));
        assert_ne!(product("[0, 1]", "mul"), product("[0, 1]", "add"));
    }

    /// Two nodes with the same computation are distinguished by their readers.
    #[test]
    fn alike_nodes_are_ordered_by_their_readers() {
        let nodes = |first: usize, second: usize| {
            canonical(
                &format!(
                    "{{OP: Conv1x1, inputs: [-1]}}, {{OP: Conv1x1, inputs: [-1]}},
                     {{OP: ReLU, inputs: [{first}]}}, {{OP: Identity, inputs: [{first}, {second}]}},
                     {{OP: Identity, inputs: [2, 3]}}"
                ),
                4,
            )
        };
        assert_eq!(nodes(0, 1), nodes(1, 0));
    }
}

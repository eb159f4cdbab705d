//! The order in which the nodes of a graph can run.

use super::{NetworkNode, Value};
use crate::Invalid;

/// A node that depends on itself.
#[derive(Debug)]
pub(crate) struct Cycle {
    /// The node whose input closes the cycle.
    node: usize,
    /// That input.
    input: usize,
}

/// The nodes that lead to the output, each after its inputs, so the output is last. The walk starts at the output, goes
/// depth first, and takes the inputs of a node in their order.
pub(crate) fn post_order(inputs: &[&[Value]], output: usize) -> Result<Vec<usize>, Cycle> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; inputs.len()];
    let mut order = Vec::with_capacity(inputs.len());
    // Each entry is a node and the number of its inputs that have been walked. A list instead of recursion, because a
    // network can be as deep as it is long.
    let mut path = vec![(output, 0)];
    states[output] = State::Open;
    while let Some((node, walked)) = path.last_mut() {
        let node = *node;
        let Some(input) = inputs[node].get(*walked) else {
            states[node] = State::Done;
            order.push(node);
            path.pop();
            continue;
        };
        *walked += 1;
        let Value::Of(input) = *input else { continue };
        match states[input] {
            State::Done => {}
            State::Open => return Err(Cycle { node, input }),
            State::New => {
                states[input] = State::Open;
                path.push((input, 0));
            }
        }
    }
    Ok(order)
}

/// Sorts nodes so that each follows its inputs, with the output last.
pub(super) fn in_running_order(
    nodes: Vec<NetworkNode>,
    output: usize,
) -> Result<Vec<NetworkNode>, Invalid> {
    let inputs: Vec<&[Value]> = nodes.iter().map(|node| node.inputs.as_slice()).collect();
    let order = post_order(&inputs, output).map_err(|Cycle { node, input }| {
        Invalid::new(
            format!("nodes[{node}].inputs"),
            format!("closes a cycle: node {input} depends on node {node}"),
        )
    })?;
    let mut position = vec![None; nodes.len()];
    for (place, &index) in order.iter().enumerate() {
        position[index] = Some(place);
    }
    if let Some(dead) = position.iter().position(Option::is_none) {
        return Err(Invalid::new(
            format!("nodes[{dead}]"),
            "does not lead to the output: remove it, or connect it",
        ));
    }
    let mut sorted: Vec<(Option<usize>, NetworkNode)> =
        position.iter().copied().zip(nodes).collect();
    sorted.sort_unstable_by_key(|(place, _)| *place);
    let renumbered = |mut node: NetworkNode| {
        for input in &mut node.inputs {
            if let Value::Of(index) = *input {
                *input = Value::Of(position[index].expect("every node leads to the output"));
            }
        }
        node
    };
    Ok(sorted.into_iter().map(|(_, node)| renumbered(node)).collect())
}

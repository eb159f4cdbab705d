//! The order in which the nodes of a graph can run.

use super::{NetworkNode, Value};
use crate::Invalid;

/// Sorts nodes so that each stands after what it reads, with the output last.
///
/// The walk starts at the output and goes depth first, so what is never reached does not lead there.
pub(super) fn in_running_order(
    nodes: Vec<NetworkNode>,
    output: usize,
) -> Result<Vec<NetworkNode>, Invalid> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    // Each entry is a node and how many of its inputs have been walked; a list instead of recursion,
    // since a network may be as deep as it is long.
    let mut path = vec![(output, 0)];
    states[output] = State::Open;
    while let Some((index, walked)) = path.last_mut() {
        let index = *index;
        match nodes[index].inputs.get(*walked) {
            None => {
                states[index] = State::Done;
                order.push(index);
                path.pop();
            }
            Some(input) => {
                *walked += 1;
                let Value::Of(input) = *input else { continue };
                match states[input] {
                    State::Done => {}
                    State::Open => {
                        return Err(Invalid::new(
                            format!("nodes[{index}].inputs"),
                            format!("closes a cycle: node {input} depends on node {index}"),
                        ));
                    }
                    State::New => {
                        states[input] = State::Open;
                        path.push((input, 0));
                    }
                }
            }
        }
    }
    if let Some(dead) = states.iter().position(|&state| state == State::New) {
        return Err(Invalid::new(
            format!("nodes[{dead}]"),
            "does not lead to the output: remove it, or connect it",
        ));
    }
    let mut position = vec![0; nodes.len()];
    for (place, &index) in order.iter().enumerate() {
        position[index] = place;
    }
    let mut sorted: Vec<(usize, NetworkNode)> = nodes.into_iter().enumerate().collect();
    sorted.sort_unstable_by_key(|(index, _)| position[*index]);
    Ok(sorted
        .into_iter()
        .map(|(_, mut node)| {
            for input in &mut node.inputs {
                if let Value::Of(index) = input {
                    *index = position[*index];
                }
            }
            node
        })
        .collect())
}

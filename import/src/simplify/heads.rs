//! Queries, keys and values that stand together for each head, as LeViT and EfficientFormer have them.
//!
//! Their layer gives `[..., heads * size]`, and each head is cut into parts. The catalog cuts channels into parts that
//! stand together for all heads. Both are the same layer with its outputs in another order.

use std::sync::Arc;

use crate::fold::OnConstants;
use crate::formula::Formula;
use crate::graph::{Binary, Graph, Node, Operation, Value, ValueId};

/// A layer whose output is read as heads, each of which is cut.
struct Cut {
    /// The layer, and what belongs to it: a bias that is added, a batch norm.
    layers: Vec<usize>,
    /// Its output with the heads apart, by node: a reshape, and a permutation or none.
    reshape: usize,
    permute: Option<usize>,
    /// The parts, by node.
    slices: Vec<usize>,
    /// The first channel of a head that each part has, and their number.
    parts: Vec<(u64, u64)>,
}

/// Puts the outputs of such layers into the order in which parts stand together, and says which layers they are.
pub(super) fn together(graph: &mut Graph) -> Vec<String> {
    let mut producers = vec![None; graph.values.len()];
    let mut readers = vec![vec![]; graph.values.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        producers[node.output] = Some(index);
        node.inputs.iter().for_each(|&input| readers[input].push(index));
    }
    let cuts: Vec<Cut> = (0..graph.nodes.len())
        .filter_map(|index| cut(graph, index, &producers, &readers))
        .collect();
    let layer = |cut: &Cut| cut.layers.last().map(|&layer| graph.nodes[layer].place.clone());
    let places = cuts.iter().filter_map(layer).collect();
    for cut in cuts {
        reorder(graph, &cut);
    }
    places
}

/// The layer whose heads a node cuts, if the node is the first that does.
fn cut(
    graph: &Graph,
    index: usize,
    producers: &[Option<usize>],
    readers: &[Vec<usize>],
) -> Option<Cut> {
    let producer = |value: ValueId| producers[value].map(|at| (at, &graph.nodes[at]));
    let only = |value: ValueId, reader: usize| readers[value] == [reader];
    let cuts_heads = |at: &usize| {
        let node = &graph.nodes[*at];
        let last = graph.values[node.inputs[0]].dims.len().checked_sub(1);
        matches!(node.operation, Operation::Slice { axis, step: 1, .. } if Some(axis) == last)
    };
    let value = *graph.nodes[index].inputs.first()?;
    let slices = readers[value].clone();
    if slices.first() != Some(&index) || slices.len() < 2 || !slices.iter().all(cuts_heads) {
        return None;
    }
    let (mut at, mut node) = producer(value)?;
    let mut permute = None;
    if let Operation::Permute { order } = &node.operation {
        if order.last() != Some(&(order.len() - 1)) {
            return None;
        }
        permute = Some(at);
        (at, node) = producer(node.inputs[0]).filter(|(_, node)| only(node.output, at))?;
    }
    let (reshape, whole) = (at, &graph.values[node.output].dims);
    let value = *node.inputs.first()?;
    let &[.., heads, size] = whole.as_slice() else { return None };
    let width = *graph.values[value].dims.last()?;
    if node.operation != Operation::Reshape || heads < 2 || heads * size != width {
        return None;
    }
    let layers = layers(graph, (value, reshape), producers, readers)?;
    let part = |&slice: &usize| {
        let node = &graph.nodes[slice];
        let length = graph.values[node.output].dims.last().copied().unwrap_or(1);
        match node.operation {
            Operation::Slice { start, .. } => (start, length),
            _ => (0, length),
        }
    };
    let parts: Vec<(u64, u64)> = slices.iter().map(part).collect();
    let overlap =
        |one: &(u64, u64), other: &(u64, u64)| one.0 < other.0 + other.1 && other.0 < one.0 + one.1;
    let apart = (0..parts.len()).all(|i| parts[..i].iter().all(|other| !overlap(&parts[i], other)));
    apart.then_some(Cut { layers, reshape, permute, slices, parts })
}

/// The linear layer that gives a value, after what belongs to it, if only `reader` reads the value.
fn layers(
    graph: &Graph,
    (mut value, mut reader): (ValueId, usize),
    producers: &[Option<usize>],
    readers: &[Vec<usize>],
) -> Option<Vec<usize>> {
    let width = *graph.values[value].dims.last()?;
    let mut layers = vec![];
    loop {
        let at = producers[value].filter(|_| readers[value] == [reader])?;
        let node = &graph.nodes[at];
        let constant = |&id: &ValueId| graph.values[id].constant;
        let dims = |id: ValueId| graph.values[id].dims.as_slice();
        let before = match (&node.operation, &node.inputs[..]) {
            (Operation::Linear { .. }, _) => {
                layers.push(at);
                return Some(layers);
            }
            // As rows, for the norm.
            (Operation::Reshape, &[x]) if dims(x).last() == Some(&width) => x,
            (Operation::Binary(Binary::Add), &[left, right]) => {
                let (x, bias) = if constant(&right) { (left, right) } else { (right, left) };
                if !constant(&bias) || dims(bias) != [width] {
                    return None;
                }
                layers.push(at);
                x
            }
            (Operation::BatchNorm { .. }, &[x, ..]) if dims(x).len() == 2 => {
                layers.push(at);
                x
            }
            _ => return None,
        };
        (value, reader) = (before, at);
    }
}

fn reorder(graph: &mut Graph, cut: &Cut) {
    let value = |graph: &mut Graph, like: ValueId, dims: Vec<u64>| {
        let value = Value { dims, numbers: None, ..graph.values[like].clone() };
        graph.values.push(value);
        graph.values.len() - 1
    };
    let layer = graph.nodes[cut.reshape].inputs[0];
    let flat = graph.values[layer].dims.clone();
    let apart = graph.values[graph.nodes[cut.reshape].output].dims.clone();
    let heads = apart[apart.len() - 2];
    for &slice in &cut.slices {
        let node = graph.nodes[slice].clone();
        let Operation::Slice { start, .. } = node.operation else { continue };
        let length = graph.values[node.output].dims.last().copied().unwrap_or(1);
        let with_last = |dims: &[u64], last: u64| {
            let mut dims = dims.to_vec();
            dims.pop();
            dims.push(last);
            dims
        };
        // The part of all heads, then the heads apart, then their order.
        let part = value(graph, layer, with_last(&flat, heads * length));
        let operation = Operation::Slice { axis: flat.len() - 1, start: heads * start, step: 1 };
        graph.nodes.push(Node { operation, inputs: vec![layer], output: part, ..node.clone() });
        let last = match cut.permute {
            None => Node { operation: Operation::Reshape, inputs: vec![part], ..node },
            Some(permute) => {
                let split = value(graph, layer, with_last(&apart, length));
                graph.nodes.push(Node {
                    operation: Operation::Reshape,
                    inputs: vec![part],
                    output: split,
                    ..node.clone()
                });
                let operation = graph.nodes[permute].operation.clone();
                Node { operation, inputs: vec![split], ..node }
            }
        };
        graph.nodes[slice] = last;
    }
    // Its weights are stored in the other order.
    let order = order(graph, cut, heads);
    for &layer in &cut.layers {
        let axis = match graph.nodes[layer].operation {
            Operation::Linear { transposed: false } => 1,
            _ => 0,
        };
        for place in 0..graph.nodes[layer].inputs.len() {
            let stored = graph.nodes[layer].inputs[place];
            if graph.values[stored].constant {
                let dims = graph.values[stored].dims.clone();
                let axis = axis.min(dims.len() - 1);
                let formula = graph.values[stored].formula.clone().and_then(|formula| {
                    let order = Formula::numbers(Arc::clone(&order), &[order.len() as u64]);
                    Formula::on_constants(&OnConstants::Gather(axis), vec![formula, order], &dims)
                });
                let reordered = value(graph, stored, dims);
                graph.values[reordered].formula = formula;
                graph.nodes[layer].inputs[place] = reordered;
            }
        }
    }
}

/// Where each output of the layers was before: part by part, and head by head in each.
fn order(graph: &Graph, cut: &Cut, heads: u64) -> Arc<[f64]> {
    let apart = &graph.values[graph.nodes[cut.reshape].output].dims;
    let size = apart[apart.len() - 1];
    let mut parts: Vec<(u64, u64)> = cut.parts.clone();
    parts.sort_unstable();
    // What no part has comes last.
    let rest = (0..size)
        .filter(|at| !parts.iter().any(|(start, length)| (*start..start + length).contains(at)));
    let rest: Vec<(u64, u64)> = rest.map(|at| (at, 1)).collect();
    let all = parts.iter().chain(&rest);
    let places = all.flat_map(|&(start, length)| {
        (0..heads).flat_map(move |head| (start..start + length).map(move |at| head * size + at))
    });
    places.map(|place| place as f64).collect()
}

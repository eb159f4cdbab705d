//! The input of a model.

use ops_catalog::{Input, TensorShape};

use super::{Placed, problem};
use crate::flat::{Flat, Problem, Source};
use crate::graph::{Graph, Kind, Operation, ValueId};
use crate::view::{Axis, Digits, whole};

/// The model's input as a map: numbers of rows of a table, a sequence and a picture all have that form in a network.
pub(super) fn model_input(graph: &Graph) -> Result<(ValueId, TensorShape, Placed), Problem> {
    let [id] = graph.inputs[..] else {
        let why = format!(
            "the model has {} inputs, and a network has one: export it with the others as constants",
            graph.inputs.len()
        );
        return Err(problem("the input", "input", &why));
    };
    let value = &graph.values[id];
    let refused = |why: &str| Err(problem(&value.name, "input", why));
    let small = |size: u64| u32::try_from(size).ok().filter(|&size| size > 0);
    let Some(sizes) = value.dims.iter().map(|&size| small(size)).collect::<Option<Vec<u32>>>()
    else {
        return refused(&format!("its shape {:?} is empty or too large", value.dims));
    };
    let map = |n, c, h, w| TensorShape::Map { n, c, h, w };
    // Exporters put a dimension in front of a map without a batch.
    let batched = [&[1], &value.dims[..]].concat();
    let is_batched = graph.nodes.iter().any(|node| {
        node.operation == Operation::Reshape
            && node.inputs == [id]
            && graph.values[node.output].dims == batched
    });
    let (shape, digits) = match (&sizes[..], value.kind) {
        // One picture of one channel: its first dimension is the batch or the channel.
        (&[1, h, w], Kind::Float) if is_batched => {
            let digits = [whole(Axis::Rows, h.into()), whole(Axis::Columns, w.into())];
            (map(1, 1, h, w), Digits([&[vec![]], &digits[..]].concat()))
        }
        (&[first, ..], Kind::Float) if is_batched && first > 1 => {
            return refused(&format!(
                "its shape {:?} has no batch dimension: export the model with one in front, as in {batched:?}",
                value.dims
            ));
        }
        (&[n, c, h, w], Kind::Float) => (map(n, c, h, w), Digits::natural(map(n, c, h, w))),
        // Numbers of rows: a map of one channel and width 1.
        (&[n, l], Kind::Integer) => {
            let batch = whole(Axis::Batch, n.into());
            (map(n, 1, l, 1), Digits(vec![batch, whole(Axis::Rows, l.into())]))
        }
        (&[n, c, l], Kind::Float) => {
            let [batch, channels] =
                [(Axis::Batch, n), (Axis::Channels, c)].map(|(a, s)| whole(a, s.into()));
            (map(n, c, l, 1), Digits(vec![batch, channels, whole(Axis::Rows, l.into())]))
        }
        (&[n, c], Kind::Float) => {
            let batch = whole(Axis::Batch, n.into());
            (map(n, c, 1, 1), Digits(vec![batch, whole(Axis::Channels, c.into())]))
        }
        _ => {
            return refused(&format!(
                "its shape is {:?}, and a network's input is [n, c, h, w], [n, c, length], [n, c] or numbers \
                 [n, length], with the batch n in front: export the model with such an input",
                value.dims
            ));
        }
    };
    Ok((id, shape, Placed { source: Source::Input, digits, rolled: [0, 0] }))
}

/// The size of a network's input.
pub(crate) fn network_input(flat: &Flat) -> Option<Input> {
    match flat.input {
        TensorShape::Map { n, c, h, w } => Some(Input { n, c, h, w }),
        TensorShape::Tokens { .. } => None,
    }
}

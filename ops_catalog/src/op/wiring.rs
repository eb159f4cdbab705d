//! The wiring of a definition: the inputs of each node.

use std::collections::HashMap;
use std::sync::Arc;

use super::{MAX_NODES, Node, OpDef, Source};
use crate::Invalid;
use crate::error::shown;
use crate::primitive::Arity;

pub(super) fn node_label(index: usize, node: &Node) -> String {
    match &node.id {
        Some(id) => format!("node {index} `{}` ({})", shown(id), node.apply.name()),
        None => format!("node {index} ({})", node.apply.name()),
    }
}

/// The name of a node. It is unique, because an id has no `-`.
pub(super) fn node_name(index: usize, node: &Node) -> Arc<str> {
    match &node.id {
        Some(id) => id.as_str().into(),
        None => format!("{}-{index}", node.apply.name()).into(),
    }
}

/// Resolves every node's inputs.
pub(super) fn wire(def: &OpDef) -> Result<Vec<Vec<Source>>, Invalid> {
    let nodes = &def.nodes;
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        return Err(Invalid::new(
            "nodes",
            format!("there are {}; an op has between 1 and {MAX_NODES}", nodes.len()),
        ));
    }
    let ids: HashMap<&str, usize> = nodes
        .iter()
        .enumerate()
        .filter_map(|(index, node)| Some((node.id.as_deref()?, index)))
        .collect();
    let mut wiring = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let inputs = check_id(node, index, &ids)
            .and_then(|()| check_outputs(node))
            .and_then(|()| inputs(node, index, nodes, &ids))
            .map_err(|e| e.within(node_label(index, node)))?;
        wiring.push(inputs);
    }
    check_use(nodes, &wiring)?;
    Ok(wiring)
}

/// Checks that each node except the last is read by a later node, so all of them lead to the last.
fn check_use(nodes: &[Node], wiring: &[Vec<Source>]) -> Result<(), Invalid> {
    let last = nodes.len() - 1;
    for (index, node) in nodes.iter().enumerate().take(last) {
        let used = wiring
            .iter()
            .flatten()
            .any(|source| matches!(source, Source::Node { index: used, .. } if *used == index));
        if !used {
            return Err(Invalid::new(node_label(index, node), "nothing uses its output"));
        }
    }
    if nodes[last].apply.outputs() != 1 {
        return Err(Invalid::new(node_label(last, &nodes[last]), "an op has one output"));
    }
    Ok(())
}

fn check_outputs(node: &Node) -> Result<(), Invalid> {
    if !(1..=64).contains(&node.apply.outputs()) {
        return Err(Invalid::new("parts", "lies between 1 and 64"));
    }
    if node.when.is_some() && node.apply.outputs() != 1 {
        return Err(Invalid::new("when", "a split is always part of its op"));
    }
    Ok(())
}

fn inputs(
    node: &Node,
    index: usize,
    nodes: &[Node],
    ids: &HashMap<&str, usize>,
) -> Result<Vec<Source>, Invalid> {
    let inputs = match &node.inputs {
        Some(names) => names
            .iter()
            .map(|name| resolve(name, index, nodes, ids))
            .collect::<Result<Vec<_>, _>>()?,
        None => vec![previous(index, nodes)?],
    };
    let wanted = match node.apply.arity() {
        Arity::Exactly(count) if inputs.len() == count => return Ok(inputs),
        Arity::AtLeastTwo if (2..=64).contains(&inputs.len()) => return Ok(inputs),
        Arity::Exactly(1) => "one input".to_owned(),
        Arity::Exactly(count) => format!("{count} inputs"),
        Arity::AtLeastTwo => "between 2 and 64 inputs".to_owned(),
    };
    Err(Invalid::new("inputs", format!("takes {wanted}, and has {}", inputs.len())))
}

fn check_id(node: &Node, index: usize, ids: &HashMap<&str, usize>) -> Result<(), Invalid> {
    let Some(id) = node.id.as_deref() else { return Ok(()) };
    let plain = !id.is_empty()
        && id.len() <= 50
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !plain || id == "input" {
        return Err(Invalid::new(
            "id",
            "an id is letters, digits and `_`, at most 50, and not `input`",
        ));
    }
    if ids[id] != index {
        return Err(Invalid::new("id", format!("another node has the id `{id}` too")));
    }
    Ok(())
}

fn previous(index: usize, nodes: &[Node]) -> Result<Source, Invalid> {
    let Some(before) = index.checked_sub(1) else { return Ok(Source::Input) };
    if nodes[before].apply.outputs() != 1 {
        return Err(Invalid::new(
            "inputs",
            "the node before it is a split: say which part, as in `inputs: [id.0]`",
        ));
    }
    Ok(Source::Node { index: before, port: 0 })
}

fn resolve(
    name: &str,
    index: usize,
    nodes: &[Node],
    ids: &HashMap<&str, usize>,
) -> Result<Source, Invalid> {
    if name == "input" {
        return Ok(Source::Input);
    }
    let problem = |text: String| Err(Invalid::new("inputs", text));
    let (id, part) = name.split_once('.').map_or((name, None), |(id, part)| (id, Some(part)));
    let Some(&target) = ids.get(id) else {
        return problem(format!("no node has the id `{}`", shown(id)));
    };
    if target >= index {
        return problem(format!(
            "`{}` is not before this node; nodes stand in the order in which they run, so there \
             are no cycles",
            shown(id)
        ));
    }
    let outputs = nodes[target].apply.outputs();
    let port = match part {
        None if outputs == 1 => 0,
        None => return problem(format!("`{id}` is a split: say which part, as in `{id}.0`")),
        // A comparison as text, so each part has one spelling.
        Some(part) => match (0..outputs).find(|port| port.to_string() == part) {
            Some(port) => port,
            None => {
                return problem(format!(
                    "`{}`: `{id}` has {outputs} parts, from 0 on",
                    shown(name)
                ));
            }
        },
    };
    Ok(Source::Node { index: target, port })
}

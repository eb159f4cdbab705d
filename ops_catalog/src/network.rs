//! Networks: whole architectures, checked against a catalog, and their plans of op keys.

mod canonical;
mod order;
mod plan;

use std::sync::Arc;

use self::order::in_running_order;
pub(crate) use self::order::post_order;
pub use self::plan::{NetworkPlan, PlanStep};
pub(crate) use self::plan::{key_shape, merged};
use crate::error::shown;
use crate::key::Shape;
use crate::op::Op;
use crate::spec::{Input, LayerSpec, Merge, NetworkSpec, NodeSpec};
use crate::tensor::TensorShape;
use crate::{Catalog, Invalid};

/// The most nodes of one network.
const MAX_NETWORK_NODES: usize = 10_000;

/// The most inputs of all nodes of a graph in total: each input of a node beyond its first adds one addition.
const MAX_NETWORK_INPUTS: usize = 2 * MAX_NETWORK_NODES;

/// The short form does not specify the channels of its input image; there are three.
const SHORT_FORM_CHANNELS: u32 = 3;

/// A value inside a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// The network's input.
    Input,
    /// The output of a node or step.
    Of(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkNode {
    /// The place in the author's text: `layers[3]`, `nodes[3]`.
    pub(crate) place: String,
    pub(crate) op: Arc<Op>,
    pub(crate) c_out: u32,
    pub(crate) stride: u32,
    pub(crate) inputs: Vec<Value>,
    pub(crate) merge: Merge,
}

/// A checked network: its fields are present, its ops exist, it has no cycle, and every node leads to the output. Nodes
/// are in an order in which they can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// A name, for people.
    pub name: Option<String>,
    /// Its input.
    pub input: Input,
    /// Its nodes. The last one is the output.
    pub(crate) nodes: Vec<NetworkNode>,
    output: usize,
}

impl Network {
    /// Checks a parsed network. Its ops are those of the catalog, and its own.
    ///
    /// # Errors
    /// Names the field: missing, not allowed there, an unknown op, an input that does not exist, a cycle, a node that
    /// does not lead to the output.
    pub fn new(spec: &NetworkSpec, catalog: &Catalog) -> Result<Network, Invalid> {
        Network::read(spec, catalog).map_err(|e| labelled(spec.name.as_deref(), e))
    }

    /// Its nodes in running order, the output last.
    pub(crate) fn nodes(&self) -> &[NetworkNode] {
        &self.nodes
    }

    fn labelled(&self, error: Invalid) -> Invalid {
        labelled(self.name.as_deref(), error)
    }

    fn read(spec: &NetworkSpec, catalog: &Catalog) -> Result<Network, Invalid> {
        let with_own;
        let catalog = match &spec.ops {
            Some(ops) => {
                with_own = catalog.with_ops(ops.iter().cloned()).map_err(|e| e.within("ops"))?;
                &with_own
            }
            None => catalog,
        };
        let (input, nodes, output) = match (&spec.layers, &spec.nodes) {
            (Some(_), Some(_)) => {
                return Err(Invalid::here("a network has `layers` or `nodes`, not both"));
            }
            (None, None) => {
                return Err(Invalid::new(
                    "layers",
                    "is missing: a network is a sequence (`input`, `layers`), a graph (`input`, \
                     `nodes`, `output`) or the short form (`layers`, `input_resolution`, `channels`)",
                ));
            }
            (None, Some(nodes)) => graph(spec, nodes, catalog)?,
            (Some(layers), None) => {
                refused(spec.output, "output", "a sequence: its output is its last layer")?;
                check_count(layers.len(), "layers")?;
                let (input, nodes) = match sized(layers)? {
                    Some(layers) => sequence(spec, &layers, catalog)?,
                    None => short_form(spec, layers, catalog)?,
                };
                (input, nodes, layers.len() - 1)
            }
        };
        Ok(Network { name: spec.name.clone(), input, nodes, output })
    }
}

impl Catalog {
    /// A built-in network.
    ///
    /// # Errors
    /// When there is none; the message lists them.
    pub fn network(&self, name: &str) -> Result<Network, Invalid> {
        Network::new(self.network_spec(name)?, self)
    }
}

fn labelled(name: Option<&str>, error: Invalid) -> Invalid {
    match name {
        Some(name) => error.within(format!("network {}", shown(name))),
        None => error,
    }
}

/// The layers, if they have sizes; none if they are the bare names of the short form.
fn sized(layers: &[LayerSpec]) -> Result<Option<Vec<&NodeSpec>>, Invalid> {
    let nodes: Vec<&NodeSpec> = layers
        .iter()
        .filter_map(|layer| match layer {
            LayerSpec::Full(node) => Some(node),
            LayerSpec::Name(_) => None,
        })
        .collect();
    if nodes.is_empty() {
        return Ok(None);
    }
    if nodes.len() < layers.len() {
        return Err(Invalid::new("layers", "are either all names or all have their sizes"));
    }
    Ok(Some(nodes))
}

/// The input of a layer of a sequence.
fn before(index: usize) -> Vec<Value> {
    vec![index.checked_sub(1).map_or(Value::Input, Value::Of)]
}

fn sequence(
    spec: &NetworkSpec,
    layers: &[&NodeSpec],
    catalog: &Catalog,
) -> Result<(Input, Vec<NetworkNode>), Invalid> {
    let form = "a sequence whose layers have sizes";
    refused(spec.input_resolution, "input_resolution", form)?;
    refused(spec.channels.as_ref(), "channels", form)?;
    let input = needed(spec.input, "", "input")?;
    input.check()?;
    let nodes = layers.iter().enumerate().map(|(index, node)| {
        let place = format!("layers[{index}]");
        let form = "a sequence: write a graph with `nodes`";
        refused(node.inputs.as_ref(), &format!("{place}.inputs"), form)?;
        refused(node.merge, &format!("{place}.merge"), form)?;
        sized_node(node, place, before(index), catalog)
    });
    Ok((input, nodes.collect::<Result<_, _>>()?))
}

fn short_form(
    spec: &NetworkSpec,
    layers: &[LayerSpec],
    catalog: &Catalog,
) -> Result<(Input, Vec<NetworkNode>), Invalid> {
    refused(spec.input, "input", "the short form: it has `input_resolution`")?;
    let size = needed(spec.input_resolution, "", "input_resolution")?;
    let input = Input { n: 1, c: SHORT_FORM_CHANNELS, h: size, w: size };
    input.check().map_err(|e| Invalid::new("input_resolution", e.problem))?;
    let widths = needed(spec.channels.as_ref(), "", "channels")?;
    if widths.len() != layers.len() {
        return Err(Invalid::new(
            "channels",
            format!("has {} entries for {} layers", widths.len(), layers.len()),
        ));
    }
    let mut nodes = Vec::with_capacity(layers.len());
    for (index, (layer, &c_out)) in layers.iter().zip(widths).enumerate() {
        let LayerSpec::Name(name) = layer else { unreachable!("the short form has names only") };
        let place = format!("layers[{index}]");
        let op = Arc::clone(catalog.op(name).map_err(|e| e.within(&place))?);
        let stride = op.def().usual_stride;
        let inputs = before(index);
        nodes.push(NetworkNode { place, op, c_out, stride, inputs, merge: Merge::Add });
    }
    Ok((input, nodes))
}

fn graph(
    spec: &NetworkSpec,
    specs: &[NodeSpec],
    catalog: &Catalog,
) -> Result<(Input, Vec<NetworkNode>, usize), Invalid> {
    refused(spec.input_resolution, "input_resolution", "a graph")?;
    refused(spec.channels.as_ref(), "channels", "a graph")?;
    check_count(specs.len(), "nodes")?;
    let input = needed(spec.input, "", "input")?;
    input.check()?;
    let output = needed(spec.output, "", "output")?;
    let output = node_index(output, specs.len()).ok_or_else(|| {
        Invalid::new("output", format!("is {output}; nodes are 0 to {}", specs.len() - 1))
    })?;
    let total: usize = specs.iter().flat_map(|node| &node.inputs).map(Vec::len).sum();
    if total > MAX_NETWORK_INPUTS {
        return Err(Invalid::new(
            "nodes",
            format!("have {total} inputs together; a network has at most {MAX_NETWORK_INPUTS}"),
        ));
    }
    let mut nodes = Vec::with_capacity(specs.len());
    for (index, node) in specs.iter().enumerate() {
        let place = format!("nodes[{index}]");
        let inputs = needed(node.inputs.as_ref(), &place, "inputs")?;
        let inputs = graph_inputs(inputs, specs.len())
            .map_err(|problem| Invalid::new(format!("{place}.inputs"), problem))?;
        nodes.push(sized_node(node, place, inputs, catalog)?);
    }
    let nodes = in_running_order(nodes, output)?;
    let output = nodes.len() - 1;
    Ok((input, nodes, output))
}

fn graph_inputs(inputs: &[i64], nodes: usize) -> Result<Vec<Value>, String> {
    if inputs.is_empty() {
        return Err("is empty; -1 is the network's input".to_owned());
    }
    inputs
        .iter()
        .map(|&input| match node_index(input, nodes) {
            _ if input == -1 => Ok(Value::Input),
            Some(index) => Ok(Value::Of(index)),
            None => Err(format!(
                "{input} is no node; nodes are 0 to {}, and -1 is the network's input",
                nodes - 1
            )),
        })
        .collect()
}

fn node_index(index: i64, nodes: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|&index| index < nodes)
}

fn sized_node(
    node: &NodeSpec,
    place: String,
    inputs: Vec<Value>,
    catalog: &Catalog,
) -> Result<NetworkNode, Invalid> {
    let name = needed(node.op.as_ref(), &place, "op")?;
    Ok(NetworkNode {
        op: Arc::clone(catalog.op(name).map_err(|e| e.within(&place))?),
        c_out: needed(node.c_out, &place, "c_out")?,
        stride: needed(node.stride, &place, "stride")?,
        inputs,
        merge: node.merge.unwrap_or_default(),
        place,
    })
}

fn check_count(count: usize, field: &str) -> Result<(), Invalid> {
    if (1..=MAX_NETWORK_NODES).contains(&count) {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!("has {count} entries; a network has between 1 and {MAX_NETWORK_NODES}"),
    ))
}

fn needed<T>(value: Option<T>, place: &str, field: &str) -> Result<T, Invalid> {
    value.ok_or_else(|| {
        let place = if place.is_empty() { field.to_owned() } else { format!("{place}.{field}") };
        Invalid::new(place, "is missing")
    })
}

fn refused<T>(value: Option<T>, field: &str, form: &str) -> Result<(), Invalid> {
    match value {
        None => Ok(()),
        Some(_) => Err(Invalid::new(field, format!("does not belong in {form}"))),
    }
}

impl Input {
    pub(crate) fn shape(&self) -> TensorShape {
        let Input { n, c, h, w } = *self;
        TensorShape::Map { n, c, h, w }
    }

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let fields = [
            ("n", self.n, Shape::MAX_BATCH),
            ("c", self.c, Shape::MAX_CHANNELS),
            ("h", self.h, Shape::MAX_EXTENT),
            ("w", self.w, Shape::MAX_EXTENT),
        ];
        for (field, value, limit) in fields {
            if !(1..=limit).contains(&value) {
                return Err(Invalid::new(
                    format!("input.{field}"),
                    format!("is {value}; it lies between 1 and {limit}"),
                ));
            }
        }
        Ok(())
    }
}

//! Canonical hashes of architectures: one hash for all spellings of an architecture, and never one for two.
//!
//! A hash is SHA-256 over a complete description of a graph whose vertices are in canonical order
//! ([`Dag::canonical_order`]). Since the description is complete, two architectures with one hash are the same. Since
//! the order is canonical, the same architecture has one hash, however its nodes are numbered. The second holds unless
//! the search for the order ended at its bound, which [`Canonical::exact`] says.

mod dag;
mod hashes;
mod refine;
mod search;
mod sketch;

use serde::{Deserialize, Serialize};

pub use self::dag::Dag;
pub use self::hashes::{ComputationHash, ShapedHash, TopologyHash};
pub use self::search::{MAX_WORK, Order};
pub use self::sketch::{Role, Sketch, Wired};
use crate::network::Value;
use crate::op::{OpDigest, OpPlan, Source};
use crate::primitive::Primitive;
use crate::spec::{Input, Merge, NetworkSpec, NodeSpec};
use crate::tensor::TensorShape;
use crate::{Catalog, Invalid, Network, NetworkPlan};

/// An architecture's hashes and its canonical graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical {
    /// Its hashes.
    pub hashes: ArchHashes,
    /// Whether every spelling of the architecture has these hashes. False if the search for a canonical order ended at
    /// its bound. Another spelling may then have other hashes; another architecture never has the same.
    pub exact: bool,
    /// The architecture as it is written, with all sizes, in the order behind the shaped hash.
    pub graph: CanonicalGraph,
}

/// Three hashes of an architecture, from the coarsest to what is computed.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArchHashes {
    /// Ops and wires.
    pub topology: TopologyHash,
    /// Ops and wires with all sizes.
    pub shaped: ShapedHash,
    /// What is computed, with all sizes.
    pub computation: ComputationHash,
}

/// A network in canonical order. Equal networks have equal graphs, except for the names of ops with one digest.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanonicalGraph {
    /// The input.
    pub input: Input,
    /// The nodes, each after those that it reads. The last one is the output.
    pub nodes: Vec<CanonicalNode>,
}

/// A node of a network in canonical order.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanonicalNode {
    /// The op's name.
    pub op: String,
    /// The digest of the op's definition.
    pub digest: OpDigest,
    /// Output channels.
    pub c_out: u32,
    /// Stride.
    pub stride: u32,
    /// The nodes that it reads, `-1` for the network's input; ascending, unless they are concatenated.
    pub inputs: Vec<i64>,
    /// How several inputs become one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
}

impl CanonicalGraph {
    /// The graph as a network that can be read. Definitions of ops that are not built in are not part of it.
    pub fn spec(&self) -> NetworkSpec {
        let nodes = self.nodes.iter().map(|node| NodeSpec {
            op: Some(node.op.clone()),
            c_out: Some(node.c_out),
            stride: Some(node.stride),
            inputs: Some(node.inputs.clone()),
            merge: node.merge,
        });
        NetworkSpec {
            input: Some(self.input),
            nodes: Some(nodes.collect()),
            output: i64::try_from(self.nodes.len()).ok().map(|count| count - 1),
            ..NetworkSpec::default()
        }
    }
}

impl Canonical {
    /// The hashes and the canonical graph of a network.
    ///
    /// # Errors
    /// When the network has no plan: names the layer whose shape is impossible or whose inputs do not fit together.
    pub fn of(network: &Network, catalog: &Catalog) -> Result<Canonical, Invalid> {
        Ok(Canonical::of_planned(network, &network.plan(catalog)?))
    }

    /// The hashes and the canonical graph of a network whose plan is known.
    pub fn of_planned(network: &Network, plan: &NetworkPlan) -> Canonical {
        let ops: Vec<_> = plan.steps.iter().filter(|step| step.merge.is_none()).collect();
        let mut sketch = Sketch::default();
        for (node, step) in network.nodes.iter().zip(&ops) {
            sketch.add(role(&step.plan), node.merge, &node.inputs);
        }
        let (digests, names) = interned(ops.iter().map(|step| step.op.digest().to_string()));
        let topology = sketch.as_written(&digests);
        let topology_order = topology.dag.canonical_order();
        let topology = TopologyHash::of(&topology, &topology_order, "", &names);

        let sized = || ops.iter().map(|step| format!("{} {}", step.op.digest(), step.key.shape));
        let (labels, names) = interned(sized());
        let written = sketch.as_written(&labels);
        let order = written.dag.canonical_order();
        let Input { n, c, h, w } = network.input;
        let input = format!(" n{n}-c{c}-h{h}-w{w}");
        let shaped = ShapedHash::of(&written, &order, &input, &names);

        let zeros = |shape: TensorShape| format!("zeros {}", compact(shape));
        let computed = sized().zip(&ops).map(|(op, step)| match role(&step.plan) {
            Role::Zero => zeros(step.plan.output),
            Role::Op | Role::Identity => op,
        });
        let (mut labels, names) = interned(computed.chain([zeros(plan.output)]));
        let nothing = labels.pop().unwrap_or_default();
        let computed = sketch.computation(&labels, Value::Of(ops.len() - 1), nothing);
        let computed_order = computed.dag.canonical_order();
        let computation = ComputationHash::of(&computed, &computed_order, &input, &names);

        Canonical {
            hashes: ArchHashes { topology, shaped, computation },
            exact: topology_order.exact && order.exact && computed_order.exact,
            graph: graph(network, &written, &order),
        }
    }
}

/// The numbers of some texts in their sorted order, and these texts.
fn interned(texts: impl Iterator<Item = String>) -> (Vec<u32>, Vec<String>) {
    let texts: Vec<String> = texts.collect();
    let mut names = texts.clone();
    names.sort_unstable();
    names.dedup();
    let number = |text: &String| names.partition_point(|name| name < text) as u32;
    (texts.iter().map(number).collect(), names)
}

fn compact(shape: TensorShape) -> String {
    match shape {
        TensorShape::Map { n, c, h, w } => format!("n{n}-c{c}-h{h}-w{w}"),
        TensorShape::Tokens { n, l, c } => format!("n{n}-l{l}-c{c}"),
    }
}

/// The role of an op at a shape.
fn role(plan: &OpPlan) -> Role {
    let mut value = plan.result;
    while let Source::Node { index, .. } = value {
        match plan.steps[index].primitive {
            Primitive::Identity => value = plan.steps[index].inputs[0],
            Primitive::Zero { .. } => return Role::Zero,
            _ => return Role::Op,
        }
    }
    Role::Identity
}

/// A network's nodes in the order of its vertices.
fn graph(network: &Network, wired: &Wired, order: &Order) -> CanonicalGraph {
    let mut places = vec![0; network.nodes.len()];
    let ordered = || order.vertices.iter().filter_map(|&vertex| wired.nodes[vertex as usize]);
    for (place, node) in (0i64..).zip(ordered()) {
        places[node] = place;
    }
    let nodes = ordered().map(|index| {
        let node = &network.nodes[index];
        let inputs = node.inputs.iter().map(|&value| match value {
            Value::Input => -1,
            Value::Of(node) => places[node],
        });
        let mut inputs: Vec<i64> = inputs.collect();
        let merge = (inputs.len() > 1).then_some(node.merge);
        if merge != Some(Merge::Concat) {
            inputs.sort_unstable();
        }
        let (op, digest) = (node.op.name().to_owned(), node.op.digest().clone());
        CanonicalNode { op, digest, c_out: node.c_out, stride: node.stride, inputs, merge }
    });
    CanonicalGraph { input: network.input, nodes: nodes.collect() }
}

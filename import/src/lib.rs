//! Import of models: ONNX and the `.pt2` of `torch.export` as networks of the catalog.
//!
//! 1. **Reading** ([`read`]): a file becomes a [`graph::Graph`]. Weights are not loaded.
//! 2. **Patterns**: activations, norms and attention that a file has as arithmetic become single operations.
//! 3. **Placing**: tensors become maps and sequences, and operations become primitives of the catalog. Batch norms are
//!    folded.
//! 4. **Blocks**: primitives become ops: those of the catalog, so that its rows count, and ops of the network's own.
//!
//! What can't be expressed is a list of [`Problem`]s, and then there is no network at all.

mod blocks;
mod flat;
mod fuse;
pub mod graph;
mod place;
mod simplify;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;

use ops_catalog::{Catalog, Network, NetworkSpec};

pub use flat::{Given, Norm, Problem};
use graph::Graph;

/// The most operations of a model, and the most primitives of its network.
const MOST_NODES: usize = 50_000;

/// A model as a network.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network, with its own ops inside.
    pub network: NetworkSpec,
    /// Where the weights of the network are in the model, by the name that the lowering has for them.
    pub weights: BTreeMap<String, Given>,
    /// Differences in numbers that make none in work.
    pub notes: Vec<String>,
}

/// Makes a network of a model's graph.
///
/// # Errors
/// All parts of the model that can't be expressed.
pub fn network_of(graph: Graph, name: &str, catalog: &Catalog) -> Result<Imported, Vec<Problem>> {
    let too_large = |count: usize, what: &str| {
        vec![Problem {
            node: name.to_owned(),
            operator: "graph".to_owned(),
            why: format!("it has {count} {what}; an imported model has at most {MOST_NODES}"),
        }]
    };
    if graph.nodes.len() > MOST_NODES {
        return Err(too_large(graph.nodes.len(), "operations"));
    }
    let (flat, notes) = place::place(&simplify::simplify(graph))?;
    let flat = fuse::fuse(flat)?;
    if flat.steps.len() > MOST_NODES {
        return Err(too_large(flat.steps.len(), "primitives"));
    }
    let blocks::Blocks { network, weights } = blocks::blocks(&flat, name, catalog)?;
    Network::new(&network, catalog).and_then(|network| network.plan(catalog)).map_err(|error| {
        vec![Problem {
            node: name.to_owned(),
            operator: "network".to_owned(),
            why: format!("{error}: please report the model"),
        }]
    })?;
    Ok(Imported { network, weights, notes })
}

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
mod build;
mod elements;
mod error;
mod flat;
mod fold;
mod foreign;
mod formula;
mod fuse;
pub mod graph;
mod onnx;
mod place;
mod products;
mod pt2;
mod shapes;
mod simplify;
mod stored;
#[cfg(test)]
mod tests;
mod view;
mod weights;
mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

use ops_catalog::{Catalog, Network, NetworkSpec};

pub use self::error::ImportError;
pub use self::flat::{Given, Norm, Problem};
use self::graph::Graph;
use self::stored::Directory;
pub use self::weights::{Array, ModelWeights, NoWeight};

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
    /// Where the tensors are that are stored with the model.
    directory: Directory,
}

/// How a model is imported.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Name of the network; that of the file, without its extension, if none.
    pub name: Option<String>,
    /// Dimensions of the model's first input, for a model that leaves some of them open.
    pub input: Option<Vec<u64>>,
}

/// Reads a model as a network: an archive as the `.pt2` of `torch.export.save`, everything else as ONNX.
///
/// # Errors
/// If the file cannot be read, is of another format or damaged, or leaves dimensions open; parts of the model that cannot
/// be expressed. The messages do not name the file.
pub fn import(path: &Path, options: &Options, catalog: &Catalog) -> Result<Imported, ImportError> {
    let graph = read(path, &ReadOptions { input: options.input.clone() })?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    named(graph, options.name.clone().or(stem), catalog)
}

/// As [`import`], for a model whose folder is not known: data in other files are not read.
///
/// # Errors
/// As [`import`].
pub fn import_from<R: Read + Seek>(
    source: R,
    options: &Options,
    catalog: &Catalog,
) -> Result<Imported, ImportError> {
    let graph = read_from(source, None, &ReadOptions { input: options.input.clone() })?;
    named(graph, options.name.clone(), catalog)
}

fn named(graph: Graph, name: Option<String>, catalog: &Catalog) -> Result<Imported, ImportError> {
    let name = name.unwrap_or_else(|| "imported".to_owned());
    network_of(graph, &name, catalog).map_err(ImportError::Inexpressible)
}

/// How a file is read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Dimensions of the model's first input, for a model that leaves some of them open.
    pub input: Option<Vec<u64>>,
}

/// Reads the graph of a model.
///
/// # Errors
/// If the file cannot be read, is of another format or damaged, or leaves dimensions open. The messages do not name
/// the file.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Graph, ImportError> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory).into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    read_from(file, Some(folder.unwrap_or(Path::new("."))), options)
}

/// Reads the graph of a model in memory, whose external data are never read.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: &[u8], options: &ReadOptions) -> Result<Graph, ImportError> {
    read_from(Cursor::new(bytes), None, options)
}

fn read_from<R: Read + Seek>(
    mut source: R,
    folder: Option<&Path>,
    options: &ReadOptions,
) -> Result<Graph, ImportError> {
    let mut head = Vec::new();
    source.by_ref().take(foreign::HEAD).read_to_end(&mut head)?;
    source.rewind()?;
    if foreign::is_zip(&head) {
        return pt2::read(source, options);
    }
    match foreign::foreign(&head) {
        Some(error) => Err(error),
        None => onnx::read(source, folder, options),
    }
}

/// Makes a network of a model's graph.
///
/// # Errors
/// Parts of the model that can't be expressed: those that do not depend on another one, and those behind one that keeps
/// its shape.
pub fn network_of(
    mut graph: Graph,
    name: &str,
    catalog: &Catalog,
) -> Result<Imported, Vec<Problem>> {
    let directory = std::mem::take(&mut graph.directory);
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
    let (graph, reordered) = simplify::simplify(graph);
    let (flat, mut notes) = place::place(&graph)?;
    if let Some(first) = reordered.first() {
        let more = match reordered.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        notes.push(format!(
            "{first}{more}: the outputs of a layer are put into another order, so that queries, keys and values stand \
             together, which takes as long"
        ));
    }
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
    Ok(Imported { network, weights, notes, directory })
}

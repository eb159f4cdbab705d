//! Import of models: ONNX and the `.pt2` of `torch.export`, as a graph of one vocabulary. Weights are not loaded.

mod build;
mod elements;
mod error;
mod fold;
pub mod graph;
mod onnx;
mod products;
mod pt2;
mod shapes;
mod wire;

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

pub use self::error::ImportError;
use self::graph::Graph;

/// First bytes of a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";

/// How a file is read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Dimensions of the model's first input, for a model that leaves some of them open.
    pub input: Option<Vec<u64>>,
}

/// Reads the graph of a model: an archive as the `.pt2` of `torch.export.save`, everything else as ONNX.
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
    source.by_ref().take(ZIP.len() as u64).read_to_end(&mut head)?;
    source.rewind()?;
    match head == ZIP {
        true => pt2::read(source, options),
        false => onnx::read(source, folder, options),
    }
}

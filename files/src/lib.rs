//! Files that a user names: text, tables and networks. The programs and the Python package read them here, so all of
//! them accept the same files and say the same about a file that they cannot use.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use latlas_predict::TableIndex;
use latlas_shared::Table;
use ops_catalog::text::{Encoding, decode, encoding};
use ops_catalog::{Catalog, Invalid, NetworkSpec};

/// A file that cannot be read. Other errors of this crate are about the content of a file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// The error of a file whose network has a mistake. The message names the file, and the line if each line of it is a
/// network.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct NotANetwork {
    file: String,
    problem: Invalid,
}

/// `-` names stdin, or stdout.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The name of a file in messages.
pub fn name(path: &Path) -> String {
    if is_standard(path) { "stdin".to_owned() } else { path.display().to_string() }
}

/// Opens a file, or stdin for `-`.
///
/// # Errors
/// Names the file, if it cannot be opened.
fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    if is_standard(path) {
        return Ok(Box::new(io::stdin()));
    }
    let failed = |error: io::Error| unreadable(path, &error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(unreadable(path, &io::ErrorKind::IsADirectory.into()));
    }
    Ok(Box::new(file))
}

/// Opens a file whose lines are read as they arrive: UTF-8 without a byte order mark, whatever the
/// file's encoding is.
///
/// # Errors
/// Names the file, if it cannot be read, is compressed, or its encoding is not certain.
pub fn open_lines(path: &Path) -> Result<Box<dyn Read + Send>> {
    let mut file = open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(4).read_to_end(&mut head).map_err(|error| unreadable(path, &error))?;
    if encoding(&head) == Encoding::Utf8 {
        let skipped = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        return Ok(Box::new(Cursor::new(head.split_off(skipped)).chain(file)));
    }
    let mut bytes = head;
    file.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    let text = decode(&bytes).map_err(|problem| anyhow!("{}: {problem}", name(path)))?;
    Ok(Box::new(Cursor::new(text.into_owned().into_bytes())))
}

/// The error of a file that cannot be read.
pub fn unreadable(path: &Path, error: &io::Error) -> anyhow::Error {
    let name = name(path);
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("{name}: there is no such file"),
        io::ErrorKind::IsADirectory => format!("{name}: it is a directory; name a file in it"),
        io::ErrorKind::PermissionDenied => format!("{name}: permission denied for this user"),
        _ => format!("{name}: it cannot be read: {error}"),
    };
    Unreadable(message).into()
}

/// The text of a file that is not empty.
///
/// # Errors
/// Names the file, if it cannot be read, is empty, or is not text.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    text_of(path, bytes)
}

/// The content of a file, as text.
///
/// # Errors
/// Names the file, if it is empty or not text.
pub fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let text = decode(&bytes).map_err(|problem| anyhow!("{}: {problem}", name(path)))?;
    if text.trim().is_empty() {
        return Err(anyhow!("{}: it is empty", name(path)));
    }
    Ok(text.into_owned())
}

/// Reads a table and prepares it for look-ups.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn read_table(path: &Path) -> Result<TableIndex> {
    let text = read_text(path)?;
    Table::from_json(&text).and_then(TableIndex::new).with_context(|| name(path))
}

/// Reads the networks of a file, each with its place: one network in YAML or JSON, or one JSON object per line.
///
/// # Errors
/// Names the file and the line.
pub fn read_networks(path: &Path) -> Result<Vec<(String, NetworkSpec)>> {
    let file = name(path);
    let text = read_text(path)?;
    let specs = NetworkSpec::read_all(&text)
        .map_err(|problem| NotANetwork { file: file.clone(), problem })?;
    let place = |line: Option<usize>| match line {
        Some(line) => format!("{file}, line {line}"),
        None => file.clone(),
    };
    Ok(specs.into_iter().map(|(line, spec)| (place(line), spec)).collect())
}

/// Looks up a built-in network by its name.
///
/// # Errors
/// When no network has this name.
pub fn builtin_network<'a>(
    name: &str,
    catalog: &'a Catalog,
) -> Result<&'a NetworkSpec, NoSuchNetwork> {
    catalog.network_spec(name).map_err(|error| {
        // The name of a space is not a misspelled name of a network.
        match catalog.space(name) {
            Ok(_) => NoSuchNetwork::Space(name.to_owned()),
            Err(_) => NoSuchNetwork::Unknown(error),
        }
    })
}

/// Why a name is not the name of a built-in network.
#[derive(Debug, thiserror::Error)]
pub enum NoSuchNetwork {
    /// A space has it.
    #[error("`{0}` is a space, and not a network")]
    Space(String),
    /// Nothing has it.
    #[error(transparent)]
    Unknown(#[from] Invalid),
}

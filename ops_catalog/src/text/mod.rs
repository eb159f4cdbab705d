//! Text from outside: from bytes to text, from text to a tree with positions, from a tree to values.
//!
//! Files, lines of a stream and bodies of calls are read here, so all formats accept the same spellings, and all errors
//! have one form: the place (line, column, field path), the problem, and the remedy. Messages of libraries are never
//! shown.
//!
//! Pure: the caller does the I/O.

mod de;
mod decode;
mod json;
mod number;
mod tree;
mod words;
mod yaml;

use serde::de::DeserializeOwned;

pub use self::decode::{Encoding, decode, encoding, unmarked};
pub use self::tree::Tree;
use crate::Invalid;

/// The most bytes of a text: more than any sensible definition, space or network.
const MAX_TEXT: usize = 16 << 20;

/// Phrases of the libraries behind this module. No message contains one of them, because they name types and options of
/// programs and no remedy. For tests.
pub const FOREIGN_PHRASES: [&str; 30] = [
    "invalid type",
    "invalid value",
    "invalid length",
    "invalid digit",
    "invalid number",
    "invalid u",
    "invalid i",
    "expected ",
    "missing field",
    "unknown field",
    "unknown variant",
    "duplicate field",
    "duplicate entry",
    "duplicate mapping",
    "DuplicateKeyPolicy",
    "from_str_multiple",
    "did not find",
    "document start",
    "recursion limit",
    "trailing characters",
    "trailing comma",
    "key must be",
    "EOF while",
    "control character (",
    "struct ",
    "floating point",
    "u32",
    "u64",
    "UUID parsing",
    "Cannot parse",
];

/// Reads one value from YAML or JSON, such as a file that a person wrote.
///
/// # Errors
/// The problem, with line, column and field path.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    tree_of(text)?.read()
}

fn tree_of(text: &str) -> Result<Tree, Invalid> {
    if text.len() > MAX_TEXT {
        return Err(Invalid::here(format!(
            "the text has {} bytes, and at most {MAX_TEXT} are read",
            text.len()
        )));
    }
    Tree::yaml(text)
}

/// Reads one value from YAML or JSON, and checks it. A problem that the check finds at a field (`body[3].c_out`) gets the
/// line and column of the field, or of the innermost part of its path that is there.
///
/// # Errors
/// The problem, with line, column and field path.
pub fn read_checked<T: DeserializeOwned, U>(
    text: &str,
    check: impl FnOnce(T) -> Result<U, Invalid>,
) -> Result<U, Invalid> {
    let tree = tree_of(text)?;
    check(tree.read()?).map_err(|problem| tree.located(problem))
}

/// Reads one value from JSON, such as a line of a stream or the output of a program.
///
/// # Errors
/// The problem, with line, column and field path.
pub fn read_json<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    let text = unmarked(text);
    // The tree has positions and accepts more spellings. Plain JSON of the wanted form needs neither.
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(_) => Tree::json(text)?.read(),
    }
}

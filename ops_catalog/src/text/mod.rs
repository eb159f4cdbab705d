//! Text as people have it: bytes as text, text as a tree with positions, a tree as values.
//!
//! Every file, every line of a stream and every body of a call is read here, so that all formats take the
//! same spellings and a refusal is in one set of words: a place (line, column, field path), what is wrong,
//! and the remedy. No message of a library passes through.
//!
//! Pure: where bytes come from is the caller's.

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

/// More text than any definition, space or network of sensible size.
const MAX_TEXT: usize = 16 << 20;

/// Phrases of the libraries that read for this project. No message has one of them: what they say names types
/// and options of programs, and not what to do. For tests.
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

/// Reads one value from YAML or JSON: a file that a person wrote.
///
/// # Errors
/// With line, column and field path.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    if text.len() > MAX_TEXT {
        return Err(Invalid::here(format!(
            "the text has {} bytes, and at most {MAX_TEXT} are read",
            text.len()
        )));
    }
    Tree::yaml(text)?.read()
}

/// Reads one value from JSON: a line of a stream, or what a program wrote.
///
/// # Errors
/// With line, column and field path.
pub fn read_json<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    let text = unmarked(text);
    // The tree has positions and takes more spellings; what is plain JSON of the wanted form needs neither.
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(_) => Tree::json(text)?.read(),
    }
}

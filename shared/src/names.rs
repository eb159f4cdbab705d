//! Names of enum variants, equal in JSON, columns and command lines.

use strum::VariantNames;

/// A text that is not a name of the enum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not known: write {}", either(.names))]
pub struct UnknownName {
    /// The text.
    pub text: String,
    /// The valid names.
    pub names: &'static [&'static str],
}

impl UnknownName {
    /// The error of an enum's parser.
    pub(crate) fn of<T: VariantNames>(text: &str) -> UnknownName {
        UnknownName { text: text.to_owned(), names: T::VARIANTS }
    }
}

/// `a`, `b` or `c`.
fn either(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => quoted.concat(),
    }
}

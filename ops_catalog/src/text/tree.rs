//! A text as a tree of values, each with its position and its original digits.

use std::fmt;

use serde::de::DeserializeOwned;

use super::de::{self, Refused};
use super::{json, number, yaml};
use crate::Invalid;
use crate::error::shown;

/// The deepest nesting; deeper nesting is hostile.
pub(super) const MAX_DEPTH: usize = 100;

/// The most values of a YAML text, including repetitions by aliases.
pub(super) const MAX_VALUES: usize = 250_000;

/// A place in the text; lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The notation of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes in YAML, or in a query: its kind depends on the wanted type.
    Plain,
    /// A number, `true`, `false` or `null` in JSON.
    Bare,
    /// Text, even if it looks like a number.
    Quoted,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar(Style, String),
    List(Vec<Tree>),
    Map(Vec<(Key, Tree)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) at: Mark,
    pub(super) text: String,
}

/// A parsed text that has not been read as a type yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    pub(super) at: Mark,
    pub(super) value: Value,
    /// Whether the text has one line, so that places are columns.
    pub(super) one_line: bool,
}

impl Tree {
    /// Parses JSON.
    ///
    /// # Errors
    /// What is not JSON, with its place.
    pub fn json(text: &str) -> Result<Tree, Invalid> {
        Tree::parsed(text, json::parse)
    }

    /// Parses YAML or JSON.
    ///
    /// # Errors
    /// What is not YAML, with its place.
    pub fn yaml(text: &str) -> Result<Tree, Invalid> {
        // JSON is tried first: JSON and YAML differ in the meaning of `1e1` and of a tab.
        Tree::parsed(text, |text| match json::parse(text) {
            Ok(tree) => Ok(tree),
            Err(problem) => yaml::parse(text).map_err(|other| {
                // For a text that is meant as JSON, the JSON error is the relevant one.
                let means_json = text.trim_start().starts_with(['{', '[']) && text.contains('"');
                if means_json { problem } else { other }
            }),
        })
    }

    fn parsed(text: &str, parse: impl Fn(&str) -> Result<Tree, Refused>) -> Result<Tree, Invalid> {
        let text = super::unmarked(text);
        let one_line = !text.trim_end().contains(['\n', '\r']);
        match parse(text) {
            Ok(tree) => Ok(Tree { one_line, ..tree }),
            Err(problem) => Err(problem.invalid(one_line)),
        }
    }

    /// Named texts, such as the parameters of a call. The type of each depends on its field.
    pub fn of_texts(pairs: impl IntoIterator<Item = (String, String)>) -> Tree {
        let at = Mark { line: 0, column: 0 };
        let fields = pairs.into_iter().map(|(name, text)| {
            let value = Value::Scalar(Style::Plain, text);
            (Key { at, text: name }, Tree { at, value, one_line: true })
        });
        Tree { at, value: Value::Map(fields.collect()), one_line: true }
    }

    /// Reads it as a value.
    ///
    /// # Errors
    /// With line, column and field path.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        T::deserialize(de::Reader::new(self)).map_err(|problem| problem.invalid(self.one_line))
    }

    /// A problem with the position of the field that its place names.
    pub(super) fn located(&self, problem: Invalid) -> Invalid {
        let path = problem.place.split([',', ' ']).next().unwrap_or_default();
        let mut at = None;
        let mut tree = self;
        for part in path.replace('[', ".[").split('.') {
            let inner = match (part.strip_prefix('['), &tree.value) {
                (Some(index), Value::List(items)) => {
                    let index = index.trim_end_matches(']').parse::<usize>();
                    index.ok().and_then(|index| items.get(index))
                }
                _ => tree.field(part),
            };
            let Some(inner) = inner else { break };
            (tree, at) = (inner, Some(inner.at));
        }
        match at {
            Some(Mark { line, column }) if !(self.one_line && line == 1) => {
                problem.within(format!("line {line}, column {column}"))
            }
            Some(Mark { column, .. }) => problem.within(format!("column {column}")),
            None => problem,
        }
    }

    /// A field of an object.
    pub fn field(&self, name: &str) -> Option<&Tree> {
        match &self.value {
            Value::Map(fields) => fields.iter().find(|(key, _)| key.text == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Its text, if it is a text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Style::Quoted, text) => Some(text),
            Value::Scalar(Style::Plain, text) if !number::is_number(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(Style::Bare, text) => text == "null",
            Value::Scalar(Style::Plain, text) => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// A description of the value, for a message.
    pub(super) fn described(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "an object".to_owned(),
            _ if self.is_null() => "empty".to_owned(),
            Value::Scalar(Style::Quoted, text) => format!("the text \"{}\"", shown(text)),
            Value::Scalar(_, text) => format!("`{}`", shown(text)),
        }
    }
}

/// As JSON on one line, every number with its original digits.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &self.value {
            Value::Scalar(Style::Bare, text) => f.write_str(text),
            Value::Scalar(Style::Quoted, text) => f.write_str(&quoted(text)),
            Value::Scalar(Style::Plain, _) if self.is_null() => f.write_str("null"),
            Value::Scalar(Style::Plain, text) => match text.as_str() {
                "true" | "True" | "TRUE" => f.write_str("true"),
                "false" | "False" | "FALSE" => f.write_str("false"),
                text if json::is_number(text) => f.write_str(text),
                text => f.write_str(&quoted(text)),
            },
            Value::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
            Value::Map(fields) => {
                f.write_str("{")?;
                for (index, (key, value)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{value}", quoted(&key.text))?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Adds a field, unless the object already has it.
pub(super) fn add_field(
    fields: &mut Vec<(Key, Tree)>,
    seen: &mut std::collections::HashMap<String, Mark>,
    key: Key,
    value: Tree,
) -> Result<(), Refused> {
    if let Some(first) = seen.insert(key.text.clone(), key.at) {
        return Err(Refused::at(
            key.at,
            format!(
                "`{}` stands twice, first in line {}, column {}: keep one of them",
                shown(&key.text),
                first.line,
                first.column
            ),
        ));
    }
    fields.push((key, value));
    Ok(())
}

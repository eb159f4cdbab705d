//! The error of a refused text, and its place.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::Invalid;
use crate::error::shown;
use crate::text::tree::Mark;
use crate::text::words::{names, wanted};

/// The error of a refused text.
#[derive(Debug)]
pub(in crate::text) struct Refused {
    at: Option<Mark>,
    /// Fields and indices, innermost first.
    path: Vec<String>,
    pub(super) problem: String,
}

impl Refused {
    pub(in crate::text) fn at(at: Mark, problem: impl Into<String>) -> Refused {
        Refused { at: Some(at), path: vec![], problem: problem.into() }
    }

    pub(super) fn new(problem: impl Into<String>) -> Refused {
        Refused { at: None, path: vec![], problem: problem.into() }
    }

    /// The same, with the place of the value.
    pub(super) fn from(mut self, at: Mark) -> Refused {
        self.at.get_or_insert(at);
        self
    }

    pub(super) fn inside(mut self, segment: String) -> Refused {
        self.path.push(segment);
        self
    }

    /// As an [`Invalid`], with lines and columns counted from 1.
    pub(in crate::text) fn invalid(self, one_line: bool) -> Invalid {
        let mut path = String::new();
        for segment in self.path.iter().rev() {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        let place = match self.at {
            Some(Mark { line: 0, .. }) | None => String::new(),
            Some(Mark { column, line: 1 }) if one_line => format!("column {column}"),
            Some(Mark { line, column }) => format!("line {line}, column {column}"),
        };
        let place = [place, path].into_iter().filter(|part| !part.is_empty());
        Invalid::new(place.collect::<Vec<_>>().join(", "), self.problem)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(problem: T) -> Refused {
        Refused::new(problem.to_string())
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Refused {
        Refused::invalid_value(found, expected)
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Refused {
        let found = match found {
            Unexpected::Bool(b) => format!("`{b}`"),
            Unexpected::Unsigned(n) => format!("`{n}`"),
            Unexpected::Signed(n) => format!("`{n}`"),
            Unexpected::Float(n) => format!("`{n}`"),
            Unexpected::Str(text) => format!("the text \"{}\"", shown(text)),
            Unexpected::Unit | Unexpected::Option => "empty".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "an object".to_owned(),
            _ => "something else".to_owned(),
        };
        mismatch(&found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Refused {
        let count = expected.to_string();
        let count = count.split_whitespace().find(|word| word.parse::<usize>().is_ok());
        Refused::new(match count {
            Some(count) => format!("has {length} entries, and should have {count}"),
            None => format!("has {length} entries; {} should stand here", of(expected)),
        })
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Refused {
        Refused::new(format!("`{}` is not known here; known are {}", shown(name), names(known)))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Refused {
        let name = shown(name);
        Refused::new(match known {
            [] => format!("there is no field `{name}` here, nor any other"),
            known => format!("there is no field `{name}` here; the fields are {}", names(known)),
        })
    }

    fn missing_field(name: &'static str) -> Refused {
        Refused::new(format!("`{name}` is missing"))
    }

    fn duplicate_field(name: &'static str) -> Refused {
        Refused::new(format!("`{name}` stands twice: keep one of them"))
    }
}

pub(super) fn of(expected: &dyn Expected) -> String {
    wanted(&expected.to_string())
}

pub(super) fn mismatch(found: &str, expected: &dyn Expected) -> Refused {
    Refused::new(format!("is {found}; {} should stand here", of(expected)))
}

//! The one error of this crate: a place in the user's data, and the problem there.

use std::fmt;

/// A problem in a definition, a key, a space or a network.
///
/// `place` names the part as the user wrote it (`op MBConv3_3x3, node 2 (conv2d)`, `layers[4].stride`). `problem` says
/// what is wrong and, unless that is obvious, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The place, outermost part first.
    pub place: String,
    /// The problem and its remedy.
    pub problem: String,
}

impl Invalid {
    /// A problem at a place.
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Invalid { place: place.into(), problem: problem.into() }
    }

    /// A problem whose place the caller knows, and adds with [`Invalid::within`].
    pub(crate) fn here(problem: impl Into<String>) -> Self {
        Invalid::new("", problem)
    }

    /// The same problem, with an outer part of its place.
    pub fn within(self, outer: impl fmt::Display) -> Self {
        let place = if self.place.is_empty() {
            outer.to_string()
        } else {
            format!("{outer}, {}", self.place)
        };
        Invalid { place, problem: self.problem }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.problem)
        } else {
            write!(f, "{}: {}", self.place, self.problem)
        }
    }
}

impl std::error::Error for Invalid {}

/// A user's text as messages repeat it: at most 100 characters on one line. Messages go into logs and answers, and the
/// text can be anything.
pub fn shown(text: &str) -> String {
    let mut rest = text.chars();
    let mut short: String =
        rest.by_ref().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if rest.next().is_some() {
        short.push_str("...");
    }
    short
}

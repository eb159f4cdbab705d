//! The one error of this crate: a place in the user's data, and what is wrong there.

use std::fmt;

/// Something in a definition, a key, a space or a network is not usable.
///
/// `place` names it the way the user wrote it (`op MBConv3_3x3, node 2 (conv2d)`,
/// `layers[4].stride`), `problem` says what is wrong and, where that is not obvious, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Where, outermost first.
    pub place: String,
    /// What is wrong and what to do.
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

    /// The same problem, seen from one level further out.
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

/// A user's text as a message repeats it: at most 100 characters on one line, since messages go into
/// logs and answers, and the text may be anything.
pub(crate) fn shown(text: &str) -> String {
    let mut rest = text.chars();
    let mut short: String =
        rest.by_ref().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if rest.next().is_some() {
        short.push_str("...");
    }
    short
}

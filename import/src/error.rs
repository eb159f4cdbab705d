//! The errors of a file that cannot be imported.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

pub(crate) use ops_catalog::shown;

use crate::flat::Problem;

/// Why a file gives no graph. The messages do not name the file.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be opened or read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The file is of another format.
    #[error("{0}")]
    Unrecognized(String),
    /// The file is damaged, or contradicts itself.
    #[error("{place}: {problem}")]
    Malformed {
        /// Where: a byte, an entry of the archive, or a node.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    /// The format's version is not read.
    #[error("{0}")]
    Version(String),
    /// A dimension of an input is not a number.
    #[error(
        "the input `{input}` has the shape {shape}: give a number for each dimension (--input)"
    )]
    Dynamic {
        /// The input.
        input: String,
        /// Its dimensions as in the file, with the names of those that are not fixed.
        shape: String,
    },
    /// The dimensions that were given do not fit the model.
    #[error("--input: {0}")]
    Input(String),
    /// More than is read.
    #[error("{what} is too large: at most {most} are read")]
    TooLarge {
        /// What there is too much of, and how much there is.
        what: String,
        /// The limit, with its unit.
        most: String,
    },
    /// The graph is one of training.
    #[error("{place} ({operator}) is in training mode: call model.eval() before the export")]
    Training {
        /// The node.
        place: String,
        /// Its operator.
        operator: String,
    },
    /// A tensor's data are outside the folder of the model, where nothing is read.
    #[error(
        "the tensor `{tensor}` names the file `{path}` for its data: only files in the folder of the model are read"
    )]
    Outside {
        /// The tensor.
        tensor: String,
        /// The path in the file.
        path: String,
    },
    /// Parts of the model have no place in the catalog.
    #[error("{}", listed(.0))]
    Inexpressible(Vec<Problem>),
}

/// The most kinds of problems that are listed one by one.
const MOST_LISTED: usize = 40;

fn listed(problems: &[Problem]) -> String {
    let mut text = match problems.len() {
        1 => "a part of it cannot be expressed:".to_owned(),
        count => format!("{count} parts of it cannot be expressed:"),
    };
    // Layers that a model repeats have the same problem.
    let mut groups: Vec<(&Problem, usize)> = vec![];
    let mut known: HashMap<(&str, &str), usize> = HashMap::new();
    for problem in problems {
        match known.entry((&problem.operator, &problem.why)) {
            Entry::Occupied(group) => groups[*group.get()].1 += 1,
            Entry::Vacant(new) => {
                new.insert(groups.len());
                groups.push((problem, 0));
            }
        }
    }
    for (problem, more) in groups.iter().take(MOST_LISTED) {
        text.push_str(&format!("\n  {problem}"));
        if *more > 0 {
            text.push_str(&format!(" (and {more} more like it)"));
        }
    }
    if groups.len() > MOST_LISTED {
        let rest: usize = groups[MOST_LISTED..].iter().map(|(_, more)| 1 + more).sum();
        text.push_str(&format!("\n  and {rest} more"));
    }
    text
}

impl ImportError {
    /// A mistake in the file.
    pub(crate) fn malformed(place: impl Into<String>, problem: impl Into<String>) -> ImportError {
        ImportError::Malformed { place: place.into(), problem: brief(problem.into()) }
    }

    /// A shape that was given for an input that has another one.
    pub(crate) fn misfit(input: &str, shape: &str, given: &[u64], is_fixed: bool) -> ImportError {
        let input = shown(input);
        ImportError::Input(match is_fixed {
            true => format!(
                "the input `{input}` was exported with the fixed shape {shape}, and {given:?} was given: leave it out, \
                 or export the model with an input of that shape"
            ),
            false => format!(
                "the input `{input}` has the shape {shape}, and {given:?} was given: only what is no number there can \
                 be chosen"
            ),
        })
    }

    /// Too much of something.
    pub(crate) fn too_large(what: impl Into<String>, most: impl Into<String>) -> ImportError {
        ImportError::TooLarge { what: brief(what.into()), most: most.into() }
    }
}

/// Why a single node is not translated.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The node has no translation. The rest of the graph may have one. It says why, and what to do.
    Unsupported(String),
    /// The node contradicts itself or its inputs. The caller adds its place.
    Malformed(String),
    /// The whole file is refused.
    Fatal(ImportError),
}

impl From<ImportError> for Stop {
    fn from(error: ImportError) -> Stop {
        Stop::Fatal(error)
    }
}

/// The result of a part of a node's translation.
pub(crate) type Step<T> = Result<T, Stop>;

/// The node is not translated.
pub(crate) fn unsupported<T>(why: impl Into<String>) -> Step<T> {
    Err(Stop::Unsupported(why.into()))
}

/// The node is wrong.
pub(crate) fn malformed<T>(problem: impl Into<String>) -> Step<T> {
    Err(Stop::Malformed(problem.into()))
}

/// A message of at most 400 characters. The lists in it come from a file, and can be long.
pub(crate) fn brief(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(400) {
        message.truncate(end);
        message.push_str("...");
    }
    message
}

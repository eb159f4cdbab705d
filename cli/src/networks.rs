//! Networks from files, each with its label.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use ops_catalog::text::Tree;
use ops_catalog::{ExternalId, NetworkSpec};

use crate::files;
use crate::lines::Lines;

/// The id and name that identify a network to its author, even if the rest of it is not valid.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Label {
    pub(crate) id: Option<ExternalId>,
    pub(crate) name: Option<String>,
}

impl Label {
    pub(crate) fn of(spec: &NetworkSpec) -> Label {
        Label { id: spec.id.clone(), name: spec.name.clone() }
    }

    fn of_tree(tree: &Tree) -> Label {
        let name = tree.field("name").and_then(Tree::text).map(str::to_owned);
        Label { id: tree.field("id").map(ExternalId::from), name }
    }
}

/// A network from one line of JSON, or its label and its error.
pub(crate) fn from_line(line: &str) -> Result<NetworkSpec, (Label, String)> {
    if line.trim().is_empty() {
        return Err((Label::default(), "the line is empty".to_owned()));
    }
    NetworkSpec::from_json(line).map_err(|problem| {
        let label = Tree::json(line).map(|tree| Label::of_tree(&tree)).unwrap_or_default();
        (label, problem.to_string())
    })
}

/// A genotype from one line: alone, or as the field `genotype` of a JSON object which may also have `id` and `name`.
pub(crate) fn genotype_from_line(line: &str) -> Result<(Label, String), (Label, String)> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Candidate {
        genotype: String,
        #[serde(default)]
        id: Option<ExternalId>,
        #[serde(default)]
        name: Option<String>,
    }
    let line = line.trim();
    if line.is_empty() {
        return Err((Label::default(), "the line is empty".to_owned()));
    }
    if !line.starts_with('{') {
        return Ok((Label::default(), line.to_owned()));
    }
    let candidate: Candidate = ops_catalog::text::read_json(line).map_err(|problem| {
        let label = Tree::json(line).map(|tree| Label::of_tree(&tree)).unwrap_or_default();
        (label, problem.to_string())
    })?;
    Ok((Label { id: candidate.id, name: candidate.name }, candidate.genotype))
}

/// A network of a file.
pub(crate) struct Found {
    /// Its line, if each line of the file is a network.
    pub(crate) line: Option<usize>,
    /// The file and the line, for messages.
    pub(crate) place: String,
    /// The network, or its label and its error.
    pub(crate) spec: Result<NetworkSpec, (Label, String)>,
}

/// Reads the networks of a file as they arrive: one in JSON or YAML, or one JSON object a line.
pub(crate) struct NetworkFile {
    path: PathBuf,
    content: Content,
}

enum Content {
    /// `is_read` is said of the line that was read last: it is the next network.
    Lines {
        lines: Lines<Box<dyn Read + Send>>,
        is_read: bool,
    },
    One(Option<Box<NetworkSpec>>),
}

impl NetworkFile {
    /// Opens a file, or stdin for `-`.
    ///
    /// # Errors
    /// Names the file, if it cannot be read, is empty, or is a single network with a mistake.
    pub(crate) fn open(path: &Path) -> Result<NetworkFile> {
        let file = files::name(path);
        let unreadable = |error| files::unreadable(path, &error);
        let mut lines = Lines::new(files::open_lines(path)?);
        let content = match lines.next().map_err(unreadable)? {
            None => bail!("{file}: it is empty"),
            Some((_, Ok(line))) if NetworkSpec::is_one_a_line(line) => {
                Content::Lines { lines, is_read: true }
            }
            Some((_, Err(problem))) => bail!("{file}: {problem}"),
            Some(_) => {
                let text = files::text_of(path, lines.rest().map_err(unreadable)?)?;
                let spec = NetworkSpec::from_yaml(&text).map_err(|e| anyhow!("{file}: {e}"))?;
                Content::One(Some(Box::new(spec)))
            }
        };
        Ok(NetworkFile { path: path.to_owned(), content })
    }

    /// The next network. Empty lines are skipped. None at the end. If it has not arrived yet, `answers` are flushed, since
    /// the writer of the file may wait for them.
    ///
    /// # Errors
    /// When the file cannot be read, or the answers cannot be written.
    pub(crate) fn next(&mut self, answers: &mut dyn Write) -> Result<Option<Found>> {
        let file = files::name(&self.path);
        let (lines, is_read) = match &mut self.content {
            Content::Lines { lines, is_read } => (lines, is_read),
            Content::One(spec) => {
                let found =
                    |spec: Box<NetworkSpec>| Found { line: None, place: file, spec: Ok(*spec) };
                return Ok(spec.take().map(found));
            }
        };
        loop {
            let next = match std::mem::take(is_read) {
                true => Some((1, lines.text())),
                false => {
                    if lines.would_wait() {
                        answers.flush()?;
                    }
                    lines.next().map_err(|error| files::unreadable(&self.path, &error))?
                }
            };
            let Some((number, text)) = next else { return Ok(None) };
            let spec = match text {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => from_line(text),
                Err(problem) => Err((Label::default(), problem.to_string())),
            };
            let place = format!("{file}, line {number}");
            return Ok(Some(Found { line: Some(number), place, spec }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_genotype_is_a_line_or_a_field() {
        let plain = genotype_from_line(" a@1:012 \r").unwrap();
        assert_eq!(plain, (Label::default(), "a@1:012".to_owned()));
        let (label, genotype) = genotype_from_line(r#"{"genotype": "012", "id": 7}"#).unwrap();
        assert_eq!((label.id.unwrap().to_string(), genotype), ("7".to_owned(), "012".to_owned()));
        let (label, problem) = genotype_from_line(r#"{"id": 7, "genes": "012"}"#).unwrap_err();
        assert!(problem.contains("there is no field `genes` here"), "{problem}");
        assert_eq!(label.id.unwrap().to_string(), "7");
    }

    #[test]
    fn a_line_that_is_no_network_keeps_its_label() {
        let (label, problem) = from_line(r#"{"id": [7], "name": "a", "layer": []}"#).unwrap_err();
        let id = label.id.as_ref().map(ExternalId::to_string);
        assert_eq!((id.as_deref(), label.name.as_deref()), (Some("[7]"), Some("a")));
        assert!(problem.starts_with("column 26: there is no field `layer`"), "{problem}");
        let (label, problem) = from_line("{\"id\": 7").unwrap_err();
        assert_eq!(label, Label::default());
        assert_eq!(
            problem,
            "column 9: it is not JSON: it ends too early where `,` or `}` should be"
        );
        assert_eq!(from_line("  \r").unwrap_err().1, "the line is empty");
    }
}

//! From YAML to a tree.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::de::Refused;
use super::tree::{Key, MAX_DEPTH, MAX_VALUES, Mark, Style, Tree, Value, add_field};

/// Parses a text with one document.
pub(super) fn parse(text: &str) -> Result<Tree, Refused> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        builder.event(event, mark(&span))?;
    }
    builder.document.ok_or_else(|| Refused::at(Mark { line: 1, column: 1 }, "it is empty"))
}

fn mark(span: &Span) -> Mark {
    Mark { line: span.start.line(), column: span.start.col() + 1 }
}

/// A list or an object that is being read.
struct Open {
    at: Mark,
    anchor: usize,
    what: What,
}

enum What {
    List(Vec<Tree>),
    Map { fields: Vec<(Key, Tree)>, seen: HashMap<String, Mark>, key: Option<Key> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Tree, usize)>,
    values: usize,
    document: Option<Tree>,
}

impl Builder {
    fn event(&mut self, event: Event, at: Mark) -> Result<(), Refused> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = match (style, tag_of(tag.as_deref(), at)?) {
                    (ScalarStyle::Plain, tag) if tag != Some("str") => Style::Plain,
                    _ => Style::Quoted,
                };
                let value = Value::Scalar(style, text.into_owned());
                self.value(Tree { at, value, one_line: false }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                tag_of(tag.as_deref(), at)?;
                self.begin(at, anchor, What::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                tag_of(tag.as_deref(), at)?;
                let map = What::Map { fields: Vec::new(), seen: HashMap::new(), key: None };
                self.begin(at, anchor, map)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { at, anchor, what }) => {
                    let value = match what {
                        What::List(items) => Value::List(items),
                        What::Map { fields, .. } => Value::Map(fields),
                    };
                    self.value(Tree { at, value, one_line: false }, anchor, 1)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((tree, size)) => {
                    let (tree, size) = (tree.clone(), *size);
                    self.value(Tree { at, ..tree }, 0, size)
                }
                None => Err(Refused::at(at, "this alias stands inside what it repeats")),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: Mark, anchor: usize, what: What) -> Result<(), Refused> {
        if let Some(Open { what: What::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(Refused::at(at, "a list or an object can't be a field's name"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Refused::at(at, format!("it is nested more than {MAX_DEPTH} levels deep")));
        }
        self.open.push(Open { at, anchor, what });
        Ok(())
    }

    /// Takes a complete value, with the number of values inside it.
    fn value(&mut self, tree: Tree, anchor: usize, size: usize) -> Result<(), Refused> {
        self.values += size;
        if self.values > MAX_VALUES {
            return Err(Refused::at(
                tree.at,
                format!("it has more than {MAX_VALUES} values, and no file of sensible size has"),
            ));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (tree.clone(), count(&tree)));
        }
        match self.open.last_mut().map(|open| &mut open.what) {
            None if self.document.is_none() => self.document = Some(tree),
            // A `---` at the end of a file begins an empty document.
            None if tree.is_null() => {}
            None => return self.second_document(tree),
            Some(What::List(items)) => items.push(tree),
            Some(What::Map { fields, seen, key }) => match key.take() {
                None => match tree.value {
                    Value::Scalar(Style::Plain, text) if text == "<<" => {
                        return Err(Refused::at(
                            tree.at,
                            "`<<` is not read here: write the fields out",
                        ));
                    }
                    Value::Scalar(_, text) => *key = Some(Key { at: tree.at, text }),
                    _ => {
                        return Err(Refused::at(
                            tree.at,
                            "a list or an object can't be a field's name",
                        ));
                    }
                },
                Some(key) => add_field(fields, seen, key, tree)?,
            },
        }
        Ok(())
    }

    fn second_document(&mut self, tree: Tree) -> Result<(), Refused> {
        if self.document.as_ref().is_some_and(Tree::is_null) {
            self.document = Some(tree);
            return Ok(());
        }
        Err(Refused::at(
            tree.at,
            "a second document begins here, after `---`: a file holds one; write the other into a file \
             of its own",
        ))
    }
}

fn count(tree: &Tree) -> usize {
    match &tree.value {
        Value::Scalar(..) => 1,
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(fields) => 1 + fields.iter().map(|(_, value)| count(value)).sum::<usize>(),
    }
}

/// The name of one of YAML's own tags. Other tags have a meaning for one program only.
fn tag_of(tag: Option<&Tag>, at: Mark) -> Result<Option<&'static str>, Refused> {
    const KNOWN: [&str; 7] = ["str", "int", "float", "bool", "null", "seq", "map"];
    let Some(tag) = tag else { return Ok(None) };
    let text = tag.to_string();
    let own = text.strip_prefix("tag:yaml.org,2002:").or_else(|| text.strip_prefix("!!"));
    match KNOWN.into_iter().find(|&known| own == Some(known)) {
        Some(known) => Ok(Some(known)),
        None => Err(Refused::at(
            at,
            format!("the tag `{}` is not read here: remove it", crate::error::shown(&text)),
        )),
    }
}

fn syntax(error: &ScanError) -> Refused {
    let at = Mark { line: error.marker().line(), column: error.marker().col() + 1 };
    let said = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => "a tab stands where YAML wants spaces",
        ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => {
            "a `[` or `{` is not closed, or a comma is missing inside it"
        }
        ErrorKind::MisplacedFlowCollectionEnd | ErrorKind::MismatchedFlowCollectionEnd { .. } => {
            "a `]` or `}` closes nothing that is open here"
        }
        ErrorKind::UnclosedQuotedScalar
        | ErrorKind::DocumentIndicatorInQuotedScalar
        | ErrorKind::InvalidQuotedScalarIndent => "a quoted text has no quote at its end",
        ErrorKind::UnknownQuotedScalarEscape | ErrorKind::InvalidQuotedScalarHexEscape => {
            "an escape with `\\` in a quoted text is wrong"
        }
        ErrorKind::RecursionLimitExceeded => {
            return Refused::at(at, format!("it is nested more than {MAX_DEPTH} levels deep"));
        }
        ErrorKind::UnknownAnchor => {
            "an alias (`*name`) repeats what no `&name` has named before it"
        }
        ErrorKind::BomInsideDocument => {
            "a byte order mark stands inside the text: two files were joined; remove it"
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::InvalidSimpleKey => {
            "the indentation does not fit, or `name: value` is not complete"
        }
        _ => "what stands here does not fit: check the indentation, the brackets and the quotes",
    };
    Refused::at(at, format!("it is not YAML: {said}"))
}

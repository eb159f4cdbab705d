//! From JSON to a tree.

use std::collections::HashMap;

use super::de::Refused;
use super::tree::{Key, MAX_DEPTH, Mark, Style, Tree, Value, add_field};
use crate::error::shown;

/// Parses a text with one value.
pub(super) fn parse(text: &str) -> Result<Tree, Refused> {
    let mut parser = Parser { text, at: 0, line: 1, line_start: 0 };
    parser.space();
    if parser.rest().is_empty() {
        return Err(parser.refused("it is empty"));
    }
    let tree = parser.value(0)?;
    parser.space();
    if parser.rest().is_empty() {
        return Ok(tree);
    }
    Err(parser
        .refused(format!("it is not JSON: {} follows after the end of the value", parser.found())))
}

/// Whether a text is a number in JSON's notation.
pub(super) fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    /// The begin of the line.
    line_start: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn mark(&self) -> Mark {
        let column = self.text[self.line_start..self.at].chars().count() + 1;
        Mark { line: self.line, column }
    }

    fn refused(&self, problem: impl Into<String>) -> Refused {
        Refused::at(self.mark(), problem)
    }

    /// A description of the text at this place, for a message.
    fn found(&self) -> String {
        match self.rest().chars().next() {
            None => "the end".to_owned(),
            Some(c) if c.is_control() => "a control character".to_owned(),
            Some(c) => format!("`{c}`"),
        }
    }

    fn expected(&self, what: &str) -> Refused {
        let found = match self.rest().is_empty() {
            true => "it ends too early".to_owned(),
            false => format!("{} stands", self.found()),
        };
        self.refused(format!("it is not JSON: {found} where {what} should be"))
    }

    fn space(&mut self) {
        while let Some(b) = self.rest().bytes().next() {
            match b {
                b'\n' => {
                    self.line += 1;
                    self.line_start = self.at + 1;
                }
                b' ' | b'\t' | b'\r' => {}
                _ => break,
            }
            self.at += 1;
        }
    }

    fn take(&mut self, c: char) -> bool {
        let there = self.rest().starts_with(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    fn value(&mut self, depth: usize) -> Result<Tree, Refused> {
        if depth > MAX_DEPTH {
            return Err(self.refused(format!("it is nested more than {MAX_DEPTH} levels deep")));
        }
        let at = self.mark();
        let value = match self.rest().bytes().next() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Scalar(Style::Quoted, self.string()?),
            _ => self.bare()?,
        };
        Ok(Tree { at, value, one_line: false })
    }

    fn object(&mut self, depth: usize) -> Result<Value, Refused> {
        let mut fields = Vec::new();
        let mut seen = HashMap::new();
        self.take('{');
        self.space();
        if self.take('}') {
            return Ok(Value::Map(fields));
        }
        loop {
            self.space();
            let at = self.mark();
            match self.rest().bytes().next() {
                Some(b'"') => {}
                Some(b'}') => return Err(self.after_comma("}")),
                _ => return Err(self.expected("a field's name in double quotes")),
            }
            let text = self.string()?;
            self.space();
            if !self.take(':') {
                return Err(self.expected(&format!("`:` after the field `{}`", shown(&text))));
            }
            self.space();
            let value = self.value(depth + 1)?;
            add_field(&mut fields, &mut seen, Key { at, text }, value)?;
            self.space();
            if self.take('}') {
                return Ok(Value::Map(fields));
            }
            if !self.take(',') {
                return Err(self.expected("`,` or `}`"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Refused> {
        let mut items = Vec::new();
        self.take('[');
        self.space();
        if self.take(']') {
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            if self.rest().starts_with(']') {
                return Err(self.after_comma("]"));
            }
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take(']') {
                return Ok(Value::List(items));
            }
            if !self.take(',') {
                return Err(self.expected("`,` or `]`"));
            }
        }
    }

    fn after_comma(&self, end: &str) -> Refused {
        self.refused(format!("it is not JSON: nothing follows the `,` before `{end}`: remove it"))
    }

    fn string(&mut self) -> Result<String, Refused> {
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    let quoted = &self.rest()[..=offset];
                    let text = serde_json::from_str(quoted).map_err(|_| {
                        self.refused("it is not JSON: an escape with `\\` in this text is wrong")
                    })?;
                    self.at += quoted.len();
                    return Ok(text);
                }
                c if c < ' ' => break,
                _ => {}
            }
        }
        Err(self.refused("it is not JSON: the text that begins here has no `\"` at its end"))
    }

    /// A number, `true`, `false` or `null`.
    fn bare(&mut self) -> Result<Value, Refused> {
        let part = |c: char| c.is_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !part(c)).unwrap_or(rest.len())];
        let remedy = match word {
            "true" | "false" | "null" => None,
            word if is_number(word) => None,
            "" if rest.starts_with('\'') => Some("texts stand in double quotes".to_owned()),
            "" => return Err(self.expected("a value")),
            "True" | "False" => Some(format!("write `{}`", word.to_lowercase())),
            "None" | "undefined" => Some("write `null`".to_owned()),
            "NaN" | "Infinity" | "-Infinity" => Some("it has no such number".to_owned()),
            word => Some(match super::number::real(word) {
                Ok(n) if word.parse::<f64>().is_ok() => format!("write {n}"),
                Err(problem) if super::number::is_number(word) => problem.to_string(),
                _ => "texts stand in double quotes".to_owned(),
            }),
        };
        if let Some(remedy) = remedy {
            let what = if word.is_empty() { "'" } else { word };
            return Err(
                self.refused(format!("it is not JSON: `{}` stands here; {remedy}", shown(what)))
            );
        }
        self.at += word.len();
        Ok(Value::Scalar(Style::Bare, word.to_owned()))
    }
}

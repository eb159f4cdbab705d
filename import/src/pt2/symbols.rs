//! Sizes that are expressions: `Mul(Integer(2), Symbol('s0', integer=True))`, as SymPy's `srepr` writes them.

use std::collections::HashMap;

/// Expressions inside one another.
const MOST_DEPTH: usize = 64;

/// The names of sizes, with their numbers.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    known: HashMap<String, u64>,
}

impl Symbols {
    /// Gives a name its number. False if it has another one.
    pub(crate) fn bind(&mut self, name: &str, size: u64) -> bool {
        *self.known.entry(name.to_owned()).or_insert(size) == size
    }

    /// The number of an expression. None if it has an unknown name or function, or is no size.
    pub(crate) fn evaluate(&self, expression: &str) -> Option<u64> {
        let mut parser = Parser { rest: expression, symbols: self };
        let number = parser.expression(0)?;
        // Sizes are exact in f64: tensors have at most 2^40 elements.
        let whole = number >= 0.0 && number <= 2_f64.powi(53) && number.fract() == 0.0;
        (whole && parser.rest.trim().is_empty()).then_some(number as u64)
    }
}

/// The name of an expression that is nothing but a name.
pub(crate) fn name(expression: &str) -> Option<&str> {
    if expression.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Some(expression).filter(|name| !name.is_empty());
    }
    let inside = expression.strip_prefix("Symbol('")?;
    let (name, rest) = inside.split_once('\'')?;
    let attributes = rest.strip_suffix(')')?;
    (!attributes.contains(['(', ')'])).then_some(name)
}

struct Parser<'a> {
    rest: &'a str,
    symbols: &'a Symbols,
}

impl<'a> Parser<'a> {
    fn word(&mut self) -> &'a str {
        let text = self.rest.trim_start();
        let end = text
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-' && c != '.')
            .unwrap_or(text.len());
        self.rest = &text[end..];
        &text[..end]
    }

    fn takes(&mut self, character: char) -> bool {
        match self.rest.trim_start().strip_prefix(character) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expression(&mut self, depth: usize) -> Option<f64> {
        if depth > MOST_DEPTH {
            return None;
        }
        let word = self.word();
        if !self.takes('(') {
            return word.parse().ok().or_else(|| self.symbols.known.get(word).map(|&n| n as f64));
        }
        if word == "Symbol" {
            let inside = self.rest.strip_prefix('\'')?;
            let (name, rest) = inside.split_once('\'')?;
            self.rest = rest.split_once(')')?.1;
            return self.symbols.known.get(name).map(|&n| n as f64);
        }
        let mut arguments = Vec::new();
        loop {
            arguments.push(self.expression(depth + 1)?);
            if self.takes(')') {
                break;
            }
            if !self.takes(',') {
                return None;
            }
        }
        apply(word, &arguments)
    }
}

fn apply(function: &str, arguments: &[f64]) -> Option<f64> {
    Some(match (function, arguments) {
        ("Integer" | "Float", [n]) => *n,
        ("Rational" | "IntTrueDiv" | "FloatTrueDiv" | "CleanDiv", [a, b]) => a / b,
        ("Add", all) => all.iter().sum(),
        ("Mul", all) => all.iter().product(),
        ("Pow" | "PowByNatural", [a, b]) => a.powf(*b),
        ("FloorDiv", [a, b]) => (a / b).floor(),
        ("CeilDiv", [a, b]) => (a / b).ceil(),
        ("Mod" | "PythonMod", [a, b]) => a - (a / b).floor() * b,
        ("Max", [first, others @ ..]) => others.iter().fold(*first, |a, b| a.max(*b)),
        ("Min", [first, others @ ..]) => others.iter().fold(*first, |a, b| a.min(*b)),
        ("floor" | "FloorToInt", [a]) => a.floor(),
        ("ceiling" | "CeilToInt", [a]) => a.ceil(),
        ("TruncToInt", [a]) => a.trunc(),
        ("ToFloat", [a]) => *a,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        let mut symbols = Symbols::default();
        assert!(symbols.bind("s0", 8));
        assert!(!symbols.bind("s0", 9));
        symbols
    }

    #[test]
    fn expressions_of_sympy_have_numbers() {
        let value = |text: &str| symbols().evaluate(text);
        let s0 = "Symbol('s0', positive=True, integer=True)";
        assert_eq!(value(s0), Some(8));
        assert_eq!(value("s0"), Some(8));
        assert_eq!(value(&format!("Add(Integer(-1), Mul(Integer(2), {s0}))")), Some(15));
        assert_eq!(value(&format!("FloorDiv(Add({s0}, Integer(3)), Integer(2))")), Some(5));
        assert_eq!(value(&format!("Mul(Rational(1, 2), {s0})")), Some(4));
        assert_eq!(value(&format!("Mul(Rational(1, 3), {s0})")), None);
    }

    #[test]
    fn what_is_unknown_or_no_expression_has_none() {
        for text in
            ["", "s1", "Symbol('u0')", "Add(", "Add(Integer(1)", "Huh(Integer(1))", "Integer(-1)"]
        {
            assert_eq!(symbols().evaluate(text), None, "{text}");
        }
        let deep = "Add(".repeat(100_000);
        assert_eq!(symbols().evaluate(&deep), None);
    }

    #[test]
    fn a_name_alone_is_one() {
        assert_eq!(name("Symbol('s77', positive=True, integer=True)"), Some("s77"));
        assert_eq!(name("s0"), Some("s0"));
        assert_eq!(name("Mul(Integer(2), Symbol('s0'))"), None);
    }
}

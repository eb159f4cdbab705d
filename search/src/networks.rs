//! Networks as lines of a file hold them, each with what identifies it to its author.

use ops_catalog::NetworkSpec;
use serde_json::Value;

/// What identifies a network to its author, also when the rest of it cannot be used.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Label {
    pub(crate) id: Option<Value>,
    pub(crate) name: Option<String>,
}

impl Label {
    pub(crate) fn of(spec: &NetworkSpec) -> Label {
        Label { id: spec.id.clone(), name: spec.name.clone() }
    }

    fn of_value(value: &Value) -> Label {
        let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
        Label { id: value.get("id").cloned(), name }
    }
}

/// A network from one line of JSON, or its label and what is wrong.
pub(crate) fn from_line(line: &str) -> Result<NetworkSpec, (Label, String)> {
    if line.trim().is_empty() {
        return Err((Label::default(), "the line is empty".to_owned()));
    }
    NetworkSpec::from_json(line).map_err(|problem| {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        (Label::of_value(&value), problem.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_network_keeps_its_label() {
        let (label, problem) = from_line(r#"{"id": [7], "name": "a", "layer": []}"#).unwrap_err();
        assert_eq!(label, Label { id: Some(serde_json::json!([7])), name: Some("a".to_owned()) });
        assert!(problem.starts_with("column 32: unknown field `layer`"), "{problem}");
        let (label, problem) = from_line("{\"id\": 7").unwrap_err();
        assert_eq!(label, Label::default());
        assert_eq!(problem, "column 8: it is not JSON: EOF while parsing an object");
        assert_eq!(from_line("  \r").unwrap_err().1, "the line is empty");
    }
}

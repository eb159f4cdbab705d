//! Networks as files hold them: one, as JSON or YAML, or many, one JSON object a line.

use ops_catalog::NetworkSpec;
use serde::Deserialize;
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
    serde_json::from_str(line).map_err(|error| {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        (Label::of_value(&value), in_line(&error))
    })
}

/// The message with the place in the line; the line itself has a number in its file.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    let kind = if error.is_data() { "" } else { "it is not JSON: " };
    format!("column {}: {kind}{text}", error.column())
}

/// Whether a first line shows that each line is a network.
pub(crate) fn is_object(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Anything {}
    serde_json::from_str::<Anything>(line).is_ok() && line.trim_start().starts_with('{')
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

    #[test]
    fn the_first_line_tells_the_two_kinds_of_file_apart() {
        for (line, one_a_line) in [
            (r#"{"layers": []}"#, true),
            ("{}", true),
            ("{", false),
            ("{\"layers\": [", false),
            ("input: {n: 1}", false),
            ("{layers: [Conv3x3], input_resolution: 32}", false),
            ("# a comment", false),
            ("[]", false),
            ("", false),
        ] {
            assert_eq!(is_object(line), one_a_line, "{line}");
        }
    }
}

//! An author's own identifier of a network, returned as it was written.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

use crate::text::Tree;

/// Any JSON value, with its digits unchanged: a number that is a hash of 128 bits keeps all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExternalId(String);

impl ExternalId {
    /// A text as an identifier.
    pub fn text(text: &str) -> ExternalId {
        ExternalId(serde_json::Value::from(text).to_string())
    }
}

impl From<&Tree> for ExternalId {
    fn from(tree: &Tree) -> ExternalId {
        ExternalId(tree.to_string())
    }
}

/// As JSON on one line.
impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ExternalId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.clone()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ExternalId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExternalId, D::Error> {
        let written = Box::<RawValue>::deserialize(deserializer)?;
        // Its form has no line breaks, because outputs have one object a line.
        Tree::json(written.get()).map(|tree| ExternalId::from(&tree)).map_err(de::Error::custom)
    }
}

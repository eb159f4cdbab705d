//! Spaces as their authors write them.

use serde::{Deserialize, Serialize};

use crate::key::OpKey;
use crate::op::OpDef;
use crate::size::Size;
use crate::{Invalid, text};

fn only_one() -> Vec<u32> {
    vec![1]
}

/// A cartesian product of op names and sizes.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Names of ops; in a file that defines ops, all of those when not given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<String>,
    /// Batch sizes; `[1]` when not given.
    #[serde(default = "only_one")]
    pub batch: Vec<u32>,
    /// Heights, which are also the widths, of a map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolution: Vec<u32>,
    /// Lengths of a sequence, for ops that take tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// Input channels.
    pub c_in: Vec<u32>,
    /// Output channels: numbers, or multiples of `c_in` such as `c_in` and `2*c_in`.
    pub c_out: Vec<Size>,
    /// Strides; `[1]` when not given.
    #[serde(default = "only_one")]
    pub stride: Vec<u32>,
}

/// A space as its author writes it. A file that defines new ops and says at which shapes to
/// measure them has the same form.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceDef {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
    /// Ops that are defined here, beside those of the catalog.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<OpDef>,
    /// Products of ops and sizes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grids: Vec<Grid>,
    /// Single keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<OpKey>,
    /// Networks of the catalog, each standing for the keys that it is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
}

impl SpaceDef {
    /// Reads a definition from YAML (of which JSON is a part).
    ///
    /// # Errors
    /// Syntax errors and unknown fields, with line and column.
    pub fn from_yaml(text: &str) -> Result<SpaceDef, Invalid> {
        text::read(text)
    }
}

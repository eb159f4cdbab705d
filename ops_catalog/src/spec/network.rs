//! Networks as their authors write them.

use std::fmt;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::ExternalId;
use crate::op::OpDef;
use crate::{Invalid, text};

/// The input of a network.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Batch.
    pub n: u32,
    /// Channels.
    pub c: u32,
    /// Height.
    pub h: u32,
    /// Width.
    pub w: u32,
}

/// How several inputs of a node become one.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// They are added.
    #[default]
    Add,
    /// They are multiplied element by element, as a gate multiplies a branch.
    Mul,
    /// They are put one after the other along the channels.
    Concat,
}

impl Merge {
    /// Every way.
    pub const ALL: [Merge; 3] = [Merge::Add, Merge::Mul, Merge::Concat];

    /// The name of the op that merges in this way, under which a table has it as a row.
    pub fn op_name(self) -> &'static str {
        match self {
            Merge::Add => "Add",
            Merge::Mul => "Mul",
            Merge::Concat => "Concat",
        }
    }
}

/// Figures that others published for a network, to check the catalog by.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Multiply-accumulates.
    pub flops: u64,
    /// Parameters, of the form as trained.
    pub params: u64,
    /// Whether the published form has a batch norm after each convolution where the catalog has a
    /// bias: it then has one more parameter per output channel.
    pub batch_norm_folded: bool,
    /// Where the figures stand.
    pub source: String,
}

/// One layer of a sequence: an op with its sizes, or the bare name of the short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerSpec {
    /// The short form.
    Name(String),
    /// The long form.
    Full(NodeSpec),
}

/// A node of a sequence or a graph as it is written; fields that a form needs and that are not there
/// are reported by place.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Name of the op.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// Output channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c_out: Option<u32>,
    /// Stride.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<u32>,
    /// Indices of the nodes that it reads, `-1` for the network's input. Graphs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<i64>>,
    /// How several inputs become one. Graphs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
}

/// A network as it is written: a sequence (`layers`), a graph (`nodes`, `output`) or the short form
/// (`layers` of names, `input_resolution`, `channels`).
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// A name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The kind of network that it is counted with where accuracy is told by kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Anything that identifies it to its author; given back with verdicts and predictions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>))]
    pub id: Option<ExternalId>,
    /// What it is and where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// Published figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// Its input; sequences and graphs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Input>,
    /// A sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<LayerSpec>>,
    /// A graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeSpec>>,
    /// Index of the node whose value is the graph's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<i64>,
    /// Height and width of the input; short form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_resolution: Option<u32>,
    /// Output channels of each layer; short form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<u32>>,
    /// Definitions of ops that the catalog does not have. An imported model has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<Vec<OpDef>>,
}

#[cfg(feature = "openapi")]
crate::openapi::either_schema!(
    LayerSpec,
    String,
    NodeSpec,
    "A layer, or an op's name in the short form."
);

impl Serialize for LayerSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            LayerSpec::Name(name) => serializer.serialize_str(name),
            LayerSpec::Full(node) => node.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for LayerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LayerVisitor;
        impl<'de> Visitor<'de> for LayerVisitor {
            type Value = LayerSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a layer: {\"op\": ..., \"c_out\": ..., \"stride\": ...}, or an op's name",
                )
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<LayerSpec, E> {
                Ok(LayerSpec::Name(name.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LayerSpec, A::Error> {
                NodeSpec::deserialize(de::value::MapAccessDeserializer::new(map))
                    .map(LayerSpec::Full)
            }
        }
        deserializer.deserialize_any(LayerVisitor)
    }
}

impl NetworkSpec {
    /// Reads one network from YAML or JSON.
    ///
    /// # Errors
    /// Syntax errors and unknown fields, with line and column.
    pub fn from_yaml(text: &str) -> Result<NetworkSpec, Invalid> {
        text::read(text)
    }

    /// Reads one network from JSON, such as a line of a file of networks.
    ///
    /// # Errors
    /// Syntax errors and unknown fields, with their column, and their line if there are several.
    pub fn from_json(text: &str) -> Result<NetworkSpec, Invalid> {
        text::read_json(text)
    }

    /// Whether each line of a text is a network in JSON, by its first line: it contains a whole object.
    pub fn is_one_a_line(first_line: &str) -> bool {
        let line = text::unmarked(first_line).trim();
        // A mistake in the first line concerns that line only.
        (line.starts_with("{\"") && line.ends_with('}'))
            || (line.starts_with('{') && serde_json::from_str::<IgnoredAny>(line).is_ok())
    }

    /// Reads the networks of a text: one in YAML or JSON, or many with one JSON object per line, each with its line
    /// number. Empty lines are skipped.
    ///
    /// # Errors
    /// Syntax errors and unknown fields, with line and column; an empty text.
    pub fn read_all(text: &str) -> Result<Vec<(Option<usize>, NetworkSpec)>, Invalid> {
        let text = text::unmarked(text);
        if text.trim().is_empty() {
            return Err(Invalid::here("it is empty, and should hold a network"));
        }
        if !text.lines().next().is_some_and(NetworkSpec::is_one_a_line) {
            return Ok(vec![(None, NetworkSpec::from_yaml(text)?)]);
        }
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(index, line)| {
                let number = index + 1;
                let spec = NetworkSpec::from_json(line);
                Ok((Some(number), spec.map_err(|e| e.within(format!("line {number}")))?))
            })
            .collect()
    }
}

//! Spaces of architectures as their authors write them.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::amount::{Amount, Ratio};
use crate::op::OpDef;
use crate::spec::Merge;

/// A space of architectures as its author writes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchSpaceDef {
    /// Its name, which begins the genotypes of its networks.
    pub name: String,
    /// The version of this definition. A change that gives a genotype another network has another version.
    pub version: u32,
    /// What it is and where it comes from.
    #[serde(default)]
    pub doc: String,
    #[serde(default)]
    pub(super) ops: Vec<OpDef>,
    pub(super) divisor: Option<u32>,
    pub(super) input: InputDef,
    #[serde(default)]
    pub(super) choices: Named<ChoiceDef>,
    #[serde(default)]
    pub(super) cells: Named<CellDef>,
    pub(super) body: Vec<ElementDef>,
}

/// The input of every network.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputDef {
    pub(super) n: Amount,
    pub(super) c: Amount,
    pub(super) h: Amount,
    pub(super) w: Amount,
}

/// One element of the body. Its fields show its kind: layers or a stage of blocks (`op`, `options`, `layers`), the use
/// of a cell (`cell`), optional edges (`join`), or choices for what follows (`choose`).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ElementDef {
    pub(super) id: Option<String>,
    pub(super) choose: Option<Named<ChoiceDef>>,
    pub(super) cell: Option<String>,
    pub(super) repeat: Option<u32>,
    pub(super) join: Option<Vec<String>>,
    pub(super) through: Option<Template>,
    pub(super) depth: Option<DepthDef>,
    pub(super) options: Option<Vec<OptionDef>>,
    pub(super) op: Option<Template>,
    pub(super) changes_shape: Option<Template>,
    pub(super) layers: Option<Vec<LayerDef>>,
    #[serde(default)]
    pub(super) choices: Named<ChoiceDef>,
    pub(super) c_out: Option<Amount>,
    pub(super) stride: Option<Amount>,
    pub(super) inputs: Option<Vec<String>>,
    pub(super) merge: Option<Merge>,
}

/// A layer of an option.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayerDef {
    pub(super) op: Template,
    /// The op in its place where the stride is not 1, or the channels change.
    pub(super) changes_shape: Option<Template>,
    pub(super) c_out: Option<Amount>,
    pub(super) stride: Option<Amount>,
}

/// An option of a block or an edge: a layer, or several, or none. With choices of its own, it stands for every
/// combination of them.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OptionFields {
    pub(super) op: Option<Template>,
    pub(super) changes_shape: Option<Template>,
    pub(super) layers: Option<Vec<LayerDef>>,
    #[serde(default)]
    pub(super) choices: Named<ChoiceDef>,
    pub(super) c_out: Option<Amount>,
    pub(super) stride: Option<Amount>,
}

/// An option, or an op alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OptionDef(pub(super) OptionFields);

/// A cell: a small graph whose edges are chosen, and which is used at several places with the same choice.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CellDef {
    /// Values that it reads: 1, or 2 for the outputs of the two elements before it.
    #[serde(default = "one")]
    pub(super) inputs: u32,
    /// The op that brings each input to the cell's width and size.
    pub(super) adapt: Option<AdaptDef>,
    /// Nodes after the inputs.
    pub(super) nodes: u32,
    /// The values before a node that it reads.
    pub(super) edges: EdgesDef,
    /// The options of each edge.
    pub(super) ops: Vec<OptionDef>,
    /// What the cell gives.
    pub(super) output: OutputDef,
}

/// The op on each input of a cell.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdaptDef {
    pub(super) op: Template,
    /// The op in its place where an input is larger than the other one.
    pub(super) strided: Option<Template>,
}

/// What a cell gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutputDef {
    /// Its last node.
    Last,
    /// All nodes, one after the other along the channels.
    Concat,
}

fn one() -> u32 {
    1
}

/// Entries in the order in which they are written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object, written `name: value`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

/// The values of a choice: a list, or a map from labels to what stands in the name of an op.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChoiceDef(pub(super) Vec<ChoiceValue>);

/// A value of a choice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChoiceValue {
    /// What people see.
    pub(super) label: String,
    /// What stands in names of ops.
    pub(super) text: String,
    /// What it is worth in amounts.
    pub(super) number: Option<Ratio>,
}

impl ChoiceValue {
    fn new(scalar: Scalar) -> ChoiceValue {
        ChoiceValue { label: scalar.text.clone(), text: scalar.text, number: scalar.number }
    }
}

impl<'de> Deserialize<'de> for ChoiceDef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = ChoiceDef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of values, or labels with values")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ChoiceDef, A::Error> {
                let mut values = Vec::new();
                while let Some(scalar) = list.next_element()? {
                    values.push(ChoiceValue::new(scalar));
                }
                Ok(ChoiceDef(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ChoiceDef, A::Error> {
                let mut values = Vec::new();
                while let Some((label, scalar)) = map.next_entry::<String, Scalar>()? {
                    values.push(ChoiceValue { label, ..ChoiceValue::new(scalar) });
                }
                Ok(ChoiceDef(values))
            }
        }
        deserializer.deserialize_any(ChoiceVisitor)
    }
}

/// A value of a choice as it is written: a number or a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    pub(super) text: String,
    pub(super) number: Option<Ratio>,
}

impl Scalar {
    /// It as a text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Scalar, E> {
                number(n.to_string())
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Scalar, E> {
                Err(E::custom(format!("{n} is negative")))
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<Scalar, E> {
                number(n.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar { text: text.to_owned(), number: None })
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

fn number<E: de::Error>(text: String) -> Result<Scalar, E> {
    match Ratio::decimal(&text) {
        Some(value) => Ok(Scalar { text, number: Some(value) }),
        None => Err(E::custom(format!(
            "{text} is too long or too large; a value has at most 4 digits after the point"
        ))),
    }
}

impl<'de> Deserialize<'de> for OptionDef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OptionVisitor;
        impl<'de> Visitor<'de> for OptionVisitor {
            type Value = OptionDef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an op's name, or an option: {op: ..., choices: ...}")
            }
            fn visit_str<E: de::Error>(self, op: &str) -> Result<OptionDef, E> {
                let op = Some(Template(op.to_owned()));
                Ok(OptionDef(OptionFields { op, ..OptionFields::default() }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OptionDef, A::Error> {
                OptionFields::deserialize(MapAccessDeserializer::new(map)).map(OptionDef)
            }
        }
        deserializer.deserialize_any(OptionVisitor)
    }
}

/// The number of blocks of a stage: fixed, following from choices, or a choice of its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum DepthDef {
    Amount(Amount),
    List(Vec<u32>),
}

impl<'de> Deserialize<'de> for DepthDef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DepthVisitor;
        impl<'de> Visitor<'de> for DepthVisitor {
            type Value = DepthDef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of blocks, a list of them, or a product such as `3*depth`")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<DepthDef, A::Error> {
                let mut depths = Vec::new();
                while let Some(depth) = list.next_element()? {
                    depths.push(depth);
                }
                Ok(DepthDef::List(depths))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<DepthDef, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_f64<E: de::Error>(self, n: f64) -> Result<DepthDef, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DepthDef, E> {
                text.parse().map(DepthDef::Amount).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(DepthVisitor)
    }
}

/// The values that a node of a cell reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgesDef {
    /// Every earlier one.
    All,
    /// So many earlier ones, which are chosen.
    Some(u32),
}

impl<'de> Deserialize<'de> for EdgesDef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EdgesVisitor;
        impl Visitor<'_> for EdgesVisitor {
            type Value = EdgesDef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all`, or the number of earlier values that a node reads")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<EdgesDef, E> {
                u32::try_from(n)
                    .map(EdgesDef::Some)
                    .map_err(|_| E::custom(format!("{n} edges are too many")))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<EdgesDef, E> {
                match text {
                    "all" => Ok(EdgesDef::All),
                    _ => Err(E::custom("is neither `all` nor a number")),
                }
            }
        }
        deserializer.deserialize_any(EdgesVisitor)
    }
}

/// The name of an op with choices in it: `MBConv<expand>_<kernel>x<kernel>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Template(pub(super) String);

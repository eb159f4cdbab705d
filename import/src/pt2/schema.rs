//! The JSON of `torch.export`, as far as it is read: schema versions 5 to 8, of torch 2.2 and newer.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// A program.
#[derive(Debug, Deserialize)]
pub(crate) struct Program {
    pub(crate) graph_module: GraphModule,
    #[serde(default)]
    pub(crate) schema_version: Option<SchemaVersion>,
}

/// The version of this format.
#[derive(Debug, Deserialize)]
pub(crate) struct SchemaVersion {
    pub(crate) major: i64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GraphModule {
    pub(crate) graph: Graph,
    pub(crate) signature: Signature,
}

/// A graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Graph {
    pub(crate) inputs: Vec<Argument>,
    pub(crate) outputs: Vec<Argument>,
    pub(crate) nodes: Vec<Node>,
    /// All tensors by name.
    pub(crate) tensor_values: HashMap<String, TensorMeta>,
    /// Sizes by name.
    #[serde(default)]
    pub(crate) sym_int_values: HashMap<String, SymInt>,
}

/// A node.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) target: String,
    pub(crate) inputs: Vec<NamedArgument>,
    pub(crate) outputs: Vec<Argument>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NamedArgument {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) arg: Argument,
}

/// Type and dimensions of a tensor.
#[derive(Debug, Deserialize)]
pub(crate) struct TensorMeta {
    pub(crate) dtype: i64,
    pub(crate) sizes: Vec<SymInt>,
    #[serde(default)]
    pub(crate) strides: Vec<SymInt>,
    #[serde(default)]
    pub(crate) storage_offset: Option<SymInt>,
}

/// A size: a number or an expression.
#[derive(Debug, Deserialize)]
pub(crate) struct SymInt {
    #[serde(default)]
    pub(crate) as_int: Option<i64>,
    #[serde(default)]
    pub(crate) as_expr: Option<SymExpr>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SymExpr {
    pub(crate) expr_str: String,
}

/// A size as an argument: a number or the name of one.
#[derive(Debug, Deserialize)]
pub(crate) struct SymIntArgument {
    #[serde(default)]
    pub(crate) as_int: Option<i64>,
    #[serde(default)]
    pub(crate) as_name: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TensorArgument {
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OptionalTensor {
    #[serde(default)]
    pub(crate) as_tensor: Option<TensorArgument>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GraphArgument {
    pub(crate) graph: Graph,
}

/// What the inputs and outputs of the graph are.
#[derive(Debug, Deserialize)]
pub(crate) struct Signature {
    pub(crate) input_specs: Vec<InputSpec>,
    pub(crate) output_specs: Vec<OutputSpec>,
}

/// What an input is. Without any of these it is something that is not read.
#[derive(Debug, Deserialize)]
pub(crate) struct InputSpec {
    #[serde(default)]
    pub(crate) user_input: Option<User>,
    #[serde(default)]
    pub(crate) parameter: Option<Parameter>,
    #[serde(default)]
    pub(crate) buffer: Option<Buffer>,
    #[serde(default)]
    pub(crate) tensor_constant: Option<TensorConstant>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct User {
    pub(crate) arg: Argument,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Parameter {
    pub(crate) arg: TensorArgument,
    pub(crate) parameter_name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Buffer {
    pub(crate) arg: TensorArgument,
    pub(crate) buffer_name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TensorConstant {
    pub(crate) arg: TensorArgument,
    pub(crate) tensor_constant_name: String,
}

/// What an output is. Without this it is a change of a buffer, or a gradient.
#[derive(Debug, Deserialize)]
pub(crate) struct OutputSpec {
    #[serde(default)]
    pub(crate) user_output: Option<User>,
}

/// Where the bytes of stored tensors are in the archive.
#[derive(Debug, Deserialize)]
pub(crate) struct PayloadConfig {
    pub(crate) config: HashMap<String, Payload>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Payload {
    pub(crate) path_name: String,
    #[serde(default)]
    pub(crate) use_pickle: bool,
    #[serde(default)]
    pub(crate) tensor_meta: Option<TensorMeta>,
}

/// An argument, or an output.
#[derive(Debug)]
pub(crate) enum Argument {
    None,
    Tensor(TensorArgument),
    Tensors(Vec<OptionalTensor>),
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Size(SymIntArgument),
    Sizes(Vec<SymIntArgument>),
    Graph(Box<Graph>),
    /// A number or a truth value that is computed while the model runs.
    Computed,
    /// A type, a device, a memory format, and what is newer.
    Other,
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Argument, D::Error> {
        deserializer.deserialize_map(ArgumentVisitor)
    }
}

struct ArgumentVisitor;

impl<'de> Visitor<'de> for ArgumentVisitor {
    type Value = Argument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an argument, as {\"as_int\": 1}")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Argument, M::Error> {
        let mut argument = Argument::Other;
        while let Some(kind) = map.next_key::<String>()? {
            argument = match kind.as_str() {
                "as_none" => {
                    map.next_value::<IgnoredAny>()?;
                    Argument::None
                }
                "as_tensor" => Argument::Tensor(map.next_value()?),
                "as_tensors" => {
                    let tensors: Vec<TensorArgument> = map.next_value()?;
                    let optional = |tensor| OptionalTensor { as_tensor: Some(tensor) };
                    Argument::Tensors(tensors.into_iter().map(optional).collect())
                }
                "as_optional_tensors" => Argument::Tensors(map.next_value()?),
                "as_optional_tensor" => match map.next_value::<OptionalTensor>()?.as_tensor {
                    Some(tensor) => Argument::Tensor(tensor),
                    None => Argument::None,
                },
                "as_int" => Argument::Int(map.next_value()?),
                "as_float" => Argument::Float(map.next_value::<Float>()?.0),
                "as_bool" => Argument::Bool(map.next_value()?),
                "as_string" => Argument::Text(map.next_value()?),
                "as_ints" => Argument::Ints(map.next_value()?),
                "as_floats" => {
                    let floats: Vec<Float> = map.next_value()?;
                    Argument::Floats(floats.into_iter().map(|float| float.0).collect())
                }
                "as_sym_int" => Argument::Size(map.next_value()?),
                "as_sym_ints" => Argument::Sizes(map.next_value()?),
                "as_graph" => Argument::Graph(Box::new(map.next_value::<GraphArgument>()?.graph)),
                "as_sym_bool" | "as_sym_bools" | "as_sym_float" | "as_sym_floats" => {
                    map.next_value::<IgnoredAny>()?;
                    Argument::Computed
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    Argument::Other
                }
            };
        }
        Ok(argument)
    }
}

/// A number. Infinities and NaN are texts.
struct Float(f64);

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Float, D::Error> {
        deserializer.deserialize_any(FloatVisitor)
    }
}

struct FloatVisitor;

impl Visitor<'_> for FloatVisitor {
    type Value = Float;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Float, E> {
        Ok(Float(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Float, E> {
        Ok(Float(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Float, E> {
        Ok(Float(number as f64))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Float, E> {
        match text {
            "Infinity" => Ok(Float(f64::INFINITY)),
            "-Infinity" => Ok(Float(f64::NEG_INFINITY)),
            "NaN" => Ok(Float(f64::NAN)),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_the_one_field_that_it_has() {
        let read = |json: &str| serde_json::from_str::<Argument>(json);
        assert!(matches!(read(r#"{"as_none": []}"#), Ok(Argument::None)));
        assert!(matches!(read(r#"{"as_none": true}"#), Ok(Argument::None)));
        assert!(matches!(read(r#"{"as_float": "-Infinity"}"#), Ok(Argument::Float(f)) if f < 0.0));
        assert!(matches!(read(r#"{"as_device": {"type": "cpu"}}"#), Ok(Argument::Other)));
        let list = r#"{"as_optional_tensors": [{"as_none": []}, {"as_tensor": {"name": "x"}}]}"#;
        assert!(matches!(read(list), Ok(Argument::Tensors(list)) if list[0].as_tensor.is_none()));
        assert!(read(r#"{"as_int": "x"}"#).is_err());
    }
}

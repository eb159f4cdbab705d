//! The messages of ONNX that are read, by the field numbers of `onnx.proto`. Weights stay in the file.

use std::io::{Read, Seek};

use crate::error::ImportError;
use crate::fold::{MOST_BYTES, MOST_STORED};
use crate::wire::{Content, Field, Wire};

/// A model.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) ir_version: Option<i64>,
    /// Domains and their versions.
    pub(crate) opsets: Vec<(String, i64)>,
    pub(crate) graph: Option<GraphProto>,
    pub(crate) functions: Vec<Function>,
}

/// A graph.
#[derive(Debug, Default)]
pub(crate) struct GraphProto {
    pub(crate) name: String,
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) initializers: Vec<Tensor>,
    pub(crate) inputs: Vec<ValueInfo>,
    pub(crate) outputs: Vec<ValueInfo>,
    pub(crate) values: Vec<ValueInfo>,
}

/// A function of the model's own.
#[derive(Debug, Default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) domain: String,
    pub(crate) overload: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) nodes: Vec<NodeProto>,
    /// Attributes with a default.
    pub(crate) defaults: Vec<Attribute>,
    pub(crate) opsets: Vec<(String, i64)>,
}

/// A node.
#[derive(Debug, Default)]
pub(crate) struct NodeProto {
    pub(crate) name: String,
    pub(crate) operator: String,
    pub(crate) domain: String,
    pub(crate) overload: String,
    /// Names of values. An optional one that is left out is empty.
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attributes: Vec<Attribute>,
}

/// An attribute of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    /// The attribute of the enclosing function that has the value, or empty.
    pub(crate) reference: String,
    pub(crate) value: AttributeValue,
}

/// The value of an attribute.
#[derive(Debug, Clone, Default)]
pub(crate) enum AttributeValue {
    /// Nothing, or something that is not read: a subgraph, a type.
    #[default]
    Other,
    Float(f64),
    Integer(i64),
    Text(String),
    Tensor(Tensor),
    Floats(Vec<f64>),
    Integers(Vec<i64>),
}

/// A stored tensor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<i64>,
    /// A number of the enum `TensorProto.DataType`.
    pub(crate) element: i64,
    pub(crate) data: Data,
}

/// Where the elements of a tensor are.
#[derive(Debug, Clone, Default)]
pub(crate) enum Data {
    /// In a form that is not read, or nowhere.
    #[default]
    Unread,
    /// In the file, and too large to be kept: plain bytes from this one on.
    Here { at: u64 },
    /// Bytes, least significant first.
    Raw(Vec<u8>),
    /// Numbers, or bits of numbers if the element type is a short floating-point type.
    Integers(Vec<i64>),
    /// Numbers.
    Floats(Vec<f64>),
    /// In another file.
    External { location: String, offset: u64 },
}

/// Name and type of a value.
#[derive(Debug, Default)]
pub(crate) struct ValueInfo {
    pub(crate) name: String,
    /// Element type, if it is a tensor.
    pub(crate) element: Option<i64>,
    /// Dimensions, if they are given.
    pub(crate) dims: Option<Vec<Dim>>,
}

/// A dimension of a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Dim {
    Number(i64),
    /// Any number, which is the same wherever this name stands.
    Name(String),
    /// Any number.
    Unknown,
}

type Result<T> = std::result::Result<T, ImportError>;

impl Model {
    /// Reads a file. What was read before an error stays in `self`.
    pub(crate) fn read<R: Read + Seek>(&mut self, wire: &mut Wire<R>) -> Result<()> {
        let end = wire.length();
        while let Some(field) = wire.next(end)? {
            match field.number {
                1 => self.ir_version = Some(wire.integer(field)?),
                7 => self.graph = Some(wire.message(field, graph)?),
                8 => self.opsets.push(wire.message(field, opset)?),
                25 => self.functions.push(wire.message(field, function)?),
                _ => wire.skip(field)?,
            }
        }
        Ok(())
    }
}

fn graph<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<GraphProto> {
    let mut graph = GraphProto::default();
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => graph.nodes.push(wire.message(field, node)?),
            2 => graph.name = wire.text(field)?,
            5 => graph.initializers.push(wire.message(field, tensor)?),
            11 => graph.inputs.push(wire.message(field, value_info)?),
            12 => graph.outputs.push(wire.message(field, value_info)?),
            13 => graph.values.push(wire.message(field, value_info)?),
            15 => graph.initializers.push(wire.message(field, sparse_tensor)?),
            _ => wire.skip(field)?,
        }
    }
    Ok(graph)
}

fn opset<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<(String, i64)> {
    let mut opset = (String::new(), 0);
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => opset.0 = wire.text(field)?,
            2 => opset.1 = wire.integer(field)?,
            _ => wire.skip(field)?,
        }
    }
    Ok(opset)
}

fn function<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<Function> {
    let mut function = Function::default();
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => function.name = wire.text(field)?,
            4 => function.inputs.push(wire.text(field)?),
            5 => function.outputs.push(wire.text(field)?),
            7 => function.nodes.push(wire.message(field, node)?),
            9 => function.opsets.push(wire.message(field, opset)?),
            10 => function.domain = wire.text(field)?,
            11 => function.defaults.push(wire.message(field, attribute)?),
            13 => function.overload = wire.text(field)?,
            _ => wire.skip(field)?,
        }
    }
    Ok(function)
}

fn node<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<NodeProto> {
    let mut node = NodeProto::default();
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => node.inputs.push(wire.text(field)?),
            2 => node.outputs.push(wire.text(field)?),
            3 => node.name = wire.text(field)?,
            4 => node.operator = wire.text(field)?,
            5 => node.attributes.push(wire.message(field, attribute)?),
            7 => node.domain = wire.text(field)?,
            8 => node.overload = wire.text(field)?,
            _ => wire.skip(field)?,
        }
    }
    Ok(node)
}

fn attribute<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<Attribute> {
    let mut attribute = Attribute::default();
    let mut kind = None;
    let (mut floats, mut integers) = (Vec::new(), Vec::new());
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => attribute.name = wire.text(field)?,
            2 => attribute.value = AttributeValue::Float(wire.float(field)?),
            3 => attribute.value = AttributeValue::Integer(wire.integer(field)?),
            4 => attribute.value = AttributeValue::Text(wire.text(field)?),
            5 => attribute.value = AttributeValue::Tensor(wire.message(field, tensor)?),
            7 if is_small(field, 4, floats.len()) => wire.floats(field, &mut floats)?,
            8 if is_small(field, 10, integers.len()) => wire.integers(field, &mut integers)?,
            // No operator has a longer list, so the whole attribute is one that is not read.
            7 | 8 => {
                wire.skip(field)?;
                kind = Some(0);
            }
            20 if kind != Some(0) => kind = Some(wire.integer(field)?),
            21 => attribute.reference = wire.text(field)?,
            _ => wire.skip(field)?,
        }
    }
    // Writers may leave out a field that has its default, or an empty list.
    match kind {
        Some(6) => attribute.value = AttributeValue::Floats(floats),
        Some(7) => attribute.value = AttributeValue::Integers(integers),
        None if !floats.is_empty() => attribute.value = AttributeValue::Floats(floats),
        None if !integers.is_empty() => attribute.value = AttributeValue::Integers(integers),
        Some(1) if matches!(attribute.value, AttributeValue::Other) => {
            attribute.value = AttributeValue::Float(0.0);
        }
        Some(2) if matches!(attribute.value, AttributeValue::Other) => {
            attribute.value = AttributeValue::Integer(0);
        }
        _ => {}
    }
    Ok(attribute)
}

fn tensor<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<Tensor> {
    let mut tensor = Tensor::default();
    let (mut floats, mut integers) = (Vec::new(), Vec::new());
    let mut raw = None;
    let mut here = None;
    let mut external = Vec::new();
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => wire.integers(field, &mut tensor.dims)?,
            2 => tensor.element = wire.integer(field)?,
            4 if is_small(field, 4, floats.len()) => wire.floats(field, &mut floats)?,
            5 | 7 | 11 if is_small(field, 10, integers.len()) => {
                wire.integers(field, &mut integers)?;
            }
            8 => tensor.name = wire.text(field)?,
            9 if is_small(field, 8, 0) || is_mask(field) => raw = Some(wire.bytes(field)?),
            10 if is_small(field, 8, floats.len()) => doubles(wire, field, &mut floats)?,
            13 => external.push(wire.message(field, entry)?),
            // Bytes, and packed numbers of 32 and of 64 bits, which are stored alike.
            4 | 9 | 10 if matches!(field.content, Content::Length(_)) => {
                here = Some(wire.position());
                wire.skip(field)?;
            }
            _ => wire.skip(field)?,
        }
    }
    tensor.data = if let Some(raw) = raw {
        Data::Raw(raw)
    } else if let Some((_, location)) = external.iter().find(|(key, _)| key == "location") {
        let offset = external.iter().find(|(key, _)| key == "offset");
        Data::External {
            location: location.clone(),
            offset: offset.and_then(|(_, number)| number.parse().ok()).unwrap_or(0),
        }
    } else if !floats.is_empty() {
        Data::Floats(floats)
    } else if !integers.is_empty() {
        Data::Integers(integers)
    } else {
        here.map_or(Data::Unread, |at| Data::Here { at })
    };
    Ok(tensor)
}

/// Whether a field can be one of a small tensor, whose numbers are kept: packed, or one more after others.
fn is_small(field: Field, size: u64, before: usize) -> bool {
    match field.content {
        Content::Length(length) => length <= MOST_STORED * size,
        _ => (before as u64) < MOST_STORED,
    }
}

/// Whether a field can have the bytes of a mask.
fn is_mask(field: Field) -> bool {
    matches!(field.content, Content::Length(length) if length <= MOST_BYTES)
}

fn doubles<R: Read + Seek>(wire: &mut Wire<R>, field: Field, list: &mut Vec<f64>) -> Result<()> {
    match field.content {
        Content::Length(_) => {
            let bytes = wire.bytes(field)?;
            list.extend(crate::elements::Element::F64.numbers(&bytes));
        }
        _ => list.push(wire.float(field)?),
    }
    Ok(())
}

fn sparse_tensor<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<Tensor> {
    let mut sparse = Tensor::default();
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => {
                let values = wire.message(field, tensor)?;
                sparse.name = values.name;
                sparse.element = values.element;
            }
            3 => wire.integers(field, &mut sparse.dims)?,
            _ => wire.skip(field)?,
        }
    }
    Ok(sparse)
}

fn entry<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<(String, String)> {
    let mut entry = (String::new(), String::new());
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => entry.0 = wire.text(field)?,
            2 => entry.1 = wire.text(field)?,
            _ => wire.skip(field)?,
        }
    }
    Ok(entry)
}

fn value_info<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<ValueInfo> {
    let mut info = ValueInfo::default();
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => info.name = wire.text(field)?,
            2 => {
                if let Some((element, dims)) = wire.message(field, value_type)? {
                    (info.element, info.dims) = (Some(element), dims);
                }
            }
            _ => wire.skip(field)?,
        }
    }
    Ok(info)
}

/// Element type and dimensions, of a tensor.
type TensorType = (i64, Option<Vec<Dim>>);

fn value_type<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<Option<TensorType>> {
    let mut found = None;
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => found = Some(wire.message(field, tensor_type)?),
            _ => wire.skip(field)?,
        }
    }
    Ok(found)
}

fn tensor_type<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<TensorType> {
    let mut found = (0, None);
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => found.0 = wire.integer(field)?,
            2 => found.1 = Some(wire.message(field, shape)?),
            _ => wire.skip(field)?,
        }
    }
    Ok(found)
}

fn shape<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<Vec<Dim>> {
    let mut dims = Vec::new();
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => dims.push(wire.message(field, dim)?),
            _ => wire.skip(field)?,
        }
    }
    Ok(dims)
}

fn dim<R: Read + Seek>(wire: &mut Wire<R>, end: u64) -> Result<Dim> {
    let mut dim = Dim::Unknown;
    while let Some(field) = wire.next(end)? {
        match field.number {
            1 => dim = Dim::Number(wire.integer(field)?),
            2 => dim = Dim::Name(wire.text(field)?),
            _ => wire.skip(field)?,
        }
    }
    Ok(dim)
}

//! The ONNX file of a model: an encoded `ModelProto`. Field numbers are those of ONNX's `onnx.proto`.

use std::io::{self, Write};

use crate::model::{Attribute, Content, Model, Node, Tensor};
use crate::weights::{Weight, WeightError, Weights};
use crate::wire::Message;

/// The version of the operators. It is the first with layer norms, and TensorRT 8.6 and ONNX Runtime 1.12 already read
/// it.
pub const OPSET: i64 = 17;

/// The version of the file format that came with it.
const IR_VERSION: i64 = 8;

/// The largest file that readers of protobuf accept. Larger models keep their weights in a second file.
pub const MAX_BYTES: u64 = i32::MAX as u64;

/// Constants with fewer bytes stay in the first file: runtimes need shapes before they read a second one.
const MIN_OUTSIDE: u64 = 1024;

/// Why a model cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It is too large for one file.
    #[error(
        "the model takes {bytes} bytes, and an ONNX file has at most {MAX_BYTES}: it needs a second file for its weights"
    )]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// A weight is missing or does not fit.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The file cannot be written.
    #[error("it cannot be written")]
    Write(#[from] io::Error),
}

/// Element types of `TensorProto`.
const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// A part of a file.
enum Piece<'a> {
    Encoded(Message),
    Values(&'a Tensor),
}

impl Piece<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Piece::Encoded(message) => message.len(),
            Piece::Values(tensor) => tensor.bytes(),
        }
    }
}

impl Model {
    /// The size of its file, if it is a single one.
    pub fn bytes(&self) -> u64 {
        self.pieces(None).iter().map(Piece::bytes).sum()
    }

    /// Writes it as one file.
    ///
    /// # Errors
    /// When it is larger than [`MAX_BYTES`], a weight is missing or has another shape, or writing fails.
    pub fn write(&self, weights: &dyn Weights, out: &mut dyn Write) -> Result<(), ExportError> {
        self.write_pieces(&self.pieces(None), weights, out)
    }

    /// Writes it as two files: `out` has the graph, and `data` the weights. Readers look for the second file under the
    /// name `data_name` beside the first one.
    ///
    /// # Errors
    /// As [`Model::write`].
    pub fn write_apart(
        &self,
        weights: &dyn Weights,
        out: &mut dyn Write,
        data_name: &str,
        data: &mut dyn Write,
    ) -> Result<(), ExportError> {
        for tensor in self.tensors.iter().filter(|tensor| tensor.is_outside()) {
            tensor.write(weights, data)?;
        }
        self.write_pieces(&self.pieces(Some(data_name)), weights, out)
    }

    fn write_pieces(
        &self,
        pieces: &[Piece],
        weights: &dyn Weights,
        out: &mut dyn Write,
    ) -> Result<(), ExportError> {
        let bytes = pieces.iter().map(Piece::bytes).sum();
        if bytes > MAX_BYTES {
            return Err(ExportError::TooLarge { bytes });
        }
        for piece in pieces {
            match piece {
                Piece::Encoded(message) => out.write_all(message.bytes())?,
                Piece::Values(tensor) => tensor.write(weights, out)?,
            }
        }
        Ok(())
    }

    /// The file in its order. With `data_name`, large constants are in a second file of this name.
    fn pieces(&self, data_name: Option<&str>) -> Vec<Piece<'_>> {
        let graph = self.graph(data_name);
        let mut head = Message::default();
        head.int(1, IR_VERSION);
        head.text(2, "latlas");
        head.text(3, env!("CARGO_PKG_VERSION"));
        let mut opset = Message::default();
        opset.int(2, OPSET);
        head.message(8, &opset);
        head.open(7, graph.iter().map(Piece::bytes).sum());
        let mut pieces = vec![Piece::Encoded(head)];
        pieces.extend(graph);
        pieces
    }

    /// The contents of the `GraphProto`.
    fn graph(&self, data_name: Option<&str>) -> Vec<Piece<'_>> {
        let mut encoded = Message::default();
        for node in &self.nodes {
            encoded.message(1, &node.encoded());
        }
        encoded.text(2, &self.name);
        encoded.message(11, &value_info("input", &self.input));
        encoded.message(12, &value_info("output", &self.output));
        let mut pieces = vec![Piece::Encoded(encoded)];
        let mut offset = 0;
        for tensor in &self.tensors {
            let outside = data_name.filter(|_| tensor.is_outside());
            let mut header = tensor.header();
            let mut encoded = Message::default();
            if let Some(name) = outside {
                header.append(&tensor.place(name, offset));
                offset += tensor.bytes();
                encoded.message(5, &header);
                pieces.push(Piece::Encoded(encoded));
                continue;
            }
            header.open(9, tensor.bytes());
            encoded.open(5, header.len() + tensor.bytes());
            encoded.append(&header);
            pieces.push(Piece::Encoded(encoded));
            pieces.push(Piece::Values(tensor));
        }
        pieces
    }
}

impl Node {
    /// A `NodeProto`.
    fn encoded(&self) -> Message {
        let mut node = Message::default();
        for input in &self.inputs {
            node.text(1, input);
        }
        for output in &self.outputs {
            node.text(2, output);
        }
        if let Some(first) = self.outputs.first() {
            node.text(3, first);
        }
        node.text(4, self.operator);
        for (name, value) in &self.attributes {
            node.message(5, &value.encoded(name));
        }
        node
    }
}

impl Attribute {
    /// An `AttributeProto`. Field 20 is its type.
    fn encoded(&self, name: &str) -> Message {
        let mut attribute = Message::default();
        attribute.text(1, name);
        match self {
            Attribute::Float(value) => {
                attribute.float(2, *value);
                attribute.int(20, 1);
            }
            Attribute::Int(value) => {
                attribute.int(3, *value);
                attribute.int(20, 2);
            }
            Attribute::Text(value) => {
                attribute.text(4, value);
                attribute.int(20, 3);
            }
            Attribute::Ints(values) => {
                for &value in values {
                    attribute.int(8, value);
                }
                attribute.int(20, 7);
            }
        }
        attribute
    }
}

/// A `ValueInfoProto` of a tensor in single precision.
fn value_info(name: &str, dims: &[i64]) -> Message {
    let mut shape = Message::default();
    for &size in dims {
        let mut dim = Message::default();
        dim.int(1, size);
        shape.message(1, &dim);
    }
    let mut tensor = Message::default();
    tensor.int(1, FLOAT);
    tensor.message(2, &shape);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut value = Message::default();
    value.text(1, name);
    value.message(2, &kind);
    value
}

impl Tensor {
    /// The beginning of a `TensorProto`, without its values.
    fn header(&self) -> Message {
        let mut header = Message::default();
        for &size in &self.dims {
            header.int(1, size);
        }
        header.int(2, if self.is_integer() { INT64 } else { FLOAT });
        header.text(8, &self.name);
        header
    }

    /// Where the values are in a second file.
    fn place(&self, file: &str, offset: u64) -> Message {
        let mut place = Message::default();
        let length = self.bytes();
        for (key, value) in [
            ("location", file.to_owned()),
            ("offset", offset.to_string()),
            ("length", length.to_string()),
        ] {
            let mut entry = Message::default();
            entry.text(1, key);
            entry.text(2, &value);
            place.message(13, &entry);
        }
        place.int(14, 1);
        place
    }

    fn is_integer(&self) -> bool {
        matches!(self.content, Content::Ints(_))
    }

    /// Bytes of its values.
    fn bytes(&self) -> u64 {
        self.elements().unsigned_abs() * if self.is_integer() { 8 } else { 4 }
    }

    /// Whether it is in the second file, if there is one.
    fn is_outside(&self) -> bool {
        self.bytes() >= MIN_OUTSIDE
    }

    /// Writes its values.
    fn write(&self, weights: &dyn Weights, out: &mut dyn Write) -> Result<(), ExportError> {
        let places = 0..self.elements();
        match &self.content {
            Content::Ints(make) => write_all(places.map(|place| make(place).to_le_bytes()), out)?,
            Content::Floats(make) => write_all(places.map(|place| make(place).to_le_bytes()), out)?,
            Content::Weight(weight) => {
                let values = values_of(weight, weights)?;
                write_all(values.iter().map(|value| value.to_le_bytes()), out)?;
            }
            Content::Transposed(weight) => {
                let values = values_of(weight, weights)?;
                let [rows, columns] = [self.dims[1] as usize, self.dims[0] as usize];
                let by_column = (0..columns)
                    .flat_map(|column| (0..rows).map(move |row| row * columns + column));
                write_all(by_column.map(|place| values[place].to_le_bytes()), out)?;
            }
        }
        Ok(())
    }
}

/// The values of a weight, as many as it has elements.
fn values_of(weight: &Weight, weights: &dyn Weights) -> Result<Vec<f32>, WeightError> {
    let values = weights.get(weight)?;
    if values.len() as u64 == weight.elements() {
        return Ok(values);
    }
    let (name, wanted) = (weight.name.clone(), weight.dims.clone());
    Err(WeightError::Shape { name, wanted, found: vec![values.len() as i64] })
}

/// Writes values, many at a time.
fn write_all<const N: usize>(
    values: impl Iterator<Item = [u8; N]>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut block = Vec::with_capacity(1 << 16);
    for value in values {
        block.extend(value);
        if block.len() >= 1 << 16 {
            out.write_all(&block)?;
            block.clear();
        }
    }
    out.write_all(&block)
}

#[cfg(test)]
mod tests;

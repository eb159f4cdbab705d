//! Messages of ONNX, written by hand.

/// A number of seven bits per byte.
pub(crate) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f | 0x80) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field with a number.
pub(crate) fn int(field: u64, number: i64) -> Vec<u8> {
    [varint(field << 3), varint(number.cast_unsigned())].concat()
}

/// A field with bytes: a text or a message.
pub(crate) fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// A field with a text.
pub(crate) fn text(field: u64, content: &str) -> Vec<u8> {
    bytes(field, content.as_bytes())
}

/// An attribute with a whole number, for [`node`].
pub(crate) fn int_attribute(name: &str, number: i64) -> Vec<u8> {
    bytes(5, &[text(1, name), int(3, number), int(20, 2)].concat())
}

/// An attribute with whole numbers, for [`node`].
pub(crate) fn ints_attribute(name: &str, numbers: &[i64]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|&n| int(8, n)).collect();
    bytes(5, &[text(1, name), numbers, int(20, 7)].concat())
}

/// An attribute with a text, for [`node`].
pub(crate) fn text_attribute(name: &str, value: &str) -> Vec<u8> {
    bytes(5, &[text(1, name), text(4, value), int(20, 3)].concat())
}

/// A node of a graph. Its name is its first output.
pub(crate) fn node(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[Vec<u8>],
) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| text(1, name)).collect();
    let outputs: Vec<u8> = outputs.iter().flat_map(|name| text(2, name)).collect();
    bytes(1, &[inputs, outputs, text(4, operator), attributes.concat()].concat())
}

/// The message of a tensor with bytes, or without any.
pub(crate) fn tensor(name: &str, dims: &[i64], element: i64, raw: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&n| int(1, n)).collect();
    let raw = if raw.is_empty() { Vec::new() } else { bytes(9, raw) };
    [dims, int(2, element), text(8, name), raw].concat()
}

/// A weight of a graph, of floats that are not in the file.
pub(crate) fn weight(name: &str, dims: &[i64]) -> Vec<u8> {
    bytes(5, &tensor(name, dims, 1, &[]))
}

/// A list of whole numbers among the weights of a graph.
pub(crate) fn list(name: &str, numbers: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes(5, &tensor(name, &[numbers.len() as i64], 7, &raw))
}

/// One whole number among the weights of a graph.
pub(crate) fn whole(name: &str, number: i64) -> Vec<u8> {
    bytes(5, &tensor(name, &[], 7, &number.to_le_bytes()))
}

/// One floating-point number among the weights of a graph.
pub(crate) fn real(name: &str, number: f32) -> Vec<u8> {
    bytes(5, &tensor(name, &[], 1, &number.to_le_bytes()))
}

fn info(field: u64, name: &str, element: i64, dims: &[i64]) -> Vec<u8> {
    let shape: Vec<u8> = dims.iter().flat_map(|&n| bytes(1, &int(1, n))).collect();
    let tensor = [int(1, element), bytes(2, &shape)].concat();
    bytes(field, &[text(1, name), bytes(2, &bytes(1, &tensor))].concat())
}

/// An input of floats.
pub(crate) fn input(name: &str, dims: &[i64]) -> Vec<u8> {
    info(11, name, 1, dims)
}

/// An input of whole numbers.
pub(crate) fn int_input(name: &str, dims: &[i64]) -> Vec<u8> {
    info(11, name, 7, dims)
}

/// The type of a value.
pub(crate) fn value(name: &str, dims: &[i64]) -> Vec<u8> {
    info(13, name, 1, dims)
}

/// An output.
pub(crate) fn output(name: &str) -> Vec<u8> {
    bytes(12, &text(1, name))
}

/// A model with a graph of these parts.
pub(crate) fn model(opset: i64, parts: &[Vec<u8>]) -> Vec<u8> {
    [int(1, 8), bytes(7, &parts.concat()), bytes(8, &[text(1, ""), int(2, opset)].concat())]
        .concat()
}

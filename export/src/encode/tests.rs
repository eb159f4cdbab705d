use ops_catalog::{Catalog, OpKey};

use super::*;
use crate::weights::Random;

fn model(key: &str) -> Model {
    let key: OpKey = key.parse().unwrap();
    let plan = Catalog::builtin().op(&key.op).unwrap().at(&key.shape).unwrap();
    Model::of_op(&key.to_string(), &plan)
}

/// The fields of an encoded message: numbers, and bytes or what a varint holds.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (&byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut fields = vec![];
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            kind => {
                let length = if kind == 2 { varint(&mut bytes) as usize } else { 4 };
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                value.to_vec()
            }
        };
        fields.push((key >> 3, value));
    }
    fields
}

/// All values of a field.
fn all(message: &[u8], field: u64) -> Vec<Vec<u8>> {
    fields(message).into_iter().filter(|(number, _)| *number == field).map(|(_, v)| v).collect()
}

fn one(message: &[u8], field: u64) -> Vec<u8> {
    let mut values = all(message, field);
    assert_eq!(values.len(), 1);
    values.remove(0)
}

#[test]
fn a_file_has_the_announced_size_and_all_its_parts() {
    let model = model("MBConv6_3x3_SE:n2-h8-w8-i8-o8-s1");
    let mut file = vec![];
    model.write(&Random::seeded(1), &mut file).unwrap();
    assert_eq!(file.len() as u64, model.bytes());
    let graph = one(&file, 7);
    assert_eq!(one(&graph, 2), b"MBConv6_3x3_SE:n2-h8-w8-i8-o8-s1");
    assert_eq!(all(&graph, 1).len(), model.operators());
    let tensors = all(&graph, 5);
    assert_eq!(tensors.len(), model.tensors.len());
    let weight = model.weights().next().unwrap();
    let tensor = tensors.iter().find(|tensor| one(tensor, 8) == weight.name.as_bytes()).unwrap();
    let written = one(tensor, 9);
    let wanted = Random::seeded(1).get(weight).unwrap();
    let wanted: Vec<u8> = wanted.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(written, wanted);
}

#[test]
fn a_linear_layer_over_tokens_has_its_weight_transposed() {
    let model = model("TransformerEncoder:n1-h4-w1-i64-o64-s1");
    let transposed = model.tensors.iter().find_map(|tensor| match &tensor.content {
        Content::Transposed(weight) if weight.dims[0] != weight.dims[1] => Some((tensor, weight)),
        _ => None,
    });
    let (tensor, weight) = transposed.unwrap();
    let [rows, columns] = [weight.dims[0] as usize, weight.dims[1] as usize];
    let mut bytes = vec![];
    tensor.write(&Random::seeded(1), &mut bytes).unwrap();
    let values = Random::seeded(1).get(weight).unwrap();
    let at = |place: usize| f32::from_le_bytes(bytes[4 * place..4 * place + 4].try_into().unwrap());
    for (row, column) in [(0, 0), (1, 0), (0, 1), (rows - 1, columns - 2)] {
        assert_eq!(at(column * rows + row), values[row * columns + column]);
    }
}

#[test]
fn weights_apart_are_found_by_their_place() {
    let model = model("TransformerEncoder:n1-h4-w1-i64-o64-s1");
    let weights = Random::seeded(1);
    let (mut file, mut data) = (vec![], vec![]);
    model.write_apart(&weights, &mut file, "a.onnx.data", &mut data).unwrap();
    assert!(file.len() as u64 + (data.len() as u64) < model.bytes() + 20_000);
    let mut end = 0;
    for tensor in all(&one(&file, 7), 5) {
        let entries = all(&tensor, 13);
        if entries.is_empty() {
            assert!(one(&tensor, 9).len() < 1024);
            continue;
        }
        assert!(all(&tensor, 9).is_empty());
        let entry = |key: &str| {
            let entry = entries.iter().find(|entry| one(entry, 1) == key.as_bytes()).unwrap();
            String::from_utf8(one(entry, 2)).unwrap()
        };
        assert_eq!(entry("location"), "a.onnx.data");
        assert_eq!(entry("offset").parse::<usize>().unwrap(), end);
        let length: usize = entry("length").parse().unwrap();
        let name = one(&tensor, 8);
        let weight = model.tensors.iter().find(|t| t.name.as_bytes() == name).unwrap();
        let mut wanted = vec![];
        weight.write(&weights, &mut wanted).unwrap();
        assert_eq!(&data[end..end + length], wanted);
        end += length;
    }
    assert_eq!(end, data.len());
}

#[test]
fn a_model_that_is_too_large_for_one_file_is_refused_before_anything_is_written() {
    let model = model("Linear:n1-h1-w1-i65536-o65536-s1");
    let mut file = vec![];
    let said = model.write(&Random::seeded(1), &mut file).unwrap_err().to_string();
    assert!(said.contains("an ONNX file has at most 2147483647"), "{said}");
    assert!(file.is_empty());
}

#[test]
fn a_provider_that_gives_too_few_values_is_refused() {
    struct Short;
    impl Weights for Short {
        fn get(&self, _: &Weight) -> Result<Vec<f32>, WeightError> {
            Ok(vec![0.0; 3])
        }
    }
    let model = model("Conv3x3:n1-h8-w8-i8-o8-s1");
    let said = model.write(&Short, &mut vec![]).unwrap_err().to_string();
    assert_eq!(
        said,
        "the weight `conv2d-0.weight` has the shape [3], but the shape [8, 8, 3, 3] is needed"
    );
}

//! Weights as a safetensors file.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::weights::Weight;

/// The header is padded to a multiple of this, so that values are aligned.
const ALIGNMENT: usize = 8;

/// Writes weights as a safetensors file of F32, one after the other. `values` gives those of each, in row-major order.
///
/// # Errors
/// Those of `values`, when a weight has another number of values than elements, and when nothing can be written.
pub fn write_safetensors<E: From<io::Error>>(
    weights: &[&Weight],
    mut values: impl FnMut(&Weight) -> Result<Vec<f32>, E>,
    out: &mut dyn Write,
) -> Result<(), E> {
    let mut entries = Map::new();
    let mut end = 0;
    for weight in weights {
        let start = end;
        end += 4 * weight.elements();
        let entry = json!({"dtype": "F32", "shape": weight.dims, "data_offsets": [start, end]});
        entries.insert(weight.name.clone(), entry);
    }
    let mut header = Value::Object(entries).to_string();
    let padded = header.len().next_multiple_of(ALIGNMENT);
    header.extend(std::iter::repeat_n(' ', padded - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for weight in weights {
        let values = values(weight)?;
        if values.len() as u64 != weight.elements() {
            let problem = format!(
                "the weight `{}` of the shape {:?} has {} values",
                weight.name,
                weight.dims,
                values.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem).into());
        }
        for value in values {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ops_catalog::Init;

    use super::*;
    use crate::weights::{Random, Safetensors, Weights};

    #[test]
    fn what_is_written_can_be_read() {
        let weight = |name: &str, dims: &[i64]| Weight {
            name: name.to_owned(),
            dims: dims.to_vec(),
            init: Init::SMALL,
        };
        let (b, a) = (weight("nodes.1.b", &[2, 3]), weight("nodes.1.a", &[]));
        let random = Random::seeded(1);
        let mut bytes = vec![];
        write_safetensors(
            &[&b, &a],
            |weight| random.get(weight).map_err(io::Error::other),
            &mut bytes,
        )
        .unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let stored = Safetensors::open(file.path()).unwrap();
        for weight in [&a, &b] {
            assert_eq!(stored.get(weight).unwrap(), random.get(weight).unwrap());
        }
        let short = write_safetensors(&[&b], |_| Ok::<_, io::Error>(vec![1.0]), &mut vec![]);
        let said = short.unwrap_err().to_string();
        assert_eq!(said, "the weight `nodes.1.b` of the shape [2, 3] has 1 values");
    }
}

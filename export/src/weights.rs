//! Where weights come from.
//!
//! Names and shapes are those of `latlas_lowering`: `layers.3.project.weight` is the weight of the node `project` in
//! layer 3 of a network, and `conv2d-2.bias` the bias of a node without an id. A safetensors file that was written for
//! one fits the other.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;

use ops_catalog::Init;
use serde::Deserialize;

/// A weight that an op or a network needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<i64>,
    /// Its values before training.
    pub init: Init,
}

impl Weight {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product::<i64>().unsigned_abs()
    }
}

/// A provider of weights.
pub trait Weights {
    /// The values of a weight, in row-major order.
    ///
    /// # Errors
    /// When there is none of this name and shape, or it cannot be read.
    fn get(&self, weight: &Weight) -> Result<Vec<f32>, WeightError>;
}

/// Why a weight is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// Nothing has this name.
    #[error("there is no weight `{name}`, which has the shape {wanted:?}{hint}")]
    Missing {
        /// The name.
        name: String,
        /// The shape that was asked for.
        wanted: Vec<i64>,
        /// What there is instead, or nothing.
        hint: &'static str,
    },
    /// The weight has another shape.
    #[error("the weight `{name}` has the shape {found:?}, but the shape {wanted:?} is needed")]
    Shape {
        /// The name.
        name: String,
        /// The shape that was asked for.
        wanted: Vec<i64>,
        /// The shape that it has.
        found: Vec<i64>,
    },
    /// The weight has another element type.
    #[error("the weight `{name}` is stored as {found}: store it as F32")]
    Dtype {
        /// The name.
        name: String,
        /// The element type that it has.
        found: String,
    },
    /// The weight does not fit into memory.
    #[error("there is no memory for the weight `{name}` of the shape {wanted:?}")]
    Memory {
        /// The name.
        name: String,
        /// The shape.
        wanted: Vec<i64>,
    },
    /// The file cannot be read.
    #[error("the weight `{name}` cannot be read")]
    Read {
        /// The name.
        name: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// Room for the values of a weight.
fn room(weight: &Weight) -> Result<Vec<f32>, WeightError> {
    let no_memory =
        || WeightError::Memory { name: weight.name.clone(), wanted: weight.dims.clone() };
    let count = usize::try_from(weight.elements()).map_err(|_| no_memory())?;
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| no_memory())?;
    Ok(values)
}

/// New weights, scaled so that values neither explode nor vanish. They depend on the seed and on their names alone, and
/// are those of `latlas_lowering::Random::seeded`.
#[derive(Debug, Clone, Copy)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// The weights of a seed.
    pub fn seeded(seed: u64) -> Random {
        Random { seed }
    }
}

impl Weights for Random {
    fn get(&self, weight: &Weight) -> Result<Vec<f32>, WeightError> {
        let mut values = room(weight)?;
        let made = weight.init.values(self.seed, &weight.name);
        values.extend(made.take(weight.elements() as usize));
        Ok(values)
    }
}

/// Given weights: dimensions and values by name.
#[derive(Debug, Default, Clone)]
pub struct Given(pub HashMap<String, (Vec<i64>, Vec<f32>)>);

impl Weights for Given {
    fn get(&self, weight: &Weight) -> Result<Vec<f32>, WeightError> {
        let Some((dims, values)) = self.0.get(&weight.name) else {
            return Err(missing(weight, |name| self.0.contains_key(name)));
        };
        same_shape(weight, dims)?;
        Ok(values.clone())
    }
}

fn missing(weight: &Weight, there_is: impl Fn(&str) -> bool) -> WeightError {
    let node = weight.name.rsplit_once('.').map_or("", |(node, _)| node);
    let hint = match there_is(&format!("{node}.norm.running_var")) {
        true => {
            "; these weights have batch norms, as in training: fold them into the convolutions \
             first (`latlas_lowering::Stored::folded`)"
        }
        false => "",
    };
    WeightError::Missing { name: weight.name.clone(), wanted: weight.dims.clone(), hint }
}

fn same_shape(weight: &Weight, found: &[i64]) -> Result<(), WeightError> {
    if found == weight.dims {
        return Ok(());
    }
    let (name, wanted) = (weight.name.clone(), weight.dims.clone());
    Err(WeightError::Shape { name, wanted, found: found.to_vec() })
}

/// The weights of a safetensors file. Each is read when it is asked for, so the file may be larger than the memory; the
/// crate `safetensors` needs all of it there.
#[derive(Debug)]
pub struct Safetensors {
    file: Mutex<BufReader<File>>,
    /// Where the first value is.
    start: u64,
    tensors: BTreeMap<String, Stored>,
}

/// An entry of the header.
#[derive(Debug, Deserialize)]
struct Stored {
    dtype: String,
    shape: Vec<i64>,
    data_offsets: [u64; 2],
}

/// A file that is not in the safetensors format, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NotSafetensors {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// Its header is not one.
    #[error("it is no safetensors file: {0}")]
    Header(String),
}

/// The longest header that is read, as in the reference implementation.
const MAX_HEADER: u64 = 100_000_000;

impl Safetensors {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be read, or its header does not describe it.
    pub fn open(path: &Path) -> Result<Safetensors, NotSafetensors> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let wrong = |problem: String| NotSafetensors::Header(problem);
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| wrong("it is shorter than 8 bytes".to_owned()))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > length - 8 {
            return Err(wrong(format!("it has {length} bytes, and a header of {size}")));
        }
        let mut header = Vec::new();
        file.by_ref().take(size).read_to_end(&mut header)?;
        let entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
            .map_err(|error| wrong(format!("its header: {error}")))?;
        let start = 8 + size;
        let mut tensors = BTreeMap::new();
        for (name, entry) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
            let stored: Stored = serde_json::from_value(entry)
                .map_err(|error| wrong(format!("its entry `{name}`: {error}")))?;
            let [from, to] = stored.data_offsets;
            if from > to || to > length - start {
                return Err(wrong(format!(
                    "`{name}` lies at bytes {from} to {to} of {} bytes of values",
                    length - start
                )));
            }
            tensors.insert(name, stored);
        }
        Ok(Safetensors { file: Mutex::new(file), start, tensors })
    }

    /// Names of all tensors in the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

impl Weights for Safetensors {
    fn get(&self, weight: &Weight) -> Result<Vec<f32>, WeightError> {
        let name = || weight.name.clone();
        let Some(stored) = self.tensors.get(&weight.name) else {
            return Err(missing(weight, |name| self.tensors.contains_key(name)));
        };
        same_shape(weight, &stored.shape)?;
        if stored.dtype != "F32" {
            return Err(WeightError::Dtype { name: name(), found: stored.dtype.clone() });
        }
        let failed = |source: io::Error| WeightError::Read { name: name(), source };
        let [from, to] = stored.data_offsets;
        if Some(to - from) != weight.elements().checked_mul(4) {
            let problem = format!("its {} bytes are not 4 for each element", to - from);
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, problem)));
        }
        let mut values = room(weight)?;
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start + from)).map_err(failed)?;
        let mut value = [0; 4];
        for _ in 0..weight.elements() {
            file.read_exact(&mut value).map_err(failed)?;
            values.push(f32::from_le_bytes(value));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(name: &str, dims: &[i64]) -> Weight {
        Weight { name: name.to_owned(), dims: dims.to_vec(), init: Init::SMALL }
    }

    /// A file with this header and these bytes of values.
    fn file(header: &str, values: &[u8]) -> tempfile::NamedTempFile {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn random_weights_are_those_of_their_name() {
        let values = |name: &str| Random::seeded(3).get(&weight(name, &[2, 3])).unwrap();
        assert_eq!(values("a").len(), 6);
        assert_eq!(values("a"), values("a"));
        assert_ne!(values("a"), values("b"));
        let all: Vec<f32> = Init::SMALL.values(3, "a").take(6).collect();
        assert_eq!(values("a"), all);
    }

    #[test]
    fn given_weights_are_checked() {
        let given = |name: &str| {
            Given([(name.to_owned(), (vec![2], vec![1.0, 2.0]))].into_iter().collect())
        };
        assert_eq!(given("a.bias").get(&weight("a.bias", &[2])).unwrap(), [1.0, 2.0]);
        let said = |given: Given, dims: &[i64]| {
            given.get(&weight("a.bias", dims)).unwrap_err().to_string()
        };
        assert_eq!(
            said(given("a.bias"), &[3]),
            "the weight `a.bias` has the shape [2], but the shape [3] is needed"
        );
        assert_eq!(
            said(given("b.bias"), &[2]),
            "there is no weight `a.bias`, which has the shape [2]"
        );
        assert!(said(given("a.norm.running_var"), &[2]).ends_with(
            "these weights have batch norms, as in training: fold them into the convolutions first \
             (`latlas_lowering::Stored::folded`)"
        ));
    }

    #[test]
    fn a_weight_that_fits_no_memory_is_refused() {
        let huge = weight("a", &[1 << 31, 1 << 30]);
        let said = Random::seeded(1).get(&huge).unwrap_err().to_string();
        assert!(said.starts_with("there is no memory for the weight `a` of the shape"), "{said}");
    }

    #[test]
    fn a_safetensors_file_is_read_by_name() {
        let values: Vec<u8> =
            [1.5f32, -2.0, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let header = r#"{"__metadata__": {"by": "a test"},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            "half": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]},
            "short": {"dtype": "F32", "shape": [2], "data_offsets": [4, 8]},
            "a": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}"#;
        let file = file(header, &values);
        let read = Safetensors::open(file.path()).unwrap();
        assert_eq!(read.names().collect::<Vec<_>>(), ["a", "b", "half", "short"]);
        assert_eq!(read.get(&weight("b", &[2])).unwrap(), [-2.0, 3.0]);
        assert_eq!(read.get(&weight("a", &[1, 1])).unwrap(), [1.5]);
        let said = |name: &str, dims: &[i64]| {
            let error = read.get(&weight(name, dims)).unwrap_err();
            std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)
        };
        assert_eq!(said("c", &[2]), "there is no weight `c`, which has the shape [2]");
        assert_eq!(said("half", &[2]), "the weight `half` is stored as F16: store it as F32");
        assert_eq!(said("short", &[2]), "its 4 bytes are not 4 for each element");
    }

    #[test]
    fn what_is_no_safetensors_file_is_refused() {
        let said = |header: &str| Safetensors::open(file(header, &[0; 4]).path()).unwrap_err();
        for (header, problem) in [
            ("[]", "its header: invalid type: sequence"),
            ("{\"a\": 1}", "its entry `a`: invalid type: integer"),
            (
                r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#,
                "`a` lies at bytes 0 to 8 of 4 bytes of values",
            ),
            (
                r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 0]}}"#,
                "`a` lies at bytes 4 to 0 of 4 bytes of values",
            ),
        ] {
            let said = said(header).to_string();
            assert!(said.starts_with("it is no safetensors file: "), "{said}");
            assert!(said.contains(problem), "{said}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"PK\x03\x04 and more bytes").unwrap();
        let said = Safetensors::open(file.path()).unwrap_err().to_string();
        assert!(said.contains("it has 19 bytes, and a header of "), "{said}");
        std::fs::write(file.path(), b"short").unwrap();
        let said = Safetensors::open(file.path()).unwrap_err().to_string();
        assert!(said.ends_with("it is shorter than 8 bytes"), "{said}");
    }
}

//! The weights of an imported model, under the names that the lowering and the export have for them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use crate::flat::{Given, Norm};
use crate::stored::{Directory, Elements, Source};
use crate::{Imported, foreign};

/// A weight of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its dimensions.
    pub dims: Vec<u64>,
    /// Its elements, in row-major order.
    pub values: Vec<f32>,
}

/// Why a weight is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("the weight `{name}`: {problem}")]
pub struct NoWeight {
    /// Its name.
    pub name: String,
    /// What is missing, and what to do.
    pub problem: String,
}

/// The weights of an imported network. Each is read from the model when it is asked for.
pub struct ModelWeights<'a, R> {
    given: &'a BTreeMap<String, Given>,
    stored: Stored<'a, R>,
}

/// The tensors of a model.
struct Stored<'a, R> {
    directory: &'a Directory,
    source: Source<R>,
    /// How many numbers are still computed with.
    left: u64,
}

/// How many numbers are computed with for all weights of a model: minutes.
const MOST_WORK: u64 = 1 << 36;

impl Imported {
    /// Opens the weights of a model, which is the file that was imported.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open_weights(&self, path: &Path) -> std::io::Result<ModelWeights<'_, File>> {
        self.weights_in(File::open(path)?, path.parent())
    }

    /// As [`Imported::open_weights`], from an open file and the folder of its other files, if that is known.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn weights_in<R: Read + Seek>(
        &self,
        mut source: R,
        folder: Option<&Path>,
    ) -> std::io::Result<ModelWeights<'_, R>> {
        let mut head = Vec::new();
        source.by_ref().take(foreign::HEAD).read_to_end(&mut head)?;
        source.rewind()?;
        let source = match foreign::is_zip(&head) {
            true => Source::archive(source)?,
            false => Source::File { file: source, folder: folder.map(Path::to_path_buf) },
        };
        let stored = Stored { directory: &self.directory, source, left: MOST_WORK };
        Ok(ModelWeights { given: &self.weights, stored })
    }
}

impl<R: Read + Seek> ModelWeights<'_, R> {
    /// The weight of a name.
    ///
    /// # Errors
    /// When there is none, or the file does not say or have what it is made of.
    pub fn read(&mut self, name: &str) -> Result<Array, NoWeight> {
        let refused = |problem: String| NoWeight { name: name.to_owned(), problem };
        let given = self.given.get(name);
        let given = given.ok_or_else(|| refused("the model has none for it".to_owned()))?;
        self.stored.evaluated(given).map_err(refused)
    }
}

impl<R: Read + Seek> Stored<'_, R> {
    fn tensor(&mut self, name: &str) -> Result<Elements, String> {
        let located = self.directory.get(name).ok_or_else(|| {
            format!(
                "`{name}` is not in the file as plain numbers: write the model with torch 2.8 or newer, or as ONNX"
            )
        })?;
        self.source.read(located).map_err(|error| format!("`{name}` cannot be read: {error}"))
    }

    fn evaluated(&mut self, given: &Given) -> Result<Array, String> {
        Ok(match given {
            Given::Stored(name) => {
                let tensor = self.tensor(name)?;
                Array { values: tensor.floats(), dims: tensor.dims }
            }
            Given::Reshaped(given, dims) => {
                let Array { values, dims: own } = self.evaluated(given)?;
                if dims.iter().product::<u64>() != values.len() as u64 {
                    return Err(format!("a tensor of {own:?} is none of {dims:?}"));
                }
                Array { dims: dims.clone(), values }
            }
            Given::Transposed(given) => transposed(&self.evaluated(given)?)?,
            Given::Ordered { given, axis, order } => {
                ordered(&self.evaluated(given)?, *axis, order)?
            }
            Given::Constant(number, dims) => {
                let count = usize::try_from(dims.iter().product::<u64>()).unwrap_or(0);
                Array { dims: dims.clone(), values: vec![*number as f32; count] }
            }
            Given::FoldedWeight { weight, norm } => {
                let mut weight = self.evaluated(weight)?;
                let factors = self.factors(norm)?;
                let per_channel = weight.values.len() / factors.len().max(1);
                if per_channel * factors.len() != weight.values.len() || per_channel == 0 {
                    return Err(format!("{} factors for {:?}", factors.len(), weight.dims));
                }
                for (part, factor) in weight.values.chunks_mut(per_channel).zip(factors) {
                    part.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
                }
                weight
            }
            Given::FoldedBias { bias, norm } => self.folded_bias(bias.as_deref(), norm)?,
            Given::Computed(formula) => {
                let mut left = self.left;
                let mut stored = |name: &str| Ok(self.tensor(name)?.doubles());
                let numbers = formula.evaluate(&mut stored, &mut left)?;
                self.left = left;
                let values = numbers.into_iter().map(|number| number as f32).collect();
                Array { dims: formula.dims().to_vec(), values }
            }
            Given::ByOffset(biases, side) => by_offset(&self.evaluated(biases)?, *side)?,
            Given::Unknown => {
                return Err("the file does not say from what it is computed".to_owned());
            }
        })
    }

    fn doubles(&mut self, given: &Given) -> Result<Vec<f64>, String> {
        Ok(self.evaluated(given)?.values.into_iter().map(f64::from).collect())
    }

    /// `scale / sqrt(variance + epsilon)` of each channel.
    fn factors(&mut self, norm: &Norm) -> Result<Vec<f64>, String> {
        let (scale, variance) = (self.doubles(&norm.scale)?, self.doubles(&norm.variance)?);
        let root = |variance: f64| (variance + norm.epsilon).sqrt();
        Ok(scale.into_iter().zip(variance).map(|(scale, v)| scale / root(v)).collect())
    }

    /// `shift + (bias - mean) * factor` of each channel.
    fn folded_bias(&mut self, bias: Option<&Given>, norm: &Norm) -> Result<Array, String> {
        let factors = self.factors(norm)?;
        let (shift, mean) = (self.doubles(&norm.shift)?, self.doubles(&norm.mean)?);
        let bias = match bias {
            Some(bias) => self.doubles(bias)?,
            None => vec![0.0; factors.len()],
        };
        let channels = [shift.len(), mean.len(), bias.len()];
        if channels.iter().any(|&count| count != factors.len()) {
            return Err(format!("a batch norm of {} and {channels:?} channels", factors.len()));
        }
        let value = |at: usize| (shift[at] + (bias[at] - mean[at]) * factors[at]) as f32;
        let values: Vec<f32> = (0..factors.len()).map(value).collect();
        Ok(Array { dims: vec![values.len() as u64], values })
    }
}

fn transposed(matrix: &Array) -> Result<Array, String> {
    let &[rows, columns] = matrix.dims.as_slice() else {
        return Err(format!("{:?} is no matrix", matrix.dims));
    };
    // The matrix is in memory.
    let width = usize::try_from(columns).unwrap_or(usize::MAX);
    let column = |at: usize| matrix.values.iter().skip(at).step_by(width.max(1));
    let values = (0..width).flat_map(|at| column(at).copied()).collect();
    Ok(Array { dims: vec![columns, rows], values })
}

/// Elements along a dimension in another order.
fn ordered(array: &Array, axis: usize, order: &[usize]) -> Result<Array, String> {
    if array.dims.get(axis) != Some(&(order.len() as u64)) {
        return Err(format!("{} places in dimension {axis} of {:?}", order.len(), array.dims));
    }
    // The array is in memory.
    let run = array.dims[axis + 1..].iter().product::<u64>() as usize;
    let mut values = Vec::with_capacity(array.values.len());
    for block in array.values.chunks_exact((run * order.len()).max(1)) {
        for &place in order {
            let part = block.get(place * run..(place + 1) * run);
            values.extend_from_slice(part.ok_or("an order has a place that does not exist")?);
        }
    }
    Ok(Array { dims: array.dims.clone(), values })
}

/// The table of biases by relative position `[(2 * side - 1)^2, heads]` in windows of a side, from the biases of all pairs
/// of their places, `[..., heads, places, places]`.
fn by_offset(biases: &Array, side: u64) -> Result<Array, String> {
    let wrong = || format!("biases of {:?} are none of windows of {side}", biases.dims);
    let places = side * side;
    let heads = match biases.dims.as_slice() {
        [before @ .., heads, rows, columns]
            if [*rows, *columns] == [places; 2] && before.iter().all(|&size| size == 1) =>
        {
            *heads
        }
        _ => return Err(wrong()),
    };
    let width = 2 * side - 1;
    let mut values = vec![None; usize::try_from(width * width * heads).map_err(|_| wrong())?];
    let pairs = (0..places).flat_map(|query| (0..places).map(move |key| (query, key)));
    let of_pairs = pairs.clone().count();
    for (head, biases) in biases.values.chunks_exact(of_pairs.max(1)).enumerate() {
        for ((query, key), &bias) in pairs.clone().zip(biases) {
            let offset = |query: u64, key: u64| query + side - 1 - key;
            let (down, across) =
                (offset(query / side, key / side), offset(query % side, key % side));
            // It is smaller than the table, which is in memory.
            let place = (down * width + across) as usize * heads as usize + head;
            if *values[place].get_or_insert(bias) != bias {
                return Err("its biases depend on more than the relative position".to_owned());
            }
        }
    }
    let values = values.into_iter().map(|value| value.unwrap_or_default()).collect();
    Ok(Array { dims: vec![width * width, heads], values })
}

#[cfg(test)]
mod tests {
    use ops_catalog::ShiftedWindows;

    use super::*;

    #[test]
    fn a_matrix_is_transposed() {
        let matrix = Array { dims: vec![2, 3], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        let turned = transposed(&matrix).unwrap();
        assert_eq!(turned, Array { dims: vec![3, 2], values: vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0] });
        assert!(transposed(&Array { dims: vec![6], values: vec![0.0; 6] }).is_err());
    }

    #[test]
    fn elements_are_ordered_along_a_dimension() {
        let matrix = Array { dims: vec![2, 3], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        let columns = ordered(&matrix, 1, &[2, 0, 1]).unwrap();
        assert_eq!(columns.values, [3.0, 1.0, 2.0, 6.0, 4.0, 5.0]);
        assert_eq!(ordered(&matrix, 0, &[1, 0]).unwrap().values, [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
        assert!(ordered(&matrix, 1, &[0, 1]).is_err() && ordered(&matrix, 0, &[0, 2]).is_err());
    }

    /// The lowering makes the biases of all pairs from the table.
    #[test]
    fn a_table_is_found_again_in_the_biases_of_pairs() {
        let windows = ShiftedWindows::new([6, 6], 3, 0, false);
        let heads = 2;
        let table: Vec<f32> = (0..windows.offsets() * heads).map(|at| at as f32).collect();
        let mut pairs = vec![];
        for head in 0..heads {
            for query in 0..windows.places() {
                for key in 0..windows.places() {
                    let row = windows.offset(query, key);
                    pairs.push(table[(row * heads + head) as usize]);
                }
            }
        }
        let biases = Array { dims: vec![1, 2, 9, 9], values: pairs };
        let found = by_offset(&biases, 3).unwrap();
        assert_eq!(found, Array { dims: vec![25, 2], values: table });
        assert!(by_offset(&biases, 4).is_err());
        let mut other = biases;
        other.values[1] += 1.0;
        let said = by_offset(&other, 3).unwrap_err();
        assert_eq!(said, "its biases depend on more than the relative position");
    }
}

//! Stored tensors of ONNX as constants.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::proto::{Data, Tensor};
use crate::build::Builder;
use crate::elements::Element;
use crate::error::{ImportError, shown};
use crate::fold;
use crate::graph::{Kind, ValueId};
use crate::stored::{Located, Place};

/// The element type with a number of the enum `TensorProto.DataType`, if its numbers are read.
fn element(number: i64) -> Option<Element> {
    Some(match number {
        1 => Element::F32,
        2 => Element::U8,
        3 => Element::I8,
        4 => Element::U16,
        5 => Element::I16,
        6 => Element::I32,
        7 => Element::I64,
        9 => Element::Bool,
        10 => Element::F16,
        11 => Element::F64,
        12 => Element::U32,
        13 => Element::U64,
        16 => Element::Bf16,
        _ => return None,
    })
}

/// The kind of the element type with a number. None for texts, complex numbers, and types that are newer.
pub(crate) fn kind(number: i64) -> Option<Kind> {
    match number {
        // Floating point of 4 to 8 bits.
        17..=20 | 23 | 24 | 27 | 28 => Some(Kind::Float),
        // Whole numbers of 2 and 4 bits.
        21 | 22 | 25 | 26 => Some(Kind::Integer),
        _ => element(number).map(Element::kind),
    }
}

/// The folder of a model, from which small tensors are read.
pub(crate) struct Store {
    folder: Option<PathBuf>,
    /// Files that are open, and None for those that are not there.
    files: HashMap<String, Option<File>>,
    /// Bytes that were read.
    read: usize,
}

/// Bytes of other files that are read in all. The numbers of further tensors are treated as unknown.
const MOST_READ: usize = 256 << 20;

impl Store {
    /// For a model in `folder`, or one that is no file.
    pub(crate) fn new(folder: Option<&Path>) -> Store {
        Store { folder: folder.map(Path::to_path_buf), files: HashMap::new(), read: 0 }
    }

    /// A constant with the dimensions of a tensor, and with its numbers if it is small and they can be had.
    pub(crate) fn constant(
        &mut self,
        builder: &mut Builder,
        name: &str,
        tensor: &Tensor,
    ) -> Result<ValueId, ImportError> {
        let size = |&dim: &i64| u64::try_from(dim).ok();
        let Some(dims) = tensor.dims.iter().map(size).collect::<Option<Vec<u64>>>() else {
            return Err(ImportError::malformed(
                format!("the tensor `{}`", shown(name)),
                format!("a dimension of {:?} is negative", tensor.dims),
            ));
        };
        // Texts and complex numbers are only read by operators that are not supported.
        let kind = kind(tensor.element).unwrap_or(Kind::Float);
        let numbers = self.numbers(name, tensor, &dims)?;
        let place = match (&numbers, &tensor.data) {
            (Some(numbers), _) => Some(Place::Known(numbers.as_slice().into())),
            (None, Data::Here { at }) => Some(Place::Here { at: *at }),
            (None, Data::External { location, offset }) => {
                inside(location).map(|path| Place::Beside { path, at: *offset })
            }
            _ => None,
        };
        if let (Some(place), Some(element)) = (place, element(tensor.element)) {
            builder.locate(name, Located { dims: dims.clone(), element, place });
        }
        builder.constant(name, dims, kind, numbers)
    }

    fn numbers(
        &mut self,
        name: &str,
        tensor: &Tensor,
        dims: &[u64],
    ) -> Result<Option<Vec<f64>>, ImportError> {
        let element = element(tensor.element);
        let small = element.and_then(|element| fold::kept(element, dims));
        if let Data::External { location, offset } = &tensor.data {
            let path = inside(location).ok_or_else(|| ImportError::Outside {
                tensor: shown(name),
                path: shown(location),
            })?;
            let (Some(element), Some(count)) = (element, small) else { return Ok(None) };
            let bytes = self.external(location, &path, *offset, count * element.size());
            return Ok(bytes.map(|bytes| element.numbers(&bytes)));
        }
        let (Some(element), Some(count)) = (element, small) else { return Ok(None) };
        Ok(match &tensor.data {
            Data::Raw(bytes) => Some(element.numbers(bytes)),
            Data::Floats(numbers) => Some(numbers.clone()),
            // Numbers as wide as their type, or the bits of a short floating-point type.
            Data::Integers(numbers) => {
                Some(numbers.iter().map(|n| element.of_bits(n.cast_unsigned())).collect())
            }
            _ if count == 0 => Some(Vec::new()),
            Data::Unread | Data::Here { .. } | Data::External { .. } => None,
        })
    }

    /// Bytes of a file in the folder. None if it is not there, or shorter: weights may be left out.
    fn external(
        &mut self,
        location: &str,
        path: &Path,
        offset: u64,
        length: usize,
    ) -> Option<Vec<u8>> {
        let folder = self.folder.as_ref()?;
        self.read += length;
        if self.read > MOST_READ {
            return None;
        }
        let open = || {
            let file = File::open(folder.join(path)).ok()?;
            file.metadata().ok()?.is_file().then_some(file)
        };
        let file = self.files.entry(location.to_owned()).or_insert_with(open).as_mut()?;
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(offset)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// A path that stays in its folder.
fn inside(location: &str) -> Option<PathBuf> {
    let path = Path::new(location);
    let stays =
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (stays && !location.is_empty()).then(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_data_stay_in_the_folder() {
        for location in ["model.onnx.data", "./weights/a.bin"] {
            assert!(inside(location).is_some(), "{location}");
        }
        for location in ["", "../x", "a/../../x", "/etc/passwd"] {
            assert_eq!(inside(location), None, "{location}");
        }
    }
}

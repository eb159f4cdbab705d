//! Where the tensors of a model are stored, and their bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use crate::elements::Element;
use crate::error::shown;
use crate::shapes;

/// Bytes of the largest tensor that is read.
const MOST_BYTES: u64 = 1 << 32;

/// A tensor that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) dims: Vec<u64>,
    pub(crate) element: Element,
    pub(crate) place: Place,
}

/// Where the elements of a tensor are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In memory.
    Known(Arc<[f64]>),
    /// In an entry of an archive: the first element, and the distances of neighbours along each dimension, in elements.
    Entry { name: String, first: u64, strides: Vec<u64> },
    /// In the file of the model, from a byte on.
    Here { at: u64 },
    /// In another file of the model's folder.
    Beside { path: PathBuf, at: u64 },
}

/// The tensors of a model, by name.
pub(crate) type Directory = HashMap<String, Located>;

/// An opened model.
pub(crate) enum Source<R> {
    Archive(ZipArchive<R>),
    File { file: R, folder: Option<PathBuf> },
}

/// The elements of a tensor as bytes, in the order of its dimensions.
pub(crate) struct Elements {
    pub(crate) dims: Vec<u64>,
    numbers: Known,
}

enum Known {
    Numbers(Arc<[f64]>),
    Bytes(Element, Vec<u8>),
}

impl Elements {
    /// In double precision, for integers too.
    pub(crate) fn doubles(&self) -> Vec<f64> {
        match &self.numbers {
            Known::Numbers(numbers) => numbers.to_vec(),
            Known::Bytes(element, bytes) => element.numbers(bytes),
        }
    }

    /// In single precision.
    pub(crate) fn floats(&self) -> Vec<f32> {
        match &self.numbers {
            Known::Numbers(numbers) => numbers.iter().map(|&number| number as f32).collect(),
            Known::Bytes(Element::F32, bytes) => {
                let (words, _) = bytes.as_chunks::<4>();
                words.iter().map(|&word| f32::from_le_bytes(word)).collect()
            }
            Known::Bytes(element, bytes) => {
                element.numbers(bytes).into_iter().map(|number| number as f32).collect()
            }
        }
    }
}

impl<R: Read + Seek> Source<R> {
    /// An archive.
    pub(crate) fn archive(source: R) -> io::Result<Source<R>> {
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        Ok(Source::Archive(ZipArchive::with_config(config, source).map_err(io::Error::other)?))
    }

    /// The elements of a tensor.
    ///
    /// # Errors
    /// When they cannot be read, or are fewer than the tensor has.
    pub(crate) fn read(&mut self, located: &Located) -> io::Result<Elements> {
        let Located { dims, element, place } = located;
        let size = element.size() as u64;
        let count = shapes::count(dims).filter(|count| *count <= MOST_BYTES / size);
        let count = count.ok_or_else(|| {
            io::Error::other(format!("it has {dims:?} elements, which are more than 4 GiB"))
        })?;
        let numbers = match (place, self) {
            (Place::Known(numbers), _) => Known::Numbers(Arc::clone(numbers)),
            (Place::Here { at }, Source::File { file, .. }) => {
                Known::Bytes(*element, from(file, *at, count * size)?)
            }
            (Place::Beside { path, at }, Source::File { folder: Some(folder), .. }) => {
                let mut file = File::open(folder.join(path)).map_err(|error| {
                    let name = shown(&path.to_string_lossy());
                    io::Error::new(
                        error.kind(),
                        format!("the file `{name}` beside the model: {error}"),
                    )
                })?;
                Known::Bytes(*element, from(&mut file, *at, count * size)?)
            }
            (Place::Entry { name, first, strides }, Source::Archive(zip)) => {
                let bytes = entry(zip, name, reach(dims, strides, *first, size)?)?;
                Known::Bytes(*element, in_order(&bytes, dims, strides, *first, element.size())?)
            }
            _ => return Err(io::Error::other("it is in another file, whose folder is not known")),
        };
        Ok(Elements { dims: dims.clone(), numbers })
    }
}

fn from(file: &mut (impl Read + Seek), at: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    exactly(file, length)
}

/// So many bytes. Memory is taken as they come, since a length can lie.
fn exactly(source: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length {
        return Ok(bytes);
    }
    let problem = format!("it ends after {} of its {length} bytes", bytes.len());
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem))
}

fn entry<R: Read + Seek>(zip: &mut ZipArchive<R>, name: &str, length: u64) -> io::Result<Vec<u8>> {
    let mut entry = zip.by_name(name).map_err(|error| {
        io::Error::other(format!("the entry {} of the archive: {error}", shown(name)))
    })?;
    exactly(&mut entry, length)
}

/// The number of bytes up to the last element.
fn reach(dims: &[u64], strides: &[u64], first: u64, size: u64) -> io::Result<u64> {
    if dims.contains(&0) {
        return Ok(0);
    }
    let last = dims
        .iter()
        .zip(strides)
        .try_fold(first, |at, (dim, stride)| at.checked_add((dim - 1).checked_mul(*stride)?));
    let bytes = last.and_then(|last| last.checked_add(1)?.checked_mul(size));
    bytes
        .filter(|&bytes| bytes <= MOST_BYTES && dims.len() == strides.len())
        .ok_or_else(|| io::Error::other("its elements are too far apart"))
}

/// Elements in the order of the dimensions.
fn in_order(
    bytes: &[u8],
    dims: &[u64],
    strides: &[u64],
    first: u64,
    size: usize,
) -> io::Result<Vec<u8>> {
    let mut offsets = vec![usize::try_from(first).unwrap_or(usize::MAX)];
    if dims.contains(&0) {
        return Ok(vec![]);
    }
    // The last dimensions stand together in memory, mostly all of them.
    let mut run = 1;
    let mut outer = dims.len();
    while outer > 0 && (dims[outer - 1] == 1 || strides[outer - 1] == run) {
        run *= dims[outer - 1];
        outer -= 1;
    }
    for (&dim, &stride) in dims[..outer].iter().zip(strides) {
        let step = |i: u64| usize::try_from(i * stride).unwrap_or(usize::MAX);
        offsets = offsets
            .iter()
            .flat_map(|&at| (0..dim).map(move |i| at.saturating_add(step(i))))
            .collect();
    }
    let run = usize::try_from(run).unwrap_or(usize::MAX).saturating_mul(size);
    let mut ordered = Vec::with_capacity(offsets.len().saturating_mul(run));
    for at in offsets {
        let start = at.saturating_mul(size);
        let part = bytes.get(start..start.saturating_add(run));
        ordered.extend_from_slice(part.ok_or_else(|| io::Error::other("it is cut off"))?);
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_in_the_order_of_the_dimensions() {
        let bytes: Vec<u8> = (0..12).collect();
        // [2, 3] of a matrix [3, 4], transposed: columns 1 and 2 of all rows.
        assert_eq!(in_order(&bytes, &[2, 3], &[1, 4], 1, 1).unwrap(), [1, 5, 9, 2, 6, 10]);
        assert_eq!(in_order(&bytes, &[3, 2], &[4, 1], 1, 1).unwrap(), [1, 2, 5, 6, 9, 10]);
        assert_eq!(in_order(&bytes, &[3, 2], &[2, 1], 0, 2).unwrap(), bytes);
        assert!(in_order(&bytes, &[0, 2], &[2, 1], 0, 2).unwrap().is_empty());
        assert!(in_order(&bytes, &[13], &[1], 0, 1).is_err());
        assert_eq!(reach(&[3, 2], &[4, 1], 1, 2).unwrap(), 22);
        assert!(reach(&[1 << 40, 2], &[u64::MAX, 1], 1, 2).is_err());
    }

    #[test]
    fn files_that_are_too_short_are_refused() {
        let tensor = |dims: &[u64], at: u64| Located {
            dims: dims.to_vec(),
            element: Element::F32,
            place: Place::Here { at },
        };
        let bytes: Vec<u8> =
            [1.5_f32, -2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut source = Source::File { file: io::Cursor::new(bytes), folder: None };
        assert_eq!(source.read(&tensor(&[2], 0)).unwrap().floats(), [1.5, -2.0]);
        assert_eq!(source.read(&tensor(&[1], 4)).unwrap().doubles(), [-2.0]);
        let said = |tensor: Located, source: &mut Source<_>| {
            source.read(&tensor).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(said(tensor(&[3], 0), &mut source), "it ends after 8 of its 12 bytes");
        assert!(said(tensor(&[1 << 39], 0), &mut source).contains("more than 4 GiB"));
    }
}

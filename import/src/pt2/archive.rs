//! The zip archive of a `.pt2`: which entries it has, and the bytes of a few of them.

use std::collections::HashMap;
use std::io::{Read, Seek};

use serde::de::DeserializeOwned;
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;

use super::schema::{Payload, PayloadConfig, Program, SymInt, TensorMeta};
use crate::elements::Element;
use crate::error::{ImportError, shown};
use crate::fold;
use crate::foreign::unexported;
use crate::stored::{Located, Place};

/// Bytes of the largest entry with JSON.
const MOST_JSON: u64 = 256 << 20;

/// Bytes that are unpacked for the numbers of small tensors. Those of further ones are treated as unknown.
const MOST_UNPACKED: u64 = 256 << 20;

/// Elements of the largest JSON: brackets and commas, which bound the memory that it takes.
const MOST_ELEMENTS: usize = 10_000_000;

/// The entry of the layout before torch 2.8.
const OLD_PROGRAM: &str = "serialized_exported_program.json";

type Result<T> = std::result::Result<T, ImportError>;

/// An archive with one program.
pub(crate) struct Archive<R> {
    zip: ZipArchive<R>,
    /// Entry of the program.
    program: String,
    /// Where stored tensors are, by name. Empty in the old layout, which has them in the format of `torch.save`.
    payloads: HashMap<String, (String, Payload)>,
    /// Bytes that were unpacked for numbers.
    unpacked: u64,
}

impl<R: Read + Seek> Archive<R> {
    /// Finds the program of an archive.
    pub(crate) fn open(source: R) -> Result<Archive<R>> {
        // An archive can contain another one, of sample inputs, whose entries can mislead a search for its start.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let zip = ZipArchive::with_config(config, source).map_err(cut_off)?;
        // A name that cannot be decoded is none of those that are looked for.
        let names: Vec<String> = zip.file_names().flatten().map(Into::into).collect();
        let models: Vec<&String> = names.iter().filter(|name| is_model(name)).collect();
        let program = match models.as_slice() {
            _ if names.iter().any(|name| name == OLD_PROGRAM) => OLD_PROGRAM.to_owned(),
            [name] => (*name).clone(),
            [] => return Err(unrecognized(&names)),
            _ => {
                let most = "a file with one";
                return Err(ImportError::too_large(
                    format!("a file with {} models", models.len()),
                    most,
                ));
            }
        };
        let mut archive = Archive { zip, program, payloads: HashMap::new(), unpacked: 0 };
        for part in ["weights", "constants"] {
            archive.payloads(part)?;
        }
        Ok(archive)
    }

    /// Reads where the stored tensors of a part are, if that is told.
    fn payloads(&mut self, part: &str) -> Result<()> {
        let Some((folder, model)) = self.program.rsplit_once("models/") else { return Ok(()) };
        let model = model.trim_end_matches(".json");
        let folder = format!("{folder}data/{part}/");
        let entry = format!("{folder}{model}_{part}_config.json");
        if self.zip.index_for_name(&entry).is_none() {
            return Ok(());
        }
        let config: PayloadConfig = self.json(&entry)?;
        for (name, payload) in config.config {
            let path = format!("{folder}{}", payload.path_name);
            self.payloads.insert(name, (path, payload));
        }
        Ok(())
    }

    /// The program.
    pub(crate) fn program(&mut self) -> Result<Program> {
        let entry = self.program.clone();
        self.json(&entry)
    }

    fn json<T: DeserializeOwned>(&mut self, entry: &str) -> Result<T> {
        let bytes = self.bytes(entry, MOST_JSON)?;
        if bytes.len() as u64 > MOST_JSON {
            let what = format!("the entry {}", shown(entry));
            return Err(ImportError::too_large(what, format!("{} MiB", MOST_JSON >> 20)));
        }
        let bytes = prepared(bytes, entry)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            ImportError::malformed(format!("the entry {}", shown(entry)), error.to_string())
        })
    }

    /// The bytes of an entry, one more than `most` if there are more. The size in the header is not believed.
    fn bytes(&mut self, entry: &str, most: u64) -> Result<Vec<u8>> {
        let place = format!("the entry {}", shown(entry));
        let file = self.zip.by_name(entry).map_err(|error| damaged(&place, error))?;
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(|error| {
            ImportError::malformed(place, format!("it cannot be unpacked: {error}"))
        })?;
        Ok(bytes)
    }

    /// Where a stored tensor is, if it is plain bytes in this archive.
    pub(crate) fn located(&self, name: &str) -> Option<Located> {
        let (path, payload) = self.payloads.get(name)?;
        let meta = payload.tensor_meta.as_ref().filter(|_| !payload.use_pickle)?;
        let fixed = |size: &SymInt| size.as_int.and_then(|size| u64::try_from(size).ok());
        let all = |sizes: &[SymInt]| sizes.iter().map(fixed).collect::<Option<Vec<u64>>>();
        let first = meta.storage_offset.as_ref().map_or(Some(0), fixed)?;
        let place = Place::Entry { name: path.clone(), first, strides: all(&meta.strides)? };
        Some(Located { dims: all(&meta.sizes)?, element: element(meta.dtype)?, place })
    }

    /// The numbers of a small stored tensor, if they are plain bytes in this archive.
    pub(crate) fn numbers(&mut self, name: &str) -> Result<Option<Vec<f64>>> {
        let Some((path, payload)) = self.payloads.get(name) else { return Ok(None) };
        let Some((element, start, end)) =
            payload.tensor_meta.as_ref().filter(|_| !payload.use_pickle).and_then(range)
        else {
            return Ok(None);
        };
        let path = path.clone();
        self.unpacked += end as u64;
        if self.unpacked > MOST_UNPACKED || self.zip.index_for_name(&path).is_none() {
            return Ok(None);
        }
        let bytes = self.bytes(&path, end as u64)?;
        Ok(bytes.get(start..end).map(|bytes| element.numbers(bytes)))
    }
}

/// Element type and bytes of a small tensor whose elements are in order.
fn range(meta: &TensorMeta) -> Option<(Element, usize, usize)> {
    let element = element(meta.dtype)?;
    let fixed = |size: &SymInt| size.as_int.and_then(|size| u64::try_from(size).ok());
    let dims: Vec<u64> = meta.sizes.iter().map(fixed).collect::<Option<_>>()?;
    let strides: Vec<u64> = meta.strides.iter().map(fixed).collect::<Option<_>>()?;
    let count = fold::kept(element, &dims)?;
    let mut stride = 1;
    for (i, &dim) in dims.iter().enumerate().rev() {
        if dim != 1 && strides.get(i) != Some(&stride) {
            return None;
        }
        stride *= dim.max(1);
    }
    let offset = meta.storage_offset.as_ref().map_or(Some(0), fixed)?;
    // A part of a large tensor is not worth unpacking what is in front of it.
    let offset = usize::try_from(offset).ok().filter(|&offset| offset <= 1 << 20)?;
    let start = offset * element.size();
    Some((element, start, start + count * element.size()))
}

/// The element type with a number of the enum `ScalarType`, if its numbers are read.
pub(crate) fn element(number: i64) -> Option<Element> {
    Some(match number {
        1 => Element::U8,
        2 => Element::I8,
        3 => Element::I16,
        4 => Element::I32,
        5 => Element::I64,
        6 => Element::F16,
        7 => Element::F32,
        8 => Element::F64,
        12 => Element::Bool,
        13 => Element::Bf16,
        28 => Element::U16,
        34 => Element::U32,
        35 => Element::U64,
        _ => return None,
    })
}

/// `NAME/models/MODEL.json`.
fn is_model(name: &str) -> bool {
    let mut parts = name.rsplit('/');
    parts.next().is_some_and(|file| file.ends_with(".json")) && parts.next() == Some("models")
}

/// The error of an archive that cannot be opened: the list of its entries is at its end.
fn cut_off(error: ZipError) -> ImportError {
    match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => error.into(),
        other => ImportError::malformed(
            "the archive",
            format!(
                "it is cut off or damaged, for its end has no list of its entries ({other}): export or copy it again"
            ),
        ),
    }
}

fn damaged(place: &str, error: ZipError) -> ImportError {
    match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => error.into(),
        other => ImportError::malformed(place, other.to_string()),
    }
}

fn unrecognized(names: &[String]) -> ImportError {
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    let found = if has("data/aotinductor") {
        "it is a compiled model"
    } else if has("constants.pkl") {
        "it is a TorchScript model"
    } else if has("data.pkl") {
        "it has the weights of torch.save, without the graph"
    } else {
        "it is a zip archive without models/NAME.json"
    };
    unexported(found)
}

/// JSON with `Infinity` and `NaN` as texts, which older versions wrote as Python does.
fn prepared(bytes: Vec<u8>, entry: &str) -> Result<Vec<u8>> {
    let mut elements = 0;
    let mut bare = Vec::new();
    let (mut in_text, mut escaped) = (false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' | b',' => elements += 1,
            b'I' | b'N' => bare.push(at),
            _ => {}
        }
    }
    if elements > MOST_ELEMENTS {
        let what = format!("the entry {}", shown(entry));
        return Err(ImportError::too_large(what, format!("{MOST_ELEMENTS} elements")));
    }
    if bare.is_empty() {
        return Ok(bytes);
    }
    let mut quoted = Vec::new();
    let mut copied = 0;
    for at in bare {
        let Some(word) =
            ["Infinity", "NaN"].iter().find(|word| bytes[at..].starts_with(word.as_bytes()))
        else {
            continue;
        };
        if at < copied {
            continue;
        }
        let start = if at > copied && bytes[at - 1] == b'-' { at - 1 } else { at };
        let end = at + word.len();
        quoted.extend_from_slice(&bytes[copied..start]);
        quoted.push(b'"');
        quoted.extend_from_slice(&bytes[start..end]);
        quoted.push(b'"');
        copied = end;
    }
    quoted.extend_from_slice(&bytes[copied..]);
    Ok(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_does_not_have_become_texts() {
        let prepared = |json: &str| {
            prepared(json.as_bytes().to_vec(), "x").map(|bytes| String::from_utf8(bytes).unwrap())
        };
        assert_eq!(
            prepared(r#"[Infinity, -Infinity,NaN]"#).unwrap(),
            r#"["Infinity", "-Infinity","NaN"]"#
        );
        let text = r#"["Infinity \" NaN", "\\", null]"#;
        assert_eq!(prepared(text).unwrap(), text);
    }

    #[test]
    fn a_payload_is_read_where_its_elements_are_in_order() {
        let meta = |json: &str| range(&serde_json::from_str(json).unwrap());
        let json = r#"{"dtype": 7, "sizes": [{"as_int": 2}, {"as_int": 3}],
            "strides": [{"as_int": 3}, {"as_int": 1}], "storage_offset": {"as_int": 4}}"#;
        assert_eq!(meta(json), Some((Element::F32, 16, 40)));
        assert_eq!(
            meta(&json.replace(r#""strides": [{"as_int": 3}"#, r#""strides": [{"as_int": 1}"#)),
            None
        );
        assert_eq!(meta(&json.replace(r#"[{"as_int": 2}"#, r#"[{"as_int": 200000}"#)), None);
    }
}

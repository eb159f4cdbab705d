//! Files that are no models: what their first bytes say they are, and what to do.

use ops_catalog::text::{Encoding, decode, encoding};

use crate::error::ImportError;

/// First bytes of a zip archive, and of one without entries.
const ZIP: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// How many first bytes tell.
pub(crate) const HEAD: u64 = 512;

/// The largest header of a safetensors file, by the rule of its format.
const MOST_HEADER: u64 = 100_000_000;

/// Whether a file is a zip archive, as a `.pt2` is.
pub(crate) fn is_zip(head: &[u8]) -> bool {
    ZIP.iter().any(|zip| head.starts_with(zip))
}

/// The error of a file that has a model in another form, or a part of one.
pub(crate) fn unexported(found: &str) -> ImportError {
    ImportError::Unrecognized(format!(
        "{found}: write the model with torch.export.save(torch.export.export(model, inputs), FILE)"
    ))
}

/// Why a file that begins so, and is no zip archive, is no model. None if it can be one.
pub(crate) fn foreign(head: &[u8]) -> Option<ImportError> {
    let told = |found: &str| Some(ImportError::Unrecognized(found.to_owned()));
    if head.is_empty() {
        return told("it is empty: its export or its copy did not finish; write it again");
    }
    if matches!(encoding(head), Encoding::Compressed(_)) {
        return decode(head).err().map(|problem| ImportError::Unrecognized(problem.to_string()));
    }
    if head.starts_with(b"version https://git-lfs") {
        return told(
            "it is a pointer of Git LFS in place of the file: fetch that with `git lfs pull`",
        );
    }
    if head.get(257..262) == Some(b"ustar") {
        return told("it is a tar archive: unpack it, and name the model in it");
    }
    let found = match head {
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => "it is a model of TensorFlow Lite",
        [_, _, _, _, b'O', b'R', b'T', b'M', ..] => "it is a model in the format of ONNX Runtime",
        [0x89, b'H', b'D', b'F', ..] => "it is HDF5, as Keras writes it",
        [b'G', b'G', b'U', b'F', ..] => "it is GGUF, which has weights without a graph",
        // A pickle, by its version.
        [0x80, 2..=5, ..] => "it has the weights of torch.save, without the graph",
        _ if is_safetensors(head) => "it is safetensors, which has weights without a graph",
        _ => return text(head).and_then(|found| told(&found)),
    };
    Some(unexported(found))
}

/// The length of a header, and the header as JSON.
fn is_safetensors(head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    let length = u64::from_le_bytes(*length);
    length <= MOST_HEADER && rest.first() == Some(&b'{')
}

/// What a text is.
fn text(head: &[u8]) -> Option<String> {
    let controls = |&byte: &u8| byte < b' ' && !matches!(byte, b'\n' | b'\r' | b'\t');
    if head.iter().any(controls) || head.contains(&0x7f) {
        return None;
    }
    // The last character can be cut.
    let valid = str::from_utf8(head).map_or_else(|error| error.valid_up_to(), str::len);
    if head.len() - valid > 3 {
        return None;
    }
    let start = String::from_utf8_lossy(&head[..valid]).trim_start().to_lowercase();
    Some(if start.starts_with("<!doctype html") || start.starts_with("<html") {
        "it is a web page: the address of the download was one of a page, and not of the file"
            .to_owned()
    } else {
        "it is a text, and a model is none. A network in JSON or YAML needs no import: other commands take it with --arch"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(head: &[u8]) -> String {
        foreign(head).map_or_else(|| "nothing".to_owned(), |error| error.to_string())
    }

    #[test]
    fn other_formats_are_told_with_what_to_do() {
        let export =
            "write the model with torch.export.save(torch.export.export(model, inputs), FILE)";
        let mut tar = vec![0; 300];
        tar[257..262].copy_from_slice(b"ustar");
        let safetensors = [&17_u64.to_le_bytes()[..], b"{\"a\": 1}"].concat();
        for (head, found, remedy) in [
            (&b""[..], "it is empty", "write it again"),
            (b"\x1f\x8b\x08\0", "compressed with gzip", "`gunzip FILE`"),
            (b"\x28\xb5\x2f\xfd", "compressed with zstd", "`unzstd FILE`"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "`git lfs pull`"),
            (&tar, "a tar archive", "unpack it"),
            (b"\x1c\0\0\0TFL3", "TensorFlow Lite", export),
            (b"\x89HDF\r\n", "HDF5", export),
            (b"GGUF\x03", "GGUF", export),
            (b"\x80\x02\x8a\x0a", "the weights of torch.save", export),
            (&safetensors, "safetensors", export),
            (b"\n<!DOCTYPE html>", "a web page", "the download"),
            (b"{\"layers\": []}", "it is a text", "--arch"),
            ("name: Zoë".as_bytes(), "it is a text", "--arch"),
        ] {
            let said = said(head);
            assert!(said.contains(found) && said.contains(remedy), "{said}");
        }
    }

    #[test]
    fn what_can_be_a_model_is_left_to_its_reader() {
        for head in [&b"\x08\x0a\x12\x07pytorch"[..], &[0xff; 64], b"\x3a\x02\x0a\0"] {
            assert_eq!(said(head), "nothing", "{head:?}");
        }
    }
}

//! From bytes to text.

use std::borrow::Cow;

use crate::Invalid;

/// The byte order mark that some editors put in front of UTF-8.
const MARK: &str = "\u{feff}";

/// The encoding of a text, by its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// UTF-16, least significant byte first.
    Utf16Le,
    /// UTF-16, most significant byte first.
    Utf16Be,
    /// UTF-32, which is not supported.
    Utf32,
    /// Compressed, by the named program.
    Compressed(&'static str),
}

/// The encoding that the first bytes of a text show; four bytes are enough.
pub fn encoding(head: &[u8]) -> Encoding {
    match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Encoding::Utf32,
        [0xff, 0xfe, ..] => Encoding::Utf16Le,
        [0xfe, 0xff, ..] => Encoding::Utf16Be,
        // All formats here begin with ASCII, so the position of the zeros shows the order.
        [1..=127, 0, 1..=127, 0, ..] => Encoding::Utf16Le,
        [0, 1..=127, 0, 1..=127, ..] => Encoding::Utf16Be,
        [0x1f, 0x8b, ..] => Encoding::Compressed("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Encoding::Compressed("zstd"),
        [b'P', b'K', 3, 4, ..] => Encoding::Compressed("zip"),
        [b'B', b'Z', b'h', ..] => Encoding::Compressed("bzip2"),
        [0xfd, b'7', b'z', b'X', ..] => Encoding::Compressed("xz"),
        _ => Encoding::Utf8,
    }
}

/// A text without the byte order mark in front of it.
pub fn unmarked(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Bytes as text: UTF-8 with or without a byte order mark, or UTF-16.
///
/// # Errors
/// When the bytes are compressed, or their encoding is uncertain.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, Invalid> {
    match encoding(bytes) {
        Encoding::Utf8 => utf8(bytes).map(Cow::Borrowed),
        Encoding::Utf16Le => utf16(bytes, u16::from_le_bytes).map(Cow::Owned),
        Encoding::Utf16Be => utf16(bytes, u16::from_be_bytes).map(Cow::Owned),
        Encoding::Utf32 => Err(Invalid::here("the file is UTF-32; save it as UTF-8")),
        Encoding::Compressed(how) => Err(Invalid::here(format!(
            "the file is compressed with {how}; unpack it first, as in `{}`",
            match how {
                "gzip" => "gunzip FILE",
                // The .pt2 of torch.export is an archive too.
                "zip" => "unzip FILE`, or, if it is a model, `latlas networks import FILE",
                "bzip2" => "bunzip2 FILE",
                "xz" => "unxz FILE",
                _ => "unzstd FILE",
            }
        ))),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Invalid> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        let line = good.iter().filter(|&&b| b == b'\n').count() + 1;
        let start = good.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
        Invalid::new(
            format!("line {line}, column {column}"),
            format!("the byte {:#04x} is not UTF-8; save the file as UTF-8", bytes[good.len()]),
        )
    })?;
    if text.contains('\0') {
        return Err(Invalid::here("the file has zero bytes, so it is not text; save it as UTF-8"));
    }
    Ok(unmarked(text))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Invalid> {
    let refused = || Invalid::here("the file is UTF-16, and damaged; save it as UTF-8");
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(refused());
    }
    let text = char::decode_utf16(pairs.iter().map(|&pair| unit(pair)))
        .collect::<Result<String, _>>()
        .map_err(|_| refused())?;
    Ok(unmarked(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn text_is_taken_in_each_encoding_that_is_certain() {
        let text = "name: é\r\n";
        let marked = format!("{MARK}{text}");
        for bytes in [
            text.as_bytes().to_vec(),
            marked.clone().into_bytes(),
            utf16(&marked, u16::to_le_bytes),
            utf16(&marked, u16::to_be_bytes),
            utf16(text, u16::to_le_bytes),
            utf16(text, u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).unwrap(), text, "{bytes:?}");
        }
        assert_eq!(decode(b"").unwrap(), "");
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        for (bytes, words) in [
            (
                &b"\x1f\x8b\x08\x00"[..],
                "compressed with gzip; unpack it first, as in `gunzip FILE`",
            ),
            (b"PK\x03\x04", "compressed with zip"),
            (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
            (b"\xff\xfe\0\0", "UTF-32; save it as UTF-8"),
            (b"\xff\xfea", "UTF-16, and damaged; save it as UTF-8"),
            (b"\xff\xfe\0\xd8", "UTF-16, and damaged; save it as UTF-8"),
            (b"a: 1\nb\xc3\xa9: caf\xe9", "line 2, column 8: the byte 0xe9 is not UTF-8"),
            (b"name\0x", "zero bytes"),
        ] {
            let said = decode(bytes).unwrap_err().to_string();
            assert!(said.contains(words), "{bytes:?}: {said}");
        }
    }
}

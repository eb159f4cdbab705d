//! The text form of digests: a prefix with the version of the hashed content, and a SHA-256 or its first 16 bytes.

/// Hexadecimal digits of a digest.
const DIGITS: usize = 32;

/// Hexadecimal digits of a whole SHA-256.
const WHOLE_DIGITS: usize = 64;

/// The text of a hash, at least 16 bytes long.
pub fn write(prefix: &str, hash: &[u8]) -> String {
    format!("{prefix}{}", hex::encode(&hash[..DIGITS / 2]))
}

/// The text of a whole SHA-256.
pub fn write_whole(prefix: &str, hash: [u8; WHOLE_DIGITS / 2]) -> String {
    let mut digits = [0; WHOLE_DIGITS];
    hex::encode_to_slice(hash, &mut digits).expect("each byte has two digits");
    let digits = str::from_utf8(&digits).expect("digits are ASCII");
    [prefix, digits].concat()
}

/// A text that is not a digest of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{shown}` is not a digest that this program knows: `{prefix}` and {digits} of 0-9 and a-f"
)]
pub struct DigestError {
    /// The expected prefix.
    prefix: &'static str,
    /// Number of its digits.
    digits: usize,
    /// The beginning of the text.
    shown: String,
}

/// Reads a text of [`write()`], and no other.
///
/// # Errors
/// When the prefix differs, or the digits are not in the form of [`write()`].
pub fn read(prefix: &'static str, text: &str) -> Result<String, DigestError> {
    read_digits(prefix, DIGITS, text)
}

/// Reads a text of [`write_whole()`], and no other.
///
/// # Errors
/// When the prefix differs, or the digits are not in the form of [`write_whole()`].
pub fn read_whole(prefix: &'static str, text: &str) -> Result<String, DigestError> {
    read_digits(prefix, WHOLE_DIGITS, text)
}

fn read_digits(prefix: &'static str, count: usize, text: &str) -> Result<String, DigestError> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let is_written = |digits: &str| digits.len() == count && digits.bytes().all(is_digit);
    if text.strip_prefix(prefix).is_some_and(is_written) {
        return Ok(text.to_owned());
    }
    let shown = text.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(DigestError { prefix, digits: count, shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_says_its_version() {
        let text = write("op1-", &[0xab; 32]);
        assert_eq!(text, format!("op1-{}", "ab".repeat(16)));
        assert_eq!(read("op1-", &text), Ok(text.clone()));
        let (bare, upper) = ("ab".repeat(16), format!("op1-{}", "AB".repeat(16)));
        let long = format!("{text}0");
        for wrong in ["", "op1-", "op2-abababababababababababababababab", &bare, &upper, &long] {
            let said = read("op1-", wrong).unwrap_err().to_string();
            assert!(said.contains("is not a digest"), "{wrong}");
        }
    }
}

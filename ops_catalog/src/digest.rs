//! How digests are written: a prefix with the version of what was hashed, and the first 16 bytes of a SHA-256.

/// Hexadecimal digits of a digest.
const DIGITS: usize = 32;

/// The text of a hash, at least 16 bytes long.
pub fn write(prefix: &str, hash: &[u8]) -> String {
    format!("{prefix}{}", hex(&hash[..DIGITS / 2]))
}

/// Reads what [`write()`] wrote. Digests of version 1 were once written without their prefix.
///
/// # Errors
/// A sentence for whoever wrote the text.
pub fn read(prefix: &str, text: &str) -> Result<String, String> {
    let digits = text.strip_prefix(prefix).unwrap_or(text);
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if digits.len() != DIGITS || !digits.bytes().all(is_digit) {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
        return Err(format!(
            "`{shown}` is not a digest that this program knows: `{prefix}` and {DIGITS} of 0-9 and a-f"
        ));
    }
    Ok(format!("{prefix}{digits}"))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_says_its_version() {
        let text = write("op1-", &[0xab; 32]);
        assert_eq!(text, format!("op1-{}", "ab".repeat(16)));
        assert_eq!(read("op1-", &text), Ok(text.clone()));
        assert_eq!(read("op1-", &"ab".repeat(16)), Ok(text), "as it was once written");
        for wrong in ["", "op1-", "00", "op2-abababababababababababababababab", &"AB".repeat(16)] {
            assert!(read("op1-", wrong).unwrap_err().contains("is not a digest"), "{wrong}");
        }
    }
}

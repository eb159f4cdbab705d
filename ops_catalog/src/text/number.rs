//! Numbers in notations that people use.

/// The reason why a text is not the expected number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NumberError {
    #[error("`{text}` is not a number{remedy}")]
    NotANumber { text: String, remedy: &'static str },
    #[error("`{text}` has a leading zero, which some programs read as octal: write {remedy}")]
    LeadingZero { text: String, remedy: String },
    #[error("{0} is too large")]
    TooLarge(String),
    #[error("{0} is not a whole number")]
    NotWhole(String),
}

/// Whether a text begins like a number, and is therefore meant as one.
pub(super) fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut bytes = unsigned.bytes();
    match bytes.next() {
        Some(b'0'..=b'9') => unsigned
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b'.' | b'_' | b'+' | b'-' | b'x' | b'o')),
        Some(b'.') => bytes.next().is_some_and(|b| b.is_ascii_digit()),
        _ => false,
    }
}

/// A whole number in any unambiguous notation: `8`, `8.0`, `1e1`, `600e6`, `0x10`.
pub(super) fn whole(text: &str) -> Result<i128, NumberError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let signed = |n: i128| if negative { -n } else { n };
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = digits.strip_prefix(prefix)
            && digits.bytes().all(|b| b.is_ascii_alphanumeric())
            && let Ok(n) = i128::from_str_radix(digits, radix)
        {
            return Ok(signed(n));
        }
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => match exponent.parse::<i32>() {
            Ok(exponent) => (mantissa, exponent),
            Err(_) => return Err(no_number(text)),
        },
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(no_number(text));
    }
    check_leading_zero(text, whole)?;
    let significant = format!("{whole}{fraction}");
    let significant = significant.trim_start_matches('0');
    let kept = significant.trim_end_matches('0');
    let dropped = i32::try_from(significant.len() - kept.len()).unwrap_or(i32::MAX);
    if kept.is_empty() {
        return Ok(0);
    }
    let places = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    match exponent.saturating_sub(places).saturating_add(dropped) {
        shift @ 0..=38 => kept
            .parse::<i128>()
            .ok()
            .and_then(|n| n.checked_mul(10i128.pow(shift.unsigned_abs())))
            .map(signed)
            .ok_or_else(|| NumberError::TooLarge(text.to_owned())),
        shift if shift > 0 => Err(NumberError::TooLarge(text.to_owned())),
        _ => Err(NumberError::NotWhole(text.to_owned())),
    }
}

/// A number with a fraction.
pub(super) fn real(text: &str) -> Result<f64, NumberError> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" if text.starts_with('-') => return Ok(f64::NEG_INFINITY),
        ".inf" | ".Inf" | ".INF" => return Ok(f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Ok(f64::NAN),
        _ => {}
    }
    if unsigned.starts_with("0x") || unsigned.starts_with("0o") {
        return whole(text).map(|n| n as f64);
    }
    check_leading_zero(text, unsigned.split(['.', 'e', 'E']).next().unwrap_or_default())?;
    if !is_number(text) {
        return Err(no_number(text));
    }
    text.parse().map_err(|_| no_number(text))
}

/// Refuses a leading zero, because some readers take such a number as octal.
fn check_leading_zero(text: &str, whole: &str) -> Result<(), NumberError> {
    let plain = whole.trim_start_matches('0');
    if whole.len() > 1 && whole.starts_with('0') && whole.bytes().all(|b| b.is_ascii_digit()) {
        let plain = if plain.is_empty() { "0" } else { plain };
        let remedy = text.replacen(whole, plain, 1);
        return Err(NumberError::LeadingZero { text: text.to_owned(), remedy });
    }
    Ok(())
}

fn no_number(text: &str) -> NumberError {
    let text = crate::error::shown(text);
    let remedy = if is_number(&text) && text.contains('_') {
        ": write it without `_`"
    } else if is_number(&text.replace(',', "")) && text.contains(',') {
        ": write it without commas, and a fraction with a point"
    } else {
        ""
    };
    NumberError::NotANumber { text, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_taken_however_they_are_written() {
        for (text, n) in [
            ("8", 8),
            ("+8", 8),
            ("-8", -8),
            ("8.0", 8),
            ("8.", 8),
            ("1e1", 10),
            ("1E+1", 10),
            ("1.5e1", 15),
            ("600e6", 600_000_000),
            ("100e-2", 1),
            ("0", 0),
            ("0.0", 0),
            ("0e99", 0),
            ("0x10", 16),
            ("0o17", 15),
            ("18446744073709551617", 18_446_744_073_709_551_617),
        ] {
            assert_eq!(whole(text), Ok(n), "{text}");
        }
    }

    #[test]
    fn numbers_that_are_not_certain_are_refused_with_a_remedy() {
        for (text, words) in [
            ("032", "`032` has a leading zero, which some programs read as octal: write 32"),
            ("-032", "write -32"),
            ("00", "write 0"),
            ("1.5", "1.5 is not a whole number"),
            ("1e-1", "1e-1 is not a whole number"),
            ("1e39", "1e39 is too large"),
            ("1e999999999999", "is not a number"),
            ("1_000", "write it without `_`"),
            ("1,000", "write it without commas"),
            ("", "`` is not a number"),
            ("-", "`-` is not a number"),
            ("8px", "`8px` is not a number"),
            ("0x-1", "is not a number"),
        ] {
            let said = whole(text).unwrap_err().to_string();
            assert!(said.contains(words), "{text}: {said}");
        }
        assert!(real("007.5").unwrap_err().to_string().contains("write 7.5"));
        for text in ["inf", "nan", "infinity", "1.5.2", "e5", "--1", "1e"] {
            assert!(real(text).is_err(), "{text}");
        }
        assert_eq!(real("2.5e3"), Ok(2500.0));
        assert_eq!(real(".5"), Ok(0.5));
        assert_eq!(real("-.inf"), Ok(f64::NEG_INFINITY));
    }
}

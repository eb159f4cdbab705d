//! Reading YAML that anybody may have written.

use serde::de::DeserializeOwned;

use crate::Invalid;

/// More text than any definition, space or network of sensible size.
const MAX_TEXT: usize = 16 << 20;

/// Reads one document. JSON is a part of YAML, so it reads JSON too.
///
/// Nesting and the expansion of aliases are bounded, so that a small text cannot ask for much work.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    if text.len() > MAX_TEXT {
        return Err(Invalid::here(format!(
            "the text has {} bytes, and at most {MAX_TEXT} are read",
            text.len()
        )));
    }
    let options = serde_saphyr::options! {
        // A message is one line with its position; the snippet would be many lines in a log.
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: 32 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        Invalid::here(short(&e.render_with_formatter(&serde_saphyr::UserMessageFormatter)))
    })
}

/// A parser's message without the middle, if it is long because it repeats the text.
pub(crate) fn short(message: &str) -> String {
    const KEPT: usize = 300;
    let plain: Vec<char> = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match plain.len().checked_sub(2 * KEPT) {
        Some(cut) if cut > 0 => {
            let (start, rest) = plain.split_at(KEPT);
            let end = &rest[cut..];
            format!("{} ... {}", String::from_iter(start), String::from_iter(end))
        }
        _ => String::from_iter(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_start_and_its_end() {
        let long = format!("unknown field `{}` at line 3", "é".repeat(10_000));
        let kept = short(&long);
        assert!(kept.starts_with("unknown field `é") && kept.ends_with("é` at line 3"), "{kept}");
        assert_eq!(kept.chars().count(), 605);
        assert_eq!(short("one\nline"), "one line");
    }

    #[test]
    fn json_is_a_part_of_yaml() {
        let values: Vec<u32> = read(r#"[1, 2, 3]"#).unwrap();
        assert_eq!(values, [1, 2, 3]);
    }
}

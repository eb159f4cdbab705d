//! Counts, ages and texts of unknown origin, as messages for people write them.

use jiff::Timestamp;

/// Text of unknown origin on one line: names, documentation and reasons may contain anything.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `3 rows`, `1 row`.
pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// How long ago something was, in its largest unit: `40 s`, `5 min`, `3 h`, `2 d`.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    match now.duration_since(since).as_secs().max(0) {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s / 60),
        s if s < 48 * 3600 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_has_its_noun() {
        assert_eq!(count(1, "row", "rows") + ", " + &count(0, "row", "rows"), "1 row, 0 rows");
    }

    #[test]
    fn text_of_unknown_origin_has_no_control_characters() {
        assert_eq!(plain("lab\u{1b}[2J\n"), "lab [2J ");
    }

    #[test]
    fn an_age_has_one_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = |seconds: i64| age(Timestamp::from_second(1_000_000 - seconds).unwrap(), now);
        // If the local clock is behind, no event is reported as a future one.
        assert_eq!([-5, 59, 60, 7199].map(ago), ["0 s", "59 s", "1 min", "1 h"]);
        assert_eq!([47 * 3600, 48 * 3600, 250_000].map(ago), ["47 h", "2 d", "2 d"]);
    }
}

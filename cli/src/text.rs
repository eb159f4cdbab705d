//! Numbers and lists for people.

use std::io::{self, Write};

use jiff::Timestamp;

/// Rows in columns that are as wide as their widest entry.
pub(crate) struct Columns<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Columns<N> {
    pub(crate) fn new(heading: [&str; N]) -> Columns<N> {
        Columns { rows: vec![heading.map(str::to_owned)] }
    }

    pub(crate) fn push(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| plain(&cell)));
    }

    /// Writes them, the last column wrapped where stdout is a terminal that is too narrow for it.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let terminal = terminal_size::terminal_size_of(io::stdout());
        self.write_within(terminal.map(|(width, _)| usize::from(width.0)), out)
    }

    fn write_within(&self, terminal: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let before: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
        // What is left for the last column; with less than this it is easier to read beyond the edge.
        let room = terminal.and_then(|width| width.checked_sub(before)).filter(|&room| room >= 20);
        for row in &self.rows {
            let mut cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let last = row.last().map_or("", String::as_str);
            let mut lines = wrapped(last, room.unwrap_or(usize::MAX)).into_iter();
            if let Some(cell) = cells.last_mut() {
                *cell = lines.next().unwrap_or_default();
            }
            writeln!(out, "{}", cells.join("  ").trim_end())?;
            for line in lines {
                writeln!(out, "{:before$}{line}", "")?;
            }
        }
        Ok(())
    }
}

/// A text in lines of at most `width` characters, cut at spaces where there are some.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    if text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one line from the start");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Text from elsewhere on one line: names, documentation and reasons may hold anything.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `3 rows`, `1 row`.
pub(crate) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Three significant digits.
fn three_digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Microseconds in the unit that suits them: `431 us`, `12.3 ms`, `1.20 s`.
pub(crate) fn duration(micros: f64) -> String {
    match micros {
        m if m < 999.5 => format!("{} us", three_digits(m)),
        m if m < 999.5e3 => format!("{} ms", three_digits(m / 1e3)),
        m => format!("{} s", three_digits(m / 1e6)),
    }
}

/// How long ago something was, in its largest unit: `40 s`, `5 min`, `3 h`, `2 d`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    match now.duration_since(since).as_secs().max(0) {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s / 60),
        s if s < 48 * 3600 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// `4.7%`: a share, or `-` where there is none.
pub(crate) fn percent(share: Option<f64>) -> String {
    match share.map(|share| 100.0 * share) {
        None => "-".to_owned(),
        Some(p) if p < 99.95 => format!("{p:.1}%"),
        Some(p) => format!("{p:.0}%"),
    }
}

/// `300.8 M`: FLOPs and parameters.
pub(crate) fn quantity(n: u64) -> String {
    match n as f64 {
        v if v < 1e4 => n.to_string(),
        v if v < 1e6 => format!("{:.1} k", v / 1e3),
        v if v < 1e9 => format!("{:.1} M", v / 1e6),
        v => format!("{:.2} G", v / 1e9),
    }
}

/// `18.4 MiB`.
pub(crate) fn bytes(n: f64) -> String {
    match n {
        n if n < 1024.0 => format!("{n:.0} B"),
        n if n < 1024.0 * 1024.0 => format!("{:.1} KiB", n / 1024.0),
        n if n < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", n / 1024.0 / 1024.0),
        n => format!("{:.1} GiB", n / 1024.0 / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (micros, text) in [
            (0.4212, "0.42 us"),
            (99.96, "100 us"),
            (999.4, "999 us"),
            (999.6, "1.00 ms"),
            (12_345.0, "12.3 ms"),
            (1_200_000.0, "1.20 s"),
        ] {
            assert_eq!(duration(micros), text);
        }
        assert_eq!(
            [9_999, 31_000, 300_774_272, 4_089_184_256].map(quantity),
            ["9999", "31.0 k", "300.8 M", "4.09 G"]
        );
        assert_eq!([12.0, 2048.0, 19.3e6].map(bytes), ["12 B", "2.0 KiB", "18.4 MiB"]);
        assert_eq!(count(1, "row", "rows") + ", " + &count(0, "row", "rows"), "1 row, 0 rows");
    }

    #[test]
    fn an_age_has_one_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ago = |seconds: i64| age(Timestamp::from_second(1_000_000 - seconds).unwrap(), now);
        // A clock that is behind makes nothing come from the future.
        assert_eq!([-5, 59, 60, 7199].map(ago), ["0 s", "59 s", "1 min", "1 h"]);
        assert_eq!([47 * 3600, 48 * 3600, 250_000].map(ago), ["47 h", "2 d", "2 d"]);
    }

    #[test]
    fn the_last_column_is_wrapped_to_the_terminal() {
        let mut columns = Columns::new(["OP", "DOC"]);
        columns.push(["Conv".to_owned(), "a convolution of three by three pixels".to_owned()]);
        let written = |terminal| {
            let mut out = Vec::new();
            columns.write_within(terminal, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let narrow = "OP    DOC\nConv  a convolution of three\n      by three pixels\n";
        assert_eq!(written(Some(30)), narrow);
        let wide = "OP    DOC\nConv  a convolution of three by three pixels\n";
        // Nobody reads a file through a terminal, and nothing fits a terminal as narrow as this.
        assert_eq!([None, Some(80), Some(10)].map(written), [wide; 3]);
    }

    #[test]
    fn columns_line_up() {
        let mut columns = Columns::new(["OP", "DOC"]);
        columns.push(["Conv3x3".to_owned(), "two\nlines".to_owned()]);
        let mut out = Vec::new();
        columns.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "OP       DOC\nConv3x3  two lines\n");
    }
}

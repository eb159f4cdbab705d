//! Lists for people: rows in columns.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use latlas_shared::words::plain;

/// The space between columns of a list.
const GAP: u16 = 2;

/// If the last column has less room than this, a line that extends beyond the edge of the terminal is easier to read.
const LEAST_ROOM: usize = 20;

/// Rows in columns that are as wide as their widest cell.
pub struct TextTable<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> TextTable<N> {
    /// A table with a heading and no rows.
    pub fn new(heading: [&str; N]) -> TextTable<N> {
        TextTable { rows: vec![heading.map(str::to_owned)] }
    }

    /// Adds a row. Control characters become spaces.
    pub fn push(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| plain(&cell)));
    }

    /// Writes the table. The last column is wrapped if stdout is a terminal that is too narrow for it.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let terminal = terminal_size::terminal_size_of(io::stdout());
        out.write_all(self.text(terminal.map(|(width, _)| usize::from(width.0))).as_bytes())
    }

    /// The table as text, for a terminal with this many columns or for a file.
    pub fn text(&self, terminal: Option<usize>) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).add_rows(&self.rows);
        let last = N.saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if index == last { 0 } else { GAP }));
            if index < last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let widths = table.column_max_content_widths();
        let before: usize = widths.iter().take(last).map(|width| usize::from(width + GAP)).sum();
        let fits = |width: &usize| width.checked_sub(before).is_some_and(|room| room >= LEAST_ROOM);
        table.set_content_arrangement(ContentArrangement::Disabled);
        if let Some(width) = terminal.filter(fits).and_then(|width| u16::try_from(width).ok()) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        table.trim_fmt() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_is_wrapped_to_the_terminal() {
        let mut table = TextTable::new(["OP", "DOC"]);
        table.push(["Conv".to_owned(), "a convolution of three by three pixels".to_owned()]);
        let narrow = "OP    DOC\nConv  a convolution of three\n      by three pixels\n";
        assert_eq!(table.text(Some(30)), narrow);
        let wide = "OP    DOC\nConv  a convolution of three by three pixels\n";
        // A file has no width, and a terminal as narrow as this has no room for the last column.
        assert_eq!([None, Some(80), Some(10)].map(|width| table.text(width)), [wide; 3]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = TextTable::new(["OP", "DOC"]);
        table.push(["Conv3x3".to_owned(), "two\nlines".to_owned()]);
        assert_eq!(table.text(None), "OP       DOC\nConv3x3  two lines\n");
    }
}

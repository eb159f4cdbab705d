//! A row as a flat record: the single list of columns for CSV, data frames and every other format without nested
//! values.

use std::borrow::Cow;

use serde::Serialize;

use crate::{Row, Table};

/// The kind of value that a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text.
    Text,
    /// A number of something.
    Integer,
    /// A number with a fraction, or none.
    Real,
}

/// The value of a column in one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// Of a column of texts.
    Text(Cow<'a, str>),
    /// Of a column of integers.
    Integer(u32),
    /// Of a column of numbers with a fraction.
    Real(Option<f64>),
}

/// A type of values in columns.
trait Value {
    const KIND: ColumnKind;

    fn cell(&self) -> Cell<'_>;
}

impl Value for &str {
    const KIND: ColumnKind = ColumnKind::Text;

    fn cell(&self) -> Cell<'_> {
        Cell::Text(Cow::Borrowed(self))
    }
}

impl Value for String {
    const KIND: ColumnKind = ColumnKind::Text;

    fn cell(&self) -> Cell<'_> {
        Cell::Text(Cow::Borrowed(self))
    }
}

impl Value for u32 {
    const KIND: ColumnKind = ColumnKind::Integer;

    fn cell(&self) -> Cell<'_> {
        Cell::Integer(*self)
    }
}

impl Value for Option<f64> {
    const KIND: ColumnKind = ColumnKind::Real;

    fn cell(&self) -> Cell<'_> {
        Cell::Real(*self)
    }
}

/// Declares [`FlatRow`], its columns and the sources of their values, in one list.
macro_rules! flat_row {
    ($($(#[$doc:meta])* $column:ident: $type:ty = |$table:ident, $row:ident| $value:expr;)*) => {
        /// A row with the hardware id of its table, without its curve.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct FlatRow<'a> {
            $($(#[$doc])* pub $column: $type,)*
        }

        /// The names of the columns of a [`FlatRow`], in order. The first nine are those of the view
        /// `latency_lookup`.
        pub const COLUMNS: &[&str] = &[$(stringify!($column)),*];

        impl<'a> FlatRow<'a> {
            /// The kinds of the columns, in order.
            pub const KINDS: &'static [ColumnKind] = &[$(<$type as Value>::KIND),*];

            /// The values of the columns, in order.
            pub fn cells(&self) -> Vec<Cell<'_>> {
                vec![$(self.$column.cell()),*]
            }

            /// A row of a table.
            pub fn new(table: &'a Table, row: &'a Row) -> FlatRow<'a> {
                FlatRow { $($column: { let ($table, $row) = (table, row); let _ = ($table, $row); $value },)* }
            }
        }
    };
}

flat_row! {
    /// The class of device.
    hardware_id: &'a str = |table, _row| table.hardware_id.as_str();
    /// Name of the op.
    op_type: &'a str = |_table, row| &row.op_type;
    /// Height of the input map.
    input_h: u32 = |_table, row| row.input_h;
    /// Width of it.
    input_w: u32 = |_table, row| row.input_w;
    /// Channels of the input.
    channels_in: u32 = |_table, row| row.channels_in;
    /// Channels of the output.
    channels_out: u32 = |_table, row| row.channels_out;
    /// Stride.
    stride: u32 = |_table, row| row.stride;
    /// See [`Row::latency_micros`].
    latency_micros: Option<f64> = |_table, row| row.latency_micros;
    /// See [`Row::energy_mj`].
    energy_mj: Option<f64> = |_table, row| row.energy_mj;
    /// Batch.
    batch: u32 = |_table, row| row.batch;
    /// Digest of the definition.
    op_digest: &'a str = |_table, row| row.op_digest.as_str();
    /// The name of the status.
    status: &'static str = |_table, row| row.status.name();
    /// See [`Row::ci95_rel`].
    ci95_rel: Option<f64> = |_table, row| row.ci95_rel;
    /// See [`Row::median_micros`].
    median_micros: Option<f64> = |_table, row| row.median_micros;
    /// Number of samples.
    samples: u32 = |_table, row| row.samples;
    /// Number of agents.
    agents: u32 = |_table, row| row.agents;
    /// When it was last measured, in UTC.
    measured_at: String = |_table, row| row.measured_at.to_string();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{key, row, table};

    #[test]
    fn a_record_has_the_columns_and_the_values_of_the_row() {
        let table = table(vec![row(&key("Conv3x3:n2-h28-w14-i16-o32-s2"), 100.0)]);
        let flat = serde_json::to_value(FlatRow::new(&table, &table.rows[0])).unwrap();
        let whole = serde_json::to_value(&table.rows[0]).unwrap();
        let flat = flat.as_object().unwrap();
        assert_eq!(flat.len(), COLUMNS.len());
        for &column in COLUMNS {
            let expected = match column {
                "hardware_id" => &serde_json::json!(table.hardware_id),
                column => &whole[column],
            };
            assert_eq!(&flat[column], expected, "{column}");
        }
    }

    #[test]
    fn a_cell_has_the_kind_of_its_column() {
        let table = table(vec![row(&key("Conv3x3:n2-h28-w14-i16-o32-s2"), 100.0)]);
        let row = FlatRow::new(&table, &table.rows[0]);
        let flat = serde_json::to_value(&row).unwrap();
        let columns = COLUMNS.iter().zip(FlatRow::KINDS).zip(row.cells());
        for ((&column, &kind), cell) in columns {
            let (expected, value) = match cell {
                Cell::Text(text) => (ColumnKind::Text, serde_json::json!(text)),
                Cell::Integer(number) => (ColumnKind::Integer, serde_json::json!(number)),
                Cell::Real(number) => (ColumnKind::Real, serde_json::json!(number)),
            };
            assert_eq!((kind, &value), (expected, &flat[column]), "{column}");
        }
        assert_eq!(row.cells().len(), COLUMNS.len());
    }
}

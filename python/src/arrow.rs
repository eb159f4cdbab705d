//! Tables as columns in the memory layout of Apache Arrow, for any library that reads it.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, Float64Builder, StringBuilder, UInt32Builder};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchIterator};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use latlas_shared::{COLUMNS, Cell, ColumnKind, FlatRow, Table};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

/// The column with the op keys.
const KEY: &str = "key";

/// A column that is being filled.
enum Column {
    Text(StringBuilder),
    Integer(UInt32Builder),
    Real(Float64Builder),
}

impl Column {
    fn new(kind: ColumnKind) -> Column {
        match kind {
            ColumnKind::Text => Column::Text(StringBuilder::new()),
            ColumnKind::Integer => Column::Integer(UInt32Builder::new()),
            ColumnKind::Real => Column::Real(Float64Builder::new()),
        }
    }

    fn push(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Column::Text(column), Cell::Text(text)) => column.append_value(text),
            (Column::Integer(column), Cell::Integer(number)) => column.append_value(*number),
            (Column::Real(column), Cell::Real(number)) => column.append_option(*number),
            _ => unreachable!("a cell has the kind of its column"),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Column::Text(mut column) => ArrayBuilder::finish(&mut column),
            Column::Integer(mut column) => ArrayBuilder::finish(&mut column),
            Column::Real(mut column) => ArrayBuilder::finish(&mut column),
        }
    }
}

/// The rows of a table with the op key and the columns of the format csv.
pub(crate) fn batch(table: &Table) -> Result<RecordBatch, ArrowError> {
    let mut keys = Column::new(ColumnKind::Text);
    let mut columns: Vec<Column> = FlatRow::KINDS.iter().copied().map(Column::new).collect();
    for row in &table.rows {
        keys.push(&Cell::Text(row.key().to_string().into()));
        for (column, cell) in columns.iter_mut().zip(FlatRow::new(table, row).cells()) {
            column.push(&cell);
        }
    }
    let field = |name: &str, array: &ArrayRef| {
        let real = *array.data_type() == DataType::Float64;
        Field::new(name, array.data_type().clone(), real)
    };
    let arrays: Vec<ArrayRef> = std::iter::once(keys).chain(columns).map(Column::finish).collect();
    let names = std::iter::once(KEY).chain(COLUMNS.iter().copied());
    let fields: Vec<Field> = names.zip(&arrays).map(|(name, array)| field(name, array)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

/// A stream of one batch, as `__arrow_c_stream__` hands it over. The reader shares the memory.
pub(crate) fn stream<'py>(py: Python<'py>, batch: &RecordBatch) -> PyResult<Bound<'py, PyCapsule>> {
    let reader = RecordBatchIterator::new([Ok(batch.clone())], batch.schema());
    let stream = FFI_ArrowArrayStream::new(Box::new(reader));
    PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
}

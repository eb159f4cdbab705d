//! Networks as numbers of rows: the packed form for searches, one array of integers for many networks.

use std::sync::Arc;

use latlas_predict::{Micros, PackedOp, PackedTable, Predictor};
use latlas_shared::MissingOp;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};

use crate::errors::{self, Class};
use crate::many::{self, Rules};
use crate::table::{NoRow, Table};

/// Stands for no op, in a network that has fewer ops than others.
const NO_OP: i32 = -1;

/// The bytes of a row number.
const WIDTH: usize = size_of::<i32>();

/// The rows of a table under one rule for missing rows.
pub(crate) struct Rows {
    packed: PackedTable,
    rows: Vec<RowOp>,
}

/// A row as an op.
struct RowOp {
    /// The packed op, or why there is no number for it.
    op: Result<PackedOp, MissingOp>,
    merges: bool,
}

impl Rows {
    fn new(table: &Table, rules: &Rules) -> Rows {
        let index = table.content();
        let catalog = index.catalog();
        let mut packed = PackedTable::new(Predictor::new(Arc::clone(index), rules.missing));
        let row = |row: &latlas_shared::Row| {
            let key = row.key();
            let missing = |why: String| MissingOp { key: key.clone(), why };
            match catalog.op(&row.op_type) {
                Ok(op) => RowOp {
                    op: packed.op(op, &key.shape).map_err(|why| missing(why.to_string())),
                    merges: many::is_merge(op),
                },
                Err(problem) => RowOp { op: Err(missing(problem.to_string())), merges: false },
            }
        };
        let rows = index.table().rows.iter().map(row).collect();
        Rows { packed, rows }
    }

    /// Predicts one network of row numbers.
    fn one(&self, numbers: &[u8], ids: &mut Vec<PackedOp>) -> Result<Micros, Vec<MissingOp>> {
        ids.clear();
        let mut merges = 0;
        let mut missing = Vec::new();
        for number in numbers.chunks_exact(WIDTH) {
            let number = i32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
            // The bounds were checked, so all others are no op.
            let Ok(place) = usize::try_from(number) else { continue };
            let RowOp { op, merges: is_merge } = &self.rows[place];
            merges += usize::from(*is_merge);
            match op {
                Ok(op) => ids.push(*op),
                Err(op) => missing.push(op.clone()),
            }
        }
        match self.packed.predict(ids, merges) {
            Some(micros) if missing.is_empty() => Ok(micros),
            _ => Err(missing),
        }
    }
}

/// Whether the networks are an array of integers.
pub(crate) fn is_array(networks: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Some(dtype) = networks.getattr_opt("dtype")? else { return Ok(false) };
    let kind = dtype.getattr_opt("kind")?.and_then(|kind| kind.extract::<String>().ok());
    Ok(kind.is_some_and(|kind| kind == "i" || kind == "u"))
}

/// `Table.predict_many` of an array.
pub(crate) fn predict<'py>(
    table: &Table,
    networks: &Bound<'py, PyAny>,
    rules: &Rules,
) -> PyResult<Bound<'py, PyAny>> {
    let py = networks.py();
    let packed = py.import("latlas._support")?.getattr("row_numbers")?.call1((networks,))?;
    let (numbers, layers): (Bound<'py, PyBytes>, usize) = packed.extract()?;
    let numbers = numbers.as_bytes();
    let (columns, missing) = py
        .detach(|| {
            let known = table.content().table().rows.len();
            check(numbers, layers, known)?;
            let rows = table.bulk(rules.missing).rows.get_or_init(|| Rows::new(table, rules));
            let width = layers * WIDTH;
            let network = |place: usize| &numbers[place * width..(place + 1) * width];
            Ok(many::columns(numbers.len() / width.max(1), rules.threads, |place, ids| {
                rows.one(network(place), ids)
            }))
        })
        .map_err(|problem| match problem {
            Problem::Number(text) => PyIndexError::new_err(text),
            Problem::Empty(text) => Class::NetworkError.with(py, text),
        })?;
    many::result(py, &columns, missing, rules.gaps)
}

/// What is wrong with an array.
enum Problem {
    Number(String),
    Empty(String),
}

/// Checks that each network has an op, and each number a row.
fn check(numbers: &[u8], layers: usize, known: usize) -> Result<(), Problem> {
    for (place, network) in numbers.chunks_exact((layers * WIDTH).max(1)).enumerate() {
        let mut ops = 0;
        for number in network.chunks_exact(WIDTH) {
            let number = i32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
            match usize::try_from(number) {
                Ok(row) if row < known => ops += 1,
                Err(_) if number == NO_OP => {}
                _ => {
                    return Err(Problem::Number(format!(
                        "networks[{place}]: there is no row {number}: the table has {known} rows, and {NO_OP} is no op"
                    )));
                }
            }
        }
        if ops == 0 {
            return Err(Problem::Empty(format!("networks[{place}]: it has no op")));
        }
    }
    Ok(())
}

/// `Table.index`.
pub(crate) fn numbers<'py>(
    table: &Table,
    py: Python<'py>,
    keys: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut numbers: Vec<u8> = Vec::new();
    let mut missing: Vec<MissingOp> = Vec::new();
    for key in keys.try_iter()? {
        let key = key?;
        match table.find(key.cast()?)? {
            Ok(row) => {
                let number = i32::try_from(row.get().place()).map_err(|_| {
                    Class::Error.with(py, "the table has too many rows for 32 bits")
                })?;
                numbers.extend(number.to_ne_bytes());
            }
            Err(NoRow::Missing(op)) => missing.push(op),
            Err(NoRow::Invalid(problem)) => return Err(Class::UnknownKey.with(py, problem)),
        }
    }
    if !missing.is_empty() {
        return Err(errors::of_missing(py, missing));
    }
    let array = py.import("latlas._support")?.getattr("numbers")?;
    array.call1((PyByteArray::new(py, &numbers),))
}

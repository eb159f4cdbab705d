//! Between Python's dictionaries and the types that serde reads and writes.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Serialize;

use crate::errors::Class;

/// A value as dictionaries, lists, numbers and texts.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    value: &impl Serialize,
) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.getattr("loads")?.call1((text(py, value)?,))
}

/// A value as JSON.
pub(crate) fn text(py: Python<'_>, value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| Class::Error.with(py, error))
}

/// The JSON of a dictionary. Integers may be of any type that stands for one, such as those of numpy.
pub(crate) fn from_python(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = value.py();
    let options = PyDict::new(py);
    options.set_item("default", py.import("operator")?.getattr("index")?)?;
    py.import("json")?.getattr("dumps")?.call((value,), Some(&options))?.extract()
}

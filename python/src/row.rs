//! Rows of latency tables.

use std::sync::Arc;

use latlas_predict::TableIndex;
use latlas_shared::Row as Columns;
use pyo3::prelude::*;

use crate::json;
use crate::prediction::ms;

/// One row: what an op costs on one class of device.
///
/// >>> import latlas
/// >>> table = latlas.Table.load("table.json")
/// >>> row = table["Conv3x3:n1-h28-w28-i32-o32-s1"]
/// >>> row.op_type, row.input_h, row.channels_out
/// ('Conv3x3', 28, 32)
/// >>> low, high = row.interval_us
/// >>> low < row.latency_us < high
/// True
#[pyclass(frozen, module = "latlas")]
pub(crate) struct Row {
    index: Arc<TableIndex>,
    place: usize,
}

impl Row {
    pub(crate) fn new(index: Arc<TableIndex>, place: usize) -> Row {
        Row { index, place }
    }

    /// Its place in the table.
    pub(crate) fn place(&self) -> usize {
        self.place
    }

    fn columns(&self) -> &Columns {
        &self.index.table().rows[self.place]
    }
}

#[pymethods]
impl Row {
    /// Its op key.
    #[getter]
    pub(crate) fn key(&self) -> String {
        self.columns().key().to_string()
    }

    /// Name of the op.
    #[getter]
    fn op_type(&self) -> &str {
        &self.columns().op_type
    }

    /// Batch.
    #[getter]
    fn batch(&self) -> u32 {
        self.columns().batch
    }

    /// Height of the input.
    #[getter]
    fn input_h(&self) -> u32 {
        self.columns().input_h
    }

    /// Width of the input.
    #[getter]
    fn input_w(&self) -> u32 {
        self.columns().input_w
    }

    /// Channels of the input.
    #[getter]
    fn channels_in(&self) -> u32 {
        self.columns().channels_in
    }

    /// Channels of the output.
    #[getter]
    fn channels_out(&self) -> u32 {
        self.columns().channels_out
    }

    /// Stride.
    #[getter]
    fn stride(&self) -> u32 {
        self.columns().stride
    }

    /// What the op costs inside a network, in microseconds; None when it could not be measured.
    #[getter]
    fn latency_us(&self) -> Option<f64> {
        self.columns().latency_micros
    }

    /// The same in milliseconds.
    #[getter]
    fn latency_ms(&self) -> Option<f64> {
        self.latency_us().map(ms)
    }

    /// Its 95% confidence interval, in microseconds; None without a latency.
    #[getter]
    fn interval_us(&self) -> Option<(f64, f64)> {
        let reference = self.index.table().run_config.reuse_distance_bytes;
        self.columns().read_curve(reference as f64).map(|(low, _, high)| (low, high))
    }

    /// The same in milliseconds.
    #[getter]
    fn interval_ms(&self) -> Option<(f64, f64)> {
        self.interval_us().map(|(low, high)| (ms(low), ms(high)))
    }

    /// How far the number can be trusted: `ok`, `not_converged`, `degraded`, `suspect` or `failed`.
    #[getter]
    fn status(&self) -> &'static str {
        self.columns().status.name()
    }

    /// Why the status is not `ok`; else None.
    #[getter]
    fn reason(&self) -> Option<&str> {
        self.columns().reason.as_deref()
    }

    /// Energy of one call in millijoule; None where nothing measured it.
    #[getter]
    fn energy_mj(&self) -> Option<f64> {
        self.columns().energy_mj
    }

    /// Number of samples behind the value.
    #[getter]
    fn samples(&self) -> u32 {
        self.columns().samples
    }

    /// Number of agents whose measurements make it up.
    #[getter]
    fn agents(&self) -> u32 {
        self.columns().agents
    }

    /// The row as it is in the table's file, with its whole curve.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::to_python(py, self.columns())
    }

    fn __repr__(&self) -> String {
        let latency = match self.latency_us() {
            Some(micros) => format!("{micros:.2} us"),
            None => "no latency".to_owned(),
        };
        format!("<latlas.Row {} {latency}, {}>", self.key(), self.status())
    }
}

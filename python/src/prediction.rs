//! Predictions of single networks.

use std::collections::HashSet;
use std::sync::Arc;

use latlas_shared::{Contribution, Origin, Prediction as Predicted};
use pyo3::prelude::*;
use serde::Serialize;

use crate::json;

const MICROS_IN_A_MILLISECOND: f64 = 1000.0;

/// Microseconds as milliseconds.
pub(crate) fn ms(micros: f64) -> f64 {
    micros / MICROS_IN_A_MILLISECOND
}

/// A line of `latlas predict --json`, without the line of a file.
#[derive(Serialize)]
struct Line<'a> {
    name: Option<&'a str>,
    hardware_id: &'a str,
    table_version: &'a str,
    #[serde(flatten)]
    prediction: &'a Predicted,
}

/// The latency of a network, with its 95% interval.
///
/// >>> import latlas
/// >>> table = latlas.Table.load("table.json")
/// >>> p = table.predict(latlas.Network.builtin("demo_mobile"))
/// >>> p.low < p.ms < p.high
/// True
/// >>> p.measured_share
/// 1.0
#[pyclass(frozen, module = "latlas")]
pub(crate) struct Prediction {
    pub(crate) name: Option<String>,
    pub(crate) hardware_id: String,
    pub(crate) table_version: String,
    pub(crate) prediction: Arc<Predicted>,
}

#[pymethods]
impl Prediction {
    /// The latency in milliseconds.
    #[getter]
    fn ms(&self) -> f64 {
        ms(self.prediction.latency_micros)
    }

    /// Lower end of the 95% interval, in milliseconds.
    #[getter]
    fn low(&self) -> f64 {
        ms(self.prediction.low_micros)
    }

    /// Upper end of the 95% interval, in milliseconds.
    #[getter]
    fn high(&self) -> f64 {
        ms(self.prediction.high_micros)
    }

    /// The network's name, or None.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The class of device.
    #[getter]
    fn hardware_id(&self) -> &str {
        &self.hardware_id
    }

    /// The version of the table that it was made from.
    #[getter]
    fn table_version(&self) -> &str {
        &self.table_version
    }

    /// Share of the latency, 0 to 1, that rests on measured rows.
    #[getter]
    fn measured_share(&self) -> f64 {
        self.prediction.measured_share
    }

    /// The op keys without a measured row, each once: their numbers are estimates.
    #[getter]
    fn missing(&self) -> Vec<String> {
        let estimated = self.prediction.ops.iter().filter(|op| op.origin == Origin::Interpolated);
        let mut seen = HashSet::new();
        estimated.filter(|op| seen.insert(&op.key)).map(|op| op.key.to_string()).collect()
    }

    /// Networks that the table's calibration was fitted on. With 0 the interval is wide.
    #[getter]
    fn calibration_networks(&self) -> u32 {
        self.prediction.calibration_networks
    }

    /// Multiply-accumulates of the network.
    #[getter]
    fn flops(&self) -> u64 {
        self.prediction.flops
    }

    /// Parameters of the network.
    #[getter]
    fn params(&self) -> u64 {
        self.prediction.params
    }

    /// Each op's share, in running order.
    #[getter]
    fn ops(&self) -> Vec<OpPrediction> {
        let ops = 0..self.prediction.ops.len();
        ops.map(|op| OpPrediction { of: Arc::clone(&self.prediction), op }).collect()
    }

    /// The fields of `latlas predict --json`, in microseconds.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let line = Line {
            name: self.name.as_deref(),
            hardware_id: &self.hardware_id,
            table_version: &self.table_version,
            prediction: &self.prediction,
        };
        json::to_python(py, &line)
    }

    fn __repr__(&self) -> String {
        format!("<latlas.Prediction {:.4} ms ({:.4} to {:.4})>", self.ms(), self.low(), self.high())
    }
}

/// One op's share of a prediction.
#[pyclass(frozen, module = "latlas")]
pub(crate) struct OpPrediction {
    of: Arc<Predicted>,
    op: usize,
}

impl OpPrediction {
    fn contribution(&self) -> &Contribution {
        &self.of.ops[self.op]
    }
}

#[pymethods]
impl OpPrediction {
    /// Its op key.
    #[getter]
    fn key(&self) -> String {
        self.contribution().key.to_string()
    }

    /// Its place in the network as its author wrote it, such as `layers[3]`.
    #[getter]
    fn r#where(&self) -> &str {
        &self.contribution().place
    }

    /// Its latency in milliseconds.
    #[getter]
    fn ms(&self) -> f64 {
        ms(self.contribution().latency_micros)
    }

    /// Lower end of its 95% interval, in milliseconds.
    #[getter]
    fn low(&self) -> f64 {
        ms(self.contribution().low_micros)
    }

    /// Upper end of its 95% interval, in milliseconds.
    #[getter]
    fn high(&self) -> f64 {
        ms(self.contribution().high_micros)
    }

    /// On a GPU, milliseconds of the host to issue the op; else None.
    #[getter]
    fn host_ms(&self) -> Option<f64> {
        self.contribution().host_micros.map(ms)
    }

    /// On a GPU, milliseconds of the device to run the op; else None.
    #[getter]
    fn device_ms(&self) -> Option<f64> {
        self.contribution().device_micros.map(ms)
    }

    /// Where the number comes from: `measured` or `interpolated`.
    #[getter]
    fn origin(&self) -> &'static str {
        match self.contribution().origin {
            Origin::Measured => "measured",
            Origin::Interpolated => "interpolated",
        }
    }

    fn __repr__(&self) -> String {
        format!("<latlas.OpPrediction {} {:.4} ms>", self.key(), self.ms())
    }
}

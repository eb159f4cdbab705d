//! Latency tables.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use latlas_predict::{NoLatency, Predictor, TableIndex};
use latlas_shared::{
    COLUMNS, FlatRow, Missing, MissingOp, Prediction as Predicted, Table as Document,
};
use ops_catalog::{Invalid, OpKey};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyDict, PyIterator, PyList, PyString, PyTuple};

use crate::arrow;
use crate::client::{self, Source};
use crate::errors::{self, Class};
use crate::json;
use crate::many::{self, Bulk};
use crate::network;
use crate::prediction::Prediction;
use crate::row::Row;
use crate::rows;
use crate::supernet;

/// The latency table of one class of device: a mapping from op keys to rows, and the predictor of networks.
///
/// >>> import latlas
/// >>> table = latlas.Table.load("table.json")
/// >>> len(table)
/// 39
/// >>> row = table["Conv3x3:n1-h28-w28-i32-o32-s1"]
/// >>> row.status
/// 'ok'
#[pyclass(frozen, mapping, module = "latlas")]
pub(crate) struct Table {
    index: Arc<TableIndex>,
    /// The rows by their keys, made at the first look-up. A dictionary of Python has the hashes of its texts already.
    by_key: PyOnceLock<Py<PyDict>>,
    columns: OnceLock<RecordBatch>,
    strict: Rule,
    estimating: Rule,
}

/// What predicts under one rule for missing rows.
struct Rule {
    predictor: Predictor,
    bulk: Bulk,
}

impl Table {
    pub(crate) fn new(index: TableIndex) -> Table {
        let index = Arc::new(index);
        let rule = |missing| Rule {
            predictor: Predictor::new(Arc::clone(&index), missing),
            bulk: Bulk::new(&index, missing),
        };
        Table {
            by_key: PyOnceLock::new(),
            columns: OnceLock::new(),
            strict: rule(Missing::Error),
            estimating: rule(Missing::Interpolate),
            index,
        }
    }

    /// The table of a text; `place` says where it is from.
    pub(crate) fn of_text(py: Python<'_>, text: &str, place: Option<&str>) -> PyResult<Table> {
        let read = py.detach(|| Document::from_json(text).and_then(TableIndex::new));
        read.map(Table::new).map_err(|error| match place {
            Some(place) => Class::TableError.with(py, format!("{place}: {error}")),
            None => Class::TableError.with(py, error),
        })
    }

    pub(crate) fn content(&self) -> &Arc<TableIndex> {
        &self.index
    }

    fn rule(&self, missing: Missing) -> &Rule {
        match missing {
            Missing::Error => &self.strict,
            Missing::Interpolate => &self.estimating,
        }
    }

    pub(crate) fn predictor(&self, missing: Missing) -> &Predictor {
        &self.rule(missing).predictor
    }

    pub(crate) fn bulk(&self, missing: Missing) -> &Bulk {
        &self.rule(missing).bulk
    }

    /// A prediction that was made from this table.
    pub(crate) fn prediction(&self, name: Option<String>, predicted: Predicted) -> Prediction {
        let table = self.document();
        Prediction {
            name,
            hardware_id: table.hardware_id.to_string(),
            table_version: table.version.clone(),
            prediction: Arc::new(predicted),
        }
    }

    fn document(&self) -> &Document {
        self.index.table()
    }

    fn by_key<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        let made = self.by_key.get_or_try_init(py, || {
            let rows = PyDict::new(py);
            for row in self.all() {
                rows.set_item(row.key(), Bound::new(py, row)?)?;
            }
            PyResult::Ok(rows.unbind())
        });
        Ok(made?.bind(py))
    }

    /// The rows as columns, made once.
    fn columns(&self, py: Python<'_>) -> PyResult<&RecordBatch> {
        if let Some(batch) = self.columns.get() {
            return Ok(batch);
        }
        let batch = py.detach(|| arrow::batch(self.document()));
        let batch = batch.map_err(|error| Class::TableError.with(py, error))?;
        Ok(self.columns.get_or_init(|| batch))
    }

    fn row(&self, place: usize) -> Row {
        Row::new(Arc::clone(&self.index), place)
    }

    fn all(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.document().rows.len()).map(|place| self.row(place))
    }

    /// The row of a key.
    pub(crate) fn find<'py>(
        &self,
        key: &Bound<'py, PyString>,
    ) -> PyResult<Result<Bound<'py, Row>, NoRow>> {
        let rows = self.by_key(key.py())?;
        // A key has one spelling.
        let mut found = rows.get_item(key)?;
        if found.is_none() {
            match self.same_computation(key.to_str()?) {
                Ok(key) => found = rows.get_item(key.to_string())?,
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(found.expect("every row is in the dictionary").cast_into()?))
    }

    /// The key of the row that has a key's computation under another name.
    fn same_computation(&self, text: &str) -> Result<OpKey, NoRow> {
        let key: OpKey = text.parse().map_err(NoRow::Invalid)?;
        let op = self.index.catalog().op(&key.op).map_err(NoRow::Invalid)?;
        let row = self.index.row(op, &key.shape).map(|row| row.key());
        row.ok_or(NoRow::Missing(MissingOp { key, why: NoLatency::NotMeasured.to_string() }))
    }
}

/// Why a table has no row of a key.
pub(crate) enum NoRow {
    /// The text is no op key, or its op is not known.
    Invalid(Invalid),
    /// It was not measured.
    Missing(MissingOp),
}

impl NoRow {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            NoRow::Invalid(problem) => Class::UnknownKey.with(py, problem),
            NoRow::Missing(MissingOp { key, why }) => {
                Class::UnknownKey.with(py, format!("{key}: {why}"))
            }
        }
    }
}

/// What happens to a missing row.
pub(crate) fn missing(py: Python<'_>, name: &str) -> PyResult<Missing> {
    name.parse().map_err(|error| Class::UsageError.with(py, format!("missing: {error}")))
}

#[pymethods]
impl Table {
    /// Reads a table from a file or an http address.
    ///
    /// The token in LATLAS_TOKEN is sent to the coordinator in LATLAS_COORDINATOR only; another one gets the token
    /// that is given.
    #[staticmethod]
    #[pyo3(signature = (path_or_url, token = None))]
    fn load(py: Python<'_>, path_or_url: PathBuf, token: Option<String>) -> PyResult<Table> {
        if let Some(source) = Source::of(&path_or_url) {
            return source.table(py, token);
        }
        let path: &Path = &path_or_url;
        let read = py.detach(|| latlas_files::read_table(path));
        read.map(Table::new).map_err(|error| errors::of_file(py, Class::TableError, &error))
    }

    /// A table from JSON.
    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> PyResult<Table> {
        Table::of_text(py, text, None)
    }

    /// The class of device.
    #[getter]
    fn hardware_id(&self) -> &str {
        self.document().hardware_id.as_str()
    }

    /// Hash of the content: equal versions predict equal numbers.
    #[getter]
    fn version(&self) -> &str {
        &self.document().version
    }

    /// How the ops were run.
    #[getter]
    fn run_config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::to_python(py, &self.document().run_config)
    }

    /// The whole table, as it is in a file.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::to_python(py, self.document())
    }

    /// The rows as a pandas DataFrame, with the op key and the columns of the format csv.
    fn to_pandas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let table = self.document();
        let rows: Vec<FlatRow> = table.rows.iter().map(|row| FlatRow::new(table, row)).collect();
        let columns = (self.keys(), json::to_python(py, &rows)?, COLUMNS);
        py.import("latlas._support")?.getattr("pandas_frame")?.call1(columns)
    }

    /// The same as a polars DataFrame.
    fn to_polars<'py>(slf: &Bound<'py, Table>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("polars")?.getattr("DataFrame")?.call1((slf,))
    }

    /// The same for any library that reads Apache Arrow, such as `pyarrow.table(table)`. The memory is shared.
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // The protocol allows to answer with one's own schema.
        drop(requested_schema);
        arrow::stream(py, self.columns(py)?)
    }

    fn __len__(&self) -> usize {
        self.document().rows.len()
    }

    fn __contains__(&self, key: &Bound<'_, PyString>) -> PyResult<bool> {
        Ok(self.find(key)?.is_ok())
    }

    fn __getitem__<'py>(&self, key: &Bound<'py, PyString>) -> PyResult<Bound<'py, Row>> {
        self.find(key)?.map_err(|why| why.raise(key.py()))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.keys())?.try_iter()
    }

    /// The row of a key, or the default if there is none.
    #[pyo3(signature = (key, default = None))]
    fn get<'py>(
        &self,
        key: &Bound<'py, PyString>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.find(key)?.map_or(default, |row| Some(row.into_any())))
    }

    /// The op keys, sorted.
    fn keys(&self) -> Vec<String> {
        self.document().rows.iter().map(|row| row.key().to_string()).collect()
    }

    /// The rows, in the order of their keys.
    fn values(&self) -> Vec<Row> {
        self.all().collect()
    }

    /// The op keys with their rows.
    fn items(&self) -> Vec<(String, Row)> {
        self.all().map(|row| (row.key(), row)).collect()
    }

    /// The latency of a network.
    ///
    /// A missing row raises MissingRows, whose `keys` lists all of them. With `missing="interpolate"` they are
    /// estimated from the rows around them, where that is possible.
    ///
    /// >>> import latlas
    /// >>> table = latlas.Table.load("table.json")
    /// >>> table.predict(latlas.Network.builtin("demo_mobile")).calibration_networks
    /// 5
    #[pyo3(signature = (network, missing = "error"))]
    fn predict(
        &self,
        py: Python<'_>,
        network: &Bound<'_, PyAny>,
        missing: &str,
    ) -> PyResult<Prediction> {
        let predictor = self.predictor(self::missing(py, missing)?);
        let network = network::argument(network)?;
        let network = network.get();
        let plan = network
            .plan(self.index.catalog())
            .map_err(|problem| Class::NetworkError.with(py, problem))?;
        let predicted = py.detach(|| predictor.predict_plan(&plan));
        let predicted = predicted.map_err(|missing| errors::of_missing(py, missing))?;
        Ok(self.prediction(network.spec().name.clone(), predicted))
    }

    /// The numbers of the rows of some op keys, as a numpy array of 32-bit integers, for `predict_many`.
    ///
    /// >>> import latlas
    /// >>> table = latlas.Table.load("table.json")
    /// >>> table.index(table.keys()[3:5]).tolist()
    /// [3, 4]
    fn index<'py>(&self, py: Python<'py>, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        rows::numbers(self, py, keys)
    }

    /// The latencies of a supernet's choices in milliseconds, as a tensor of PyTorch, with the mask of the choices.
    ///
    /// `choices` has a list of choices for each layer. A choice is an op key, a layer of a network as a dictionary, or
    /// None for no op. Dictionaries need `input`, the shape (n, c, h, w) of the network's input. The tensor has NaN
    /// where a layer has fewer choices than the others.
    #[pyo3(signature = (choices, input = None, weight_bytes = None, missing = "error"))]
    fn latency_tensor<'py>(
        &self,
        choices: &Bound<'py, PyAny>,
        input: Option<(u32, u32, u32, u32)>,
        weight_bytes: Option<f64>,
        missing: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        supernet::tensor(self, choices, input, weight_bytes, missing)
    }

    /// The latencies of many networks, as three numpy arrays of milliseconds: `ms`, `low` and `high`.
    ///
    /// A network is a `Network` or a list of op keys; or all of them are one array of integers, whose rows are networks
    /// of row numbers (`index`) and -1 for no op. All processors work on them, unless `threads` says how many.
    /// With `missing="nan"` a network with a missing row gets NaN instead of an exception.
    ///
    /// >>> import latlas
    /// >>> table = latlas.Table.load("table.json")
    /// >>> keys = latlas.Network.builtin("demo_mobile").keys()
    /// >>> many = table.predict_many([keys, keys[:5]])
    /// >>> many.ms.shape
    /// (2,)
    #[pyo3(signature = (networks, missing = "error", threads = None))]
    fn predict_many<'py>(
        &self,
        py: Python<'py>,
        networks: &Bound<'py, PyAny>,
        missing: &str,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        many::predict(self, py, networks, missing, threads)
    }

    fn __repr__(&self) -> String {
        let table = self.document();
        format!("<latlas.Table {} {}, {} rows>", table.hardware_id, table.version, table.rows.len())
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let made = py.import("latlas._support")?.getattr("unpickled_table")?;
        Ok((made, PyTuple::new(py, [json::text(py, self.document())?])?))
    }
}

/// The table of a download, with a warning if it lacks measurements.
pub(crate) fn of_download(
    py: Python<'_>,
    download: latlas_client::Download,
    place: &str,
) -> PyResult<Table> {
    let text = String::from_utf8(download.content)
        .map_err(|_| Class::TableError.with(py, format!("{place}: it is not text")))?;
    let table = Table::of_text(py, &text, Some(place))?;
    if let Some(why) = download.stale {
        client::warn_stale(py, table.hardware_id(), &why)?;
    }
    Ok(table)
}

//! The client of a coordinator, and tables at an address.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latlas_client::{ClientError, WantedTable, stale_warning};
use latlas_shared::HardwareId;
use latlas_shared::api::{HardwareEntry, PredictAnswer, PredictRequest};
use pyo3::prelude::*;

use crate::errors::{self, Class};
use crate::network;
use crate::prediction::Prediction;
use crate::profile::{self, Options};
use crate::table::{self, Table};

/// How often a call looks whether the user interrupts it.
const SIGNALS: Duration = Duration::from_millis(50);

/// A variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The token of the environment, for the coordinator that the user means.
fn own_token() -> Option<String> {
    variable("LATLAS_TOKEN")
}

/// A connection to a coordinator, with its own runtime.
pub(crate) struct Connection {
    pub(crate) client: latlas_client::Client,
    pub(crate) token_sent: bool,
    runtime: Runtime,
}

/// A runtime that can be dropped anywhere: Python collects a client at any time, also while another one waits.
struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    fn new() -> std::io::Result<Runtime> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Runtime(Some(runtime)))
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it is there until it is dropped").block_on(future)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Connection {
    fn new(py: Python<'_>, base: &str, token: Option<String>) -> PyResult<Connection> {
        let token_sent = token.is_some();
        let client = latlas_client::Client::new(base, token)
            .map_err(|error| errors::of_call(py, &error, token_sent, None))?;
        Ok(Connection { client, token_sent, runtime: Runtime::new()? })
    }

    /// The answer of a call. The interpreter is free meanwhile, and the user can interrupt the call.
    pub(crate) fn ask<T: Send>(
        &self,
        py: Python<'_>,
        call: impl Future<Output = Result<T, ClientError>> + Send,
    ) -> PyResult<T> {
        self.outcome(py, call)?.map_err(|error| errors::of_call(py, &error, self.token_sent, None))
    }

    /// The same, with the error of the call. The outer error is that of the user's signal.
    pub(crate) fn outcome<T: Send>(
        &self,
        py: Python<'_>,
        call: impl Future<Output = Result<T, ClientError>> + Send,
    ) -> PyResult<Result<T, ClientError>> {
        py.detach(|| {
            let mut call = std::pin::pin!(call);
            loop {
                let step = async { tokio::time::timeout(SIGNALS, &mut call).await };
                if let Ok(answer) = self.runtime.block_on(step) {
                    return Ok(answer);
                }
                // Outside of the runtime: a handler of signals may call a coordinator too.
                Python::attach(|py| py.check_signals())?;
            }
        })
    }
}

/// A table at an address: of a coordinator, or a file of any server.
pub(crate) struct Source {
    base: String,
    path: String,
}

impl Source {
    /// The address in a text, unless it is the path of a file.
    pub(crate) fn of(text: &Path) -> Option<Source> {
        let text = text.to_str()?;
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let begin = text.len() - host.len();
        // What is before the interface of a coordinator is the coordinator's address.
        let split = match host.find("/v1/") {
            Some(at) => Some(at),
            None => host.split('?').next().and_then(|path| path.rfind('/')),
        };
        let end = split.map_or(text.len(), |at| begin + at);
        let path = text[end..].trim_start_matches('/').to_owned();
        Some(Source { base: text[..end].to_owned(), path })
    }

    fn is_of_own_coordinator(&self) -> bool {
        let own = variable("LATLAS_COORDINATOR");
        own.is_some_and(|own| own.trim_end_matches('/') == self.base.trim_end_matches('/'))
    }

    pub(crate) fn table(&self, py: Python<'_>, token: Option<String>) -> PyResult<Table> {
        // Nobody else than the coordinator of the environment gets its token.
        let token = token.or_else(|| own_token().filter(|_| self.is_of_own_coordinator()));
        let connection = Connection::new(py, &self.base, token)?;
        let download = connection.ask(py, connection.client.download_at(&self.path))?;
        table::of_download(py, download, &format!("{}/{}", self.base, self.path))
    }
}

/// Warns that a table lacks measurements.
pub(crate) fn warn_stale(py: Python<'_>, table: &str, why: &str) -> PyResult<()> {
    let category = py.import("latlas._support")?.getattr("StaleTable")?;
    py.import("warnings")?.getattr("warn")?.call1((stale_warning(table, why), category))?;
    Ok(())
}

/// A coordinator, as one user sees it. The first call opens a connection.
///
/// The token is the one in LATLAS_TOKEN unless it is given.
#[pyclass(frozen, module = "latlas")]
pub(crate) struct Client {
    connection: Arc<Connection>,
}

impl Client {
    fn hardware_id(py: Python<'_>, text: &str) -> PyResult<HardwareId> {
        text.parse().map_err(|error| Class::UsageError.with(py, error))
    }
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (url, token = None))]
    fn new(py: Python<'_>, url: &str, token: Option<String>) -> PyResult<Client> {
        let connection = Connection::new(py, url, token.or_else(own_token))?;
        Ok(Client { connection: Arc::new(connection) })
    }

    /// The classes of devices that the coordinator knows.
    fn hardware<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let client = &self.connection.client;
        let entries: Vec<HardwareEntry> = self.connection.ask(py, client.get_all("v1/hardware"))?;
        let class = py.import("latlas._support")?.getattr("Hardware")?;
        let entry = |entry: HardwareEntry| {
            class.call1((entry.hardware_id.as_str(), entry.agents, entry.configs))
        };
        entries.into_iter().map(entry).collect()
    }

    /// The table of a class of device: the latest, or one version.
    ///
    /// A table that lacks stored measurements comes with the warning StaleTable.
    #[pyo3(signature = (hardware, config = None, version = None))]
    fn table(
        &self,
        py: Python<'_>,
        hardware: &str,
        config: Option<&str>,
        version: Option<&str>,
    ) -> PyResult<Table> {
        let hardware = Client::hardware_id(py, hardware)?;
        if let Some(version) = version {
            latlas_shared::check_version(version)
                .map_err(|error| Class::UsageError.with(py, error))?;
        }
        let wanted = WantedTable { hardware: &hardware, config, version, format: "json" };
        let download = self.connection.ask(py, self.connection.client.download(&wanted))?;
        table::of_download(py, download, "the coordinator's answer")
    }

    /// The latency of a network, predicted by the coordinator from its latest table.
    #[pyo3(signature = (network, hardware, config = None, missing = "error"))]
    fn predict(
        &self,
        py: Python<'_>,
        network: &Bound<'_, PyAny>,
        hardware: &str,
        config: Option<String>,
        missing: &str,
    ) -> PyResult<Prediction> {
        let network = network::argument(network)?;
        let spec = network.get().spec();
        let request = PredictRequest {
            hardware_id: Client::hardware_id(py, hardware)?,
            config,
            network: spec.clone(),
            missing: table::missing(py, missing)?,
        };
        let client = &self.connection.client;
        let answer: PredictAnswer = self.connection.ask(py, client.post("v1/predict", &request))?;
        if let Some(stale) = answer.stale {
            warn_stale(py, hardware, stale.name())?;
        }
        Ok(Prediction {
            name: spec.name.clone(),
            hardware_id: answer.hardware_id.to_string(),
            table_version: answer.version,
            prediction: std::sync::Arc::new(answer.prediction),
        })
    }

    /// Measures networks: the rows that their predictions lack, and the networks as a whole.
    ///
    /// Waits for it, and returns a Profile, or a list of them for a list of networks. With `wait=False` it returns a
    /// Request at once. `progress` shows how far it is on stderr: by default on a terminal only.
    #[pyo3(signature = (networks, hardware, config = None, wait = true, calibrate = None, progress = None, remeasure = false))]
    #[expect(clippy::too_many_arguments, reason = "they are the arguments of a function in Python")]
    fn profile<'py>(
        &self,
        py: Python<'py>,
        networks: &Bound<'py, PyAny>,
        hardware: &str,
        config: Option<String>,
        wait: bool,
        calibrate: Option<u32>,
        progress: Option<bool>,
        remeasure: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = Options {
            hardware: Client::hardware_id(py, hardware)?,
            config,
            calibrate: calibrate.unwrap_or(0),
            remeasure,
        };
        let request = profile::ask_for(py, &self.connection, networks, options)?;
        if wait { request.wait(py, progress) } else { Ok(Bound::new(py, request)?.into_any()) }
    }

    /// Cancels a request. What is measured stays.
    fn cancel<'py>(&self, py: Python<'py>, request_id: &str) -> PyResult<Bound<'py, PyAny>> {
        let id = request_id.parse().map_err(|_| {
            let example = "0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7aa";
            Class::UsageError.with(py, format!("request_id: an id looks like {example}"))
        })?;
        profile::cancel(py, &self.connection, id)
    }

    fn __repr__(&self) -> String {
        format!("<latlas.Client {}>", self.connection.client.shown_base())
    }
}

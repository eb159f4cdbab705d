//! `Client.profile`: asks for what predictions of networks need, waits for it, and reads what was measured.

use std::sync::Arc;

use jiff::Timestamp;
use latlas_client::attendance::{cancelled, nobody, tasks};
use latlas_client::{Display, WantedTable, add_missing_rows, follow, known_ops, measured};
use latlas_predict::Micros;
use latlas_shared::api::{NetworkChoice, ProfileRequest, RequestStatus};
use latlas_shared::{HardwareId, Missing, Subject, WholeNetwork};
use ops_catalog::{Catalog, NetworkPlan};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use uuid::Uuid;

use crate::client::Connection;
use crate::errors::{self, Class};
use crate::network::{self, Network};
use crate::prediction::ms;
use crate::table::{self, Table};

/// What is measured, and how.
pub(crate) struct Options {
    pub(crate) hardware: HardwareId,
    pub(crate) config: Option<String>,
    pub(crate) calibrate: u32,
    pub(crate) remeasure: bool,
}

/// A request to measure networks, which a coordinator works off.
#[pyclass(frozen, module = "latlas")]
pub(crate) struct Request {
    connection: Arc<Connection>,
    id: Uuid,
    networks: Vec<Asked>,
    /// Whether the result is that of one network, and not a list.
    single: bool,
}

/// A network of a request.
struct Asked {
    whole: WholeNetwork,
    plan: Arc<NetworkPlan>,
}

impl Asked {
    fn new(network: &Network, catalog: &Catalog) -> Result<Asked, ops_catalog::Invalid> {
        let whole = WholeNetwork::new(network.spec(), catalog)?;
        Ok(Asked { whole, plan: network.plan(catalog)? })
    }
}

/// The networks that an argument stands for, and whether it is a single one.
fn arguments<'py>(networks: &Bound<'py, PyAny>) -> PyResult<(Vec<Bound<'py, Network>>, bool)> {
    if networks.is_instance_of::<Network>() || networks.is_instance_of::<PyDict>() {
        return Ok((vec![network::argument(networks)?], true));
    }
    let all = networks.try_iter()?.map(|one| network::argument(&one?));
    Ok((all.collect::<PyResult<_>>()?, false))
}

/// Asks a coordinator for the missing rows of some networks, and for the networks as a whole.
pub(crate) fn ask_for(
    py: Python<'_>,
    connection: &Arc<Connection>,
    networks: &Bound<'_, PyAny>,
    options: Options,
) -> PyResult<Request> {
    let (networks, single) = arguments(networks)?;
    if networks.is_empty() {
        return Err(Class::UsageError.with(py, "networks: there is none to measure"));
    }
    let catalog = match networks.iter().all(|network| network.get().is_builtin()) {
        true => Catalog::builtin().clone(),
        false => connection.ask(py, known_ops(&connection.client))?,
    };
    let asked = networks.iter().map(|network| {
        Asked::new(network.get(), &catalog).map_err(|problem| Class::NetworkError.with(py, problem))
    });
    let asked = asked.collect::<PyResult<Vec<Asked>>>()?;
    let choice = |one: &Asked| NetworkChoice::Defined(Box::new(one.whole.spec.clone()));
    let mut request = ProfileRequest {
        hardware_id: options.hardware,
        config: options.config,
        space: None,
        definition: None,
        networks: asked.iter().map(choice).collect(),
        calibrate: options.calibrate,
        sustained: false,
        remeasure: options.remeasure,
    };
    let plans: Vec<&NetworkPlan> = asked.iter().map(|one| one.plan.as_ref()).collect();
    let client = &connection.client;
    let status: RequestStatus = connection.ask(py, async {
        add_missing_rows(client, &mut request, &plans).await?;
        client.post("v1/requests", &request).await
    })?;
    Ok(Request { connection: Arc::clone(connection), id: status.id, networks: asked, single })
}

/// Cancels a request.
pub(crate) fn cancel<'py>(
    py: Python<'py>,
    connection: &Connection,
    id: Uuid,
) -> PyResult<Bound<'py, PyAny>> {
    let path = format!("v1/requests/{id}/cancel");
    let status = connection.ask(py, connection.client.post(&path, &serde_json::json!({})))?;
    to_python(py, &status)
}

/// The state of a request, as the class `RequestStatus`.
fn to_python<'py>(py: Python<'py>, status: &RequestStatus) -> PyResult<Bound<'py, PyAny>> {
    let now = Timestamp::now();
    py.import("latlas._support")?.getattr("RequestStatus")?.call1((
        status.id.to_string(),
        status.total,
        status.done,
        status.failed,
        status.running,
        &status.failures,
        status.is_finished(),
        cancelled(status, now),
        nobody(status, now),
    ))
}

/// The class `Progress`, which writes to stderr. What goes wrong there does not end a wait.
struct Progress(Py<PyAny>);

impl Progress {
    fn new(py: Python<'_>, wanted: Option<bool>) -> PyResult<Progress> {
        let class = py.import("latlas._support")?.getattr("Progress")?;
        Ok(Progress(class.call1((wanted,))?.unbind()))
    }

    fn call(&self, method: &str, arguments: impl for<'py> pyo3::call::PyCallArgs<'py>) {
        Python::attach(|py| {
            if let Err(error) = self.0.bind(py).call_method1(method, arguments) {
                error.write_unraisable(py, None);
            }
        });
    }
}

impl Display for Progress {
    fn show(&mut self, status: &RequestStatus) {
        self.call("show", (status.total, status.done + status.failed, tasks(status)));
    }

    fn say(&mut self, text: &str) {
        self.call("say", (text,));
    }
}

impl Request {
    fn current(&self, py: Python<'_>) -> PyResult<RequestStatus> {
        self.connection.ask(py, self.connection.client.get(&format!("v1/requests/{}", self.id)))
    }

    /// How to go on after a wait that ended early.
    fn goes_on(&self) -> String {
        format!(
            "Request {id} goes on without this program: the same call of `profile` waits for the rest of it, and \
             `latlas.Client({base:?}).cancel(\"{id}\")` cancels it",
            id = self.id,
            base = self.connection.client.shown_base()
        )
    }

    /// The state of the request when all of it is over.
    fn finished(&self, py: Python<'_>, progress: Option<bool>) -> PyResult<RequestStatus> {
        let status = self.current(py)?;
        if status.is_finished() {
            return Ok(status);
        }
        let mut display = Progress::new(py, progress)?;
        let client = &self.connection.client;
        let ended = self.connection.outcome(py, follow(client, &status, &mut display));
        display.call("close", ());
        match ended {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => {
                let more = format!("The wait ended. {}", self.goes_on());
                Err(errors::of_call(py, &error, self.connection.token_sent, Some(&more)))
            }
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => {
                let told = PyKeyboardInterrupt::new_err(self.goes_on());
                told.set_cause(py, Some(error));
                Err(told)
            }
            Err(error) => Err(error),
        }
    }

    /// The table that has what was measured.
    fn table(&self, py: Python<'_>, status: &RequestStatus) -> PyResult<Table> {
        let wanted = WantedTable {
            hardware: &status.hardware_id,
            config: Some(&status.config),
            version: None,
            format: "json",
        };
        let download = self.connection.ask(py, self.connection.client.download(&wanted))?;
        table::of_download(py, download, "the coordinator's answer")
    }

    /// One network: its prediction beside what was measured, as the class `Profile`.
    fn profile<'py>(
        &self,
        py: Python<'py>,
        asked: &Asked,
        status: &RequestStatus,
        table: &Bound<'py, Table>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Asked { whole, plan } = asked;
        let client = &self.connection.client;
        let document = table.get().content().table();
        let truth =
            self.connection.ask(py, measured(client, document, &status.config, &whole.digest))?;
        let failed = PyDict::new(py);
        if truth.is_none() {
            let subject = Subject::Network(Box::new(whole.clone())).to_string();
            let why = status.failures.get(&subject).map_or("not measured", String::as_str);
            failed.set_item(subject, why)?;
        }
        let predictor = table.get().predictor(Missing::Error);
        let predicted = match predictor.predict_plan(plan) {
            Ok(prediction) => Some(table.get().prediction(whole.spec.name.clone(), prediction)),
            Err(missing) => {
                for op in missing {
                    failed.set_item(op.key.to_string(), op.why)?;
                }
                None
            }
        };
        let end = |of: fn(&Micros) -> f64| truth.as_ref().map(|micros| ms(of(micros)));
        py.import("latlas._support")?.getattr("Profile")?.call1((
            predicted,
            end(|micros| micros.latency),
            end(|micros| micros.low),
            end(|micros| micros.high),
            failed,
            self.id.to_string(),
            table,
        ))
    }
}

#[pymethods]
impl Request {
    /// Its id at the coordinator.
    #[getter]
    fn request_id(&self) -> String {
        self.id.to_string()
    }

    /// How far it is.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &self.current(py)?)
    }

    /// Waits until everything is measured or failed, and returns what `Client.profile` returns.
    ///
    /// Ctrl-C ends the wait; the request goes on.
    #[pyo3(signature = (progress = None))]
    pub(crate) fn wait<'py>(
        &self,
        py: Python<'py>,
        progress: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let status = self.finished(py, progress)?;
        if let Some(text) = cancelled(&status, Timestamp::now()) {
            let message = format!("request {} was {text}", self.id);
            return Err(Class::CoordinatorError.with(py, message));
        }
        let table = Bound::new(py, self.table(py, &status)?)?;
        let profile = |asked| self.profile(py, asked, &status, &table);
        match self.networks.as_slice() {
            [only] if self.single => profile(only),
            all => {
                let profiles = all.iter().map(profile).collect::<PyResult<Vec<_>>>()?;
                Ok(PyList::new(py, profiles)?.into_any())
            }
        }
    }

    /// Cancels it. What is measured stays.
    fn cancel<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        cancel(py, &self.connection, self.id)
    }

    fn __repr__(&self) -> String {
        format!("<latlas.Request {}>", self.id)
    }
}

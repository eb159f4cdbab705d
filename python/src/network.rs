//! Networks, and what they cost without a table.

use std::path::PathBuf;
use std::sync::Arc;

use latlas_shared::{Costs, Dtype, NetworkCost};
use ops_catalog::{Catalog, Invalid, LayerSpec, NetworkPlan, NetworkSpec};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors::{self, Class};
use crate::json;

/// A whole architecture: ops in a sequence or a graph, with an input.
///
/// >>> from latlas import Network
/// >>> network = Network.from_dict({
/// ...     "input": {"n": 1, "c": 3, "h": 32, "w": 32},
/// ...     "layers": [{"op": "Conv3x3", "c_out": 16, "stride": 2}],
/// ... })
/// >>> network.keys()
/// ['Conv3x3:n1-h32-w32-i3-o16-s2']
#[pyclass(frozen, module = "latlas")]
pub(crate) struct Network {
    spec: NetworkSpec,
    /// None for a network with an op that is not built in: the table of a prediction may define it.
    plan: Option<Arc<NetworkPlan>>,
}

impl Network {
    pub(crate) fn new(spec: NetworkSpec) -> Result<Network, Invalid> {
        let builtin = Catalog::builtin();
        let known = names(&spec).all(|name| builtin.op(name).is_ok());
        let plan = known.then(|| plan(&spec, builtin)).transpose()?;
        Ok(Network { spec, plan })
    }

    /// Whether all of its ops are built in.
    pub(crate) fn is_builtin(&self) -> bool {
        self.plan.is_some()
    }

    pub(crate) fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// The network as op keys. Built-in ops are the same in every catalog.
    pub(crate) fn plan(&self, catalog: &Catalog) -> Result<Arc<NetworkPlan>, Invalid> {
        self.plan.as_ref().map_or_else(|| plan(&self.spec, catalog), |plan| Ok(Arc::clone(plan)))
    }

    fn builtin_plan(&self, py: Python<'_>) -> PyResult<Arc<NetworkPlan>> {
        self.plan(Catalog::builtin()).map_err(|problem| Class::NetworkError.with(py, problem))
    }
}

fn plan(spec: &NetworkSpec, catalog: &Catalog) -> Result<Arc<NetworkPlan>, Invalid> {
    Ok(Arc::new(ops_catalog::Network::new(spec, catalog)?.plan(catalog)?))
}

/// The names of the ops of a network.
fn names(spec: &NetworkSpec) -> impl Iterator<Item = &str> {
    let layers = spec.layers.iter().flatten().filter_map(|layer| match layer {
        LayerSpec::Name(name) => Some(name.as_str()),
        LayerSpec::Full(node) => node.op.as_deref(),
    });
    layers.chain(spec.nodes.iter().flatten().filter_map(|node| node.op.as_deref()))
}

/// The network that an argument stands for: a `Network`, or a dictionary.
pub(crate) fn argument<'py>(network: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Network>> {
    if let Ok(network) = network.cast::<Network>() {
        return Ok(network.clone());
    }
    match network.cast::<PyDict>() {
        Ok(dict) => Bound::new(network.py(), Network::from_dict(dict)?),
        Err(_) => Err(PyTypeError::new_err("a network is a latlas.Network or a dict")),
    }
}

#[pymethods]
impl Network {
    /// Reads the network of a file, in JSON or YAML.
    #[staticmethod]
    fn from_file(py: Python<'_>, path: PathBuf) -> PyResult<Network> {
        let mut networks = Network::all_from_file(py, path.clone())?;
        match (networks.pop(), networks.len()) {
            (Some(network), 0) => Ok(network),
            (_, others) => Err(Class::NetworkError.with(
                py,
                format!(
                    "{}: it has {} networks: read them with `Network.all_from_file`",
                    path.display(),
                    others + 1
                ),
            )),
        }
    }

    /// Reads all networks of a file: one in JSON or YAML, or one JSON object a line.
    #[staticmethod]
    fn all_from_file(py: Python<'_>, path: PathBuf) -> PyResult<Vec<Network>> {
        let specs = latlas_files::read_networks(&path)
            .map_err(|error| errors::of_file(py, Class::NetworkError, &error))?;
        let read = |(place, spec)| {
            Network::new(spec)
                .map_err(|problem| Class::NetworkError.with(py, format!("{place}: {problem}")))
        };
        specs.into_iter().map(read).collect()
    }

    /// A network from a dictionary in the form of docs/catalog.md.
    #[staticmethod]
    fn from_dict(network: &Bound<'_, PyDict>) -> PyResult<Network> {
        Network::from_json(network.py(), &json::from_python(network)?)
    }

    /// A network from JSON.
    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> PyResult<Network> {
        NetworkSpec::from_json(text)
            .and_then(Network::new)
            .map_err(|problem| Class::NetworkError.with(py, problem))
    }

    /// A model in ONNX, or in the .pt2 of torch.export; its weights are not read. `input` is the shape of its input, for a
    /// model that leaves it open. The name is that of the file, unless given.
    #[staticmethod]
    #[pyo3(signature = (path, *, name=None, input=None))]
    fn from_onnx(
        py: Python<'_>,
        path: PathBuf,
        name: Option<String>,
        input: Option<Vec<u64>>,
    ) -> PyResult<Network> {
        let options = latlas_import::Options { name, input };
        let imported =
            py.detach(|| latlas_import::import(&path, &options, Catalog::builtin())).map_err(
                |error| Class::NetworkError.with(py, format!("{}: {error}", path.display())),
            )?;
        for note in &imported.notes {
            py.import("warnings")?.call_method1("warn", (note,))?;
        }
        Network::new(imported.network).map_err(|problem| Class::NetworkError.with(py, problem))
    }

    /// A PyTorch model in eval mode, by torch.export; `args` are inputs as its forward takes them. The name is that of its
    /// class, unless given.
    #[staticmethod]
    #[pyo3(signature = (model, args, *, name=None))]
    fn from_torch(
        py: Python<'_>,
        model: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
        name: Option<String>,
    ) -> PyResult<Network> {
        let name = match name {
            Some(name) => name,
            None => model.get_type().name()?.to_string(),
        };
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("model.pt2");
        let exported = py.import("latlas._support")?.getattr("exported")?;
        exported.call1((model, args, &path))?;
        Network::from_onnx(py, path, Some(name), None)
    }

    /// A network of the catalog.
    ///
    /// >>> import latlas
    /// >>> latlas.Network.builtin("resnet18").cost().params
    /// 11684712
    #[staticmethod]
    fn builtin(py: Python<'_>, name: &str) -> PyResult<Network> {
        let spec = latlas_files::builtin_network(name, Catalog::builtin())
            .map_err(|error| Class::NetworkError.with(py, error))?;
        Network::new(spec.clone()).map_err(|problem| Class::NetworkError.with(py, problem))
    }

    /// The names of the networks of the catalog.
    #[staticmethod]
    fn builtin_names() -> Vec<&'static str> {
        Catalog::builtin().networks().filter_map(|spec| spec.name.as_deref()).collect()
    }

    /// Its name, or None.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.spec.name.as_deref()
    }

    /// The network as its author wrote it.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::to_python(py, &self.spec)
    }

    /// Its op keys, in running order. A key occurs as often as the network runs it.
    fn keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.builtin_plan(py)?.steps.iter().map(|step| step.key.to_string()).collect())
    }

    /// What it costs, without a table.
    fn cost(&self, py: Python<'_>) -> PyResult<Cost> {
        let plan = self.builtin_plan(py)?;
        let name = self.spec.name.clone().unwrap_or_default();
        Ok(Cost { name, plan })
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Network>().is_ok_and(|other| other.get().spec == self.spec)
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.spec.name.hash(&mut hasher);
        for name in names(&self.spec) {
            name.hash(&mut hasher);
        }
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let ops = names(&self.spec).count();
        match &self.spec.name {
            Some(name) => format!("<latlas.Network {name:?}, {ops} ops>"),
            None => format!("<latlas.Network, {ops} ops>"),
        }
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let made = py.import("latlas._support")?.getattr("unpickled_network")?;
        Ok((made, PyTuple::new(py, [json::text(py, &self.spec)?])?))
    }
}

/// What a network costs, without a table.
///
/// >>> import latlas
/// >>> cost = latlas.Network.builtin("demo_mobile").cost()
/// >>> cost.flops, cost.params, cost.weight_bytes("f16")
/// (21541376, 230242, 460484)
#[pyclass(frozen, module = "latlas")]
pub(crate) struct Cost {
    name: String,
    plan: Arc<NetworkPlan>,
}

impl Cost {
    fn whole(&self, dtype: Dtype) -> NetworkCost {
        NetworkCost::new(self.name.clone(), &self.plan, dtype)
    }
}

/// The element type with this name.
fn dtype(py: Python<'_>, name: &str) -> PyResult<Dtype> {
    name.parse().map_err(|error| Class::UsageError.with(py, format!("dtype: {error}")))
}

#[pymethods]
impl Cost {
    /// Multiply-accumulates.
    #[getter]
    fn flops(&self) -> u64 {
        self.plan.cost.flops
    }

    /// Parameters.
    #[getter]
    fn params(&self) -> u64 {
        self.plan.cost.params
    }

    /// Bytes of the parameters.
    #[pyo3(signature = (dtype = "f32"))]
    fn weight_bytes(&self, py: Python<'_>, dtype: &str) -> PyResult<u64> {
        Ok(self.whole(self::dtype(py, dtype)?).cost.weight_bytes)
    }

    /// Bytes of the inputs and outputs of all primitives.
    #[pyo3(signature = (dtype = "f32"))]
    fn activation_bytes(&self, py: Python<'_>, dtype: &str) -> PyResult<u64> {
        Ok(self.whole(self::dtype(py, dtype)?).cost.activation_bytes)
    }

    /// Bytes of the weights, and of the activations that exist at the same time.
    #[pyo3(signature = (dtype = "f32"))]
    fn peak_memory_bytes(&self, py: Python<'_>, dtype: &str) -> PyResult<u64> {
        Ok(self.whole(self::dtype(py, dtype)?).peak_memory_bytes)
    }

    /// Bytes of the activations that exist at the same time.
    #[pyo3(signature = (dtype = "f32"))]
    fn peak_activation_bytes(&self, py: Python<'_>, dtype: &str) -> PyResult<u64> {
        Ok(self.whole(self::dtype(py, dtype)?).peak_activation_bytes)
    }

    /// The cost of each op, in running order.
    #[getter]
    fn ops(&self) -> Vec<OpCost> {
        let steps = 0..self.plan.steps.len();
        steps.map(|step| OpCost { plan: Arc::clone(&self.plan), step }).collect()
    }

    /// The fields of `latlas networks cost --json`.
    #[pyo3(signature = (dtype = "f32"))]
    fn to_dict<'py>(&self, py: Python<'py>, dtype: &str) -> PyResult<Bound<'py, PyAny>> {
        json::to_python(py, &self.whole(self::dtype(py, dtype)?))
    }

    fn __repr__(&self) -> String {
        let cost = self.plan.cost;
        format!("<latlas.Cost flops={} params={}>", cost.flops, cost.params)
    }
}

/// What one op of a network costs.
#[pyclass(frozen, module = "latlas")]
pub(crate) struct OpCost {
    plan: Arc<NetworkPlan>,
    step: usize,
}

impl OpCost {
    fn step(&self) -> &ops_catalog::PlanStep {
        &self.plan.steps[self.step]
    }

    fn costs(&self, py: Python<'_>, dtype: &str) -> PyResult<Costs> {
        Ok(Costs::new(self.step().plan.cost, self::dtype(py, dtype)?.bytes()))
    }
}

#[pymethods]
impl OpCost {
    /// Its op key.
    #[getter]
    fn key(&self) -> String {
        self.step().key.to_string()
    }

    /// Its place in the network as its author wrote it, such as `layers[3]`.
    #[getter]
    fn r#where(&self) -> &str {
        &self.step().place
    }

    /// Multiply-accumulates.
    #[getter]
    fn flops(&self) -> u64 {
        self.step().plan.cost.flops
    }

    /// Parameters.
    #[getter]
    fn params(&self) -> u64 {
        self.step().plan.cost.params
    }

    /// Bytes of the parameters.
    #[pyo3(signature = (dtype = "f32"))]
    fn weight_bytes(&self, py: Python<'_>, dtype: &str) -> PyResult<u64> {
        Ok(self.costs(py, dtype)?.weight_bytes)
    }

    /// Bytes of the inputs and outputs of its primitives.
    #[pyo3(signature = (dtype = "f32"))]
    fn activation_bytes(&self, py: Python<'_>, dtype: &str) -> PyResult<u64> {
        Ok(self.costs(py, dtype)?.activation_bytes)
    }

    fn __repr__(&self) -> String {
        format!("<latlas.OpCost {}>", self.step().key)
    }
}

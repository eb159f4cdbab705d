//! Canonical hashes of architectures.

use ops_catalog::Catalog;
use ops_catalog::canonical::Canonical;
use pyo3::prelude::*;

use crate::errors::Class;
use crate::network;

/// The canonical hashes of a network: each spelling of an architecture has the same, and another architecture has others.
#[pyclass(frozen, eq, hash, module = "latlas")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct ArchHash {
    /// Ops and wires.
    #[pyo3(get)]
    topology: String,
    /// Ops and wires with all sizes.
    #[pyo3(get)]
    shaped: String,
    /// What is computed: without identities, zeros, and what does not reach the output.
    #[pyo3(get)]
    computation: String,
    /// Whether every spelling has these hashes. False if the network's symmetries took too long.
    #[pyo3(get)]
    exact: bool,
}

#[pymethods]
impl ArchHash {
    fn __repr__(&self) -> String {
        let ArchHash { topology, shaped, computation, exact } = self;
        let exact = if *exact { "True" } else { "False" };
        format!("<latlas.ArchHash {topology} {shaped} {computation} exact={exact}>")
    }
}

/// The canonical hashes of a network, given as a `Network` or as a dictionary.
///
/// >>> import latlas
/// >>> resnet = latlas.Network.builtin("resnet18")
/// >>> latlas.arch_hash(resnet).computation[:14]
/// 'computation-1:'
/// >>> latlas.arch_hash(resnet) == latlas.arch_hash(resnet.to_dict())
/// True
#[pyfunction]
pub(crate) fn arch_hash(network: &Bound<'_, PyAny>) -> PyResult<ArchHash> {
    let network = network::argument(network)?;
    let catalog = Catalog::builtin();
    let canonical = ops_catalog::Network::new(network.get().spec(), catalog)
        .and_then(|network| Canonical::of(&network, catalog))
        .map_err(|problem| Class::NetworkError.with(network.py(), problem))?;
    let Canonical { hashes, exact, .. } = canonical;
    Ok(ArchHash {
        topology: hashes.topology.to_string(),
        shaped: hashes.shaped.to_string(),
        computation: hashes.computation.to_string(),
        exact,
    })
}

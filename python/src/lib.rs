//! The Python package `latlas`: the tables, networks and predictions of the Rust crates, and the client of a
//! coordinator, as Python classes.
//!
//! Nothing is computed or worded here a second time: numbers come from `latlas_predict`, texts from the crates that
//! the programs use. The exceptions are classes of `latlas/_support.py`; the module `errors` raises them.

mod arch;
mod arrow;
mod client;
mod errors;
mod json;
mod many;
mod network;
mod prediction;
mod profile;
mod row;
mod rows;
mod supernet;
mod table;

use pyo3::prelude::*;

#[pymodule]
fn _latlas(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(arch::arch_hash, module)?)?;
    module.add_class::<arch::ArchHash>()?;
    module.add_class::<client::Client>()?;
    module.add_class::<network::Cost>()?;
    module.add_class::<network::Network>()?;
    module.add_class::<network::OpCost>()?;
    module.add_class::<prediction::OpPrediction>()?;
    module.add_class::<prediction::Prediction>()?;
    module.add_class::<profile::Request>()?;
    module.add_class::<row::Row>()?;
    module.add_class::<table::Table>()
}

//! Export: ops and networks of the catalog as ONNX files, for other runtimes.
//!
//! A [`Model`] is the graph of a plan in deployed form, without its weights. [`Model::write`] asks a [`Weights`] for one
//! weight after the other, so the memory holds one of them at a time. The numbers are those that `latlas_lowering`
//! computes with the same weights.
//!
//! ```
//! use latlas_export::{Model, Random};
//! use ops_catalog::{Catalog, OpKey};
//!
//! let key: OpKey = "MBConv6_3x3:n1-h56-w56-i24-o24-s1".parse()?;
//! let plan = Catalog::builtin().op(&key.op)?.at(&key.shape)?;
//! let model = Model::of_op(&key.to_string(), &plan);
//! let mut file = Vec::new();
//! model.write(&Random::seeded(1), &mut file)?;
//! assert_eq!(file.len() as u64, model.bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod encode;
mod model;
mod primitive;
mod safetensors;
mod weights;
mod wire;

pub use encode::{ExportError, MAX_BYTES, OPSET};
pub use model::Model;
pub use safetensors::write_safetensors;
pub use weights::{Given, NotSafetensors, Random, Safetensors, Weight, WeightError, Weights};

//! Definitions of everything that can be measured, as data.
//!
//! An **op** is a small graph of primitives ([`OpDef`]); an [`OpKey`] is an op at a shape; a [`Space`] is a set of
//! keys; a [`Network`] is ops wired into a whole architecture. Costs ([`Cost`]) and plans ([`OpPlan`]) are derived only
//! from the definitions.
//!
//! The crate does no I/O: the built-in ops, spaces and networks are compiled in ([`Catalog::builtin`]), and everything
//! else is passed in as text or as values. It does not depend on libtorch, HTTP or latencies.

pub mod arch_space;
pub mod canonical;
mod catalog;
pub mod digest;
mod draw;
mod error;
mod key;
mod memory;
mod network;
mod numbers;
mod op;
#[cfg(feature = "openapi")]
pub mod openapi;
mod primitive;
mod size;
mod space;
mod spec;
mod tensor;
pub mod text;

pub use catalog::Catalog;
pub use draw::{CALIBRATION_SEED, Family};
pub use error::{Invalid, shown};
pub use key::{OpKey, Shape};
pub use network::{Network, NetworkPlan, PlanStep, Value};
pub use numbers::{BATCH_NORM_EPSILON, Init, LAYER_NORM_EPSILON, ShiftedWindows, rotary_angle};
pub use op::{Layout, MAX_NODES, Node, Op, OpDef, OpDigest, OpPlan, Source, Step, When};
pub use primitive::{
    Activation, Cost, Dimension, Gate, Interpolation, Padding, Pair, Primitive, Sides,
    make_divisible,
};
pub use size::{MAX_SIZE, Size, Variable};
pub use space::Space;
pub use spec::{
    ExternalId, Grid, Input, LayerSpec, Merge, NetworkSpec, NodeSpec, Published, SpaceDef,
};
pub use tensor::TensorShape;

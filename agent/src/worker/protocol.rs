//! What the agent and its worker process say to each other: one JSON object a line, a reply for
//! each request.

use ops_catalog::{NetworkSpec, OpDef, Shape};
use serde::{Deserialize, Serialize};

use super::backend::Samples;
use crate::system::energy::Busy;

/// What to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// An op at a shape.
    Op {
        /// Its definition.
        def: OpDef,
        /// Its shape.
        shape: Shape,
    },
    /// A whole network.
    Network {
        /// Its definition.
        spec: NetworkSpec,
        /// Ops that it uses beside the built-in ones.
        ops: Vec<OpDef>,
    },
}

/// Samples at one reuse distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Bytes of other memory that are read before each sample.
    pub reuse_distance_bytes: u64,
    /// How many samples.
    pub samples: u32,
}

/// One visit to one piece of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisitRequest {
    /// What to run. What was run before and still fits in memory is kept ready.
    pub work: Work,
    /// What to sample, in this order.
    pub passes: Vec<Pass>,
    /// For how many seconds to run it over and over afterwards, for a sensor of energy.
    pub busy_seconds: Option<f64>,
}

/// What a visit found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Visited {
    /// Samples, one entry per pass.
    pub passes: Vec<Samples>,
    /// Microseconds in making weights and inputs, where the work was not ready.
    pub preparing_micros: f64,
    /// Microseconds in producers and ops over the whole visit, warm-up included.
    pub ops_micros: f64,
    /// Microseconds in reading other memory for the reuse distance; 0 where that is not how it is made.
    pub reading_micros: f64,
    /// Most memory that the worker has held at once since the visit began, in bytes; on a GPU the GPU's.
    pub peak_memory_bytes: Option<u64>,
    /// What was run for a sensor of energy, if that was asked for.
    pub busy: Option<Busy>,
}

/// What the worker answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The worker has started; sent once, unasked.
    Ready,
    /// The visit was made.
    Visited(Visited),
    /// It cannot be run, and trying again would not help.
    Refused {
        /// Why.
        reason: String,
    },
}

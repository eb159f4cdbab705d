//! The protocol between the agent and its worker process: one JSON object per line, one reply per request.

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
        /// Ops that it uses in addition to the built-in ones.
        ops: Vec<OpDef>,
    },
}

/// Samples at one reuse distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Bytes of other memory that are read before each sample.
    pub reuse_distance_bytes: u64,
    /// Number of samples.
    pub samples: u32,
    /// Whether to sample only the host's times, which takes a fraction of the time. For devices to which work is issued.
    pub host_only: bool,
}

impl Pass {
    /// Samples of all times.
    pub fn new(reuse_distance_bytes: u64, samples: u32) -> Pass {
        Pass { reuse_distance_bytes, samples, host_only: false }
    }
}

/// One visit to one piece of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisitRequest {
    /// The work to run. Recent work stays prepared if it fits into memory.
    pub work: Work,
    /// The passes, in this order.
    pub passes: Vec<Pass>,
    /// Seconds to run the work repeatedly afterwards, for an energy sensor.
    pub busy_seconds: Option<f64>,
}

/// The result of a visit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Visited {
    /// Samples, one entry per pass.
    pub passes: Vec<Samples>,
    /// Microseconds spent creating weights and inputs, if the work was not prepared.
    pub preparing_micros: f64,
    /// Microseconds in producers and ops over the whole visit, warm-up included.
    pub ops_micros: f64,
    /// Microseconds spent reading other memory for the reuse distance; 0 if the device creates it differently.
    pub reading_micros: f64,
    /// Peak memory of the worker during the visit, in bytes; on a GPU, the GPU's memory.
    pub peak_memory_bytes: Option<u64>,
    /// The work that was run for an energy sensor, if requested.
    pub busy: Option<Busy>,
}

/// A reply of the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The worker has started; sent once, without a request.
    Ready,
    /// The visit is complete.
    Visited(Visited),
    /// The work cannot be run, and a retry would not help.
    Refused {
        /// Why.
        reason: String,
    },
}

//! What a network costs, without a table: the record of `latlas networks cost`.

use ops_catalog::{Cost, NetworkPlan, OpKey};
use serde::Serialize;

use crate::Dtype;

/// The cost of a network or of one op of it, for elements of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// Multiply-accumulates.
    pub flops: u64,
    /// Parameters.
    pub params: u64,
    /// Bytes of the parameters.
    pub weight_bytes: u64,
    /// Inputs and outputs of all primitives.
    pub activation_bytes: u64,
}

/// The cost of one op of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpCost {
    /// Its place in the network as its author wrote it.
    pub place: String,
    /// Its key.
    pub key: OpKey,
    /// What it costs.
    #[serde(flatten)]
    pub cost: Costs,
}

/// The cost of a network with its ops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkCost {
    /// Its name, or its place in a file.
    pub name: String,
    /// The type of the elements.
    pub dtype: Dtype,
    /// Sum over the ops.
    #[serde(flatten)]
    pub cost: Costs,
    /// Weights, and the activations that exist at the same time.
    pub peak_memory_bytes: u64,
    /// The activations that exist at the same time.
    pub peak_activation_bytes: u64,
    /// Each op, in running order.
    pub ops: Vec<OpCost>,
}

impl Costs {
    /// The cost of something whose elements have `element` bytes.
    pub fn new(cost: Cost, element: u64) -> Costs {
        Costs {
            flops: cost.flops,
            params: cost.params,
            weight_bytes: cost.weight_bytes(element),
            activation_bytes: cost.activation_bytes(element),
        }
    }
}

impl NetworkCost {
    /// The cost of a network with elements of this type.
    pub fn new(name: String, plan: &NetworkPlan, dtype: Dtype) -> NetworkCost {
        let element = dtype.bytes();
        let cost = Costs::new(plan.cost, element);
        let peak_activation_bytes = plan.peak_activation_elements().saturating_mul(element);
        let ops = plan.steps.iter().map(|step| OpCost {
            place: step.place.clone(),
            key: step.key.clone(),
            cost: Costs::new(step.plan.cost, element),
        });
        NetworkCost {
            name,
            dtype,
            peak_memory_bytes: cost.weight_bytes.saturating_add(peak_activation_bytes),
            peak_activation_bytes,
            cost,
            ops: ops.collect(),
        }
    }
}

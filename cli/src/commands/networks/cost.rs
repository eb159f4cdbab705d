//! `latlas networks cost`.

use std::io::Write;

use anyhow::Result;
use latlas_program::text_table::TextTable;
use latlas_shared::Dtype;
use ops_catalog::{NetworkPlan, OpKey};
use serde::Serialize;

use super::super::{Coordinator, write_json};
use super::{Named, chosen_plans};
use crate::cli::NetworkCost;
use crate::text::{bytes, count, quantity};

/// The cost of a network or of one op of it.
#[derive(Serialize)]
struct Shown {
    /// Multiply-accumulates.
    flops: u64,
    params: u64,
    weight_bytes: u64,
    /// Inputs and outputs of all primitives.
    activation_bytes: u64,
}

/// One op of a network.
#[derive(Serialize)]
struct OpCost {
    place: String,
    key: OpKey,
    #[serde(flatten)]
    cost: Shown,
}

/// A network with its ops.
#[derive(Serialize)]
struct Whole {
    name: String,
    dtype: Dtype,
    #[serde(flatten)]
    cost: Shown,
    /// Weights, and the activations that exist at the same time.
    peak_memory_bytes: u64,
    peak_activation_bytes: u64,
    ops: Vec<OpCost>,
}

impl Shown {
    fn new(cost: ops_catalog::Cost, element: u64) -> Shown {
        Shown {
            flops: cost.flops,
            params: cost.params,
            weight_bytes: cost.weight_bytes(element),
            activation_bytes: cost.activation_bytes(element),
        }
    }

    fn columns(&self) -> [String; 4] {
        [
            quantity(self.flops),
            quantity(self.params),
            bytes(self.weight_bytes as f64),
            bytes(self.activation_bytes as f64),
        ]
    }
}

impl Whole {
    fn new(name: String, plan: &NetworkPlan, dtype: Dtype) -> Whole {
        let element = dtype.bytes();
        let cost = Shown::new(plan.cost, element);
        let peak_activation_bytes = plan.peak_activation_elements().saturating_mul(element);
        let ops = plan.steps.iter().map(|step| OpCost {
            place: step.place.clone(),
            key: step.key.clone(),
            cost: Shown::new(step.plan.cost, element),
        });
        Whole {
            name,
            dtype,
            peak_memory_bytes: cost.weight_bytes.saturating_add(peak_activation_bytes),
            peak_activation_bytes,
            cost,
            ops: ops.collect(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such network, a file cannot be used, or the coordinator does not answer.
pub fn run(command: &NetworkCost, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let plans = chosen_plans(&command.of, &command.ops, command.farm, farm)?;
    let all: Vec<Whole> = plans
        .into_iter()
        .map(|Named { name, plan }| Whole::new(name, &plan, command.dtype))
        .collect();
    if command.json {
        return all.iter().try_for_each(|network| write_json(out, network));
    }
    match all.as_slice() {
        [network] => write_one(network, out),
        networks => write_many(networks, out),
    }
}

fn write_one(network: &Whole, out: &mut dyn Write) -> Result<()> {
    let [flops, params, weights, activations] = network.cost.columns();
    writeln!(out, "{}", network.name)?;
    writeln!(out, "  FLOPs             {flops} (multiply-accumulates)")?;
    writeln!(out, "  params            {params}")?;
    writeln!(out, "  weights           {weights} in {}", network.dtype)?;
    writeln!(out, "  read and written  {activations} of activations")?;
    writeln!(
        out,
        "  peak memory       {}: weights, and {} of activations at the same time",
        bytes(network.peak_memory_bytes as f64),
        bytes(network.peak_activation_bytes as f64)
    )?;
    writeln!(out, "  {}", count(network.ops.len(), "op", "ops"))?;
    let mut columns =
        TextTable::new(["    WHERE", "OP", "FLOPS", "PARAMS", "WEIGHTS", "READ AND WRITTEN"]);
    for op in &network.ops {
        let [flops, params, weights, activations] = op.cost.columns();
        let place = format!("    {}", op.place);
        columns.push([place, op.key.to_string(), flops, params, weights, activations]);
    }
    Ok(columns.write(out)?)
}

fn write_many(networks: &[Whole], out: &mut dyn Write) -> Result<()> {
    let mut columns = TextTable::new([
        "NETWORK",
        "OPS",
        "FLOPS",
        "PARAMS",
        "WEIGHTS",
        "READ AND WRITTEN",
        "PEAK MEMORY",
    ]);
    for network in networks {
        let [flops, params, weights, activations] = network.cost.columns();
        columns.push([
            network.name.clone(),
            network.ops.len().to_string(),
            flops,
            params,
            weights,
            activations,
            bytes(network.peak_memory_bytes as f64),
        ]);
    }
    Ok(columns.write(out)?)
}

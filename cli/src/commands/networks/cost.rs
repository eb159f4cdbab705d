//! `latlas networks cost`.

use std::io::Write;

use anyhow::Result;
use latlas_program::text_table::TextTable;
use latlas_shared::{Costs, NetworkCost};

use super::super::{Coordinator, write_json};
use super::{Named, chosen_plans};
use crate::cli::NetworkCost as Command;
use crate::text::{bytes, count, quantity};

/// Runs the command.
///
/// # Errors
/// When there is no such network, a file cannot be used, or the coordinator does not answer.
pub fn run(command: &Command, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let plans = chosen_plans(&command.from, farm)?;
    let all: Vec<NetworkCost> = plans
        .into_iter()
        .map(|Named { name, plan }| NetworkCost::new(name, &plan, command.dtype))
        .collect();
    if command.json {
        return all.iter().try_for_each(|network| write_json(out, network));
    }
    match all.as_slice() {
        [network] => write_one(network, out),
        networks => write_many(networks, out),
    }
}

fn columns_of(cost: &Costs) -> [String; 4] {
    [
        quantity(cost.flops),
        quantity(cost.params),
        bytes(cost.weight_bytes as f64),
        bytes(cost.activation_bytes as f64),
    ]
}

fn write_one(network: &NetworkCost, out: &mut dyn Write) -> Result<()> {
    let [flops, params, weights, activations] = columns_of(&network.cost);
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
        let [flops, params, weights, activations] = columns_of(&op.cost);
        let place = format!("    {}", op.place);
        columns.push([place, op.key.to_string(), flops, params, weights, activations]);
    }
    Ok(columns.write(out)?)
}

fn write_many(networks: &[NetworkCost], out: &mut dyn Write) -> Result<()> {
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
        let [flops, params, weights, activations] = columns_of(&network.cost);
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

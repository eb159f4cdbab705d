//! `latlas networks`.

mod cost;
mod export;
mod import;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ops_catalog::{Catalog, Family, Network, NetworkPlan, NetworkSpec, SpaceDef};
use serde::Serialize;
use uuid::Uuid;

use super::{Coordinator, write_json};
use crate::chosen::{self, names_a_file};
use crate::cli::{NetworkKeys, NetworkSource, Networks};
use crate::files;
use crate::text::{count, plain, quantity};
use latlas_program::text_table::TextTable;

/// Runs the command.
///
/// # Errors
/// When there is no such network, a file cannot be used, or the coordinator does not answer.
pub fn run(command: &Networks, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    match command {
        Networks::List { json } => list(Catalog::builtin(), *json, out),
        Networks::Show { network, json } => show(Catalog::builtin(), network, *json, out),
        Networks::Draw { family, count, seed } => draw(*family, *count, *seed, out),
        Networks::Keys(command) => keys(command, farm, out),
        Networks::Cost(command) => cost::run(command, farm, out),
        Networks::Import(command) => import::run(command, out),
        Networks::Export(command) => export::run(command, farm, out),
    }
}

/// An entry of `latlas networks list`.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    family: Option<&'a str>,
    flops: u64,
    params: u64,
    ops: usize,
    doc: &'a str,
}

fn list(catalog: &Catalog, json: bool, out: &mut dyn Write) -> Result<()> {
    let mut columns = TextTable::new(["NETWORK", "FAMILY", "FLOPS", "PARAMS", "OPS", "WHAT IT IS"]);
    for spec in catalog.networks() {
        let plan = plan(spec, catalog)?;
        let listed = Listed {
            name: spec.name.as_deref().unwrap_or_default(),
            family: spec.family.as_deref(),
            flops: plan.cost.flops,
            params: plan.cost.params,
            ops: plan.steps.len(),
            doc: spec.doc.as_deref().unwrap_or_default().trim(),
        };
        if json {
            write_json(out, &listed)?;
        }
        columns.push([
            listed.name.to_owned(),
            listed.family.unwrap_or_default().to_owned(),
            quantity(listed.flops),
            quantity(listed.params),
            listed.ops.to_string(),
            listed.doc.to_owned(),
        ]);
    }
    if !json {
        columns.write(out)?;
    }
    Ok(())
}

fn plan(spec: &NetworkSpec, catalog: &Catalog) -> Result<NetworkPlan> {
    Ok(Network::new(spec, catalog)?.plan(catalog)?)
}

fn show(catalog: &Catalog, name: &str, json: bool, out: &mut dyn Write) -> Result<()> {
    let spec = chosen::builtin_network(name, catalog)?;
    if json {
        return write_json(out, spec);
    }
    writeln!(out, "{}", serde_json::to_string_pretty(spec)?)?;
    Ok(())
}

fn draw(family: Family, count: usize, seed: Option<u64>, out: &mut dyn Write) -> Result<()> {
    let seed = seed.unwrap_or_else(|| {
        // Short, because it is part of each name and people type it.
        let seed = u64::from(Uuid::new_v4().as_fields().0);
        eprintln!("seed {seed}");
        seed
    });
    family.draw(seed).take(count).try_for_each(|spec| write_json(out, &spec))
}

fn keys(command: &NetworkKeys, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let plans = chosen_plans(&command.from, farm)?;
    let space = space_of(&plans);
    // The reader of the space has the same bounds.
    space.resolve(Catalog::builtin())?;
    if command.json {
        return write_json(out, &space);
    }
    write!(out, "{}", serde_saphyr::to_string(&space).context("the space as YAML")?)?;
    Ok(())
}

/// A network as op keys, with its name or its place in a file.
struct Named {
    name: String,
    plan: NetworkPlan,
}

/// The named networks, followed by the networks in files.
fn chosen_plans(from: &NetworkSource, farm: &Coordinator) -> Result<Vec<Named>> {
    let NetworkSource { of, ops, farm: ask_farm } = from;
    let names = of.network.iter().map(Path::new);
    let paths = of.arch.iter().chain(&ops.op_file).map(PathBuf::as_path);
    files::one_stdin(&names.chain(paths).collect::<Vec<_>>())?;
    let catalog = chosen::with_op_files(&super::ops::catalog(*ask_farm, farm)?, &ops.op_file)?;
    let mut plans = Vec::new();
    for name in of.network.iter().filter(|name| !names_a_file(name)) {
        let plan = plan(chosen::builtin_network(name, &catalog)?, &catalog)?;
        plans.push(Named { name: name.clone(), plan });
    }
    let named = of.network.iter().filter(|name| names_a_file(name)).map(Path::new);
    for path in named.chain(of.arch.iter().map(PathBuf::as_path)) {
        for (place, spec) in chosen::read_networks(path)? {
            let name = spec.name.as_deref().map_or_else(|| place.clone(), plain);
            plans.push(Named { name, plan: plan(&spec, &catalog).context(place)? });
        }
    }
    Ok(plans)
}

/// All distinct keys of some networks, and the ops among them that are not built in.
fn space_of(plans: &[Named]) -> SpaceDef {
    let steps = || plans.iter().flat_map(|network| &network.plan.steps);
    let keys: BTreeSet<_> = steps().map(|step| step.key.clone()).collect();
    let new = steps().filter(|step| Catalog::builtin().op(step.op.name()).is_err());
    let ops: BTreeMap<_, _> = new.map(|step| (step.op.name(), step.op.def().clone())).collect();
    SpaceDef {
        name: "networks".to_owned(),
        doc: format!(
            "What {} made of, {}.",
            count(plans.len(), "network is", "networks are"),
            count(keys.len(), "key", "keys")
        ),
        ops: ops.into_values().collect(),
        grids: vec![],
        keys: keys.into_iter().collect(),
        networks: vec![],
    }
}

//! `latlas networks import`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use latlas_import::{Imported, Options};
use ops_catalog::Catalog;

use super::super::write_json;
use super::plan;
use crate::cli::{Dims, NetworkImport};
use crate::files;
use crate::text::{count, quantity};

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, or a part of the model cannot be expressed.
pub fn run(command: &NetworkImport, out: &mut dyn Write) -> Result<()> {
    let catalog = Catalog::builtin();
    let options = Options {
        name: command.name.clone(),
        input: command.input.as_ref().map(|Dims(sizes)| sizes.clone()),
    };
    let imported = latlas_import::import(&command.file, &options, catalog)
        .map_err(|error| anyhow!("{}: {error}", command.file.display()))?;
    match &command.output {
        Some(path) => {
            let mut text = serde_json::to_string(&imported.network).context("the network")?;
            text.push('\n');
            files::write_whole(path, text.as_bytes())?;
        }
        None => write_json(out, &imported.network)?,
    }
    tell(&imported, command.output.as_deref(), catalog)
}

/// Says what was found.
fn tell(imported: &Imported, output: Option<&Path>, catalog: &Catalog) -> Result<()> {
    let plan = plan(&imported.network, catalog)?;
    let keys: BTreeSet<_> = plan.steps.iter().map(|step| step.key.to_string()).collect();
    let own = imported.network.ops.as_ref().map_or(0, Vec::len);
    let name = imported.network.name.as_deref().unwrap_or_default();
    eprintln!(
        "{name}: {} of {}, {} and {}; {}",
        count(plan.steps.len(), "op", "ops"),
        count(keys.len(), "key", "different keys"),
        quantity(plan.cost.flops) + " FLOPs",
        quantity(plan.cost.params) + " params",
        match own {
            0 => "all of its ops are in the catalog".to_owned(),
            own => format!("it defines {} of its own", count(own, "op", "ops")),
        }
    );
    imported.notes.iter().for_each(|note| eprintln!("note: {note}"));
    if let Some(path) = output {
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

//! `latlas networks import`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use latlas_import::{ImportError, Imported, Options};
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
pub fn run(command: &NetworkImport, out: &mut dyn Write) -> anyhow::Result<()> {
    let catalog = Catalog::builtin();
    let options = Options {
        name: command.name.clone(),
        input: command.input.as_ref().map(|Dims(sizes)| sizes.clone()),
    };
    let imported = read(&command.file, &options, catalog).map_err(|error| match error {
        ImportError::Unreadable(error) => files::unreadable(&command.file, &error),
        error => anyhow!("{}: {error}", files::name(&command.file)),
    })?;
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

/// Reads a model. Its format has a list at its end, so a stream is read as a whole first.
fn read(path: &Path, options: &Options, catalog: &Catalog) -> Result<Imported, ImportError> {
    if files::is_standard(path) {
        return latlas_import::import_from(kept(&mut io::stdin().lock())?, options, catalog);
    }
    if fs::metadata(path).is_ok_and(|there| there.is_file() || there.is_dir()) {
        return latlas_import::import(path, options, catalog);
    }
    latlas_import::import_from(kept(&mut File::open(path)?)?, options, catalog)
}

/// The content of a stream in a file without a name, which goes with the process.
fn kept(stream: &mut dyn Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(stream, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// Says what was found.
fn tell(imported: &Imported, output: Option<&Path>, catalog: &Catalog) -> anyhow::Result<()> {
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

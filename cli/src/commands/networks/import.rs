//! `latlas networks import`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use latlas_export::{Model, Weight};
use latlas_import::{Array, ImportError, Imported, ModelWeights, Options};
use ops_catalog::{Catalog, NetworkPlan};

use super::super::write_json;
use super::plan;
use crate::cli::{Dims, NetworkImport};
use crate::files;
use crate::text::{bytes, count, quantity};

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, a part of the model cannot be expressed, or a weight cannot be had.
pub fn run(command: &NetworkImport, out: &mut dyn Write) -> anyhow::Result<()> {
    let catalog = Catalog::builtin();
    let options = Options {
        name: command.name.clone(),
        input: command.input.as_ref().map(|Dims(sizes)| sizes.clone()),
    };
    let unreadable = |error: io::Error| files::unreadable(&command.file, &error);
    let stream = stream(&command.file).map_err(unreadable)?;
    let imported = match &stream {
        Some(file) => latlas_import::import_from(file, &options, catalog),
        None => latlas_import::import(&command.file, &options, catalog),
    };
    let imported = imported.map_err(|error| match error {
        ImportError::Unreadable(error) => unreadable(error),
        error => anyhow!("{}: {error}", files::name(&command.file)),
    })?;
    let plan = plan(&imported.network, catalog)?;
    if let Some(path) = &command.weights {
        let opened = match &stream {
            Some(file) => {
                imported.weights_in(file, None).map(|weights| write_weights(weights, &plan, path))
            }
            None => imported
                .open_weights(&command.file)
                .map(|weights| write_weights(weights, &plan, path)),
        };
        unknown_weights(&imported)?;
        opened.map_err(unreadable)??;
    }
    match &command.output {
        Some(path) => {
            let mut text = serde_json::to_string(&imported.network).context("the network")?;
            text.push('\n');
            files::write_whole(path, text.as_bytes())?;
        }
        None => write_json(out, &imported.network)?,
    }
    tell(&imported, &plan, command);
    Ok(())
}

/// A model that comes as a stream, as a file: its format has a list at its end, so it is read as a whole first.
fn stream(path: &Path) -> io::Result<Option<File>> {
    if files::is_standard(path) {
        return kept(&mut io::stdin().lock()).map(Some);
    }
    let there = fs::metadata(path)?;
    match there.is_file() || there.is_dir() {
        true => Ok(None),
        false => kept(&mut File::open(path)?).map(Some),
    }
}

/// The content of a stream in a file without a name, which goes with the process.
fn kept(stream: &mut dyn Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(stream, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// Refuses a model whose file does not say what some of its weights are.
fn unknown_weights(imported: &Imported) -> anyhow::Result<()> {
    let unknown = imported.weights.iter().filter(|(_, given)| !given.is_known());
    let names: Vec<&str> = unknown.map(|(name, _)| name.as_str()).collect();
    match names[..] {
        [] => Ok(()),
        [first, ..] => Err(anyhow!(
            "--weights: the file does not say from what {} computed, such as `{first}`: export the other format, or \
             import without --weights",
            count(names.len(), "weight is", "weights are")
        )),
    }
}

/// Writes the weights that a network needs.
fn write_weights<R: Read + Seek>(
    mut weights: ModelWeights<'_, R>,
    plan: &NetworkPlan,
    path: &Path,
) -> anyhow::Result<()> {
    let model = Model::of_network("imported", plan);
    let needed: Vec<&Weight> = model.weights().collect();
    let values = |weight: &Weight| {
        let Array { dims, values } = weights.read(&weight.name)?;
        let wanted = weight.dims.iter().map(|size| size.unsigned_abs());
        match wanted.eq(dims.iter().copied()) {
            true => Ok(values),
            false => Err(anyhow!(
                "the weight `{}`: it has the shape {dims:?}, and {:?} is needed: please report the model",
                weight.name,
                weight.dims
            )),
        }
    };
    let mut values = values;
    files::write_whole_by(path, |file| {
        latlas_export::write_safetensors(&needed, &mut values, &mut BufWriter::new(file))
    })
    .context("--weights")?;
    let elements: u64 = needed.iter().map(|weight| weight.elements()).sum();
    eprintln!(
        "wrote {}: {}, {}",
        path.display(),
        count(needed.len(), "weight", "weights"),
        bytes(4.0 * elements as f64)
    );
    Ok(())
}

/// Says what was found.
fn tell(imported: &Imported, plan: &NetworkPlan, command: &NetworkImport) {
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
    if let Some(path) = &command.output {
        eprintln!("wrote {}", path.display());
    }
}

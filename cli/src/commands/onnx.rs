//! ONNX files of ops and networks.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use latlas_export::{ExportError, MAX_BYTES, Model, OPSET, Random, Safetensors, Weights};

use crate::cli::ExportTo;
use crate::files;
use crate::text::{bytes, count};

/// Writes a model, and reports it.
///
/// # Errors
/// Names the file that cannot be used, or the weight that is missing or does not fit.
pub(super) fn write(model: &Model, to: &ExportTo, out: &mut dyn Write) -> Result<()> {
    let Some(path) = &to.weights else {
        let said = format!("random weights of seed {}", to.seed);
        return write_with(model, &Random::seeded(to.seed), &said, &to.output, out);
    };
    let stored = Safetensors::open(path).with_context(|| path.display().to_string())?;
    let needed: HashSet<&str> = model.weights().map(|weight| weight.name.as_str()).collect();
    let more: Vec<&str> = stored.names().filter(|name| !needed.contains(name)).collect();
    let said = format!("weights of {}", path.display());
    write_with(model, &stored, &said, &to.output, out)
        .with_context(|| format!("--weights {}", path.display()))?;
    if let Some(first) = more.first() {
        let tensors = count(more.len(), "tensor is", "tensors are");
        eprintln!("warning: {}: {tensors} not used, such as `{first}`", path.display());
    }
    Ok(())
}

fn write_with(
    model: &Model,
    weights: &dyn Weights,
    said: &str,
    output: &Path,
    out: &mut dyn Write,
) -> Result<()> {
    if files::is_standard(output) {
        return model.write(weights, out).map_err(|error| match error {
            // A reader that stopped reading is no error of the program.
            ExportError::Write(error) => error.into(),
            other => other.into(),
        });
    }
    let mut beside = String::new();
    if model.bytes() > MAX_BYTES {
        let data = write_apart(model, weights, output)?;
        beside = format!(", with its weights in {}", data.display());
    } else {
        files::write_whole_by(output, |file| model.write(weights, file))
            .map_err(|error| explained(error, output))?;
    }
    eprintln!(
        "wrote {}{beside}: {}, {}, ONNX opset {OPSET}, {said}",
        output.display(),
        count(model.operators(), "operator", "operators"),
        bytes(model.bytes() as f64),
    );
    Ok(())
}

/// Writes the weights to a file of their own, and gives its path.
fn write_apart(model: &Model, weights: &dyn Weights, output: &Path) -> Result<PathBuf> {
    let mut name = output.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".data");
    let data = output.with_file_name(&name);
    let name = name.to_str().with_context(|| {
        format!("{}: the file names its data file, so its name has to be UTF-8", output.display())
    })?;
    let mut graph = Vec::new();
    files::write_whole_by(&data, |file| model.write_apart(weights, &mut graph, name, file))
        .map_err(|error| explained(error, &data))?;
    files::write_whole(output, &graph)?;
    Ok(data)
}

/// The error with the name of the file that cannot be written.
fn explained(error: ExportError, path: &Path) -> anyhow::Error {
    match error {
        ExportError::Write(error) => {
            anyhow!("{}: it cannot be written: {}", path.display(), error)
        }
        other => other.into(),
    }
}

//! `latlas ops`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use latlas_export::Model;
use ops_catalog::{Catalog, Cost, Layout, Op, OpDef, OpDigest, OpKey, OpPlan, TensorShape};
use serde::Serialize;

use super::{Coordinator, onnx, write_json};
use crate::chosen;
use crate::cli::{OpExport, Ops};
use crate::files;
use crate::text::{bytes, plain, quantity};
use latlas_program::exit::Usage;
use latlas_program::text_table::TextTable;

/// Runs the command.
///
/// # Errors
/// When there is no such op, the shape is impossible for it, or the coordinator does not answer.
pub fn run(command: &Ops, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    match command {
        Ops::List { farm: ask, json } => list(&catalog(*ask, farm)?, *json, out),
        Ops::Show { op, key, farm: ask, json } => {
            let catalog = catalog(*ask, farm)?;
            let op = catalog.op(op).map_err(|error| match ask {
                true => anyhow!(error),
                false => anyhow!("{error}; --farm also finds ops that were submitted"),
            })?;
            let shown = Shown::new(op, key.as_deref(), &catalog)?;
            if *json { write_json(out, &shown) } else { shown.write(out) }
        }
        Ops::Export(command) => export(command, farm, out),
    }
}

fn export(command: &OpExport, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let OpExport { key, op_file, farm: ask, to } = command;
    let files: Vec<&Path> = op_file.iter().map(PathBuf::as_path).collect();
    files::one_stdin(&files)?;
    let catalog = chosen::with_op_files(&catalog(*ask, farm)?, op_file)?;
    let op = catalog.op(&key.op)?;
    let plan = op.at(&key.shape)?;
    onnx::write(&Model::of_op(&op.key(key.shape).to_string(), &plan), to, out)
}

/// The built-in catalog. If `ask` is set, it includes the ops that were submitted to the
/// coordinator.
pub(super) fn catalog(ask: bool, farm: &Coordinator) -> Result<Catalog> {
    if !ask {
        return Ok(Catalog::builtin().clone());
    }
    farm.ask(async |client| Ok(latlas_client::known_ops(&client).await?))
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    digest: &'a OpDigest,
    aliases: &'a [String],
    input: Layout,
    usual_stride: u32,
    doc: &'a str,
}

fn list(catalog: &Catalog, json: bool, out: &mut dyn Write) -> Result<()> {
    let mut columns = TextTable::new(["OP", "ALIASES", "INPUT", "WHAT IT IS"]);
    for op in catalog.ops() {
        let def = op.def();
        if json {
            let listed = Listed {
                name: op.name(),
                digest: op.digest(),
                aliases: &def.aliases,
                input: def.input,
                usual_stride: def.usual_stride,
                doc: &def.doc,
            };
            write_json(out, &listed)?;
        }
        let doc = def.doc.trim().to_owned();
        columns.push([op.name().to_owned(), def.aliases.join(", "), layout(def.input), doc]);
    }
    if !json {
        columns.write(out)?;
    }
    Ok(())
}

fn layout(layout: Layout) -> String {
    match layout {
        Layout::Map => "map".to_owned(),
        Layout::Tokens => "tokens".to_owned(),
    }
}

/// The output of `latlas ops show`.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    digest: &'a OpDigest,
    definition: &'a OpDef,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<At>,
}

/// An op at a shape.
#[derive(Serialize)]
struct At {
    key: OpKey,
    output: TensorShape,
    cost: Cost,
    #[serde(skip)]
    plan: OpPlan,
}

impl<'a> Shown<'a> {
    fn new(op: &'a Arc<Op>, key: Option<&str>, catalog: &Catalog) -> Result<Shown<'a>> {
        let at = key.map(|key| at(op, key, catalog)).transpose()?;
        Ok(Shown { name: op.name(), digest: op.digest(), definition: op.def(), at })
    }

    fn write(&self, out: &mut dyn Write) -> Result<()> {
        let def = self.definition;
        writeln!(out, "{}", self.name)?;
        if !def.doc.trim().is_empty() {
            writeln!(out, "{}", plain(def.doc.trim()))?;
        }
        writeln!(out, "\ndigest   {}", self.digest)?;
        if !def.aliases.is_empty() {
            writeln!(out, "aliases  {}", def.aliases.join(", "))?;
        }
        writeln!(out, "input    {}", layout(def.input))?;
        writeln!(out, "\nnodes, in the order in which they run:")?;
        for node in &def.nodes {
            // JSON is a subset of YAML, so a line can be copied into a definition file unchanged.
            writeln!(out, "  - {}", serde_json::to_string(node)?)?;
        }
        if let Some(at) = &self.at {
            at.write(out)?;
        }
        Ok(())
    }
}

/// Reads a key that must be of this op, or a shape alone.
fn at(op: &Op, text: &str, catalog: &Catalog) -> Result<At> {
    let whole = if text.contains(':') { text.to_owned() } else { format!("{}:{text}", op.name()) };
    let key: OpKey = whole.parse().map_err(|error| Usage(format!("--key: {error}")))?;
    if catalog.op(&key.op)?.name() != op.name() {
        return Err(Usage(format!("--key: it is a key of {}, not of {}", key.op, op.name())).into());
    }
    let plan = op.at(&key.shape)?;
    Ok(At { key: op.key(key.shape), output: plan.output, cost: plan.cost, plan })
}

impl At {
    fn write(&self, out: &mut dyn Write) -> Result<()> {
        let cost = self.cost;
        writeln!(out, "\nat {}", self.key)?;
        writeln!(out, "  output       {}", self.output)?;
        writeln!(out, "  FLOPs        {}", quantity(cost.flops))?;
        writeln!(out, "  params       {}", quantity(cost.params))?;
        writeln!(out, "  weights      {} in f32", bytes(cost.weight_bytes(4) as f64))?;
        writeln!(out, "  activations  {} in f32, read and written", {
            bytes(cost.activation_bytes(4) as f64)
        })?;
        writeln!(out, "  steps")?;
        let mut columns = TextTable::new(["    PRIMITIVE", "OUTPUT"]);
        for step in &self.plan.steps {
            let shapes: Vec<String> = step.outputs.iter().map(ToString::to_string).collect();
            columns.push([format!("    {}", step.primitive.name()), shapes.join(", ")]);
        }
        Ok(columns.write(out)?)
    }
}

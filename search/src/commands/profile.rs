//! `latlas profile`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use latlas_shared::api::{OpAnswer, OpEntry, ProfileRequest, RequestStatus};
use latlas_shared::client::Client;
use ops_catalog::{Catalog, SpaceDef};

use super::{Farm, ops, request};
use crate::cli::{Profile, ProfileWhat};
use crate::files;

/// Runs the command.
///
/// # Errors
/// When the space is not one, the coordinator does not answer or refuses, or tasks failed.
pub fn run(command: &Profile, farm: &Farm, out: &mut dyn Write) -> Result<()> {
    let wanted = Wanted::new(&command.what)?;
    let status = farm.ask(async |client| {
        let status = submit(&client, command, &wanted).await?;
        if command.wait {
            return request::waited(&client, status).await;
        }
        if !status.is_finished() {
            eprintln!("{}", request::look_again(&client, status.id));
        }
        Ok(status)
    })?;
    request::write_status(&status, command.json, out)?;
    if command.wait { request::failures(&status) } else { Ok(()) }
}

/// What is asked for.
enum Wanted {
    /// A built-in space.
    Named(String),
    /// A space from a file.
    Defined(PathBuf, SpaceDef),
}

impl Wanted {
    fn new(what: &ProfileWhat) -> Result<Wanted> {
        match (&what.space, &what.op_file) {
            (_, Some(path)) => {
                let def = read_space(path)?;
                if def.ops.is_empty() {
                    bail!("{}: it defines no op: list some under `ops`", files::name(path));
                }
                Ok(Wanted::Defined(path.clone(), def))
            }
            (Some(text), None) if names_a_file(text) => {
                let path = PathBuf::from(text);
                let def = read_space(&path)?;
                Ok(Wanted::Defined(path, def))
            }
            (Some(name), None) => {
                let known = Catalog::builtin().space(name);
                known.with_context(|| {
                    format!("--space {name} (a file is written with its folder or extension)")
                })?;
                Ok(Wanted::Named(name.clone()))
            }
            (None, None) => unreachable!("the command line has one of the two"),
        }
    }
}

/// `-`, or a name that no built-in space has.
fn names_a_file(text: &str) -> bool {
    text == "-" || text.contains(['/', '\\', '.'])
}

fn read_space(path: &Path) -> Result<SpaceDef> {
    let text = files::read_text(path)?;
    SpaceDef::from_yaml(&text).map_err(|error| anyhow!("{}: {error}", files::name(path)))
}

async fn submit(client: &Client, command: &Profile, wanted: &Wanted) -> Result<RequestStatus> {
    let mut request = ProfileRequest {
        hardware_id: command.hardware.clone(),
        config: command.config.clone(),
        space: None,
        definition: None,
        remeasure: command.remeasure,
    };
    match wanted {
        Wanted::Named(name) => request.space = Some(name.clone()),
        Wanted::Defined(path, def) => {
            // The space is spelled out here before anything is sent, so that a mistake in it leaves
            // nothing behind in the coordinator; the ops that it already has count too.
            let known: Vec<OpEntry> = client.get_all("v1/ops").await?;
            def.resolve(&ops::with_submitted(known)?).with_context(|| files::name(path))?;
            for op in &def.ops {
                let _: OpAnswer = client.post("v1/ops", op).await?;
            }
            request.definition = Some(def.clone());
        }
    }
    Ok(client.post("v1/requests", &request).await?)
}

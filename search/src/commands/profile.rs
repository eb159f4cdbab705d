//! `latlas profile`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use latlas_shared::WholeNetwork;
use latlas_shared::api::{NetworkChoice, OpAnswer, OpEntry, ProfileRequest, RequestStatus};
use latlas_shared::client::Client;
use ops_catalog::{Catalog, NetworkSpec, SpaceDef};

use super::{Farm, ops, request};
use crate::cli::{Profile, ProfileWhat};
use crate::files;

/// Runs the command.
///
/// # Errors
/// When the space or a network is not one, the coordinator does not answer or refuses, or tasks failed.
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
struct Wanted {
    space: Option<Space>,
    networks: Vec<Network>,
}

enum Space {
    /// A built-in space.
    Named(String),
    /// A space from a file.
    Defined(PathBuf, SpaceDef),
}

/// A network, and where it was written.
struct Network {
    place: String,
    choice: NetworkChoice,
}

impl Wanted {
    fn new(what: &ProfileWhat) -> Result<Wanted> {
        let names = what.space.iter().chain(&what.network).map(Path::new);
        let paths = what.op_file.iter().chain(&what.arch).map(PathBuf::as_path);
        files::one_stdin(&names.chain(paths).collect::<Vec<_>>())?;
        let space = Space::new(what)?;
        let mut networks = Vec::new();
        for name in &what.network {
            if names_a_file(name) {
                networks.extend(read_networks(Path::new(name))?);
            } else {
                WholeNetwork::builtin(name).with_context(|| {
                    format!("--network {name} (a file is written with its folder or extension)")
                })?;
                let choice = NetworkChoice::Named(name.clone());
                networks.push(Network { place: name.clone(), choice });
            }
        }
        if let Some(path) = &what.arch {
            networks.extend(read_networks(path)?);
        }
        Ok(Wanted { space, networks })
    }

    /// Checks what was written here before anything is sent, so that a mistake in it leaves nothing behind
    /// in the coordinator; the ops that it already has count too.
    async fn check(&self, client: &Client) -> Result<()> {
        let written = |network: &Network| matches!(network.choice, NetworkChoice::Defined(_));
        let defined = match &self.space {
            Some(Space::Defined(path, def)) => Some((path, def)),
            _ => None,
        };
        if defined.is_none() && !self.networks.iter().any(written) {
            return Ok(());
        }
        let known: Vec<OpEntry> = client.get_all("v1/ops").await?;
        let mut catalog = ops::with_submitted(known)?;
        if let Some((path, def)) = defined {
            def.resolve(&catalog).with_context(|| files::name(path))?;
            catalog =
                catalog.with_ops(def.ops.iter().cloned()).with_context(|| files::name(path))?;
        }
        for Network { place, choice } in &self.networks {
            if let NetworkChoice::Defined(spec) = choice {
                WholeNetwork::new(spec, &catalog).with_context(|| place.clone())?;
            }
        }
        Ok(())
    }
}

impl Space {
    fn new(what: &ProfileWhat) -> Result<Option<Space>> {
        match (&what.space, &what.op_file) {
            (_, Some(path)) => {
                let def = read_space(path)?;
                if def.ops.is_empty() {
                    bail!("{}: it defines no op: list some under `ops`", files::name(path));
                }
                Ok(Some(Space::Defined(path.clone(), def)))
            }
            (Some(text), None) if names_a_file(text) => {
                let path = PathBuf::from(text);
                let def = read_space(&path)?;
                Ok(Some(Space::Defined(path, def)))
            }
            (Some(name), None) => {
                let known = Catalog::builtin().space(name);
                known.with_context(|| {
                    format!("--space {name} (a file is written with its folder or extension)")
                })?;
                Ok(Some(Space::Named(name.clone())))
            }
            (None, None) => Ok(None),
        }
    }
}

/// `-`, or a name that nothing built in has.
fn names_a_file(text: &str) -> bool {
    text == "-" || text.contains(['/', '\\', '.'])
}

fn read_space(path: &Path) -> Result<SpaceDef> {
    let text = files::read_text(path)?;
    SpaceDef::from_yaml(&text).map_err(|error| anyhow!("{}: {error}", files::name(path)))
}

/// The networks of a file: one, in YAML or JSON, or one JSON object a line.
fn read_networks(path: &Path) -> Result<Vec<Network>> {
    let file = files::name(path);
    let text = files::read_text(path)?;
    let network =
        |place: String, spec| Network { place, choice: NetworkChoice::Defined(Box::new(spec)) };
    let specs = NetworkSpec::read_all(&text).map_err(|error| anyhow!("{file}: {error}"))?;
    Ok(specs
        .into_iter()
        .map(|(line, spec)| match line {
            Some(line) => network(format!("{file}, line {line}"), spec),
            None => network(file.clone(), spec),
        })
        .collect())
}

async fn submit(client: &Client, command: &Profile, wanted: &Wanted) -> Result<RequestStatus> {
    let mut request = ProfileRequest {
        hardware_id: command.hardware.clone(),
        config: command.config.clone(),
        space: None,
        definition: None,
        networks: wanted.networks.iter().map(|network| network.choice.clone()).collect(),
        remeasure: command.remeasure,
    };
    wanted.check(client).await?;
    match &wanted.space {
        None => {}
        Some(Space::Named(name)) => request.space = Some(name.clone()),
        Some(Space::Defined(_, def)) => {
            for op in &def.ops {
                let _: OpAnswer = client.post("v1/ops", op).await?;
            }
            request.definition = Some(def.clone());
        }
    }
    Ok(client.post("v1/requests", &request).await?)
}

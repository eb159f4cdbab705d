//! `latlas profile`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use latlas_client::{Client, add_missing_rows, known_ops, with_query};
use latlas_shared::accuracy::NetworkAccuracy;
use latlas_shared::api::{NetworkChoice, OpAnswer, ProfileRequest, RequestStatus};
use latlas_shared::{Table, WholeNetwork};
use ops_catalog::{Catalog, NetworkPlan, OpDef, SpaceDef};

use super::{Coordinator, request};
use crate::chosen::{self, names_a_file};
use crate::cli::{Profile, ProfileWhat};
use crate::files;
use crate::text::{count, duration, plain};
use latlas_program::exit::Usage;

/// Runs the command.
///
/// # Errors
/// When the space or a network is invalid, the coordinator does not answer or refuses, or tasks failed.
pub fn run(command: &Profile, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let wanted = Wanted::new(&command.what)?;
    let (status, measured) = farm.ask(async |client| {
        let (status, networks) = submit(&client, command, &wanted).await?;
        if command.wait {
            let status = request::waited(&client, status).await?;
            let of_interest = !command.json && status.cancelled.is_none() && !networks.is_empty();
            let measured =
                if of_interest { measured(&client, &status, &networks).await? } else { vec![] };
            return Ok((status, measured));
        }
        if !status.is_finished() {
            eprintln!("{}", request::look_again(&client, status.id));
        }
        Ok((status, vec![]))
    })?;
    request::write_status(&status, command.json, out)?;
    for line in measured {
        writeln!(out, "{line}")?;
    }
    if command.wait { request::failures(&status) } else { Ok(()) }
}

/// Measured latencies of whole networks and their predictions from the table, one line each.
async fn measured(
    client: &Client,
    status: &RequestStatus,
    networks: &[(String, WholeNetwork)],
) -> Result<Vec<String>> {
    let path = format!("v1/tables/{}", status.hardware_id);
    let table: Table = client
        .get(&with_query(&path, &[("config", &status.config)]))
        .await
        .context("the request is finished, but its table cannot be read")?;
    let known = table.accuracy.map(|accuracy| accuracy.networks).unwrap_or_default();
    let width = networks.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let line = |(name, whole): &(String, WholeNetwork)| {
        let found = known.iter().find(|network| network.digest == whole.digest)?;
        Some(format!("{:width$}  {}", plain(name), beside(found)))
    };
    Ok(networks.iter().filter_map(line).collect())
}

/// `1.68 ms measured, 1.65 ms predicted`.
fn beside(network: &NetworkAccuracy) -> String {
    let measured = format!("{} measured", duration(network.measured_micros));
    match (&network.prediction, &network.unpredicted) {
        (Some(prediction), _) => {
            format!("{measured}, {} predicted", duration(prediction.predicted_micros))
        }
        (None, Some(why)) => format!("{measured}, no prediction: {}", plain(why)),
        (None, None) => measured,
    }
}

/// Number of networks that calibrate a space by default.
const CALIBRATION_NETWORKS: u32 = 5;

/// The number of networks that are generated from the keys of a request. A request without rows has no keys for that.
fn calibrate(command: &Profile, has_space: bool) -> Result<u32> {
    match command.calibrate {
        asked if has_space => Ok(asked.unwrap_or(CALIBRATION_NETWORKS)),
        None | Some(0) => Ok(0),
        Some(asked) if command.missing_rows => Ok(asked),
        Some(_) => Err(Usage(
            "--calibrate makes networks of the keys of a space or of networks: give --space or --missing-rows. The \
             networks that you ask for calibrate the table anyway"
                .to_owned(),
        )
        .into()),
    }
}

/// The missing rows of networks are a space of their own.
fn check_missing_rows(command: &Profile, wanted: &Wanted) -> Result<()> {
    if command.missing_rows && wanted.space.is_some() {
        let problem = "--missing-rows and a space both say which rows to measure: give one of them";
        return Err(Usage(problem.to_owned()).into());
    }
    Ok(())
}

/// A sustained run needs a network.
fn check_sustained(command: &Profile, calibrate: u32, wanted: &Wanted) -> Result<()> {
    if command.sustained && calibrate == 0 && wanted.networks.is_empty() {
        return Err(Usage(
            "--sustained runs networks, and this request has none: name one with --network or --arch, or leave out \
             --calibrate none"
                .to_owned(),
        )
        .into());
    }
    Ok(())
}

/// The most sustained runs of a request, and the minutes that one takes: two of rest, and ten.
const SUSTAINED_RUNS: usize = 3;
const SUSTAINED_MINUTES: usize = 12;

/// How long the sustained runs of a request of so many networks keep a box busy. A space may have fewer networks.
fn sustained_time(networks: usize) -> String {
    let runs = networks.min(SUSTAINED_RUNS);
    format!(
        "{} at the end of the request, of 10 min each and 2 min of rest before: about {} min for one agent, in which \
         it takes no other work",
        count(runs, "sustained run", "sustained runs"),
        runs * SUSTAINED_MINUTES
    )
}

/// The content of a request.
struct Wanted {
    space: Option<Space>,
    /// Definitions from `--op-file` in addition to the request, and the name of that file.
    ops: Vec<OpDef>,
    op_file: String,
    networks: Vec<Network>,
}

enum Space {
    /// A built-in space.
    Named(String),
    /// A space from a file.
    Defined(PathBuf, SpaceDef),
}

/// A network, and the place of its definition.
struct Network {
    place: String,
    choice: NetworkChoice,
}

impl Wanted {
    fn new(what: &ProfileWhat) -> Result<Wanted> {
        let names = what.space.iter().chain(&what.network).map(Path::new);
        let paths = what.op_file.iter().chain(&what.arch).map(PathBuf::as_path);
        files::one_stdin(&names.chain(paths).collect::<Vec<_>>())?;
        let mut space = Space::new(what)?;
        let mut ops = Vec::new();
        let mut networks = Vec::new();
        for name in &what.network {
            if names_a_file(name) {
                networks.extend(read_networks(Path::new(name))?);
            } else {
                let spec =
                    chosen::builtin_network(name, Catalog::builtin()).with_context(|| {
                        format!("--network {name} (a file is written with its folder or extension)")
                    })?;
                WholeNetwork::new(spec, Catalog::builtin())?;
                let choice = NetworkChoice::Named(name.clone());
                networks.push(Network { place: name.clone(), choice });
            }
        }
        if let Some(path) = &what.arch {
            networks.extend(read_networks(path)?);
        }
        if let Some(path) = &what.op_file {
            (ops, space) = OpFile::new(path)?.beside(space, !networks.is_empty())?;
        }
        let op_file = what.op_file.as_deref().map(files::name).unwrap_or_default();
        Ok(Wanted { space, ops, op_file, networks })
    }

    /// Checks everything before anything is sent, so that a mistake leaves nothing behind in the coordinator. The ops
    /// that the coordinator already has count too. Returns the networks by name.
    async fn check(&self, client: &Client) -> Result<Vec<(String, WholeNetwork)>> {
        let mut networks = Vec::with_capacity(self.networks.len());
        let written = |network: &Network| matches!(network.choice, NetworkChoice::Defined(_));
        let defined = match &self.space {
            Some(Space::Defined(path, def)) => Some((path, def)),
            _ => None,
        };
        let mut catalog = Catalog::builtin().clone();
        if defined.is_some() || !self.ops.is_empty() || self.networks.iter().any(written) {
            catalog = known_ops(client).await?;
        }
        catalog =
            catalog.with_ops(self.ops.iter().cloned()).with_context(|| self.op_file.clone())?;
        if let Some((path, def)) = defined {
            def.resolve(&catalog).with_context(|| files::name(path))?;
            catalog =
                catalog.with_ops(def.ops.iter().cloned()).with_context(|| files::name(path))?;
        }
        for Network { place, choice } in &self.networks {
            let whole = match choice {
                NetworkChoice::Named(name) => WholeNetwork::builtin(name),
                NetworkChoice::Defined(spec) => WholeNetwork::new(spec, &catalog),
            };
            let whole = whole.with_context(|| place.clone())?;
            let name = whole.spec.name.clone().unwrap_or_else(|| place.clone());
            networks.push((name, whole));
        }
        Ok(networks)
    }
}

impl Space {
    fn new(what: &ProfileWhat) -> Result<Option<Space>> {
        match &what.space {
            Some(text) if names_a_file(text) => {
                let path = PathBuf::from(text);
                let def = chosen::read_space(&path)?;
                Ok(Some(Space::Defined(path, def)))
            }
            Some(name) => {
                chosen::builtin_space(name, Catalog::builtin())?;
                Ok(Some(Space::Named(name.clone())))
            }
            None => Ok(None),
        }
    }
}

/// The ops of `--op-file`, and its shapes if it contains any.
struct OpFile {
    path: PathBuf,
    def: SpaceDef,
}

impl OpFile {
    fn new(path: &Path) -> Result<OpFile> {
        let def = chosen::read_space(path)?;
        if def.ops.is_empty() {
            bail!("{}: it defines no op: list some under `ops`", files::name(path));
        }
        Ok(OpFile { path: path.to_owned(), def })
    }

    fn has_shapes(&self) -> bool {
        let SpaceDef { grids, keys, networks, .. } = &self.def;
        !(grids.is_empty() && keys.is_empty() && networks.is_empty())
    }

    /// The file is the requested space, unless only its ops are used.
    fn beside(self, space: Option<Space>, networks: bool) -> Result<(Vec<OpDef>, Option<Space>)> {
        let ops = self.def.ops.clone();
        match space {
            Some(_) if self.has_shapes() => Err(Usage(format!(
                "--space and {} both say what to measure: give one of them, or `ops` alone in the file",
                files::name(&self.path)
            ))
            .into()),
            Some(space) => Ok((ops, Some(space))),
            None if networks && !self.has_shapes() => Ok((ops, None)),
            // The space already contains its ops.
            None => Ok((vec![], Some(Space::Defined(self.path, self.def)))),
        }
    }
}

/// The networks of a file, in the form of a request.
fn read_networks(path: &Path) -> Result<Vec<Network>> {
    let network = |(place, spec)| Network { place, choice: NetworkChoice::Defined(Box::new(spec)) };
    Ok(chosen::read_networks(path)?.into_iter().map(network).collect())
}

/// Submits the request. Also returns the networks by name.
async fn submit(
    client: &Client,
    command: &Profile,
    wanted: &Wanted,
) -> Result<(RequestStatus, Vec<(String, WholeNetwork)>)> {
    check_missing_rows(command, wanted)?;
    let calibrate = calibrate(command, wanted.space.is_some())?;
    check_sustained(command, calibrate, wanted)?;
    let mut request = ProfileRequest {
        hardware_id: command.hardware.clone(),
        config: command.config.clone(),
        space: None,
        definition: None,
        networks: wanted.networks.iter().map(|network| network.choice.clone()).collect(),
        calibrate,
        sustained: command.sustained,
        remeasure: command.remeasure,
    };
    let networks = wanted.check(client).await?;
    for op in &wanted.ops {
        let _: OpAnswer = client.post("v1/ops", op).await?;
    }
    match &wanted.space {
        None if command.missing_rows => {
            let plans = networks.iter().map(|(_, whole)| whole.plan());
            let plans: Vec<NetworkPlan> = plans.collect::<Result<_, _>>()?;
            add_missing_rows(client, &mut request, &plans.iter().collect::<Vec<_>>()).await?;
        }
        None => {}
        Some(Space::Named(name)) => request.space = Some(name.clone()),
        Some(Space::Defined(_, def)) => {
            for op in &def.ops {
                let _: OpAnswer = client.post("v1/ops", op).await?;
            }
            request.definition = Some(def.clone());
        }
    }
    let status = client.post("v1/requests", &request).await?;
    if command.sustained {
        eprintln!("{}", sustained_time(networks.len() + calibrate as usize));
    }
    Ok((status, networks))
}

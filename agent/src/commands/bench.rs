//! `latlas-agent bench`: measures without a coordinator.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use latlas_program::command_line::networks_that_calibrate;
use latlas_shared::{MOST_SUSTAINED_SECONDS, Measurement, Status, Subject, WholeNetwork};
use ops_catalog::{CALIBRATION_SEED, Catalog, NetworkSpec, Op, OpKey, SpaceDef, text};

use crate::engine::{self, Halt, Job, Protocol, Spent, Workers};
use crate::explain::{describe, explain};
use crate::options::{Chosen, Execution, default_state_dir};
use crate::record::{Recorder, Run};
use crate::references;
use crate::worker::Work;

mod informative;
mod progress;

use progress::{Ended, Progress};

/// See `--order`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Order {
    /// All at once, visited in random order
    #[default]
    Shuffled,
    /// The most informative rows first
    Informative,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// A built-in space, or a YAML file with one
    #[arg(long, value_name = "NAME|FILE", required_unless_present_any = ["key", "network", "arch", "explain", "sustained"])]
    space: Option<String>,
    /// An op key; repeatable
    #[arg(long)]
    key: Vec<OpKey>,
    /// A built-in network, or a file with one, to measure as a whole; repeatable
    #[arg(long, value_name = "NAME|FILE")]
    network: Vec<String>,
    /// A file of networks to measure as a whole: one JSON object a line, or one network as JSON or YAML. Each needs
    /// a name; `-` is stdin; repeatable
    #[arg(long, value_name = "FILE")]
    arch: Vec<String>,
    /// Run each network for so many seconds without a pause, and compare the latency at the end with that at the
    /// beginning; 600 shows whether a device becomes slower as it heats up. The device rests for two minutes before
    /// each network but the first
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["space", "key", "explain", "minutes"],
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SUSTAINED_SECONDS)))]
    sustained: Option<u32>,
    /// A file that defines the ops of your own that networks and keys use. The ops of a `--space` file are known
    /// without it; repeatable
    #[arg(long, value_name = "FILE")]
    op_file: Vec<String>,
    /// Whole networks, made of the space's own keys, that are measured too and calibrate the table's predictions: a
    /// number, or `none`
    #[arg(long, value_name = "N|none", default_value = "none", requires = "space", value_parser = networks_that_calibrate)]
    calibrate: u32,
    /// Measure one op key and explain its row: visits, interval, curve
    #[arg(long, value_name = "KEY", conflicts_with_all = ["space", "key", "network", "arch", "out"])]
    explain: Option<OpKey>,
    #[command(flatten)]
    execution: Execution,
    /// Order of the rows of a space. `informative` measures them in batches, the ones first that reduce the error of
    /// predictions most, and stops when more rows do not help
    #[arg(long, value_enum, default_value_t, requires = "space", conflicts_with_all = ["key", "network", "arch"])]
    order: Order,
    /// Expected error, in percent of all latencies, at which `--order informative` stops. Default: 3
    #[arg(long, value_name = "PERCENT", requires = "order", value_parser = percent)]
    stop_at: Option<f64>,
    /// Write the measurements to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// End the run after so many minutes. A row that is not finished then has the samples so far, and is
    /// `not_converged`. Ctrl-C ends the run in the same way, with exit code 1
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    minutes: Option<f64>,
    /// Seed of the order of visits. Default: from the clock
    #[arg(long)]
    seed: Option<u64>,
}

impl BenchArgs {
    /// The reason why these options exclude one another, if they do.
    pub fn conflict(&self) -> Option<&'static str> {
        let informative = self.order == Order::Informative;
        if self.stop_at.is_some() && !informative {
            return Some(
                "--stop-at is for --order informative: a shuffled run has no order to stop in",
            );
        }
        if self.calibrate > 0 && informative {
            return Some(
                "--calibrate is for --order shuffled: an informative run measures the rows of a space only",
            );
        }
        let networks = !self.network.is_empty() || !self.arch.is_empty();
        (self.sustained.is_some() && !networks)
            .then_some("--sustained runs networks: name one with --network or --arch")
    }
}

/// See `--stop-at`.
const STOP_AT: f64 = 3.0;

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("write a number from 0 to 100".to_owned()),
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if 0.0 < minutes && minutes <= 1e6 => Ok(minutes),
        _ => Err("write a positive number of minutes".to_owned()),
    }
}

/// Reads `name` as a built-in thing, or as a file when it looks like a path or is one.
fn is_file(name: &str) -> bool {
    name.contains(['/', '.']) || Path::new(name).is_file()
}

fn read(path: &str) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {path}"))?;
    Ok(text::decode(&bytes).with_context(|| path.to_owned())?.into_owned())
}

/// Standard input as text.
fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).context("reading stdin")?;
    Ok(text::decode(&bytes).context("stdin")?.into_owned())
}

/// A space as its author wrote it, from a file or built in. A file is read once: it may be a pipe.
fn space_def(name: &str) -> Result<SpaceDef> {
    if is_file(name) {
        return SpaceDef::from_yaml(&read(name)?).context(name.to_owned());
    }
    Ok(Catalog::builtin().space(name)?.clone())
}

/// The built-in ops, those that the space defines, and those of `--op-file`.
fn catalog(space: Option<&SpaceDef>, op_files: &[String]) -> Result<Catalog> {
    let mut catalog = Catalog::builtin().clone();
    for file in op_files {
        let def = SpaceDef::from_yaml(&read(file)?).context(file.clone())?;
        catalog = catalog.with_ops(def.ops).context(file.clone())?;
    }
    if let Some(def) = space {
        catalog =
            catalog.with_ops(def.ops.iter().cloned()).context(format!("space {}", def.name))?;
    }
    Ok(catalog)
}

fn op_job((key, op): (OpKey, Arc<Op>), reference: u64) -> (Subject, Job) {
    let work = Work::Op { def: op.def().clone(), shape: key.shape };
    let subject = Subject::Op { key, digest: op.digest().clone() };
    (subject, Job::new(work, Protocol::for_ops(reference)))
}

fn key_job(key: &OpKey, catalog: &Catalog, reference: u64) -> Result<(Subject, Job)> {
    let op = catalog.op(&key.op)?;
    op.at(&key.shape)?;
    Ok(op_job((op.key(key.shape), Arc::clone(op)), reference))
}

/// Networks that were asked for, each with where it was written.
fn networks(names: &[String], files: &[String]) -> Result<Vec<(String, NetworkSpec)>> {
    let mut all = Vec::new();
    for name in names {
        let spec = if is_file(name) {
            let mut spec = NetworkSpec::from_yaml(&read(name)?).with_context(|| name.clone())?;
            spec.name.get_or_insert_with(|| name.clone());
            spec
        } else {
            Catalog::builtin().network_spec(name)?.clone()
        };
        all.push((name.clone(), spec));
    }
    for file in files {
        let (file, text) = match file.as_str() {
            "-" => ("stdin", read_stdin()?),
            path => (path, read(path)?),
        };
        let specs = NetworkSpec::read_all(&text).with_context(|| file.to_owned())?;
        all.extend(specs.into_iter().map(|(line, spec)| match line {
            Some(line) => (format!("{file}, line {line}"), spec),
            None => (file.to_owned(), spec),
        }));
    }
    Ok(all)
}

/// Checks networks and makes their jobs. Each network has a name of its own, which identifies its measurement.
fn network_jobs(
    networks: Vec<(String, NetworkSpec)>,
    catalog: &Catalog,
    sustained_seconds: Option<u32>,
) -> Result<Vec<(Subject, Job)>> {
    let mut places: HashMap<String, String> = HashMap::new();
    let mut jobs = Vec::with_capacity(networks.len());
    for (place, spec) in networks {
        let Some(name) = spec.name.clone() else {
            bail!(
                "{place}: the network has no `name`: add one, because it identifies the measurement"
            );
        };
        let network = WholeNetwork::new(&spec, catalog).with_context(|| place.clone())?;
        let network = match sustained_seconds {
            Some(seconds) => network.sustained(seconds)?,
            None => network,
        };
        if let Some(other) = places.insert(name.clone(), place.clone()) {
            bail!(
                "{place}: the name `{name}` is that of the network in {other}: give one another name"
            );
        }
        let work = Work::Network { spec: network.spec.clone(), ops: network.ops.clone() };
        let subject = Subject::Network(Box::new(network));
        let job = Job::new(work, Protocol::for_networks());
        jobs.push((subject, Job { sustained_seconds, ..job }));
    }
    Ok(jobs)
}

/// Measures what was asked for and prints each measurement as soon as it is known.
///
/// # Errors
/// When the request is not valid, nothing can be measured, every measurement failed, or the run was stopped.
pub fn bench(args: &BenchArgs) -> Result<()> {
    let Chosen { launch, recorder } = args.execution.chosen()?;
    let reference = recorder.run_config.reuse_distance_bytes;
    let def = args.space.as_deref().map(space_def).transpose()?;
    let catalog = catalog(def.as_ref(), &args.op_file)?;
    let space = def.map(|def| def.resolve(&catalog)).transpose();
    let space = space.context(args.space.clone().unwrap_or_default())?;
    let entries = space.iter().flat_map(|space| space.entries.iter().cloned());
    let mut all: Vec<_> = entries.map(|entry| op_job(entry, reference)).collect();
    for key in args.key.iter().chain(&args.explain) {
        all.push(key_job(key, &catalog, reference)?);
    }
    let own =
        space.iter().flat_map(|space| space.networks(args.calibrate as usize, CALIBRATION_SEED));
    let own = own.map(|spec| ("--calibrate".to_owned(), spec));
    let networks = own.chain(networks(&args.network, &args.arch)?).collect();
    all.extend(network_jobs(networks, &catalog, args.sustained)?);
    let out: Box<dyn Write> = match &args.out {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("creating {}", path.display()))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    let total = all.len();
    eprintln!("measuring {total} on {} under {}", recorder.hardware_id, recorder.run_config.id());
    progress::say_if_busy(&recorder.system().telemetry(), "is not quiet now");
    let mut bench = Bench {
        workers: Workers::new(launch).with_meter(recorder.meter()),
        run: recorder.start(&default_state_dir()?),
        recorder,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        explain: args.explain.is_some(),
        progress: Progress::new(total, args.sustained.is_none()),
        failed: 0,
        stop: stop_on_ctrl_c()?,
        deadline: args
            .minutes
            .map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes)),
        out,
    };
    match args.order {
        Order::Shuffled => {
            let spent = bench.measure(all, &mut |_| {})?;
            eprintln!("{spent}");
        }
        Order::Informative => {
            let space = space.context("--order informative needs a --space")?;
            informative::measure(&mut bench, &space, args.stop_at.unwrap_or(STOP_AT))?;
        }
    }
    progress::say_if_busy(&bench.run.worst(), "was not quiet during the run");
    let (ended, finished) = (bench.ended(), bench.progress.finished());
    bench.run.end();
    match ended {
        Some(Ended::Stopped) => {
            bail!("interrupted: {finished} of {total} have a row, which is written")
        }
        Some(Ended::TimeOver) if finished == 0 => bail!(
            "the time was over before anything had two visits, so there are no rows: give --minutes more, or name \
             fewer ops"
        ),
        _ => match (finished, bench.failed) {
            (_, failed) if failed == 0 || failed < finished => Ok(()),
            (1, _) => {
                bail!("the measurement failed, for the reason above: no table can be made of it")
            }
            (all, _) => bail!(
                "all {all} measurements failed, for the reasons above: no table can be made of them"
            ),
        },
    }
}

/// A run and where its results go.
struct Bench {
    recorder: Recorder,
    run: Run,
    workers: Workers,
    seed: u64,
    explain: bool,
    progress: Progress,
    failed: usize,
    stop: Arc<AtomicBool>,
    deadline: Option<Instant>,
    out: Box<dyn Write>,
}

impl Bench {
    /// Why the run is to end, if it is.
    fn ended(&self) -> Option<Ended> {
        ended(&self.stop, self.deadline)
    }

    /// Measures jobs, and hands over and prints each measurement as soon as it is known.
    ///
    /// # Errors
    /// When nothing can be measured or written.
    fn measure(
        &mut self,
        jobs: Vec<(Subject, Job)>,
        done: &mut dyn FnMut(Measurement),
    ) -> Result<Spent> {
        let (subjects, mut jobs): (Vec<Subject>, Vec<Job>) = jobs.into_iter().unzip();
        let Bench { recorder, run, stop, deadline, out, progress, failed, .. } = self;
        run.prepare(recorder, &mut jobs);
        let expected = progress.finished() + jobs.len();
        // The reader of the results has gone, so further measurements would be useless.
        let unread = Cell::new(false);
        let mut failed_write = None;
        let spent = engine::measure(
            jobs,
            references::gauges(recorder.run_config.reuse_distance_bytes)?,
            &mut self.workers,
            self.seed,
            &|| {
                recorder.look(run);
                progress.visit();
                match ended(stop, *deadline) {
                    _ if unread.get() => Halt::Interrupted,
                    Some(Ended::Stopped) => Halt::Stopped,
                    Some(Ended::TimeOver) => Halt::TimeOver,
                    None => Halt::No,
                }
            },
            &mut |outcome| {
                let subject = subjects[outcome.job].clone();
                let measurement = recorder.measurement(run, None, subject, outcome);
                *failed += usize::from(measurement.status == Status::Failed);
                progress.row(&describe(&measurement));
                let written = if self.explain {
                    out.write_all(explain(&measurement).as_bytes())
                } else {
                    write_line(out, &measurement)
                };
                if let Err(e) = written {
                    unread.set(true);
                    failed_write.get_or_insert(e);
                }
                done(measurement);
            },
        )?;
        if let Some(e) = failed_write {
            return Err(e).context("writing the measurements");
        }
        if progress.finished() < expected
            && let Some(ended) = ended(stop, *deadline)
        {
            eprintln!("{ended}: {}", progress.left());
        }
        Ok(spent)
    }
}

/// Why a run is to end, if it is.
fn ended(stop: &AtomicBool, deadline: Option<Instant>) -> Option<Ended> {
    if stop.load(Ordering::Relaxed) {
        return Some(Ended::Stopped);
    }
    deadline.filter(|&deadline| deadline <= Instant::now()).map(|_| Ended::TimeOver)
}

fn write_line(out: &mut impl Write, measurement: &Measurement) -> io::Result<()> {
    serde_json::to_writer(&mut *out, measurement)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// A flag that Ctrl-C raises. The second Ctrl-C ends the process, since a visit that hangs has minutes until its limit.
/// Workers end with it.
fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            raised.store(true, Ordering::Relaxed);
            eprintln!(
                "stopping after this visit, and writing what there is; Ctrl-C again ends at once"
            );
        }
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            std::process::exit(1);
        }
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"name": "a", "input": {"n": 1, "c": 3, "h": 8, "w": 8}, "layers": [{"op": "Conv3x3", "c_out": 8, "stride": 1}]}"#;

    fn jobs(names: &[&str], text: &str) -> Result<Vec<(Subject, Job)>> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), text)?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let networks = networks(&names, &[file.path().display().to_string()])?;
        network_jobs(networks, Catalog::builtin(), None)
    }

    #[test]
    fn networks_may_have_ops_of_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ops.yaml").display().to_string();
        let ops = "\u{feff}name: mine\nops: [{name: Mine, nodes: [apply: relu]}]\n";
        fs::write(&file, ops).unwrap();
        let network = || {
            let text = ONE.replace("Conv3x3", "Mine").replace(r#""c_out": 8"#, r#""c_out": 3"#);
            vec![("here".to_owned(), NetworkSpec::from_json(&text).unwrap())]
        };
        assert!(network_jobs(network(), Catalog::builtin(), None).is_err());
        for known in [
            catalog(None, std::slice::from_ref(&file)).unwrap(),
            catalog(Some(&space_def(&file).unwrap()), &[]).unwrap(),
        ] {
            assert_eq!(network_jobs(network(), &known, None).unwrap().len(), 1);
        }
    }

    #[test]
    fn networks_of_a_file_are_measured_under_their_names() {
        let text = format!("{ONE}\n{}\n", ONE.replace(r#""a""#, r#""b""#));
        let jobs = jobs(&["demo_conv"], &text).unwrap();
        let names: Vec<String> = jobs.iter().map(|(subject, _)| subject.to_string()).collect();
        assert_eq!(names, ["network demo_conv", "network a", "network b"]);
        for (_, job) in jobs {
            assert!(matches!(job.work, Work::Network { .. }));
        }
    }

    #[test]
    fn mistakes_in_networks_name_their_place() {
        let unnamed = ONE.replace(r#""name": "a", "#, "");
        for (names, text, parts) in [
            (&[][..], format!("{ONE}\n{unnamed}"), ["line 2", "the network has no `name`"]),
            (&[], format!("{ONE}\n\n{ONE}"), ["line 3: the name `a`", "line 1: give one another"]),
            (
                &["demo_conv"],
                ONE.replace(r#""a""#, r#""demo_conv""#),
                ["line 1: the name `demo_conv`", "the network in demo_conv"],
            ),
            (&[], format!("{ONE}\n{{"), ["line 2, column 2", "it is not JSON"]),
            (&[], ONE.replace("Conv3x3", "Conv3x4"), ["line 1: network a", "closest names"]),
            (&["demo_con"], ONE.to_owned(), ["network demo_con", "the built-in ones are"]),
        ] {
            let said = format!("{:#}", jobs(names, &text).map(|jobs| jobs.len()).unwrap_err());
            for part in parts {
                assert!(said.contains(part), "`{part}` is not in: {said}");
            }
        }
    }
}

//! Visits to work that a command runs.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use latlas_export::{MAX_BYTES, Model, Random};
use latlas_shared::{Device, Dtype};

use super::process::{Process, START_LIMIT};
use super::protocol::{Hello, Reply, Request, Sampled};
use super::{Configured, RuntimeError};
use crate::references;
use crate::system::energy::Busy;
use crate::worker::{
    Budget, Fault, MOST_BLOCK_RETAKES, MOST_RETAKES, Pass, Plan, Recent, Samples, Visited, Watch,
    Work, Worker, peak_memory, processors_of_worker, reset_peak_memory, retake, until_settled,
};

/// How long a command may take to load a model: some build engines for minutes.
const PREPARE_LIMIT: Duration = Duration::from_secs(300);

/// Seed of the weights.
const SEED: u64 = 1;

/// The settings of a command's process.
#[derive(Debug, Clone)]
pub struct RuntimeSettings {
    configured: Configured,
    /// What it said of itself first.
    pub hello: Hello,
    device: Device,
    dtype: Dtype,
    threads: u32,
    largest_reuse_distance: u64,
    memory_limit: u64,
}

impl RuntimeSettings {
    /// Starts a command to hear what it is, and ends it again.
    ///
    /// # Errors
    /// When it cannot be started, or cannot do what is wanted; the message names it.
    pub fn of(
        configured: Configured,
        (device, dtype, threads): (Device, Dtype, u32),
        largest_reuse_distance: u64,
        memory_limit: u64,
    ) -> anyhow::Result<RuntimeSettings> {
        let named = |error: RuntimeError| anyhow::anyhow!(configured.problem(&error));
        let mut process = Process::start(&configured, vec![], threads).map_err(named)?;
        let hello = process.hello(START_LIMIT).map_err(named)?;
        hello.check(device, dtype).map_err(named)?;
        Ok(RuntimeSettings {
            configured,
            hello,
            device,
            dtype,
            threads,
            largest_reuse_distance,
            memory_limit,
        })
    }
}

/// A command as a worker.
pub struct RuntimeWorker {
    settings: RuntimeSettings,
    process: Process,
    /// The models that the command has, by id.
    recent: Recent<u64>,
    next_id: u64,
    /// The counters of its processors; None where its processors do not run the ops.
    watch: Option<Watch>,
}

impl RuntimeWorker {
    /// Starts the command.
    ///
    /// # Errors
    /// When it cannot be started, or is not what it was at first; the message names it.
    pub fn start(settings: &RuntimeSettings) -> anyhow::Result<RuntimeWorker> {
        let named = |error: RuntimeError| anyhow::anyhow!(settings.configured.problem(&error));
        let cpus = match settings.device {
            Device::Cpu => processors_of_worker(settings.threads)?,
            Device::Cuda(_) => vec![],
        };
        let process = Process::start(&settings.configured, cpus.clone(), settings.threads);
        let mut process = process.map_err(named)?;
        let hello = process.hello(START_LIMIT).map_err(named)?;
        let version = |hello: &Hello| format!("{} {}", hello.runtime, hello.version);
        if version(&hello) != version(&settings.hello) {
            let (before, now) = (version(&settings.hello), version(&hello));
            return Err(named(RuntimeError::Changed { before, now }));
        }
        let smallest = OnnxFile::of(&Plan::new(&references::smallest()?)?)?;
        let start = Request::Start {
            device: settings.device,
            dtype: settings.dtype,
            threads: settings.threads,
            largest_reuse_distance_bytes: settings.largest_reuse_distance,
            smallest: &smallest.path,
        };
        process.ask(&start, START_LIMIT).map_err(named)?;
        Ok(RuntimeWorker {
            recent: Recent::new(Budget::of(settings.memory_limit)),
            settings: settings.clone(),
            process,
            next_id: 0,
            watch: (settings.device == Device::Cpu).then(|| Watch::new(cpus)),
        })
    }

    fn named(&self, error: &RuntimeError) -> Fault {
        self.settings.configured.fault(error)
    }

    fn visited(
        &mut self,
        work: &Work,
        passes: &[Pass],
        limit: Duration,
    ) -> Result<Visited, RuntimeError> {
        let process = self.process.id().to_string();
        reset_peak_memory(&process);
        let (id, preparing_micros, mut ops_micros) = self.bring_to_front(work)?;
        // The first call of a visit is not counted: other work has displaced the weights.
        ops_micros += self.block(id, Pass::new(0, 1), limit)?.ops_micros;
        let passes = passes
            .iter()
            .map(|&pass| self.pass(id, pass, limit))
            .collect::<Result<Vec<Samples>, _>>()?;
        Ok(Visited {
            preparing_micros,
            ops_micros: ops_micros + passes.iter().map(|samples| samples.ops_micros).sum::<f64>(),
            reading_micros: passes.iter().map(|samples| samples.reading_micros).sum(),
            peak_memory_bytes: peak_memory(&process),
            busy: None,
            passes,
        })
    }

    /// The samples of a pass. A disturbed block is taken again.
    fn pass(&mut self, id: u64, pass: Pass, limit: Duration) -> Result<Samples, RuntimeError> {
        let taken = retake(MOST_BLOCK_RETAKES, || {
            let (before, start) = (self.watch.as_ref().map(Watch::counters), Instant::now());
            let samples = self.block(id, pass, limit)?;
            let elapsed_micros = micros(start);
            let disturbed = match (&mut self.watch, before) {
                (Some(watch), Some(before)) => watch.disturbed_since(before, elapsed_micros),
                _ => false,
            };
            Ok((samples, disturbed))
        })?;
        Ok(Samples::of_blocks(taken))
    }

    /// The samples of one block. A disturbed sample is taken again.
    fn block(&mut self, id: u64, pass: Pass, limit: Duration) -> Result<Samples, RuntimeError> {
        let mut samples = Samples::default();
        for turn in 0.. {
            let wanted = pass.samples - samples.count();
            if wanted == 0 {
                break;
            }
            let (sampled, elapsed_micros) =
                self.sampled(id, wanted, pass.reuse_distance_bytes, limit)?;
            samples.calls = samples.calls.max(sampled.calls);
            samples.reading_micros += sampled.reading_micros;
            samples.ops_micros += (elapsed_micros - sampled.reading_micros).max(0.0);
            for (place, &time) in sampled.micros.iter().enumerate() {
                let disturbed = sampled.preempted.get(place) == Some(&true);
                if disturbed && turn < MOST_RETAKES {
                    samples.rejected += 1;
                    continue;
                }
                samples.disturbed += u32::from(disturbed);
                samples.micros.push(time);
                samples.host_micros.extend(sampled.host_micros.get(place));
            }
        }
        if pass.host_only && !samples.host_micros.is_empty() {
            samples.micros.clear();
        }
        Ok(samples)
    }

    /// Times of some calls, and the microseconds until they came.
    fn sampled(
        &mut self,
        id: u64,
        samples: u32,
        reuse_distance_bytes: u64,
        limit: Duration,
    ) -> Result<(Sampled, f64), RuntimeError> {
        let start = Instant::now();
        let reply =
            self.process.ask(&Request::Sample { id, samples, reuse_distance_bytes }, limit)?;
        let elapsed_micros = micros(start);
        let Reply::Sampled(sampled) = reply else { unreachable!("the word of the reply fits") };
        sampled
            .check(samples, elapsed_micros)
            .map_err(|problem| RuntimeError::Wrong { request: "sample", problem })?;
        Ok((sampled, elapsed_micros))
    }

    /// Returns the id of the model, the microseconds of its preparation, and those of the warm-up.
    fn bring_to_front(&mut self, work: &Work) -> Result<(u64, f64, f64), RuntimeError> {
        if let Some(&mut id) = self.recent.find(work) {
            return Ok((id, 0.0, 0.0));
        }
        let start = Instant::now();
        let refused = |error: anyhow::Error| RuntimeError::Refused(format!("{error:#}"));
        let plan = Plan::new(work).map_err(refused)?;
        // The file has 32-bit weights, whatever the command makes of them.
        let bytes =
            self.recent.budget().check(plan.cost(), 1, Dtype::F32.bytes()).map_err(refused)?;
        for id in self.recent.make_room(bytes) {
            self.process.ask(&Request::Drop { id }, START_LIMIT)?;
        }
        let id = self.next_id;
        self.next_id += 1;
        let file = OnnxFile::of(&plan).map_err(refused)?;
        self.process.ask(&Request::Prepare { id, model: &file.path }, PREPARE_LIMIT)?;
        drop(file);
        let preparing_micros = micros(start);
        let ops_micros = until_settled(|pass| self.block(id, pass, START_LIMIT))?;
        self.recent.add(work.clone(), bytes, id);
        Ok((id, preparing_micros, ops_micros))
    }
}

impl Worker for RuntimeWorker {
    fn visit(&mut self, work: &Work, passes: &[Pass], limit: Duration) -> Result<Visited, Fault> {
        self.visited(work, passes, limit).map_err(|error| self.named(&error))
    }

    fn keep_busy(
        &mut self,
        work: &Work,
        seconds: f64,
        limit: Duration,
    ) -> Result<Option<Busy>, Fault> {
        let limit = limit + Duration::from_secs_f64(seconds);
        let ran = self.bring_to_front(work).and_then(|(id, ..)| {
            match self.process.ask(&Request::Run { id, seconds }, limit)? {
                Reply::Ran(busy) => checked(busy, seconds),
                _ => unreachable!("the word of the reply fits"),
            }
        });
        ran.map(Some).map_err(|error| self.named(&error))
    }
}

/// The times of a run, if they are possible.
fn checked(busy: Busy, seconds: f64) -> Result<Busy, RuntimeError> {
    let took = busy.end - busy.start;
    if busy.calls > 0 && took.is_finite() && took > 0.0 && took >= 0.9 * seconds {
        return Ok(busy);
    }
    let problem = format!(
        "{} calls from {} to {} s, and {seconds} s were asked for",
        busy.calls, busy.start, busy.end
    );
    Err(RuntimeError::Wrong { request: "run", problem })
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// An ONNX file with random weights, in a folder of its own that goes with it.
struct OnnxFile {
    path: String,
    _folder: tempfile::TempDir,
}

impl OnnxFile {
    fn of(plan: &Plan) -> anyhow::Result<OnnxFile> {
        let model = match plan {
            Plan::Op(plan) => Model::of_op("op", plan),
            Plan::Network(plan) => Model::of_network("network", plan),
        };
        let folder = tempfile::Builder::new().prefix("latlas-").tempdir();
        let folder = folder.context("there is no folder for ONNX files: set TMPDIR to one")?;
        let path = folder.path().join("work.onnx");
        save(&model, &path).with_context(|| format!("writing {}", path.display()))?;
        Ok(OnnxFile { path: path.to_string_lossy().into_owned(), _folder: folder })
    }
}

/// Writes a model; the weights of a large one into a second file.
fn save(model: &Model, path: &Path) -> anyhow::Result<()> {
    let weights = Random::seeded(SEED);
    let mut file = BufWriter::new(File::create(path)?);
    if model.bytes() <= MAX_BYTES {
        model.write(&weights, &mut file)?;
    } else {
        let mut data = BufWriter::new(File::create(path.with_extension("onnx.data"))?);
        model.write_apart(&weights, &mut file, "work.onnx.data", &mut data)?;
        data.into_inner().context("writing the end of the weights")?;
    }
    file.into_inner().context("writing the end of the file")?;
    Ok(())
}

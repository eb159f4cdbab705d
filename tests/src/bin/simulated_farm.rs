//! Many simulated agents in one process against a running coordinator: how much it takes, and what breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use latlas_client::{Client, ClientError};
use latlas_shared::HardwareId;
use latlas_shared::api::{ProfileRequest, RequestStatus, Results, ResultsAnswer};
use latlas_tests::simulated::{Simulated, keys};
use ops_catalog::SpaceDef;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, Notify};
use uuid::Uuid;

#[derive(Parser)]
#[command(
    about = "Simulated agents, with made-up measurements, against a real coordinator",
    after_help = "Example:\n  simulated_farm load --coordinator http://127.0.0.1:8700 --agents 5000 --seconds 60"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Agents that live: heartbeats, leases and results, for a stated time
    Load(Load),
    /// Results alone, as fast as they are acknowledged
    Ingest(Ingest),
}

#[derive(Args)]
struct FarmArguments {
    /// Address of the coordinator
    #[arg(long, env = "LATLAS_COORDINATOR")]
    coordinator: String,
    /// Token to enrol with
    #[arg(long, env = "LATLAS_ENROLL_TOKEN", hide_env_values = true)]
    enroll_token: String,
    /// Number of agents
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    agents: u32,
    /// Classes of devices that they belong to
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    classes: u32,
    /// Keys of each class's table
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    keys: u32,
    /// What the made-up numbers come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct Load {
    #[command(flatten)]
    farm: FarmArguments,
    /// A researcher's token, to ask for measurements with
    #[arg(long, env = "LATLAS_TOKEN", hide_env_values = true)]
    token: String,
    /// How long it lasts
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Ends it as soon as the keys of each class are measured and each agent has had an answer to a
    /// heartbeat
    #[arg(long)]
    once: bool,
    /// Seconds between two heartbeats of an agent
    #[arg(long, default_value_t = 10.0)]
    heartbeat: f64,
    /// Tasks of one lease
    #[arg(long, default_value_t = 4)]
    lease_tasks: u32,
    /// Streams of the events of requests that are read meanwhile
    #[arg(long, default_value_t = 0)]
    streams: usize,
    /// How long an agent is busy with one lease, in seconds: the mean of times from half to one and a half of it
    #[arg(long, default_value_t = 30.0)]
    work: f64,
}

#[derive(Args)]
struct Ingest {
    #[command(flatten)]
    farm: FarmArguments,
    /// Calls in all
    #[arg(long, default_value_t = 100)]
    batches: u32,
    /// Measurements of each call
    #[arg(long, default_value_t = 100)]
    batch: u32,
    /// Calls at once
    #[arg(long, default_value_t = 4)]
    at_once: usize,
}

/// Enrolments at once.
const ENROL_AT_ONCE: usize = 16;

/// How long an idle agent waits for a lease, in seconds, as the real agent does.
const LEASE_WAIT: u32 = 20;

fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Load(arguments) => load(arguments).await,
            Command::Ingest(arguments) => ingest(arguments).await,
        }
    })
}

async fn enrol(farm: &FarmArguments) -> Result<Vec<Simulated>> {
    let client = Client::new(&farm.coordinator, Some(farm.enroll_token.clone()))?;
    let agents = stream::iter(0..farm.agents)
        .map(|number| enrol_patiently(&client, number % farm.classes, number, farm.seed))
        .buffered(ENROL_AT_ONCE)
        .try_collect()
        .await?;
    Ok(agents)
}

/// A coordinator limits the rate of one token.
async fn enrol_patiently(
    client: &Client,
    class: u32,
    number: u32,
    seed: u64,
) -> Result<Simulated, ClientError> {
    loop {
        match Simulated::enrol(client, class, number, seed).await {
            Err(error) if error.status() == Some(429) => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            done => return done,
        }
    }
}

/// Measurements are created and written as JSON before the clock starts, because the coordinator does not do this work.
async fn ingest(arguments: Ingest) -> Result<()> {
    let Ingest { farm, batches, batch, at_once } = arguments;
    let agents = enrol(&farm).await?;
    let keys = keys(farm.keys);
    let mut rng = fastrand::Rng::with_seed(farm.seed);
    let mut bodies = Vec::new();
    for number in 0..batches {
        let sender = number as usize % agents.len();
        let measurements: Vec<_> =
            (0..batch).map(|_| agents[sender].answer_key(&keys[rng.usize(..keys.len())])).collect();
        let body = serde_json::to_string(&Results { measurements, ..Results::default() })?;
        bodies.push((agents[sender].client().clone(), RawValue::from_string(body)?));
    }
    let started = Instant::now();
    let stored: u64 = stream::iter(bodies)
        .map(|(client, body)| async move {
            let answer: ResultsAnswer = client.post("v1/results", &body).await?;
            Ok::<u64, ClientError>(answer.stored.into())
        })
        .buffer_unordered(at_once)
        .try_fold(0, |sum, stored| async move { Ok(sum + stored) })
        .await?;
    let seconds = started.elapsed().as_secs_f64();
    let sent = u64::from(batches) * u64::from(batch);
    ensure!(stored == sent, "{sent} measurements were sent, and {stored} were stored");
    println!("{}", serde_json::json!({"measurements": stored, "seconds": seconds}));
    Ok(())
}

/// The combined observations of the agents of a load.
#[derive(Default)]
struct Seen {
    heartbeats: Mutex<Vec<Duration>>,
    /// The time until each batch of results was acknowledged.
    commits: Mutex<Vec<Duration>>,
    /// The last request for each class.
    requests: Mutex<BTreeMap<String, Uuid>>,
    events: AtomicU64,
    leases: AtomicU64,
    tasks: AtomicU64,
    renewals: AtomicU64,
    results: AtomicU64,
    /// Classes whose keys have all been measured.
    finished: Mutex<BTreeSet<HardwareId>>,
    /// Notified when a class is finished or a heartbeat is answered.
    changed: Notify,
    errors: Mutex<BTreeMap<String, u64>>,
    over: AtomicBool,
}

impl Seen {
    async fn note<T>(&self, what: &str, answer: Result<T, ClientError>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            // A call that is cut off at the end of the run is not an error.
            Err(_) if self.over.load(Ordering::Relaxed) => None,
            Err(error) => {
                let text = format!("{what}: {error}");
                *self.errors.lock().await.entry(text).or_default() += 1;
                None
            }
        }
    }

    /// Waits until the keys of this many classes are measured and this many heartbeats are answered.
    async fn once(&self, classes: usize, heartbeats: usize) {
        while self.finished.lock().await.len() < classes
            || self.heartbeats.lock().await.len() < heartbeats
        {
            // A change between the check and the wait leaves a permit, which ends the wait at once.
            self.changed.notified().await;
        }
    }

    async fn summary(&self, seconds: f64) -> serde_json::Value {
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        serde_json::json!({
            "seconds": seconds,
            "heartbeats": self.heartbeats.lock().await.len(),
            "heartbeat_ms": quantiles(&self.heartbeats.lock().await),
            "results_ms": quantiles(&self.commits.lock().await),
            "events": count(&self.events),
            "leases": count(&self.leases),
            "tasks": count(&self.tasks),
            "renewals": count(&self.renewals),
            "results": count(&self.results),
            "errors": *self.errors.lock().await,
        })
    }
}

/// In milliseconds; null if there are no times.
fn quantiles(times: &[Duration]) -> serde_json::Value {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_unstable_by(f64::total_cmp);
    let quantile = |q: f64| times.get((q * (times.len().saturating_sub(1)) as f64) as usize);
    serde_json::json!({"p50": quantile(0.5), "p99": quantile(0.99), "max": quantile(1.0)})
}

async fn load(arguments: Load) -> Result<()> {
    let agents = enrol(&arguments.farm).await?;
    let researcher = Client::new(&arguments.farm.coordinator, Some(arguments.token.clone()))?;
    let classes: BTreeSet<HardwareId> =
        agents.iter().map(|agent| agent.enrolled().hardware_id.clone()).collect();
    eprintln!("{} agents of {} classes are in", agents.len(), classes.len());
    let arguments = Arc::new(arguments);
    let seen = Arc::new(Seen::default());
    let mut tasks = tokio::task::JoinSet::new();
    let expected = (classes.len(), agents.len());
    for agent in agents {
        tasks.spawn(live(agent, Arc::clone(&arguments), Arc::clone(&seen)));
    }
    let started = Instant::now();
    for hardware_id in classes {
        let request = ProfileRequest {
            hardware_id,
            config: None,
            space: None,
            definition: Some(SpaceDef {
                name: "simulated".into(),
                doc: String::new(),
                ops: Vec::new(),
                grids: Vec::new(),
                keys: keys(arguments.farm.keys),
                networks: Vec::new(),
            }),
            networks: Vec::new(),
            calibrate: 0,
            sustained: false,
            remeasure: true,
        };
        tasks.spawn(ask(researcher.clone(), request, Arc::clone(&seen)));
    }
    for number in 0..arguments.streams {
        tasks.spawn(watch(researcher.clone(), number, Arc::clone(&seen)));
    }
    let enough = async {
        match arguments.once {
            true => seen.once(expected.0, expected.1).await,
            false => std::future::pending().await,
        }
    };
    // It ends after its time, if not before.
    let _ = tokio::time::timeout(Duration::from_secs(arguments.seconds), enough).await;
    seen.over.store(true, Ordering::Relaxed);
    let summary = seen.summary(started.elapsed().as_secs_f64()).await;
    tasks.shutdown().await;
    println!("{summary}");
    Ok(())
}

/// Keeps a class of devices busy: finished keys are requested again.
async fn ask(client: Client, request: ProfileRequest, seen: Arc<Seen>) {
    loop {
        let asked = client.post::<_, RequestStatus>("v1/requests", &request).await;
        let Some(asked) = seen.note("asking", asked).await else {
            tokio::time::sleep(Duration::from_secs(5)).await;
            continue;
        };
        seen.requests.lock().await.insert(asked.hardware_id.to_string(), asked.id);
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let status = client.get::<RequestStatus>(&format!("v1/requests/{}", asked.id)).await;
            if seen.note("asking", status).await.is_some_and(|status| status.is_finished()) {
                seen.finished.lock().await.insert(request.hardware_id.clone());
                seen.changed.notify_one();
                break;
            }
        }
    }
}

/// Reads the events of the last request for one of the classes, one request after the other.
async fn watch(client: Client, number: usize, seen: Arc<Seen>) {
    loop {
        let request = {
            let requests = seen.requests.lock().await;
            requests.values().nth(number % requests.len().max(1)).copied()
        };
        if let Some(id) = request {
            let opened = client.get_raw(&format!("v1/requests/{id}/events")).await;
            if let Some(mut events) = seen.note("events", opened).await {
                // The stream ends with its request, or with the coordinator.
                while let Ok(Some(_)) = events.chunk().await {
                    seen.events.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// One agent: a heartbeat at its interval, independent of its other work, and one lease after the other.
async fn live(agent: Simulated, arguments: Arc<Load>, seen: Arc<Seen>) {
    // Agents that start together must not send heartbeats at the same time.
    tokio::time::sleep(Duration::from_secs_f64(arguments.heartbeat * fastrand::f64())).await;
    let held = Mutex::new(None);
    tokio::select! {
        () = beat(&agent, &arguments, &seen, &held) => {}
        () = work(&agent, &arguments, &seen, &held) => {}
    }
}

/// Heartbeats, each with the renewal of the lease, as the real agent sends them.
async fn beat(agent: &Simulated, arguments: &Load, seen: &Seen, held: &Mutex<Option<Uuid>>) {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(arguments.heartbeat));
    loop {
        ticks.tick().await;
        // Locked during the renewal, so that the lease is not released meanwhile.
        let lease = held.lock().await;
        if let Some(lease) = *lease
            && seen.note("renewal", agent.renew(lease).await).await.is_some()
        {
            seen.renewals.fetch_add(1, Ordering::Relaxed);
        }
        let leases = lease.iter().copied().collect();
        drop(lease);
        let started = Instant::now();
        if seen.note("heartbeat", agent.beat(leases).await).await.is_some() {
            seen.heartbeats.lock().await.push(started.elapsed());
            seen.changed.notify_one();
        }
    }
}

async fn work(agent: &Simulated, arguments: &Load, seen: &Seen, held: &Mutex<Option<Uuid>>) {
    loop {
        let lease = seen.note("lease", agent.lease(arguments.lease_tasks, LEASE_WAIT).await).await;
        let Some(answer) = lease else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let Some(lease) = answer else { continue };
        seen.leases.fetch_add(1, Ordering::Relaxed);
        seen.tasks.fetch_add(lease.tasks.len() as u64, Ordering::Relaxed);
        *held.lock().await = Some(lease.id);
        tokio::time::sleep(Duration::from_secs_f64(arguments.work * (0.5 + fastrand::f64()))).await;
        *held.lock().await = None;
        let measurements: Vec<_> = lease.tasks.iter().map(|t| agent.answer(t)).collect();
        let started = Instant::now();
        let answer = seen.note("results", agent.report(measurements).await).await;
        let stored = answer.map_or(0, |answer| answer.stored);
        if stored > 0 {
            seen.commits.lock().await.push(started.elapsed());
        }
        seen.results.fetch_add(stored.into(), Ordering::Relaxed);
        seen.note("release", agent.release(lease.id).await).await;
    }
}

//! The real programs, and how they are killed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use latlas_client::Client;
use latlas_coordinator::DATABASE;
use latlas_shared::api::RequestStatus;
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use super::Plan;
use crate::proxy::Proxy;
use crate::{program, run, synthetic};

/// A coordinator that is killed and restarts at the same address.
pub struct Coordinator {
    process: Child,
    data: PathBuf,
    lease_seconds: u32,
    /// Its listening address.
    pub address: SocketAddr,
}

impl Coordinator {
    /// Starts a coordinator and waits until it listens.
    pub fn start(data: &Path, lease_seconds: u32) -> Coordinator {
        // The port stays free for the next moment, too.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = serve(data, address, lease_seconds);
        Coordinator { process, data: data.to_owned(), lease_seconds, address }
    }

    /// The path of its database.
    pub fn database(&self) -> PathBuf {
        self.data.join(DATABASE)
    }

    /// A new token.
    pub fn token(&self, role: &str) -> String {
        let mut command = Command::new(program("latlas-coordinator"));
        command.args(["token", "create", "--role", role, "--data"]).arg(&self.data);
        run(&mut command).ok().trim().to_owned()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.process = serve(&self.data, self.address, self.lease_seconds);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        send_signal(self.process.id(), signal);
    }

    /// Copies the files on disk, as a dead process leaves them, if this one is dead or stopped.
    pub fn copy_files(&self, dir: &Path, number: usize) -> PathBuf {
        let folder = dir.join("copies").join(number.to_string());
        fs::create_dir_all(&folder).unwrap();
        for end in ["", "-wal"] {
            let name = format!("{DATABASE}{end}");
            if self.data.join(&name).exists() {
                fs::copy(self.data.join(&name), folder.join(&name)).unwrap();
            }
        }
        folder.join(DATABASE)
    }

    /// Asks it to end; returns whether it ended cleanly.
    pub fn stop(&mut self) -> bool {
        self.signal("-TERM");
        self.process.wait().unwrap().success()
    }

    /// `latlas-coordinator rebuild`.
    pub fn rebuild(&self) {
        run(Command::new(program("latlas-coordinator"))
            .args(["rebuild", "--data"])
            .arg(&self.data))
        .ok();
    }

    /// Requests everything that the plan measures, and returns the number of requests.
    pub async fn ask(&self, plan: &Plan, boxes: &[RealBox]) -> usize {
        let client =
            Client::new(&format!("http://{}", self.address), Some(self.token("researcher")))
                .unwrap();
        let mut asked = 0;
        for memory in super::simulated::CLASSES {
            let hardware = synthetic::fingerprint(memory).hardware_id();
            let body = json!({
                "hardware_id": hardware,
                "definition": {"name": "simulated", "keys": keys(plan.simulated_keys)},
            });
            client.post::<_, RequestStatus>("v1/requests", &body).await.unwrap();
            asked += 1;
        }
        let mut known = BTreeSet::new();
        for identity in boxes.iter().filter_map(RealBox::identity) {
            let [hardware, config] =
                ["hardware_id", "run_config"].map(|field| identity[field].clone());
            if known.insert(config.to_string()) {
                let body = json!({
                    "hardware_id": hardware,
                    "config": config,
                    "definition": {"name": "real", "keys": keys(plan.real_keys)},
                });
                client.post::<_, RequestStatus>("v1/requests", &body).await.unwrap();
                asked += 1;
            }
        }
        asked
    }
}

/// This many small keys.
fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("Conv1x1:n1-h{}-w4-i{}-o4-s1", 4 + n % 40, 1 + n / 40)).collect()
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It has ended already, unless a test has failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(data: &Path, address: SocketAddr, lease_seconds: u32) -> Child {
    let log = data.with_extension("log");
    let mut process = Command::new(program("latlas-coordinator"))
        // Values are made up, and the machine is busy, so neither is evidence about a box.
        .args([
            "serve",
            "--canary-every",
            "0",
            "--rate",
            "100000",
            "--listen",
            &address.to_string(),
        ])
        .args(["--lease-seconds", &lease_seconds.to_string(), "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(File::options().create(true).append(true).open(log).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "the coordinator does not start: {line}");
    process
}

fn send_signal(process: u32, signal: &str) {
    Command::new("kill").args([signal, &process.to_string()]).status().unwrap();
}

/// Adds bytes to the end of a file.
pub fn append(file: &Path, bytes: &[u8]) {
    File::options().create(true).append(true).open(file).unwrap().write_all(bytes).unwrap();
}

/// Run configs of the real agents: each has a table of its own.
const CONFIGS: [&[&str]; 2] =
    [&["--memory-format", "contiguous"], &["--memory-format", "channels_last"]];

/// A real agent.
pub struct RealBox {
    process: Option<Child>,
    state: PathBuf,
    config: &'static [&'static str],
    coordinator: String,
    token: String,
    /// When it is to be restarted.
    back_at: Instant,
    /// Ids that were seen in its spool.
    seen: BTreeSet<Uuid>,
}

impl RealBox {
    /// Starts all real agents, and waits until they are enrolled.
    pub async fn start_all(
        plan: &Plan,
        dir: &Path,
        proxy: &Proxy,
        coordinator: &Coordinator,
    ) -> Vec<RealBox> {
        let token = coordinator.token("enroll");
        let mut boxes = Vec::new();
        for (index, config) in CONFIGS.into_iter().cycle().take(2 * plan.real).enumerate() {
            let mut real = RealBox {
                process: None,
                state: dir.join(format!("agent-{index}")),
                config,
                coordinator: format!("http://{}", proxy.address),
                token: token.clone(),
                back_at: Instant::now(),
                seen: BTreeSet::new(),
            };
            real.start();
            boxes.push(real);
        }
        let deadline = Instant::now() + Duration::from_secs(600);
        while boxes.iter().any(|each| each.identity().is_none()) {
            assert!(Instant::now() < deadline, "the agents do not enrol: {}", boxes[0].said());
            sleep(Duration::from_millis(50)).await;
        }
        boxes
    }

    fn start(&mut self) {
        fs::create_dir_all(&self.state).unwrap();
        let log = File::create(self.state.join("log")).unwrap();
        let mut command = Command::new(program("latlas-agent"));
        command
            .args(["run", "--busy-limit", "100", "--coordinator", &self.coordinator, "--state"])
            .arg(&self.state)
            .args(self.config)
            .env("LATLAS_ENROLL_TOKEN", &self.token)
            .stdout(Stdio::null())
            .stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    fn said(&self) -> String {
        fs::read_to_string(self.state.join("log")).unwrap_or_default()
    }

    /// Its enrolled identity.
    pub fn identity(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&fs::read_to_string(self.state.join("identity.json")).ok()?).ok()
    }

    fn spool(&self, folder: &str) -> BTreeSet<Uuid> {
        let Ok(entries) = fs::read_dir(self.state.join(folder)) else { return BTreeSet::new() };
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.flatten().filter_map(|e| name(e).strip_suffix(".json")?.parse().ok()).collect()
    }

    /// Records the contents of its spool.
    pub fn look(&mut self) {
        let seen = self.spool("spool");
        self.seen.extend(seen);
    }

    /// Whether everything that it measured is acknowledged or refused.
    pub fn is_empty(&self) -> bool {
        self.spool("spool").is_empty()
    }

    /// The refused measurements that it keeps.
    pub fn refused(&self) -> BTreeSet<Uuid> {
        self.spool("refused")
    }

    /// The measurements that it has deleted, so that the coordinator must have them.
    pub fn acknowledged(&self) -> BTreeSet<Uuid> {
        let kept: BTreeSet<Uuid> = &self.spool("spool") | &self.refused();
        &self.seen - &kept
    }

    /// kill -9; returns whether it was running.
    pub fn kill(&mut self) -> bool {
        let Some(mut process) = self.process.take() else { return false };
        process.kill().unwrap();
        process.wait().unwrap();
        self.back_at = Instant::now() + Duration::from_millis(500);
        true
    }

    /// kill -9 of its worker processes; returns their number.
    pub fn kill_workers(&mut self) -> usize {
        let Some(process) = &self.process else { return 0 };
        let tasks = fs::read_dir(format!("/proc/{}/task", process.id()));
        let children = tasks
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|text| {
                text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()
            })
            .collect();
        children.iter().for_each(|&child| send_signal(child, "-KILL"));
        children.len()
    }

    /// Restarts it when it is time to; returns its output if it ended without being killed.
    pub fn restart(&mut self, rng: &mut fastrand::Rng) -> Option<String> {
        let mut gave_up = None;
        if let Some(process) = &mut self.process
            && let Some(status) = process.try_wait().unwrap()
        {
            gave_up = Some(format!("{status}: {}", self.said()));
            self.process = None;
            self.back_at = Instant::now() + Duration::from_millis(rng.u64(100..1_000));
        }
        if self.process.is_none() && Instant::now() >= self.back_at {
            self.start();
        }
        gave_up
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.kill();
    }
}

impl Drop for RealBox {
    fn drop(&mut self) {
        self.kill();
    }
}

//! The agent's side of a worker process: start, send requests, wait with a deadline, kill.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use latlas_shared::FailureKind;

use super::protocol::{Pass, Reply, VisitRequest, Visited, Work};
use super::{Worker, WorkerSettings};
use crate::system::energy::Busy;

/// How long a worker may take to load libtorch and answer.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Why a visit returned no samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The work cannot be run; a retry would not help.
    Refused(String),
    /// The worker died. The work may be the cause, or something else.
    Died(String),
    /// The worker did not answer in time and was killed.
    Hung {
        /// The time that it had.
        limit: Duration,
        /// What it is in messages.
        worker: String,
    },
}

impl Fault {
    /// The kind of failure, which distinguishes faults of this box from faults of the work.
    pub fn kind(&self) -> FailureKind {
        match self {
            // libtorch reports errors only as text.
            Fault::Refused(reason) => FailureKind::from_words(reason),
            Fault::Died(_) => FailureKind::WorkerDied,
            Fault::Hung { .. } => FailureKind::TimedOut,
        }
    }
}

impl std::error::Error for Fault {}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Refused(reason) => f.write_str(reason),
            Fault::Died(how) => write!(f, "the worker process {how}"),
            Fault::Hung { limit, worker } => {
                let seconds = limit.as_secs_f64();
                write!(f, "{worker} did not return within {seconds:.0} s and was killed")
            }
        }
    }
}

/// A running worker.
pub struct WorkerProcess {
    child: Child,
    requests: ChildStdin,
    replies: Receiver<String>,
}

impl WorkerProcess {
    /// Starts a worker and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started or cannot apply its settings.
    pub fn start(settings: &WorkerSettings) -> Result<WorkerProcess> {
        let program = std::env::current_exe().context("finding this program again")?;
        let threads = settings.threads.to_string();
        let mut child = Command::new(program)
            .args(["worker", &serde_json::to_string(settings)?])
            // libtorch's OpenMP reads this variable when it is loaded, before the worker's main
            // function.
            .env("OMP_NUM_THREADS", &threads)
            // Ctrl-C at a terminal goes only to the agent, and the agent ends its workers itself.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("starting a worker process")?;
        let requests = child.stdin.take().context("the worker's standard input")?;
        let stdout = child.stdout.take().context("the worker's standard output")?;
        let (sender, replies) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut worker = WorkerProcess { child, requests, replies };
        match worker.receive(START_LIMIT) {
            Ok(Reply::Ready) => Ok(worker),
            Ok(_) => anyhow::bail!("the worker answered before it was asked"),
            Err(fault) => anyhow::bail!("starting a worker: {fault}"),
        }
    }

    fn ask(&mut self, request: &VisitRequest, limit: Duration) -> Result<Visited, Fault> {
        let line = serde_json::to_string(request).expect("plain data serializes to JSON") + "\n";
        if self.requests.write_all(line.as_bytes()).and_then(|()| self.requests.flush()).is_err() {
            return Err(self.died());
        }
        match self.receive(limit)? {
            Reply::Visited(visited) => Ok(visited),
            Reply::Refused { reason } => Err(Fault::Refused(reason)),
            Reply::Ready => Err(Fault::Died("started twice".into())),
        }
    }

    fn receive(&mut self, limit: Duration) -> Result<Reply, Fault> {
        let deadline = Instant::now() + limit;
        match self.replies.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => serde_json::from_str(&line)
                .map_err(|e| Fault::Died(format!("answered something else than a reply: {e}"))),
            Err(RecvTimeoutError::Disconnected) => Err(self.died()),
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                Err(Fault::Hung { limit, worker: "it".to_owned() })
            }
        }
    }

    fn died(&mut self) -> Fault {
        // Its output is closed, so it is ending. Killing it ensures that the wait does not hang.
        match self.child.try_wait() {
            Ok(Some(status)) => Fault::Died(format!("ended with {status}")),
            _ => {
                thread::sleep(Duration::from_millis(50));
                let status = self.child.try_wait();
                self.kill();
                match status {
                    Ok(Some(status)) => Fault::Died(format!("ended with {status}")),
                    _ => Fault::Died("closed its output".into()),
                }
            }
        }
    }

    fn kill(&mut self) {
        // Both fail only if the process has already ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker for WorkerProcess {
    fn visit(&mut self, work: &Work, passes: &[Pass], limit: Duration) -> Result<Visited, Fault> {
        let passes = passes.to_vec();
        self.ask(&VisitRequest { work: work.clone(), passes, busy_seconds: None }, limit)
    }

    fn keep_busy(
        &mut self,
        work: &Work,
        seconds: f64,
        limit: Duration,
    ) -> Result<Option<Busy>, Fault> {
        let work = work.clone();
        let request = VisitRequest { work, passes: vec![], busy_seconds: Some(seconds) };
        Ok(self.ask(&request, limit + Duration::from_secs_f64(seconds))?.busy)
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

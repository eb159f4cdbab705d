//! A command's process: start, ask, wait with a deadline, kill.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::protocol::{Hello, Reply, Request, shown};
use super::{Configured, RuntimeError};
use crate::worker::pin;

/// How long a command may take to say hello, and to start.
pub const START_LIMIT: Duration = Duration::from_secs(120);

/// How long a person waits for that before being told.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest reply, in bytes. The samples of a visit take a few hundred.
const MOST_BYTES: u64 = 1 << 20;

/// Replies that are kept while nobody reads them. One more than there can be, so that another is noticed.
const MOST_REPLIES: usize = 2;

/// A line that a command wrote.
enum Line {
    Text(Vec<u8>),
    TooLong,
}

/// Ends the process group of a command when this process ends, however it ends: then the pipe to the guard closes.
struct Guard(Child);

impl Guard {
    /// Guards the group of a process.
    fn of(group: u32) -> io::Result<Guard> {
        Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -s KILL -- \"-$0\"", &group.to_string()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Guard)
    }

    /// Ends the guard, and not what it guards.
    fn end(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running command.
pub struct Process {
    /// The runtime, for people.
    name: String,
    child: Child,
    guard: Guard,
    requests: ChildStdin,
    lines: Receiver<Line>,
}

impl Process {
    /// Starts a command on some processors; on all if none are given.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        configured: &Configured,
        cpus: Vec<usize>,
        threads: u32,
    ) -> Result<Process, RuntimeError> {
        let mut command = Command::new(&configured.command[0]);
        command
            .args(&configured.command[1..])
            // Runtimes with OpenMP read this variable when they are loaded.
            .env("OMP_NUM_THREADS", threads.to_string())
            // Ctrl-C at a terminal goes only to the agent, and killing the group also ends what the command started.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let failed = |source: io::Error| RuntimeError::Start {
            program: shown(&configured.command[0]),
            source,
        };
        let mut child = spawn_on(command, cpus).map_err(failed)?;
        let guard = Guard::of(child.id()).map_err(failed)?;
        let no_pipe = || failed(io::Error::other("it has no standard streams"));
        let requests = child.stdin.take().ok_or_else(no_pipe)?;
        let stdout = child.stdout.take().ok_or_else(no_pipe)?;
        let (sender, lines) = mpsc::sync_channel(MOST_REPLIES);
        thread::spawn(move || read(stdout, &sender));
        Ok(Process { name: configured.to_string(), child, guard, requests, lines })
    }

    /// Id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the command says of itself.
    ///
    /// # Errors
    /// When it says something else, or nothing.
    pub fn hello(&mut self, limit: Duration) -> Result<Hello, RuntimeError> {
        match self.receive("hello", limit)? {
            Reply::Hello(hello) => Ok(hello),
            other => Err(wrong("hello", format!("it said `{}` first", other.word()))),
        }
    }

    /// Asks, and waits for the reply.
    ///
    /// # Errors
    /// When the request is refused, or there is no reply to it.
    pub fn ask(&mut self, request: &Request, limit: Duration) -> Result<Reply, RuntimeError> {
        let (asked, wanted) = request.words();
        match self.lines.try_recv() {
            Ok(Line::Text(line)) => {
                let text = shown(&String::from_utf8_lossy(&line));
                return Err(wrong(asked, format!("it wrote a line before it was asked: {text}")));
            }
            Ok(Line::TooLong) => return Err(too_long(asked)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        let line = serde_json::to_string(request).expect("plain data serializes to JSON") + "\n";
        if self.requests.write_all(line.as_bytes()).and_then(|()| self.requests.flush()).is_err() {
            return Err(self.ended());
        }
        match self.receive(asked, limit)? {
            Reply::Refused { reason } => Err(RuntimeError::Refused(shown(&reason))),
            reply if reply.word() == wanted => Ok(reply),
            other => {
                let problem = format!("it said `{}` instead of `{wanted}`", other.word());
                Err(wrong(asked, problem))
            }
        }
    }

    fn receive(&mut self, asked: &'static str, limit: Duration) -> Result<Reply, RuntimeError> {
        let received = if matches!(asked, "hello" | "start") {
            let tell = || {
                tracing::info!(
                    "{} has not answered `{asked}` yet; it has {} s",
                    self.name,
                    limit.as_secs()
                );
            };
            wait(&self.lines, limit, PATIENCE, tell)
        } else {
            self.lines.recv_timeout(limit)
        };
        match received {
            Ok(Line::Text(line)) => serde_json::from_slice(&line).map_err(|error| {
                let text = shown(&String::from_utf8_lossy(&line));
                wrong(asked, format!("`{text}` is no reply ({error})"))
            }),
            Ok(Line::TooLong) => Err(too_long(asked)),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
            Err(RecvTimeoutError::Timeout) => {
                self.kill();
                Err(RuntimeError::Silent { request: asked, limit })
            }
        }
    }

    /// Its output is closed, so it is ending.
    fn ended(&mut self) -> RuntimeError {
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return RuntimeError::Ended(how(status)),
                Ok(None) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                _ => {
                    self.kill();
                    return RuntimeError::Ended("closed its standard output".to_owned());
                }
            }
        }
    }

    fn kill(&mut self) {
        // The process has not been waited for, or this fails: its id belongs to no other process.
        if let (Ok(None), Ok(id)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            // It fails only if all of the group has ended.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
            let _ = self.child.wait();
        }
        // Afterwards the id can belong to another process.
        self.guard.end();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits up to `limit`, and tells so when `patience` is over.
fn wait<T>(
    lines: &Receiver<T>,
    limit: Duration,
    patience: Duration,
    tell: impl FnOnce(),
) -> Result<T, RecvTimeoutError> {
    match lines.recv_timeout(limit.min(patience)) {
        Err(RecvTimeoutError::Timeout) if patience < limit => {
            tell();
            lines.recv_timeout(limit - patience)
        }
        received => received,
    }
}

fn wrong(request: &'static str, problem: String) -> RuntimeError {
    RuntimeError::Wrong { request, problem }
}

fn too_long(request: &'static str) -> RuntimeError {
    wrong(request, format!("its line has more than {} KiB", MOST_BYTES >> 10))
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended with {status}"),
    }
}

/// Starts a command from a thread on these processors: a process inherits those of its parent.
fn spawn_on(mut command: Command, cpus: Vec<usize>) -> io::Result<Child> {
    if cpus.is_empty() {
        return command.spawn();
    }
    let spawned = thread::spawn(move || {
        pin(&cpus).map_err(|error| io::Error::other(format!("{error:#}")))?;
        command.spawn()
    });
    spawned.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
}

/// Passes on lines until the output ends, nobody reads them, or one is too long.
fn read(stdout: ChildStdout, lines: &SyncSender<Line>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match stdout.by_ref().take(MOST_BYTES + 1).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.len() as u64 > MOST_BYTES => {
                let _ = lines.send(Line::TooLong);
                return;
            }
            Ok(_) => {}
        }
        if lines.send(Line::Text(line)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    }

    /// The end of the agent closes the pipe to the guard, as here.
    #[test]
    fn what_a_command_started_ends_with_the_agent() {
        let mut child = sleeper();
        let mut guard = Guard::of(child.id()).unwrap();
        drop(guard.0.stdin.take());
        let done = guard.0.wait().unwrap();
        if !done.success() {
            child.kill().unwrap();
        }
        assert!(done.success(), "{done}");
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_long_wait_is_told_once() {
        let (sender, lines) = mpsc::sync_channel(1);
        let long = Duration::from_secs(600);
        let received = wait(&lines, long, Duration::from_millis(1), || sender.send(5).unwrap());
        assert_eq!(received, Ok(5));
        sender.send(6).unwrap();
        assert_eq!(wait(&lines, long, long, || panic!("it is there")), Ok(6));
        let (short, mut told) = (Duration::from_millis(2), 0);
        assert!(wait(&lines, short, short / 2, || told += 1).is_err());
        assert_eq!(told, 1);
    }

    #[test]
    fn a_guard_that_is_ended_ends_nothing_else() {
        let mut child = sleeper();
        Guard::of(child.id()).unwrap().end();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

//! Common parts of the end-to-end tests: the real binaries, a coordinator on a free port with its own data directory,
//! and commands whose output can be checked.

#![expect(clippy::unwrap_used, reason = "in a test, whatever is missing ends it")]

pub mod faults;
pub mod invariants;
pub mod proxy;
pub mod simulated;
pub mod simulation;
pub mod synthetic;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The path of one of the workspace's programs. For a test the program is built if it is not up to date. A program
/// finds the others in its own folder.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        if !folder.ends_with("deps") {
            return folder;
        }
        // A test runs from target/PROFILE/deps, below the programs of its profile.
        let folder = folder.parent().unwrap().to_owned();
        let profile = match folder.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        }
        .to_owned();
        let built = Command::new(env!("CARGO"))
            // With the same features as scripts/test, so that there is nothing to build.
            .args([
                "build",
                "--quiet",
                "--workspace",
                "--bins",
                "--all-features",
                "--profile",
                &profile,
            ])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .status()
            .unwrap();
        assert!(built.success(), "the programs do not build");
        folder
    });
    folder.join(name)
}

/// The agent, without memory of runs outside these tests.
pub fn agent() -> Command {
    let mut command = Command::new(program("latlas-agent"));
    static STATE: OnceLock<tempfile::TempDir> = OnceLock::new();
    command.env("XDG_STATE_HOME", STATE.get_or_init(|| tempfile::tempdir().unwrap()).path());
    command
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    fn new(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of a command that must have failed with this code, and must have printed no
    /// result and no panic.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
    }
}

/// A real coordinator on a free port, with the tokens of an agent, a researcher and an admin.
pub struct RealFarm {
    coordinator: Child,
    /// Address of the coordinator.
    pub url: String,
    /// The directory of all files, deleted at the end.
    pub dir: TempDir,
    researcher: String,
    enroll: String,
    admin: String,
}

impl RealFarm {
    /// Starts a coordinator and waits until it listens.
    pub fn start() -> RealFarm {
        RealFarm::start_with(|_| {})
    }

    /// The same, with other flags or variables.
    pub fn start_with(configure: impl FnOnce(&mut Command)) -> RealFarm {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        // Beyond a limit on file sizes its writes fail, as on a full disk, and it continues to run.
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(program("latlas-coordinator"))
            .args(["serve", "--canary-every", "0", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.path().join("coordinator.log")).unwrap());
        configure(&mut command);
        let mut coordinator = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(coordinator.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect("it says where").to_owned();
        let token = |role: &str| {
            let mut command = Command::new(program("latlas-coordinator"));
            command.args(["token", "create", "--role", role, "--data"]).arg(&data);
            run(&mut command).ok().trim().to_owned()
        };
        let [researcher, enroll, admin] = ["researcher", "enroll", "admin"].map(token);
        RealFarm { coordinator, url, dir, researcher, enroll, admin }
    }

    /// The database's folder.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `latlas` as a researcher.
    pub fn latlas(&self, args: &[&str]) -> Ran {
        run(&mut self.latlas_command(args))
    }

    /// The same, not yet run.
    pub fn latlas_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("latlas"));
        command
            .args(args)
            .env("LATLAS_COORDINATOR", &self.url)
            .env("LATLAS_TOKEN", &self.researcher)
            .current_dir(self.dir.path());
        command
    }

    /// `latlas profile` as a researcher, without calibration networks: tests that count tasks need no other tasks.
    pub fn profile(&self, hardware: &str, args: &[&str]) -> Ran {
        run(&mut self.profile_command(hardware, args))
    }

    /// The same, not yet run.
    pub fn profile_command(&self, hardware: &str, args: &[&str]) -> Command {
        let profile = ["profile", "--calibrate", "none", "--hardware", hardware];
        self.latlas_command(&[&profile, args].concat())
    }

    /// `latlas farm` as the farm's host.
    pub fn host(&self, args: &[&str]) -> Ran {
        run(self.latlas_command(&[&["farm"], args].concat()).env("LATLAS_TOKEN", &self.admin))
    }

    /// `latlas-agent run --once` on this machine, with the state of its last run.
    pub fn agent(&self) -> Ran {
        run(self.agent_command().arg("--once"))
    }

    /// `latlas-agent run` on this machine, with the state of its last run.
    pub fn agent_command(&self) -> Command {
        let mut command = Command::new(program("latlas-agent"));
        command
            // Other load on the machine must not matter.
            .args(["run", "--busy-limit", "100", "--coordinator", &self.url, "--state"])
            .arg(self.state())
            .env("LATLAS_ENROLL_TOKEN", &self.enroll);
        command
    }

    /// The agent's state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// All tokens that this farm gave to people.
    pub fn tokens(&self) -> [&str; 3] {
        [&self.researcher, &self.enroll, &self.admin]
    }

    /// Whether the coordinator's files may grow.
    pub fn disk_is_full(&self, full: bool) {
        let id = self.coordinator.id().to_string();
        let limit = if full { "--fsize=0:unlimited" } else { "--fsize=unlimited:unlimited" };
        assert!(Command::new("prlimit").args(["--pid", &id, limit]).status().unwrap().success());
    }

    /// Sends a signal to the coordinator.
    pub fn signal(&self, name: &str) {
        signal(&self.coordinator, name);
    }

    /// `simulated_farm` against this farm.
    pub fn simulate(&self, args: &[&str]) -> Ran {
        run(Command::new(program("simulated_farm"))
            .args(args)
            .env("LATLAS_COORDINATOR", &self.url)
            .env("LATLAS_ENROLL_TOKEN", &self.enroll)
            .env("LATLAS_TOKEN", &self.researcher))
    }

    /// Writes a file into the farm's folder and returns its name.
    pub fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.dir.path().join(name), text).unwrap();
        name.to_owned()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.coordinator.kill().unwrap();
        self.coordinator.wait().unwrap();
    }

    /// Asks the coordinator to end, and waits for it.
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.coordinator.wait().unwrap().code().unwrap()
    }
}

impl Drop for RealFarm {
    fn drop(&mut self) {
        // It has ended already if the test has stopped it.
        let _ = self.coordinator.kill();
        let _ = self.coordinator.wait();
    }
}

/// Sends a signal to a process that was started here.
pub fn signal(process: &Child, name: &str) {
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ran {
    Ran::new(command.stdin(Stdio::null()).output().unwrap())
}

/// Runs a command to its end, with this standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that needs no more input closes its end.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran::new(output)
}

/// Whether a JSON value is a latency: a finite number above zero. A test may not assert more about a measurement made
/// here, since the rest depends on the machine and its other load.
pub fn is_latency(value: &serde_json::Value) -> bool {
    value.as_f64().is_some_and(|micros| micros.is_finite() && micros > 0.0)
}

/// This machine's hardware id.
pub fn hardware_id() -> String {
    let probe = run(Command::new(program("latlas-agent")).args(["probe", "--json"])).ok();
    let probe: serde_json::Value = serde_json::from_str(&probe).unwrap();
    probe["hardware_id"].as_str().unwrap().to_owned()
}

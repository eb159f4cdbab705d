//! Who is there, with the real programs: boxes that stop, requests that wait for nobody, and the coordinator's files.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use latlas_tests::{RealFarm, hardware_id, program, run, signal};
use serde_json::Value;

const MANY: &str = "
name: many
grids:
  - {ops: [Conv3x3, Conv1x1], resolution: [28, 14, 7], c_in: [16, 32], c_out: [16, 32], stride: [1]}
";

/// A program that is ended with the test.
struct Running(Child);

impl Running {
    /// Starts it, and reads its stderr until it says something.
    #[track_caller]
    fn start(command: &mut Command, part: &str) -> (Running, BufReader<std::process::ChildStderr>) {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let running = Running(child);
        until(&mut said, part);
        (running, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where the test has waited for it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn until(said: &mut impl BufRead, part: &str) -> String {
    let mut all = String::new();
    while !all.contains(part) {
        assert!(said.read_line(&mut all).unwrap() > 0, "it never says `{part}`:\n{all}");
    }
    all
}

fn agents(farm: &RealFarm) -> Vec<Value> {
    let text = farm.latlas(&["farm", "agents", "--json"]).ok();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_box_that_stops_is_stopped_and_a_request_says_that_nobody_is_there() {
    let farm = RealFarm::start();
    let (mut agent, mut said) =
        Running::start(farm.agent_command().args(["--name", "lab 7"]), "takes work");
    signal(&agent.0, "TERM");
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
    let listed = agents(&farm);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"], &listed[0]["reason"]),
        (&"lab 7".into(), &"stopped".into(), &"it was told to stop on its box".into())
    );
    let status = farm.latlas(&["farm", "status"]).ok();
    assert!(status.contains("1 stopped") && status.contains("lab 7"), "{status}");

    // The wait says so at once, and ends when somebody else ends the request.
    let space = farm.file("space.yaml", MANY);
    let hardware = hardware_id();
    let mut command = farm.profile_command(&hardware, &["--space", &space, "--wait"]);
    let (mut wait, mut said) =
        Running::start(&mut command, "no agent works on it: the only agent of");
    let line = until(&mut said, "lab 7 (");
    assert!(line.contains("stopped for "), "{line}");
    let requests = farm.latlas(&["request", "list", "--json"]).ok();
    let request: Value = serde_json::from_str(requests.lines().next().unwrap()).unwrap();
    assert_eq!(request["unattended"]["boxes"][0]["name"], "lab 7");
    let id = &request["id"].as_str().unwrap()[..8];
    let ended = farm.latlas(&["request", "cancel", id]).ok();
    assert!(ended.contains("with 24 tasks left"), "{ended}");
    until(&mut said, "error: the request was cancelled");
    assert_eq!(wait.0.wait().unwrap().code(), Some(1));

    // It comes back under its name, with nothing to do, until it is taken out.
    farm.agent().ok();
    farm.host(&["name", "lab 7", "lab-7"]).ok();
    farm.host(&["label", "lab-7", "outlet=3"]).ok();
    let listed = agents(&farm);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["labels"]["outlet"]),
        (&"lab-7".into(), &"3".into())
    );
    farm.host(&["remove", &listed[0]["agent_id"].as_str().unwrap()[..6]]).ok();
    assert_eq!(agents(&farm), Vec::<Value>::new());
    let said = farm.agent().fails(1);
    assert!(said.contains("the credential of this agent was refused"), "{said}");
}

#[test]
fn a_box_takes_no_work_outside_of_its_hours() {
    let farm = RealFarm::start();
    let now = jiff::ZonedDateTime::now();
    let [from, to] = [2, 4].map(|hours| {
        let then = now.saturating_add(jiff::Span::new().hours(hours));
        then.strftime("%H:%M").to_string()
    });
    let hours = format!("{from}-{to}");
    let (_agent, mut said) =
        Running::start(farm.agent_command().args(["--hours", &hours]), "takes work");
    until(&mut said, &format!("no work now: it works from {from} to {to} only"));
    let listed = agents(&farm);
    assert!(listed[0].to_string().contains(&format!("works from {from} to {to}")), "{listed:?}");
    let refused = run(farm.agent_command().args(["--hours", "noon"]));
    assert!(refused.fails(2).contains("hours are written as FROM-TO"));
}

/// An agent at work hears with a heartbeat that its request was cancelled, and goes on without it.
#[test]
fn a_box_drops_the_work_of_a_cancelled_request() {
    let farm = RealFarm::start();
    farm.agent().ok();
    let space = farm.file("space.yaml", MANY);
    let hardware = hardware_id();
    farm.profile(&hardware, &["--space", &space]).ok();
    let (_agent, mut said) = Running::start(&mut farm.agent_command(), " with 24 tasks");
    let requests = farm.latlas(&["request", "list", "--json"]).ok();
    let request: Value = serde_json::from_str(requests.lines().next().unwrap()).unwrap();
    farm.latlas(&["request", "cancel", request["id"].as_str().unwrap()]).ok();
    until(&mut said, "is no longer ours: dropping its work");
}

#[test]
fn failed_commands_leave_no_directories_and_the_database_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let farm = RealFarm::start();
    let mode = std::fs::metadata(farm.data().join("latlas.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let home = tempfile::tempdir().unwrap();
    let coordinator = |arguments: &[&str]| {
        let mut command = Command::new(program("latlas-coordinator"));
        command.args(arguments).env("XDG_DATA_HOME", home.path()).current_dir(home.path());
        run(&mut command)
    };
    let address = farm.url.strip_prefix("http://").unwrap();
    for (arguments, part) in [
        (&["backup", "copy.db"][..], "there is no database at"),
        (&["token", "list"], "there is no database at"),
        (&["token", "create", "--role", "enroll"], "--data DIR"),
        (&["rebuild"], "there is no database at"),
        (&["serve", "--listen", address], "another program listens there"),
    ] {
        let said = coordinator(arguments).fails(1);
        assert!(said.contains(part), "{arguments:?}: {said}");
        let left = std::fs::read_dir(home.path()).unwrap().count();
        assert_eq!(left, 0, "{arguments:?} leaves something behind");
    }
    // A directory that is named is somebody's wish, and the risk is said.
    let made = coordinator(&["token", "create", "--role", "enroll", "--data", "mine"]);
    assert!(made.stderr.contains("there was no database in mine"), "{}", made.stderr);
    let token = made.ok();
    // Its token is refused elsewhere, with a hint.
    let mut command = farm.agent_command();
    let refused = run(command.arg("--once").env("LATLAS_ENROLL_TOKEN", token.trim())).fails(1);
    assert!(refused.contains("another data directory"), "{refused}");
}

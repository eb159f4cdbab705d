//! The real binary: what it prints, how it ends, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn coordinator(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latlas-coordinator"));
    command.args(arguments).arg("--data").arg(data);
    command
}

fn run(arguments: &[&str], data: &Path) -> Output {
    coordinator(arguments, data).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that is stopped when the test is over.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(data: &Path) -> Server {
        let mut process = coordinator(&["serve", "--listen", "127.0.0.1:0"], data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap().to_owned();
        Server { process, address }
    }

    /// Sends a call without a body, and reads what comes until the server closes the connection.
    fn call(&self, line: &str, token: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-length: 0\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_server_says_where_it_listens_and_is_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert!(server.call("GET /readyz", "").starts_with("HTTP/1.1 200"));
    let second = run(&["serve", "--listen", "127.0.0.1:0"], dir.path());
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another latlas-coordinator is serving"));
    let elsewhere = tempfile::tempdir().unwrap();
    let same_port = run(&["serve", "--listen", &server.address], elsewhere.path());
    assert_eq!(same_port.status.code(), Some(1));
    assert!(stderr(&same_port).contains("another program listens there"));
    assert_eq!(run(&["rebuild"], dir.path()).status.code(), Some(1));
}

#[test]
fn a_token_works_at_once_in_a_server_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let output = run(&["token", "create", "--role", "researcher"], dir.path());
    assert!(output.status.success());
    let token = String::from_utf8(output.stdout).unwrap();
    assert!(token.starts_with("latlas_researcher_") && token.lines().count() == 1);
    let call = |token: &str| server.call("POST /v1/requests", token.trim());
    assert!(call(&token).starts_with("HTTP/1.1 415"), "the token is taken, and the body is not");
    assert!(call("latlas_researcher_00").starts_with("HTTP/1.1 401"));
    let json = run(&["token", "create", "--role", "admin", "--json"], dir.path());
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["role"], "admin");
}

#[cfg(unix)]
#[test]
fn signals_stop_it_in_peace() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path());
        server.signal(signal);
        let started = Instant::now();
        assert_eq!(server.process.wait().unwrap().code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["serve", "--listen", "everywhere"][..],
        &["serve", "--listen", "0.0.0.0:0"],
        &["token", "create"],
        &["token", "create", "--role", "agent"],
        &["destroy"],
    ] {
        let output = run(arguments, &dir.path().join("data"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    assert!(!dir.path().join("data").exists(), "nothing is left behind");
}

#[test]
fn other_trouble_ends_with_1_and_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("latlas.db"), "no database. ".repeat(99)).unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0"], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("is not a database") && text.contains("--data DIR"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [&[][..], &["serve"], &["token"], &["token", "create"], &["rebuild"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_latlas-coordinator"))
            .args(command)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Example"), "{command:?}");
    }
}

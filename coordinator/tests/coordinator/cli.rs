//! The real binary: what it prints, how it ends, and what it refuses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

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
        Server::start_with(&["serve", "--listen", "127.0.0.1:0"], data)
    }

    fn start_with(arguments: &[&str], data: &Path) -> Server {
        let mut process = coordinator(arguments, data)
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
    assert_eq!(run(&["token", "revoke", "1"], dir.path()).status.code(), Some(0));
    assert!(call(&token).starts_with("HTTP/1.1 401"), "revoked at once");
}

#[test]
fn tokens_are_listed_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let create = |arguments: &str| {
        let words: Vec<&str> =
            "token create --json".split(' ').chain(arguments.split(' ')).collect();
        let output = run(&words, dir.path());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let enroll = create("--role enroll");
    assert_eq!(enroll["uses_left"], 100);
    assert!(enroll["expires_at"].is_string());
    let rack = create("--role enroll --label rack-3 --uses 4 --expires never");
    assert_eq!((&rack["id"], &rack["uses_left"]), (&2.into(), &4.into()));
    assert!(rack["expires_at"].is_null());
    let ada = create("--role researcher --label ada --expires 7d");
    let days = |token: &serde_json::Value| -> i64 {
        let end: jiff::Timestamp = token["expires_at"].as_str().unwrap().parse().unwrap();
        // The command itself took a moment.
        (end.duration_since(jiff::Timestamp::now()).as_hours() + 1) / 24
    };
    assert_eq!((days(&enroll), days(&ada)), (30, 7));

    let output = run(&["token", "revoke", "2"], dir.path());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "token 2 (enroll) is revoked\n");
    let missing = run(&["token", "revoke", "9"], dir.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("there is no token 9"), "{}", stderr(&missing));

    let list = run(&["token", "list"], dir.path());
    let text = String::from_utf8(list.stdout).unwrap();
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = text.lines().map(cells).collect();
    assert_eq!(lines[0][..4], ["ID", "ROLE", "LABEL", "STATE"]);
    assert_eq!(lines[2][..4], ["2", "enroll", "rack-3", "revoked"]);
    assert_eq!(lines[3][..5], ["3", "researcher", "ada", "in", "force"]);
    let json = run(&["token", "list", "--json"], dir.path());
    let json = String::from_utf8(json.stdout).unwrap();
    assert_eq!(json.lines().count(), 3);
    for token in [&enroll, &rack, &ada] {
        let secret = token["token"].as_str().unwrap().rsplit('_').next().unwrap();
        assert!(!text.contains(secret) && !json.contains(secret), "it is not shown again");
    }
}

#[test]
fn a_public_address_needs_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let refused = run(&["serve", "--listen", "0.0.0.0:0"], &dir.path().join("data"));
    assert_eq!(refused.status.code(), Some(2));
    let text = stderr(&refused);
    for way in ["--tls-cert", "--tls-key", "--behind-proxy", "--insecure-public"] {
        assert!(text.contains(way), "{text}");
    }
    for way in ["--behind-proxy", "--insecure-public"] {
        let mut server = Server::start_with(&["serve", "--listen", "0.0.0.0:0", way], dir.path());
        server.address = server.address.replace("0.0.0.0", "127.0.0.1");
        let answer = server.call("GET /v1/tables", "");
        assert!(answer.starts_with("HTTP/1.1 401"), "reading is not open then: {answer}");
    }
}

#[cfg(unix)]
#[test]
fn signals_stop_it_in_peace() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path());
        server.signal(signal);
        assert_eq!(server.process.wait().unwrap().code(), Some(0));
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
        &["token", "create", "--role", "admin", "--uses", "3"],
        &["token", "create", "--role", "enroll", "--uses", "0"],
        &["token", "create", "--role", "admin", "--expires", "soon"],
        &["token", "create", "--role", "admin", "--expires=-1d"],
        &["token", "create", "--role", "admin", "--expires", "19000y"],
        &["token", "create", "--role", "admin", "--label", "two\nlines"],
        &["token", "revoke"],
        &["token", "revoke", "one"],
        &["serve", "--tls-cert", "cert.pem"],
        &["serve", "--behind-proxy", "--tls-cert", "cert.pem", "--tls-key", "key.pem"],
        &["serve", "--rate", "0"],
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
    for command in [
        &[][..],
        &["serve"],
        &["token"],
        &["token", "create"],
        &["token", "list"],
        &["token", "revoke"],
        &["backup"],
        &["restore"],
        &["rebuild"],
        &["openapi"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_latlas-coordinator"))
            .args(command)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("Example"), "{command:?}");
    }
}

/// A body never ends: it must not keep a server that stops.
#[cfg(unix)]
#[test]
fn a_stop_waits_for_nobody_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut hanging = TcpStream::connect(&server.address).unwrap();
    write!(
        hanging,
        "POST /v1/results HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{{\"measurements\""
    )
    .unwrap();
    server.signal("TERM");
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_backup_is_restored_by_one_command() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backups) = (dir.path().join("data"), dir.path().join("backups"));
    std::fs::create_dir(&backups).unwrap();
    let server = Server::start(&data);
    let token = String::from_utf8(run(&["token", "create", "--role", "admin"], &data).stdout);
    let token = token.unwrap();
    let output = run(&["backup", backups.to_str().unwrap(), "--json"], &data);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = report["file"].as_str().unwrap();
    assert_eq!(report["bytes"], std::fs::metadata(file).unwrap().len());
    let over = run(&["restore", file], &data);
    assert_eq!(over.status.code(), Some(1));
    assert!(stderr(&over).contains("another latlas-coordinator is serving"), "{}", stderr(&over));
    drop(server);
    let over = run(&["restore", file], &data);
    assert_eq!(over.status.code(), Some(1));
    assert!(stderr(&over).contains("is not overwritten"), "{}", stderr(&over));

    let other = dir.path().join("other");
    let output = run(&["restore", file], &other);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("0 measurements"));
    // What was known before is known again.
    let restored = Server::start(&other);
    assert!(restored.call("POST /v1/requests", token.trim()).starts_with("HTTP/1.1 415"));
    let nothing = run(&["backup", backups.to_str().unwrap()], &dir.path().join("empty"));
    assert_eq!(nothing.status.code(), Some(1));
    assert!(stderr(&nothing).contains("there is no database at"), "{}", stderr(&nothing));
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_can_t_be_written_is_no_place_to_start() {
    // A file system that nobody may write to, whoever runs this.
    let output = run(&["serve", "--listen", "127.0.0.1:0"], Path::new("/sys/kernel"));
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("can't be written") && text.contains("--data DIR"), "{text}");
    assert!(output.stdout.is_empty());
}

//! How the programs behave as services: signals, the service manager, logs, a refused credential.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use latlas_tests::{RealFarm, hardware_id, run, signal};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::SqlitePool;

/// A whole lease of large ops: on any processor far from done at the agent's next heartbeat.
const MANY: &str = "
name: many
grids:
  - ops: [Conv3x3]
    resolution: [56]
    c_in: [128, 136, 144, 152, 160, 168, 176, 184]
    c_out: [128, 136, 144, 152, 160, 168, 176, 184]
";

/// Two ops that are large enough for something to happen to the coordinator before the first is measured.
const LARGE: &str = "
name: large
grids:
  - {ops: [Conv3x3], resolution: [56], c_in: [128], c_out: [128, 136]}
";

const FEW: &str = "
name: few
grids:
  - {ops: [Conv1x1], resolution: [4], c_in: [4], c_out: [4, 8], stride: [1]}
";

/// An agent that runs, and what it says.
struct Agent {
    process: Child,
    said: BufReader<ChildStderr>,
}

impl Agent {
    fn start(command: &mut Command) -> Agent {
        let mut process = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        Agent { process, said }
    }

    /// Waits until it says something.
    #[track_caller]
    fn says(&mut self, part: &str) -> String {
        let mut all = String::new();
        loop {
            let start = all.len();
            assert!(self.said.read_line(&mut all).unwrap() > 0, "it never says `{part}`:\n{all}");
            if all[start..].contains(part) {
                return all;
            }
        }
    }

    /// Its exit code, and the rest of what it says.
    fn ends(mut self) -> (Option<i32>, String) {
        let rest = std::io::read_to_string(&mut self.said).unwrap();
        (self.process.wait().unwrap().code(), rest)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already where the test has waited for it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A farm whose box is enrolled and has work.
fn farm_with_work(space: &str) -> RealFarm {
    // No lease ends since the machine is busy.
    let farm = RealFarm::start_with(|command| {
        command.args(["--lease-seconds", "3600"]);
    });
    farm.agent().ok();
    let space = farm.file("space.yaml", space);
    farm.profile(&hardware_id(), &["--space", &space]).ok();
    farm
}

async fn database(farm: &RealFarm) -> SqlitePool {
    let file = farm.data().join("latlas.db");
    SqlitePool::connect(&format!("sqlite:{}", file.display())).await.unwrap()
}

async fn number(pool: &SqlitePool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn an_agent_that_is_stopped_gives_its_tasks_back_at_once() {
    let farm = farm_with_work(MANY);
    for name in ["TERM", "INT"] {
        let mut agent = Agent::start(&mut farm.agent_command());
        agent.says(" tasks");
        let pool = database(&farm).await;
        assert_eq!(number(&pool, "SELECT count(*) FROM leases").await, 1);
        signal(&agent.process, name);
        let (code, said) = agent.ends();
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(number(&pool, "SELECT count(*) FROM leases").await, 0, "{said}");
        let counted = number(&pool, "SELECT count(*) FROM tasks WHERE attempts > 0").await;
        assert_eq!(counted, 0, "no attempt is counted");
        let waiting = number(&pool, "SELECT count(*) FROM tasks WHERE state = 'queued'").await;
        assert!(waiting > 0);
        assert_eq!(fs::read_dir(farm.state().join("spool")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_agent_at_once() {
    let farm = farm_with_work(MANY);
    let mut agent = Agent::start(&mut farm.agent_command());
    agent.says(" tasks");
    // It would wait for an answer now.
    farm.signal("STOP");
    signal(&agent.process, "TERM");
    agent.says("stopping");
    signal(&agent.process, "TERM");
    let (code, said) = agent.ends();
    assert_eq!(code, Some(1), "{said}");
    farm.signal("CONT");
}

#[test]
fn what_cannot_be_sent_waits_for_the_next_start() {
    let farm = farm_with_work(LARGE);
    let mut agent = Agent::start(&mut farm.agent_command());
    agent.says(" tasks");
    farm.signal("STOP");
    agent.says("[1/2]");
    signal(&agent.process, "TERM");
    let (code, said) = agent.ends();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("wait in"), "{said}");
    assert!(fs::read_dir(farm.state().join("spool")).unwrap().count() > 0);
    farm.signal("CONT");
    farm.agent().ok();
    assert_eq!(fs::read_dir(farm.state().join("spool")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(farm.state().join("refused")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_revoked_credential_stops_the_agent_and_keeps_its_spool() {
    let farm = farm_with_work(FEW);
    let spooled = farm.state().join("spool/00000000-0000-7000-8000-000000000000.json");
    fs::write(&spooled, "{\"format\": 1").unwrap();
    let pool = database(&farm).await;
    let revoke = "UPDATE tokens SET revoked_at = 1 WHERE role = 'agent'";
    sqlx::query(revoke).execute(&pool).await.unwrap();
    let said = farm.agent().fails(1);
    assert!(said.contains("the credential of this agent was refused"), "{said}");
    assert!(said.contains("identity.json") && said.contains("spool"), "{said}");
    // The damaged file is aside, and its content is where it was.
    let aside = farm.state().join("refused/00000000-0000-7000-8000-000000000000.json");
    assert_eq!(fs::read_to_string(aside).unwrap(), "{\"format\": 1");
}

/// The finest level, where libraries speak too.
#[test]
fn logs_hold_no_token_at_any_level() {
    let loud = |command: &mut Command| {
        command.env("LATLAS_LOG", "trace").args(["--log-format", "json"]);
    };
    let farm = RealFarm::start_with(loud);
    let mut agent = farm.agent_command();
    loud(&mut agent);
    let first = run(agent.arg("--once"));
    let space = farm.file("space.yaml", FEW);
    farm.profile(&hardware_id(), &["--space", &space]).ok();
    let second = run(&mut agent);
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{}", second.stderr);
    let identity = fs::read_to_string(farm.state().join("identity.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&identity).unwrap();
    let credential = identity["credential"].as_str().unwrap();
    let coordinator = fs::read_to_string(farm.dir.path().join("coordinator.log")).unwrap();
    for (name, log) in [("agent", first.stderr + &second.stderr), ("coordinator", coordinator)] {
        assert!(log.lines().count() > 20, "{name}: {log}");
        for line in log.lines() {
            let object: serde_json::Value = serde_json::from_str(line).expect(line);
            assert!(object["level"].is_string() && object["timestamp"].is_string(), "{line}");
        }
        for token in farm.tokens().into_iter().chain([credential]) {
            let secret = token.rsplit('_').next().unwrap();
            assert!(secret.len() > 20 && !log.contains(secret), "{name} logs a token");
        }
    }
}

#[test]
fn a_filter_that_is_none_is_named() {
    let mut command = Command::new(latlas_tests::program("latlas-coordinator"));
    let said = run(command.args(["rebuild"]).env("LATLAS_LOG", "a=b=c")).fails(2);
    assert!(said.contains("LATLAS_LOG is `a=b=c`"), "{said}");
}

#[test]
fn both_programs_tell_the_service_manager_how_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
    let hear = |expected: &str| {
        let mut buffer = [0; 100];
        loop {
            let length = manager.recv(&mut buffer).expect(expected);
            let text = std::str::from_utf8(&buffer[..length]).unwrap().trim_end();
            if text == expected {
                return;
            }
        }
    };
    let farm = RealFarm::start_with(|command| {
        command.env("NOTIFY_SOCKET", &socket);
    });
    hear("READY=1");
    // Fed by a sweep.
    hear("WATCHDOG=1");
    farm.signal("TERM");
    hear("STOPPING=1");

    let farm = RealFarm::start();
    run(farm.agent_command().arg("--once").env("NOTIFY_SOCKET", &socket)).ok();
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("STOPPING=1");
}

#[tokio::test]
async fn a_box_that_is_drained_finishes_its_lease_and_leaves() {
    let farm = farm_with_work(FEW);
    let mut agent = Agent::start(&mut farm.agent_command());
    agent.says(" tasks");
    farm.host(&["drain", &agent_id(&farm), "--reason", "new fans"]).ok();
    let (code, said) = agent.ends();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("new fans"), "{said}");
    let pool = database(&farm).await;
    let done = number(&pool, "SELECT count(*) FROM tasks WHERE state = 'done'").await;
    assert_eq!(done, 2, "{said}");
    assert_eq!(number(&pool, "SELECT count(*) FROM leases").await, 0);
    // It is let in again, finds nothing to do for as long as it is draining, and leaves.
    farm.profile(&hardware_id(), &["--space", "space.yaml", "--remeasure"]).ok();
    let mut again = Agent::start(&mut farm.agent_command());
    again.says("new fans");
    assert_eq!(again.ends().0, Some(0));
    assert_eq!(number(&pool, "SELECT count(*) FROM tasks WHERE state = 'queued'").await, 2);
    farm.host(&["release", &agent_id(&farm)]).ok();
    farm.agent().ok();
    assert_eq!(number(&pool, "SELECT count(*) FROM tasks WHERE state = 'queued'").await, 0);
}

#[tokio::test]
async fn a_box_in_quarantine_drops_its_work_and_goes_on_when_it_is_released() {
    let farm = farm_with_work(MANY);
    let mut agent = Agent::start(&mut farm.agent_command());
    agent.says(" tasks");
    farm.host(&["quarantine", &agent_id(&farm), "--reason", "its fan is dead"]).ok();
    agent.says("dropping its work");
    let pool = database(&farm).await;
    assert_eq!(number(&pool, "SELECT count(*) FROM leases").await, 0);
    assert_eq!(number(&pool, "SELECT count(*) FROM tasks WHERE attempts > 0").await, 0);
    assert!(number(&pool, "SELECT count(*) FROM tasks WHERE state = 'queued'").await > 0);
    agent.says("its fan is dead");
    farm.host(&["release", &agent_id(&farm)]).ok();
    agent.says(" tasks");
    signal(&agent.process, "TERM");
    let (code, said) = agent.ends();
    assert_eq!(code, Some(0), "{said}");
}

/// Of the only box.
fn agent_id(farm: &RealFarm) -> String {
    let identity = fs::read_to_string(farm.state().join("identity.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&identity).unwrap();
    identity["agent_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_coordinator_without_room_loses_nothing_and_goes_on_when_there_is_some() {
    let farm = farm_with_work(LARGE);
    let mut agent = Agent::start(&mut farm.agent_command());
    agent.says(" tasks");
    farm.disk_is_full(true);
    agent.says("the results are kept");
    let refused = farm.profile(&hardware_id(), &["--space", "quick"]).fails(1);
    assert!(refused.contains("nothing of this call was kept"), "{refused}");
    let pool = database(&farm).await;
    let stored = "SELECT count(*) FROM measurements";
    assert_eq!(number(&pool, stored).await, 0);
    farm.disk_is_full(false);
    let mut wait = farm.profile_command(&hardware_id(), &["--space", "space.yaml", "--wait"]);
    run(&mut wait).ok();
    assert_eq!(number(&pool, stored).await, 2);
    signal(&agent.process, "TERM");
    assert_eq!(agent.ends().0, Some(0));
}

#[tokio::test]
async fn an_agent_without_room_sends_what_it_cannot_keep() {
    let farm = farm_with_work(FEW);
    let mut command = Command::new("sh");
    let agent = farm.agent_command();
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""])
        .arg(agent.get_program())
        .args(agent.get_args())
        .arg("--once");
    let ran = run(&mut command);
    assert!(ran.stderr.contains("it is sent directly"), "{}", ran.stderr);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let pool = database(&farm).await;
    assert_eq!(number(&pool, "SELECT count(*) FROM measurements").await, 2);
    let done = number(&pool, "SELECT count(*) FROM tasks WHERE state = 'done'").await;
    assert_eq!(done, 2, "{}", ran.stderr);
}

/// Certificates on both sides, and all three programs.
#[test]
fn a_farm_works_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    fs::write(path("root.pem"), root.pem()).unwrap();
    for name in ["127.0.0.1", "box"] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &root).unwrap().pem();
        fs::write(path(&format!("{name}.pem")), certificate + &key.serialize_pem()).unwrap();
    }
    let (root, own) = (path("root.pem"), path("box.pem"));
    let farm = RealFarm::start_with(|command| {
        let server = path("127.0.0.1.pem");
        command.arg("--tls-cert").arg(&server).arg("--tls-key").arg(&server);
        command.arg("--client-ca").arg(&root);
    });
    assert!(farm.url.starts_with("https://"), "{}", farm.url);
    let over_tls = |command: &mut Command| {
        run(command.env("LATLAS_CA_FILE", &root).env("LATLAS_CLIENT_CERT", &own))
    };
    over_tls(farm.agent_command().arg("--once")).ok();
    let space = farm.file("space.yaml", FEW);
    over_tls(&mut farm.profile_command(&hardware_id(), &["--space", &space])).ok();
    over_tls(farm.agent_command().arg("--once")).ok();
    let tables = over_tls(&mut farm.latlas_command(&["table", "list"])).ok();
    assert!(tables.contains(&hardware_id()), "{tables}");

    let said = run(farm.agent_command().arg("--once").env("LATLAS_CA_FILE", &root)).fails(1);
    assert!(said.contains("LATLAS_CLIENT_CERT"), "{said}");
    let said = run(farm.agent_command().arg("--once").env("LATLAS_CLIENT_CERT", &own)).fails(1);
    assert!(said.contains("LATLAS_CA_FILE"), "{said}");
    let said = run(farm.latlas_command(&["table", "list"]).env("LATLAS_CA_FILE", &root)).fails(1);
    assert!(said.contains("LATLAS_CLIENT_CERT"), "{said}");
}

#[test]
fn an_agent_serves_its_numbers_when_asked() {
    let farm = RealFarm::start();
    let mut agent = Agent::start(farm.agent_command().args(["--metrics", "127.0.0.1:0"]));
    let said = agent.says("metrics at http://");
    let address = said.rsplit("http://").next().unwrap().trim().strip_suffix("/metrics").unwrap();
    agent.says("enrolled as");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let call = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, call.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    assert!(answer.contains("latlas_agent_spooled_measurements 0"), "{answer}");
    signal(&agent.process, "TERM");
    assert_eq!(agent.ends().0, Some(0));
}

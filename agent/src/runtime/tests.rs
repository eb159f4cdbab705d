//! Commands that behave, and commands that do not: each is a shell script.

use std::fs;
use std::time::Duration;

use latlas_shared::{Device, Dtype, FailureKind};
use ops_catalog::{Catalog, OpKey};

use super::process::Process;
use super::protocol::{Reply, Request};
use super::*;
use crate::worker::{Pass, Visited, Work, Worker as _};

const HELLO: &str = r#"echo '{"hello": {"protocol": 1, "runtime": "fake", "version": "1.0", "devices": ["cpu"], "dtypes": ["f32"], "can_evict": true}}'"#;

/// Answers to everything. `$n` is the number of samples.
const ANSWERS: &str = r#"
    *'"start"'*) echo '{"started": {}}' ;;
    *'"prepare"'*) echo '{"prepared": {}}' ;;
    *'"run"'*) echo '{"ran": {"calls": 5, "start": 10.0, "end": 12.5}}' ;;
    *'"drop"'*) echo '{"dropped": {}}' ;;
    *'"sample"'*)
        times=0.5
        i=1
        while [ "$i" -lt "$n" ]; do times="$times, 0.5"; i=$((i + 1)); done
        echo "{\"sampled\": {\"micros\": [$times], \"reading_micros\": 1.5}}" ;;
"#;

fn shell(script: &str) -> Configured {
    Configured {
        name: "fake".to_owned(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        file: PathBuf::from("runtimes.toml"),
    }
}

/// A command that gives `first` answers before those to everything.
fn answering(first: &str) -> Configured {
    shell(&format!(
        "{HELLO}\nwhile read -r line; do\n  n=${{line#*'\"samples\":'}}; n=${{n%%,*}}\n  case $line in\n{first}{ANSWERS}  esac\ndone\n"
    ))
}

/// Long enough for any shell on any machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Short enough for a test that waits for it to pass.
const NO_PATIENCE: Duration = Duration::from_millis(20);

fn work(key: &str) -> Work {
    let key: OpKey = key.parse().unwrap();
    let def = Catalog::builtin().op(&key.op).unwrap().def().clone();
    Work::Op { def, shape: key.shape }
}

fn settings(configured: Configured, memory: u64) -> Result<RuntimeSettings> {
    RuntimeSettings::of(configured, (Device::Cpu, Dtype::F32, 1), 64 << 20, memory)
}

fn worker(configured: Configured) -> RuntimeWorker {
    RuntimeWorker::start(&settings(configured, 1 << 30).unwrap()).unwrap()
}

const KEY: &str = "Conv3x3:n1-h8-w8-i4-o4-s1";

fn visit(worker: &mut RuntimeWorker, limit: Duration) -> Result<Visited, Fault> {
    worker.visit(&work(KEY), &[Pass::new(8 << 20, 3), Pass::new(0, 1)], limit)
}

#[test]
fn a_visit_has_the_samples_of_its_passes() {
    let mut worker = worker(answering(""));
    let visited = visit(&mut worker, PATIENCE).unwrap();
    let micros: Vec<&[f64]> = visited.passes.iter().map(|pass| pass.micros.as_slice()).collect();
    assert_eq!(micros, [&[0.5; 3][..], &[0.5]]);
    assert_eq!(visited.reading_micros, 3.0);
    assert!(visited.preparing_micros > 0.0 && visited.ops_micros > 0.0);
    assert!(visited.peak_memory_bytes.is_some());
    let again = visit(&mut worker, PATIENCE).unwrap();
    assert_eq!(again.preparing_micros, 0.0, "it stays prepared");
    let busy = worker.keep_busy(&work(KEY), 2.5, PATIENCE).unwrap().unwrap();
    assert_eq!((busy.calls, busy.end - busy.start), (5, 2.5));
}

#[test]
fn preempted_samples_are_taken_again() {
    // Of three samples the first is preempted; of one, none.
    let first = r#"
    *'"samples":3'*) echo '{"sampled": {"micros": [0.9, 0.5, 0.5], "preempted": [true, false, false]}}' ;;
"#;
    let mut worker = worker(answering(first));
    let pass = Pass::new(0, 3);
    let visited = worker.visit(&work(KEY), &[pass], PATIENCE).unwrap();
    assert_eq!(visited.passes[0].micros, [0.5; 3]);
    assert!(visited.passes[0].rejected > 0);
    assert_eq!(visited.passes[0].disturbed, 0);
}

#[test]
fn what_is_always_preempted_is_kept_and_counted() {
    let always = r#"
    *'"samples":1'*) echo '{"sampled": {"micros": [0.7], "preempted": [true]}}' ;;
"#;
    let visited =
        worker(answering(always)).visit(&work(KEY), &[Pass::new(0, 1)], PATIENCE).unwrap();
    assert_eq!((visited.passes[0].micros.as_slice(), visited.passes[0].disturbed), (&[0.7][..], 1));
}

#[test]
fn the_file_is_there_during_its_preparation_only() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let first = format!(
        "    *'\"prepare\"'*) path=${{line#*'\"model\":\"'}}; path=${{path%%'\"'*}}; cp \"$path\" '{0}'; \
         echo \"$path\" > '{0}.path'; echo '{{\"prepared\": {{}}}}' ;;\n",
        seen.display()
    );
    visit(&mut worker(answering(&first)), PATIENCE).unwrap();
    let model = fs::read(&seen).unwrap();
    assert!(String::from_utf8_lossy(&model).contains("conv2d-0.weight"));
    let path = fs::read_to_string(seen.with_extension("path")).unwrap();
    assert!(!Path::new(path.trim()).exists());
}

#[test]
fn models_beyond_the_budget_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let script = answering("").command[2]
        .replace("do\n", &format!("do\n  echo \"$line\" >> '{}'\n", log.display()));
    // Each has 9 MiB of weights; a quarter of the limit is 16 MiB.
    let mut worker = RuntimeWorker::start(&settings(shell(&script), 64 << 20).unwrap()).unwrap();
    for key in ["Conv3x3:n1-h1-w1-i512-o512-s1", "Conv3x3:n1-h1-w1-i512-o511-s1"] {
        worker.visit(&work(key), &[Pass::new(0, 1)], PATIENCE).unwrap();
    }
    let asked = fs::read_to_string(log).unwrap();
    assert!(asked.contains(r#"{"drop":{"id":0}}"#), "{asked}");
    assert!(!asked.contains(r#"{"drop":{"id":1}}"#), "{asked}");
    let huge = work("Conv3x3:n1-h1-w1-i4096-o4096-s1");
    let fault = worker.visit(&huge, &[Pass::new(0, 1)], PATIENCE).unwrap_err();
    assert_eq!(fault.kind(), FailureKind::OutOfMemory, "{fault}");
}

/// What a visit says if the command answers so.
fn said(first: &str) -> Fault {
    visit(&mut worker(answering(first)), PATIENCE).unwrap_err()
}

#[test]
fn commands_that_lie_flood_or_die_are_named() {
    let sample = |answer: &str| format!("    *'\"sample\"'*) {answer} ;;\n");
    let flood = "head -c 2000000 /dev/zero | tr '\\0' x; sleep 1000";
    for (answer, problem) in [
        ("echo no JSON", "answered `sample` wrongly: `no JSON` is no reply"),
        ("echo '{\"prepared\": {}}'", "it said `prepared` instead of `sampled`"),
        ("echo '{\"sampled\": {\"micros\": []}}'", "0 times came for 3 samples"),
        ("echo '{\"sampled\": {\"micros\": [0.5, -1.0, 0.5]}}'", "-1 us is no time of a call"),
        (
            "echo '{\"sampled\": {\"micros\": [1e12, 1e12, 1e12]}}'",
            "the calls took 3000000000000 us together",
        ),
        (flood, "its line has more than 1024 KiB"),
        ("exit 3", "ended with exit code 3. What it wrote to stderr says more"),
        ("kill -9 $$", "was ended by signal 9"),
        ("exec >&-; read -r line; sleep 1000", "closed its standard output"),
    ] {
        let fault = said(&sample(answer));
        assert!(matches!(fault, Fault::Died(_)), "{fault}");
        let said = fault.to_string();
        assert!(said.contains(problem), "{said}");
        let who = "the worker process of the runtime `fake` (in runtimes.toml) ";
        assert!(said.starts_with(who), "{said}");
        assert_eq!(fault.kind(), FailureKind::WorkerDied);
    }
    let refused =
        said("    *'\"prepare\"'*) echo '{\"refused\": {\"reason\": \"no such operator\"}}' ;;\n");
    assert_eq!(refused, Fault::Refused("fake: no such operator".to_owned()));
}

#[test]
fn replies_that_nobody_asked_for_are_noticed() {
    let twice = "    *'\"sample\"'*) echo '{\"sampled\": {\"micros\": [0.5, 0.5, 0.5]}}'; echo '{\"more\": 1}' ;;\n";
    let fault = said(twice).to_string();
    let before = fault.contains("it wrote a line before it was asked: {\"more\": 1}");
    // Which of the two is noticed depends on when the second line arrives.
    assert!(before || fault.contains("`{\"more\": 1}` is no reply"), "{fault}");
}

#[test]
fn a_command_that_hangs_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let child = folder.path().join("child");
    let script =
        format!("sleep 1000 & echo $! > '{}'; {HELLO}; read -r line; wait", child.display());
    let configured = shell(&script);
    let mut process = Process::start(&configured, vec![], 1).unwrap();
    process.hello(PATIENCE).unwrap();
    let error = process.ask(&Request::Drop { id: 0 }, NO_PATIENCE).unwrap_err();
    assert!(matches!(error, RuntimeError::Silent { request: "drop", .. }), "{error}");
    let fault = configured.fault(&error);
    assert_eq!(fault.kind(), FailureKind::TimedOut);
    assert!(
        fault.to_string().starts_with("the runtime `fake` (in runtimes.toml) did not return"),
        "{fault}"
    );
    let status = format!("/proc/{}/status", fs::read_to_string(child).unwrap().trim());
    while fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ")) {
        std::thread::yield_now();
    }
}

#[test]
fn a_command_that_is_none_is_refused_before_the_run() {
    let refused = |configured: Configured| settings(configured, 1 << 30).unwrap_err().to_string();
    let absent = Configured { command: vec!["/nowhere/worker".to_owned()], ..shell("") };
    let said = refused(absent);
    assert!(
        said.contains("(in runtimes.toml) cannot be started: `/nowhere/worker`: No such file"),
        "{said}"
    );
    assert!(said.ends_with("Correct its `command`"), "{said}");
    for (script, problem) in [
        ("exit 1", "ended with exit code 1"),
        ("echo hello", "answered `hello` wrongly: `hello` is no reply"),
        ("echo '{\"started\": {}}'", "it said `started` first"),
    ] {
        let said = refused(shell(script));
        assert!(said.contains(problem), "{said}");
    }
    let other = refused(shell(&HELLO.replace("\"protocol\": 1", "\"protocol\": 9")));
    assert!(other.contains("cannot be used: it speaks protocol 9"), "{other}");
    let mut process = Process::start(&shell("sleep 1000"), vec![], 1).unwrap();
    let error = process.hello(NO_PATIENCE).unwrap_err().to_string();
    assert_eq!(error, "did not answer `hello` within 0 s and was killed");
}

#[test]
fn a_command_that_becomes_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun").display().to_string();
    let newer = HELLO.replace("1.0", "1.1");
    let script = format!(
        "if [ -e '{begun}' ]; then {newer}; else touch '{begun}'; {HELLO}; fi; cat > /dev/null"
    );
    let settings = settings(shell(&script), 1 << 30).unwrap();
    let said = RuntimeWorker::start(&settings).err().unwrap().to_string();
    assert!(said.contains("was fake 1.0 when this agent began, and is fake 1.1 now"), "{said}");
}

#[test]
fn mistakes_in_the_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtimes.toml");
    let read = || Configured::read(&file, "ort").map_err(|error| format!("{error:#}"));
    assert!(read().unwrap_err().contains("there is no file "));
    for (text, problem) in [
        ("[runtime.ort]\ncommand = \"python3 worker.py\"\n", "invalid type: string"),
        ("[runtime.ort]\ncommand = []\n", "[runtime.ort]: `command` is empty"),
        ("[runtime.ort]\n", "missing field `command`"),
        ("[runtime.ort]\ncommand = [\"a\"]\ndevice = \"cpu\"\n", "unknown field `device`"),
        ("[runtime.other]\ncommand = [\"a\"]\n", "has no `[runtime.ort]`, but: other"),
        ("[runtime.ort\n", "runtimes.toml"),
    ] {
        fs::write(&file, text).unwrap();
        let said = read().unwrap_err();
        assert!(said.contains(problem) && said.contains("runtimes.toml"), "{said}");
    }
    fs::write(&file, "[runtime.ort]\ncommand = [\"python3\", \"worker.py\"]\n").unwrap();
    assert_eq!(read().unwrap().command, ["python3", "worker.py"]);
}

#[test]
fn a_reply_has_the_word_of_its_request() {
    let mut process = Process::start(&answering(""), vec![], 1).unwrap();
    process.hello(PATIENCE).unwrap();
    assert_eq!(process.ask(&Request::Drop { id: 3 }, PATIENCE).unwrap(), Reply::Dropped {});
}

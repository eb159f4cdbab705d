//! The agent with the command of a runtime: a shell script in its place.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use latlas_shared::{Dtype, Measurement, Status};

/// Answers to everything, with times of half a microsecond. It dies at a model of more than 100 kB.
const SCRIPT: &str = r#"
echo '{"hello": {"protocol": 1, "runtime": "made-up", "version": "2.1", "devices": ["cpu"], "dtypes": ["int8"], "facts": {"made_by": "hand"}}}'
while read -r line; do
  case $line in
    *'"start"'*) echo '{"started": {}}' ;;
    *'"prepare"'*)
        path=${line#*'"model":"'}
        path=${path%%'"'*}
        case $(basename "$(dirname "$path")") in latlas-*) ;; *) exit 1 ;; esac
        # The width of the output, as the file has it, is of no interest: its size is.
        if [ "$(wc -c < "$path")" -gt 100000 ]; then echo "too large for me" >&2; exit 7; fi
        echo '{"prepared": {}}' ;;
    *'"sample"'*)
        n=${line#*'"samples":'}
        n=${n%%,*}
        times=0.5
        while [ "$n" -gt 1 ]; do times="$times, 0.5"; n=$((n - 1)); done
        echo "{\"sampled\": {\"micros\": [$times]}}" ;;
    *) echo '{"dropped": {}}' ;;
  esac
done
"#;

/// Runs the agent with the command in a folder.
fn agent(folder: &Path, arguments: &str) -> Output {
    agent_with(SCRIPT, folder, arguments)
}

/// Runs the agent with a command.
fn agent_with(script: &str, folder: &Path, arguments: &str) -> Output {
    fs::write(folder.join("worker.sh"), script).unwrap();
    let worker = folder.join("worker.sh").display().to_string();
    fs::write(
        folder.join("runtimes.toml"),
        format!("[runtime.mine]\ncommand = [\"sh\", \"{worker}\"]\n"),
    )
    .unwrap();
    Command::new(env!("CARGO_BIN_EXE_latlas-agent"))
        .args(arguments.split_whitespace())
        .env("LATLAS_RUNTIMES", folder.join("runtimes.toml"))
        .env("XDG_STATE_HOME", folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn rows_of_a_runtime_have_its_run_config_and_a_death_costs_one_row() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let keys =
        ["Conv3x3:n1-h8-w8-i8-o8-s1", "Conv3x3:n1-h8-w8-i128-o128-s1", "ReLU:n1-h8-w8-i8-o8-s1"];
    let options = "bench --runtime mine --dtype int8 --network demo_mobile";
    let ran = agent(folder.path(), &format!("{options} --key {}", keys.join(" --key ")));
    let stderr = text(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    assert!(stderr.contains("under int8-contiguous-t1-system-r0m-made-up-2.1"), "{stderr}");
    assert!(stderr.contains("too large for me"), "its stderr is the agent's");
    let rows: Vec<Measurement> =
        text(&ran.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    let (failed, measured): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row.status == Status::Failed);
    // The network is large too.
    assert_eq!(failed.len(), 2);
    for row in failed {
        let reason = row.reason.as_deref().unwrap();
        assert!(reason.starts_with("the worker process of the runtime `mine` (in "), "{reason}");
        assert!(reason.contains("ended with exit code 7"), "{reason}");
    }
    for row in measured {
        assert_eq!(row.run_config.dtype, Dtype::Int8);
        let latency = row.latency.as_ref().unwrap();
        assert!(latency.is_sound());
        let distances: Vec<u64> =
            latency.curve.iter().map(|point| point.reuse_distance_bytes).collect();
        assert_eq!(distances, [0], "it cannot evict");
        assert_eq!(latency.curve[0].quiet_micros, 0.5);
    }
}

/// Answers with times that scatter, and interrupts the agent at the fifth visit to one of its ops.
const INTERRUPTING: &str = r#"
echo '{"hello": {"protocol": 1, "runtime": "made-up", "version": "2.1", "devices": ["cpu"], "dtypes": ["int8"]}}'
asked=0 last=
while read -r line; do
  case $line in
    *'"start"'*) echo '{"started": {}}' ;;
    *'"prepare"'*) echo '{"prepared": {}}' ;;
    *'"sample"'*)
        asked=$((asked + 1))
        id=${line#*'"id":'}
        id=${id%%,*}
        if [ "$id" != "$last" ]; then
            eval "visits_$id=\$((visits_$id + 1)); visits=\$visits_$id"
            [ "$visits" != 5 ] || kill -INT $PPID
        fi
        last=$id
        n=${line#*'"samples":'}
        n=${n%%,*}
        times=0.$((asked % 7 + 1))
        while [ "$n" -gt 1 ]; do times="$times, 0.$((asked % 7 + 1))"; n=$((n - 1)); done
        echo "{\"sampled\": {\"micros\": [$times]}}" ;;
    *) echo '{"dropped": {}}' ;;
  esac
done
"#;

#[test]
fn an_interrupted_run_writes_what_there_is() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = folder.path().join("rows.ndjson");
    // All of them are visited in each span.
    let keys: Vec<String> =
        (1..=3).map(|i| format!(" --key Conv3x3:n1-h8-w8-i{i}-o8-s1")).collect();
    let options =
        format!("bench --runtime mine --dtype int8 --out {}{}", out.display(), keys.concat());
    let ran = agent_with(INTERRUPTING, folder.path(), &options);
    let stderr = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{stderr}");
    let rows: Vec<Measurement> = fs::read_to_string(&out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 3, "{stderr}");
    assert!(stderr.contains("error: interrupted: 3 of 3 have a row, which is written"), "{stderr}");
    for row in rows {
        assert_ne!(row.status, Status::Failed);
        assert!(row.latency.unwrap().is_sound());
    }
}

#[test]
fn a_run_without_time_says_what_to_do() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options =
        "bench --runtime mine --dtype int8 --minutes 0.0000001 --key ReLU:n1-h8-w8-i8-o8-s1";
    let ran = agent(folder.path(), options);
    let stderr = text(&ran.stderr);
    assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("1 of 1 had fewer than two visits"), "{stderr}");
    assert!(stderr.contains("give --minutes more"), "{stderr}");
}

#[test]
fn a_token_that_is_not_there_is_named() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let state = folder.path().join("state").display().to_string();
    let run = format!(
        "run --coordinator http://127.0.0.1:9 --runtime mine --dtype int8 --state {state} --once"
    );
    for (option, problem) in [
        ("--enroll-token-file nofile", "token to enrol with: nofile: there is no such file"),
        ("", "token to enrol with: give --enroll-token-file FILE"),
    ] {
        let ran = agent(folder.path(), &format!("{run} {option}"));
        let stderr = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(problem), "{stderr}");
        assert!(!stderr.contains("--state of its own"), "{stderr}");
    }
    // The state of an agent under another run config.
    let identity = r#"{"farm_id": "00000000-0000-0000-0000-000000000001", "coordinator": "http://127.0.0.1:9/",
        "agent_id": "00000000-0000-0000-0000-000000000002", "credential": "c", "hardware_id": "test-box-2c.cpu",
        "run_config": "f32-contiguous-t2-retain-r8m-libtorch-eager-2.13.0", "fingerprint": "f"}"#;
    fs::write(folder.path().join("state/identity.json"), identity).unwrap();
    let stderr = text(&agent(folder.path(), &run).stderr);
    assert!(stderr.contains("an agent under f32-contiguous-t2-retain"), "{stderr}");
    assert!(stderr.contains("needs a --state of its own"), "{stderr}");
}

#[test]
fn a_command_is_tried_by_the_probe() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let ran = agent(folder.path(), "probe --runtime mine --dtype int8 --json");
    // The op that is tried is too large for this command, and what that says is said.
    assert!(!ran.status.success());
    assert!(text(&ran.stderr).contains("the runtime `mine`"), "{}", text(&ran.stderr));
    let patient = SCRIPT.replace("-gt 100000", "-gt 100000000");
    let ran = agent_with(&patient, folder.path(), "probe --runtime mine --dtype int8");
    let said = text(&ran.stdout);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let line = |name: &str| {
        let found = said.lines().find_map(|line| line.trim_start().strip_prefix(name));
        found.map(str::trim)
    };
    assert_eq!(line("made-up "), Some("2.1"), "{said}");
    assert_eq!(line("made_by "), Some("hand"), "{said}");
    assert_eq!(line("libtorch "), None, "{said}");
    let ran = agent_with(&patient, folder.path(), "probe --runtime mine --dtype int8 --json");
    let probe: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(probe["fingerprint"]["libtorch"], "none");
    assert_eq!(probe["fingerprint"]["facts"]["made_by"], "hand");
}

#[test]
fn a_run_in_which_all_fails_fails() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = "bench --runtime mine --dtype int8 --key Conv3x3:n1-h8-w8-i128-o128-s1";
    for (more, sentence) in [
        ("", "error: the measurement failed, for the reason above: no table can be made of it"),
        (
            " --key Conv3x3:n1-h8-w8-i128-o127-s1",
            "error: all 2 measurements failed, for the reasons above: no table can be made of them",
        ),
    ] {
        let ran = agent(folder.path(), &format!("{options}{more}"));
        let stderr = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{stderr}");
        assert!(stderr.trim_end().ends_with(sentence), "{stderr}");
        // The failures are results.
        assert!(text(&ran.stdout).lines().all(|line| line.contains(r#""status":"failed""#)));
        assert!(!ran.stdout.is_empty());
    }
}

#[test]
fn what_a_runtime_cannot_do_is_refused_before_the_run() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (options, code, problem) in [
        ("--runtime mine", 1, "it has no element type f32, but: int8; see --dtype"),
        ("--runtime other --dtype int8", 1, "has no `[runtime.other]`, but: mine"),
        ("--runtime mine --dtype int8 --reuse-distance 1024", 1, "so it has 0 only"),
        ("--runtime mine --dtype int8 --device cuda:0", 1, "it has no device `cuda`, but: cpu"),
        ("--dtype int8", 1, "--dtype int8 needs a runtime that quantizes"),
        ("--runtime mine --dtype int8 --allocator retain", 2, "--allocator"),
    ] {
        let ran = agent(folder.path(), &format!("bench --key ReLU:n1-h8-w8-i8-o8-s1 {options}"));
        let stderr = text(&ran.stderr);
        assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(code), ""), "{stderr}");
        assert!(stderr.contains(problem), "{options}: {stderr}");
    }
}

//! gpu-check where there is no GPU: its arithmetic, its answers when something is missing, and its phases on a
//! processor, as far as they are not about a GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use latlas_tests::program;
use serde_json::Value;
use tempfile::TempDir;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scripts")
}

fn python() -> Command {
    let mut command = Command::new("python3");
    // The checkout stays as it is.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A folder as `scripts/gpu-bundle` makes it, with the programs of this build, which have their own libtorch.
fn bundle() -> TempDir {
    let bundle = tempfile::tempdir().unwrap();
    for name in ["latlas-agent", "latlas"] {
        std::os::unix::fs::symlink(program(name), bundle.path().join(name)).unwrap();
    }
    for data in ["benchmarks/sixty.yaml", "gpu_check/forty.txt"] {
        let from = scripts().join(data);
        fs::copy(&from, bundle.path().join(from.file_name().unwrap())).unwrap();
    }
    let pack = scripts().join("gpu_check/pack.py");
    let packed = python().arg(pack).arg(bundle.path().join("gpu-check")).status().unwrap();
    assert!(packed.success());
    bundle
}

/// Runs gpu-check of a bundle, and gives what it said and its file of results.
fn check(bundle: &TempDir, arguments: &[&str]) -> (Output, Value) {
    let out = bundle.path().join("out");
    let output = python()
        .arg(bundle.path().join("gpu-check"))
        .args(arguments)
        .env("OUT", &out)
        .output()
        .unwrap();
    let results = fs::read_to_string(out.join("results.json"))
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output, serde_json::from_str(&results).unwrap())
}

#[track_caller]
fn assert_refused(output: &Output, results: &Value, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("gpu-check: ") && text.trim().lines().count() == 1, "{text}");
    assert!(text.contains(part), "{text}");
    assert!(results["problem"].as_str().unwrap().contains(part), "{results}");
}

#[test]
fn its_arithmetic_holds_and_so_does_the_choice_of_bindings() {
    for folder in [scripts().join("gpu_check"), scripts()] {
        let tested = python().args(["-m", "unittest"]).current_dir(folder).output().unwrap();
        let said = String::from_utf8_lossy(&tested.stderr);
        assert!(tested.status.success() && !said.contains("Ran 0 tests"), "{said}");
    }
}

/// A device with this number exists nowhere, so the test holds on machines with GPUs too.
#[test]
fn without_the_device_it_says_why_and_leaves_its_results() {
    let bundle = bundle();
    let (output, results) = check(&bundle, &["--device", "cuda:4711"]);
    assert_refused(&output, &results, "cuda:4711 cannot be used");
}

#[test]
fn a_bundle_for_another_torch_is_refused() {
    let bundle = bundle();
    fs::write(bundle.path().join("torch-version"), "0.0.1\n").unwrap();
    let (output, results) = check(&bundle, &["--device", "cpu"]);
    assert_refused(&output, &results, "torch");
    assert_refused(&output, &results, "0.0.1");
}

/// What the figures say depends on this machine, so it is not looked at, but for those of faults.
#[test]
fn its_phases_run_on_a_processor() {
    let bundle = bundle();
    let phases = ["fingerprint", "prediction", "faults", "company"];
    let only = phases.iter().flat_map(|phase| ["--only", phase]);
    let arguments: Vec<&str> =
        ["--device", "cpu", "--quick", "--minutes", "9"].into_iter().chain(only).collect();
    let (output, results) = check(&bundle, &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    for phase in phases {
        assert_eq!(results["phases"][phase]["state"], "done", "{phase}: {text}");
    }
    for line in [
        "figure ops_that_run 100% >=100% ok",
        "figure f32_networks 1 >=1 ok",
        "figure rows_lost_to_memory_fault 1 =1 ok",
        "figure rows_lost_to_kernel_fault 1 =1 ok",
    ] {
        assert!(text.lines().any(|said| said == line), "`{line}` is not in: {text}");
    }
    let kept = bundle.path().join("out/measurements.ndjson.gz");
    assert!(fs::metadata(kept).unwrap().len() > 0);
}

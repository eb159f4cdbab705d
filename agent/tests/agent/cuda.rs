//! What the program says when it is asked for a GPU that it cannot use.

use std::path::Path;
use std::process::Command;

/// Runs the program, checks that it refused in one line, and gives that line.
#[track_caller]
fn refusal(agent: &mut Command) -> String {
    let output = agent.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text
}

fn agent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_latlas-agent"))
}

/// A device with this number exists nowhere, so the test holds on machines with GPUs too.
#[test]
fn a_device_that_is_not_there_is_refused() {
    let key = "Conv3x3:n1-h8-w8-i4-o4-s1";
    for arguments in [vec!["bench", "--key", key], vec!["probe"]] {
        let text = refusal(agent().args(arguments).args(["--device", "cuda:4711"]));
        assert!(text.starts_with("error: cuda:4711 cannot be used. "), "{text}");
    }
}

/// Compiles a library from C under the name of the driver's, and gives its folder.
fn driver(source: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcuda.so");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(source).status();
    assert!(compiled.unwrap().success());
    folder
}

#[test]
fn a_driver_that_does_not_work_is_told_from_none() {
    let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/worker/cuda/driver/stub.c");
    let sources = tempfile::tempdir().unwrap();
    let empty = sources.path().join("empty.c");
    std::fs::write(&empty, "").unwrap();
    for (source, behaviour, expected) in [
        (&stub, "no_device", "The NVIDIA driver finds no GPU"),
        (&stub, "stub_library", "it answers CUDA_ERROR_STUB_LIBRARY"),
        (&empty, "", "it has no function cuInit"),
    ] {
        let folder = driver(source);
        let text = refusal(
            agent()
                .args(["probe", "--device", "cuda:0"])
                .env("LD_LIBRARY_PATH", folder.path())
                .env("STUB_CUDA", behaviour),
        );
        assert!(text.contains(expected), "{text}");
    }
}

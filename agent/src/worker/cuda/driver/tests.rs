//! The driver's wrapper against a stub of `libcuda`. A process finds libraries on the path that it was
//! started with, so each test starts this test program again, as a child with the stub on its path.

use std::path::Path;
use std::process::Command;

use super::*;

/// Compiles the stub into `folder` under the name of the driver's library.
fn make_stub(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/worker/cuda/driver/stub.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(folder.join("libcuda.so"))
        .arg(source)
        .status()
        .expect("libtorch's bindings need a compiler, so there is one");
    assert!(status.success());
}

/// Runs the test of this name in a child that finds a stub which behaves in a certain way; `body` is
/// what the child does.
#[track_caller]
fn with_stub(behaviour: &str, test: &str, body: impl FnOnce()) {
    if std::env::var_os("STUB_CUDA").is_some() {
        return body();
    }
    let folder = tempfile::tempdir().unwrap();
    make_stub(folder.path());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("worker::cuda::driver::tests::{test}")])
        .env("LD_LIBRARY_PATH", folder.path())
        .env("STUB_CUDA", behaviour)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn the_driver_is_loaded_and_used() {
    with_stub("", "the_driver_is_loaded_and_used", || {
        assert_eq!(DriverState::ask(), DriverState::Devices(2));
        let mut driver = Driver::open(1).unwrap();
        let memory = Memory { l2_bytes: 4 << 20, limit_bytes: 3 << 30 };
        assert_eq!(driver.memory(1 << 30).unwrap(), memory);
        driver.mark(Mark::Start).unwrap();
        driver.mark(Mark::End).unwrap();
        driver.synchronize().unwrap();
        // The stub refuses to time events with the default flags, and marks on another stream.
        assert_eq!(driver.between_marks().unwrap(), 1000.0);
        driver.mark(Mark::End).unwrap();
        assert_eq!(driver.between_marks().unwrap(), 2000.0);
        driver.mark(Mark::Start).unwrap();
        driver.mark(Mark::End).unwrap();
        assert_eq!(driver.between_marks().unwrap(), 1000.0);
    });
}

#[test]
fn a_backend_stands_on_the_driver() {
    with_stub("", "a_backend_stands_on_the_driver", || {
        let driver = Driver::open(0).unwrap();
        let memory = driver.memory(1 << 30).unwrap();
        let contention = super::super::GpuContention::of(0);
        let mut backend =
            super::super::CudaBackend::new(driver, contention, memory, 64 << 20).unwrap();
        assert!(crate::worker::backend::Backend::finish(&mut backend).is_ok());
    });
}

#[test]
fn a_device_without_own_memory_keeps_to_the_host_s_limit() {
    with_stub("integrated", "a_device_without_own_memory_keeps_to_the_host_s_limit", || {
        let driver = Driver::open(0).unwrap();
        assert_eq!(driver.memory(1 << 30).unwrap().limit_bytes, 1 << 30);
        assert_eq!(driver.memory(1 << 40).unwrap().limit_bytes, 3 << 30);
    });
}

#[test]
fn a_lost_context_is_an_error_with_a_name() {
    with_stub("lost", "a_lost_context_is_an_error_with_a_name", || {
        let error = Driver::open(0).unwrap().synchronize().unwrap_err().to_string();
        assert!(error.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
    });
}

#[test]
fn a_driver_without_a_gpu_has_no_devices() {
    with_stub("no_device", "a_driver_without_a_gpu_has_no_devices", || {
        assert_eq!(DriverState::ask(), DriverState::Devices(0));
        assert!(Driver::open(0).is_err());
    });
}

#[test]
fn the_toolkit_s_stub_is_told_from_a_driver() {
    with_stub("stub_library", "the_toolkit_s_stub_is_told_from_a_driver", || {
        let reason = "it answers CUDA_ERROR_STUB_LIBRARY".to_owned();
        assert_eq!(DriverState::ask(), DriverState::Broken(reason));
    });
}

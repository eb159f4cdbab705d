//! Lets programs find libtorch, and tells the library which one it is.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // torch-sys tells in this variable which libtorch it was built for, but only to packages that
    // depend on it directly. That is why it stands beside tch in Cargo.toml. Cargo runs this script
    // again whenever the script of torch-sys has run again.
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names the libtorch directory");
    // The path leads through the link that scripts/setup makes. A program keeps the place behind
    // it, so that it goes on working when the link is pointed elsewhere.
    let lib = fs::canonicalize(lib).expect("the libtorch directory exists");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    let [major, minor, patch] = version(&lib);
    println!("cargo::rustc-env=LATLAS_LIBTORCH_VERSION={major}.{minor}.{patch}");
    if let Some(version) = onednn_version(&lib) {
        println!("cargo::rustc-env=LATLAS_ONEDNN_VERSION={version}");
    }
    // The bindings to older releases differ in a parameter of attention and in the stores of variables.
    println!("cargo::rustc-check-cfg=cfg(torch_before_2_5)");
    if (major, minor) < (2, 5) {
        println!("cargo::rustc-cfg=torch_before_2_5");
    }
}

/// The version of the oneDNN that libtorch contains; None where it contains none.
fn onednn_version(lib: &Path) -> Option<String> {
    let text = fs::read_to_string(lib.join("../include/oneapi/dnnl/dnnl_version.h")).ok()?;
    let part = |name: &str| {
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("#define DNNL_VERSION_")?.strip_prefix(name))?;
        Some(line.trim().to_owned())
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}

/// The version in libtorch's own header, since tch has no call for it. It is part of a table's
/// identity, and a wrong one would mix numbers of two versions.
fn version(lib: &Path) -> [u32; 3] {
    let include = lib.join("../include/torch");
    // Newer releases keep the numbers in the first of these and include it in the second.
    let headers = ["headeronly/version.h", "csrc/api/include/torch/version.h"];
    let texts: Vec<String> =
        headers.iter().filter_map(|name| fs::read_to_string(include.join(name)).ok()).collect();
    ["MAJOR", "MINOR", "PATCH"].map(|name| {
        texts
            .iter()
            .flat_map(|text| text.lines())
            .find_map(|line| line.strip_prefix("#define TORCH_VERSION_")?.strip_prefix(name))
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or_else(|| {
                panic!("no TORCH_VERSION_{name} in {} of {}", headers.join(", "), include.display())
            })
    })
}

//! Embeds every YAML file under `data`, so that adding an op, a space or a network is adding a file.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let mut code = String::new();
    for (constant, folder) in [
        ("OPS", "ops"),
        ("SPACES", "spaces"),
        ("NETWORKS", "networks"),
        ("ARCH_SPACES", "arch_spaces"),
    ] {
        let dir = Path::new(&root).join("data").join(folder);
        println!("cargo::rerun-if-changed={}", dir.display());
        let mut files: Vec<_> = fs::read_dir(&dir)
            .expect("the data folder is part of the crate")
            .map(|entry| entry.expect("it can be listed").path())
            .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
            .collect();
        files.sort();
        writeln!(code, "pub(crate) const {constant}: &[(&str, &str)] = &[")
            .expect("a string takes it");
        for path in files {
            let name = path.file_name().expect("a file has a name").to_string_lossy();
            writeln!(code, "    ({:?}, include_str!({:?})),", format!("{folder}/{name}"), path)
                .expect("a string takes it");
        }
        code.push_str("];\n");
    }
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("embedded.rs");
    fs::write(out, code).expect("cargo made the folder");
}

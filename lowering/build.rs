//! Lets the tests of this package find libtorch.

use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // torch-sys names the directory, but only to packages that depend on it directly.
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names the libtorch directory");
    let lib = fs::canonicalize(lib).expect("the libtorch directory exists");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

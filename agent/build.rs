//! Lets the programs and tests of this package find libtorch wherever they are started from.

use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // As in latlas_lowering: a build script passes link arguments to its own package only.
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names the libtorch directory");
    let lib = fs::canonicalize(lib).expect("the libtorch directory exists");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // Nothing in a program refers to the CUDA library by name, so the linker would drop it, and
    // torch would then see no GPU.
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,--as-needed");
    }
}

//! The `latlas` command: reads the arguments and the environment, and leaves the rest to the library.

use std::process::ExitCode;

use latlas_cli::{Environment, parse, run};

fn main() -> ExitCode {
    // An empty variable is what containers and unit files make of one that is not set.
    let token = std::env::var("LATLAS_TOKEN").ok().filter(|token| !token.trim().is_empty());
    run(parse(), &Environment { token })
}

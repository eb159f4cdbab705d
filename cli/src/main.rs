//! The `latlas` command: reads the arguments and the environment, and leaves the rest to the library.

use std::process::ExitCode;

use latlas_cli::{Environment, parse, run};

fn main() -> ExitCode {
    // Containers and unit files often turn an unset variable into an empty one.
    let token = std::env::var("LATLAS_TOKEN").ok().filter(|token| !token.trim().is_empty());
    run(parse(), &Environment { token })
}

//! The `latlas` command: reads the arguments and the environment, and leaves the rest to the library.

use std::process::ExitCode;

use clap::Parser;
use latlas_search::cli::Cli;
use latlas_search::{Environment, run};

fn main() -> ExitCode {
    let environment = Environment { token: std::env::var("LATLAS_TOKEN").ok() };
    run(Cli::parse(), &environment)
}

//! Common handling of command lines.

use clap::Command;
use clap::builder::Resettable;

/// A command that treats an empty environment variable as unset: containers and unit files often set a variable without
/// a value to an empty text.
pub fn without_empty_variables(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let empty = arg
                .get_env()
                .and_then(std::env::var_os)
                .is_some_and(|value| value.to_string_lossy().trim().is_empty());
            if empty { arg.env(Resettable::Reset) } else { arg }
        })
        .mut_subcommands(without_empty_variables)
}

/// The value of `--calibrate`: a number of networks, or `none`.
///
/// # Errors
/// What to write instead.
pub fn networks_that_calibrate(text: &str) -> Result<u32, String> {
    match text {
        "none" => Ok(0),
        _ => text.parse().map_err(|_| "write a number of networks, or `none`".to_owned()),
    }
}

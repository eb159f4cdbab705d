//! What all programs do with their command lines.

use clap::Command;
use clap::builder::Resettable;

/// A command that takes an environment variable with an empty text as one that is not set: that is what
/// containers and unit files make of a variable without a value.
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

//! Parsing of the command line, and the common parts of all help pages.

use clap::{CommandFactory as _, FromArgMatches as _};
use latlas_program::command_line::without_empty_variables;

use crate::cli::Cli;

/// The line that replaces the global options on every help page except the first.
const GLOBAL: &str =
    "Options of all commands (--coordinator, --ca-file, --client-cert): latlas --help";

/// Reads the command line, or reports its error and exits.
pub fn parse() -> Cli {
    let mut command = without_empty_variables(Cli::command());
    // Building the command adds the global options to the subcommands.
    command.build();
    let help = command.get_after_help().map(|help| reflowed(&help.to_string()));
    let command = command.after_help(help.unwrap_or_default()).mut_subcommands(short);
    let matches = command.get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// A help page without the global options.
fn short(command: clap::Command) -> clap::Command {
    let help = command.get_after_help().map(ToString::to_string);
    let command = command
        .mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg })
        .mut_subcommands(short);
    let help = help.map(|help| reflowed(&help)).unwrap_or_default();
    command.after_help(format!("{GLOBAL}\n\n{help}"))
}

/// A text whose paragraphs are one line each, so that they can be wrapped to the terminal. Indented lines, such as
/// examples, stay unchanged.
fn reflowed(help: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in help.lines() {
        let goes_on = !line.is_empty() && !line.starts_with(' ');
        match lines.last_mut() {
            Some(last) if goes_on && !last.is_empty() && !last.starts_with(' ') => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_flow_and_examples_stay() {
        let help = "One\ntwo.\n\nExample:\n  latlas a \\\n    b\nThree\nfour";
        assert_eq!(reflowed(help), "One two.\n\nExample:\n  latlas a \\\n    b\nThree four");
    }
}

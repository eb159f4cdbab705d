//! Base directories of the user, by the XDG base directory specification.

use std::path::PathBuf;

/// The directory for programs' data: `$XDG_DATA_HOME`, or `~/.local/share`. None if the environment defines no home.
pub fn data_home() -> Option<PathBuf> {
    base("XDG_DATA_HOME", ".local/share")
}

/// The directory for programs' state: `$XDG_STATE_HOME`, or `~/.local/state`. None if the environment defines no home.
pub fn state_home() -> Option<PathBuf> {
    base("XDG_STATE_HOME", ".local/state")
}

/// The directory for programs' configuration: `$XDG_CONFIG_HOME`, or `~/.config`. None if the environment defines no home.
pub fn config_home() -> Option<PathBuf> {
    base("XDG_CONFIG_HOME", ".config")
}

/// The specification ignores relative paths.
fn base(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|path| path.is_absolute());
    named.or_else(|| Some(home()?.join(below_home)))
}

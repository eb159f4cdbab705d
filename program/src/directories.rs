//! Base directories of the user, as the XDG base directory specification has them.

use std::path::PathBuf;

/// Where programs keep data: `$XDG_DATA_HOME`, or `~/.local/share`. None where the environment names no home.
pub fn data_home() -> Option<PathBuf> {
    base("XDG_DATA_HOME", ".local/share")
}

/// Where programs keep their state: `$XDG_STATE_HOME`, or `~/.local/state`. None where the environment names no home.
pub fn state_home() -> Option<PathBuf> {
    base("XDG_STATE_HOME", ".local/state")
}

/// The specification ignores relative paths.
fn base(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|path| path.is_absolute());
    named.or_else(|| Some(home()?.join(below_home)))
}

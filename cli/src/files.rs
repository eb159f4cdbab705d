//! Files that are named on the command line.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Result, anyhow};
use latlas_program::files::Readers;

use latlas_program::exit::Usage;

pub(crate) use latlas_files::{
    is_standard, name, open_lines, read_table, read_text, text_of, unreadable,
};

/// Checks that at most one path is stdin.
pub(crate) fn one_stdin(paths: &[&Path]) -> Result<()> {
    match paths.iter().filter(|path| is_standard(path)).count() {
        0 | 1 => Ok(()),
        _ => Err(Usage("only one of the files can be stdin (`-`)".to_owned()).into()),
    }
}

/// Writes a file in one step: readers see the old content or the new.
///
/// # Errors
/// Names the file, which then stays unchanged.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    write_whole_by(path, |file| file.write_all(content))
        .map_err(|error| anyhow!("{}: it cannot be written: {error}", path.display()))
}

/// Writes a file in one step, with content that `write` makes.
///
/// # Errors
/// Those of `write`, and when the file cannot be written. It then stays unchanged.
pub(crate) fn write_whole_by<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    // A symbolic link stays a link; its target is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&target).is_ok_and(|there| !there.is_file()) {
        // A device or a pipe has no old content to keep; opening a directory fails as intended.
        let mut file = BufWriter::new(File::options().write(true).open(&target)?);
        write(&mut file)?;
        return Ok(file.flush()?);
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(io::Error::other("its folder does not exist").into());
    }
    latlas_program::files::write_whole_by(&target, Readers::Umask, write)
}

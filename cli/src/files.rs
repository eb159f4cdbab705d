//! Files that are named on the command line.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use latlas_predict::TableIndex;
use latlas_program::files::Readers;
use latlas_shared::Table;
use ops_catalog::text::{Encoding, decode, encoding};

use latlas_program::exit::Usage;

/// `-` names stdin, or stdout.
pub(crate) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Checks that at most one path is stdin.
pub(crate) fn one_stdin(paths: &[&Path]) -> Result<()> {
    match paths.iter().filter(|path| is_standard(path)).count() {
        0 | 1 => Ok(()),
        _ => Err(Usage("only one of the files can be stdin (`-`)".to_owned()).into()),
    }
}

/// The name of a file in messages.
pub(crate) fn name(path: &Path) -> String {
    if is_standard(path) { "stdin".to_owned() } else { path.display().to_string() }
}

/// Opens a file, or stdin for `-`.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>> {
    if is_standard(path) {
        return Ok(Box::new(io::stdin().lock()));
    }
    let failed = |error: io::Error| unreadable(path, &error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(unreadable(path, &io::ErrorKind::IsADirectory.into()));
    }
    Ok(Box::new(file))
}

/// Opens a file whose lines are read as they arrive: UTF-8 without a byte order mark, whatever the
/// file's encoding is.
///
/// # Errors
/// Names the file, if it cannot be read, is compressed, or its encoding is not certain.
pub(crate) fn open_lines(path: &Path) -> Result<Box<dyn Read>> {
    let mut file = open(path)?;
    let mut head = Vec::new();
    file.by_ref().take(4).read_to_end(&mut head).map_err(|error| unreadable(path, &error))?;
    if encoding(&head) == Encoding::Utf8 {
        let skipped = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        return Ok(Box::new(Cursor::new(head.split_off(skipped)).chain(file)));
    }
    let mut bytes = head;
    file.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    let text = decode(&bytes).map_err(|problem| anyhow!("{}: {problem}", name(path)))?;
    Ok(Box::new(Cursor::new(text.into_owned().into_bytes())))
}

/// The error of a file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> anyhow::Error {
    let name = name(path);
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!("{name}: there is no such file"),
        io::ErrorKind::IsADirectory => anyhow!("{name}: it is a directory; name a file in it"),
        io::ErrorKind::PermissionDenied => anyhow!("{name}: permission denied for this user"),
        _ => anyhow!("{name}: it cannot be read: {error}"),
    }
}

/// The text of a file that is not empty.
///
/// # Errors
/// Names the file, if it cannot be read, is empty, or is not text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    text_of(path, bytes)
}

/// The content of a file, as text.
///
/// # Errors
/// Names the file, if it is empty or not text.
pub(crate) fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let text = decode(&bytes).map_err(|problem| anyhow!("{}: {problem}", name(path)))?;
    if text.trim().is_empty() {
        bail!("{}: it is empty", name(path));
    }
    Ok(text.into_owned())
}

/// Reads a table and prepares it for look-ups.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn read_table(path: &Path) -> Result<TableIndex> {
    let text = read_text(path)?;
    Table::from_json(&text).and_then(TableIndex::new).with_context(|| name(path))
}

/// Writes a file in one step: readers see the old content or the new.
///
/// # Errors
/// Names the file, which then stays unchanged.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    write_whole_io(path, content)
        .map_err(|error| anyhow!("{}: it cannot be written: {error}", path.display()))
}

fn write_whole_io(path: &Path, content: &[u8]) -> io::Result<()> {
    // A symbolic link stays a link; its target is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&target).is_ok_and(|there| !there.is_file()) {
        // A device or a pipe has no old content to keep; opening a directory fails as intended.
        return File::options().write(true).open(&target)?.write_all(content);
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(io::Error::other("its folder does not exist"));
    }
    latlas_program::files::write_whole(&target, content, Readers::Umask)
}

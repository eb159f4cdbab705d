//! Files that are replaced atomically and survive a power loss.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner.
    Owner,
    /// Everybody, as far as the process's umask allows.
    Umask,
}

/// Writes a file atomically: readers see either the old content or the new. When this returns, the new content survives
/// a power loss.
///
/// # Errors
/// When the file cannot be written; it then stays unchanged.
pub fn write_whole(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    write_whole_by(path, readers, |file| file.write_all(content))
}

/// [`write_whole`] of content that `write` makes.
///
/// # Errors
/// Those of `write`, and when the file cannot be written. It then stays unchanged.
pub fn write_whole_by<E: From<io::Error>>(
    path: &Path,
    readers: Readers,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".latlas-").suffix(".partial");
    #[cfg(unix)]
    if readers == Readers::Umask {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(folder_of(path))?;
    let mut buffer = BufWriter::new(file.as_file());
    write(&mut buffer)?;
    buffer.flush()?;
    drop(buffer);
    file.as_file().sync_all()?;
    file.persist(path).map_err(io::Error::from)?;
    Ok(sync_name(path)?)
}

/// Makes the name of a new or renamed file survive a power loss.
///
/// # Errors
/// When its folder cannot be synced.
pub fn sync_name(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_replaced_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for content in ["old", "new"] {
            write_whole(&path, content.as_bytes(), Readers::Owner).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let failed = write_whole_by(&path, Readers::Owner, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let blocked = folder.path().join("b");
        fs::create_dir(&blocked).unwrap();
        assert!(write_whole(&blocked, b"x", Readers::Umask).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no partial file is left");
    }
}

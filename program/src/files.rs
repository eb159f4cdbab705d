//! Files that are replaced atomically and survive a power loss.

use std::fs::File;
use std::io::{self, Write as _};
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
    let mut builder = tempfile::Builder::new();
    builder.prefix(".latlas-").suffix(".partial");
    #[cfg(unix)]
    if readers == Readers::Umask {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder_of(path))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_name(path)
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
        let blocked = folder.path().join("b");
        fs::create_dir(&blocked).unwrap();
        assert!(write_whole(&blocked, b"x", Readers::Umask).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no partial file is left");
    }
}

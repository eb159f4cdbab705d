//! The CUDA half of libtorch, where a program that was linked without it finds itself beside one.
//!
//! A program that is built where there is no GPU is linked with the CPU half alone. Where it is started
//! with a whole libtorch, nothing in it asks for the CUDA library, and libtorch says that it has no CUDA. So
//! the library is loaded by name, before libtorch is first asked: it answers from what was there then.

use std::ffi::{CStr, CString, NulError};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The library that is always there, and the one beside it.
const CPU_HALF: &str = "libtorch_cpu.so";
const CUDA_HALF: &str = "libtorch_cuda.so";

/// Why a library cannot be loaded. Cloned, because loading is tried once in a process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLoaded {
    /// Its path cannot be handed to the linker.
    #[error("its path has a zero byte")]
    Path(#[from] NulError),
    /// The dynamic linker's message, which names the file.
    #[error("{0}")]
    Linker(String),
    /// The dynamic linker gives no reason.
    #[error("{} cannot be loaded", .0.display())]
    Unexplained(PathBuf),
}

/// Loads the CUDA library of the libtorch that this program runs with, if there is one. It stays loaded, and
/// a second call costs nothing.
///
/// # Errors
/// When a library that is there cannot be loaded.
pub fn load() -> Result<(), NotLoaded> {
    static LOADED: OnceLock<Result<(), NotLoaded>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
            match beside(&maps).filter(|path| path.is_file()) {
                Some(path) => open(&path),
                None => Ok(()),
            }
        })
        .clone()
}

/// Where the CUDA library would be, from the text of `/proc/self/maps`: beside the CPU library that is in
/// use.
fn beside(maps: &str) -> Option<PathBuf> {
    // address perms offset dev inode path; only the path may have blanks in it.
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let mut halves = paths.filter(|path| path.file_name().is_some_and(|name| name == CPU_HALF));
    Some(halves.next()?.with_file_name(CUDA_HALF))
}

fn open(path: &Path) -> Result<(), NotLoaded> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: loading runs the library's initializers. It is the other half of a library that this program
    // is linked with, of the same release, and would have been loaded with it had it been there at the link.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror gives null or a text that stays until the next call in this thread.
    let told = unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(told.map_or_else(|| NotLoaded::Unexplained(path.to_owned()), NotLoaded::Linker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cuda_half_is_looked_for_beside_the_cpu_half_in_use() {
        let maps = "7f00-7f01 r--p 00000000 fe:00 12 /opt/my torch/lib/libc10.so\n\
                    7f01-7f02 rw-p 00000000 00:00 0 \n\
                    7f02-7f03 r-xp 00000000 fe:00 13 /opt/my torch/lib/libtorch_cpu.so\n\
                    7f03-7f04 r--p 00000000 fe:00 14 [vdso]\n";
        assert_eq!(beside(maps), Some("/opt/my torch/lib/libtorch_cuda.so".into()));
        assert_eq!(beside("7f00-7f01 r--p 0 fe:00 12 /lib/libc.so.6\n"), None);
        assert_eq!(beside(""), None);
    }

    #[test]
    fn this_program_knows_where_its_libtorch_is() {
        // Something of libtorch has to be used, or the test would be linked without it.
        assert!(tch::get_num_threads() > 0);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let cuda = beside(&maps).unwrap();
        assert!(cuda.with_file_name(CPU_HALF).is_file(), "{}", cuda.display());
        assert_eq!(load(), Ok(()), "a half that is not there is no error");
    }

    #[test]
    fn a_library_that_does_not_load_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CUDA_HALF);
        fs::write(&path, "no library").unwrap();
        let why = open(&path).unwrap_err().to_string();
        assert!(why.contains("libtorch_cuda.so: "), "{why}");
    }
}

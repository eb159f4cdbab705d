//! Small text files below a root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A directory that stands for `/`.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`.
    pub fn at(root: &Path) -> Tree {
        Tree { root: root.to_owned() }
    }

    /// The path of a file below the root; `path` is relative.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file; none if it is unreadable or not UTF-8.
    pub fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// The text of a file that every Linux has.
    ///
    /// # Errors
    /// When the file cannot be read; the message names it.
    pub fn required(&self, path: &str) -> Result<String> {
        let path = self.path(path);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The first line of a file, trimmed of blanks and NUL bytes; none if it is empty.
    pub fn line(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let line = text.lines().next()?.trim_matches(['\0', ' ', '\t']).to_owned();
        (!line.is_empty()).then_some(line)
    }

    /// The number in a file that contains nothing else.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// Paths of the entries of a directory whose names satisfy `wanted`, in order of their names; none if there is no
    /// such directory.
    pub fn entries(&self, dir: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(dir)) else { return vec![] };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| wanted(name))
            .collect();
        names.sort_unstable();
        names.into_iter().map(|name| format!("{dir}/{name}")).collect()
    }

    /// Paths of the processors' directories that exist, such as `sys/devices/system/cpu/cpu0`.
    pub fn cpus(&self) -> Vec<String> {
        self.entries("sys/devices/system/cpu", |name| {
            name.strip_prefix("cpu").is_some_and(is_number)
        })
    }
}

/// Whether a text consists of digits only.
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The value of the first `name : value` line of a text like `/proc/cpuinfo`.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim()).filter(|value| !value.is_empty())
    })
}

//! The spaces that are compiled in.

use super::space::CompiledSpace;
use super::spec::ArchSpaceDef;
use crate::catalog::{ARCH_SPACES, unknown};
use crate::{Catalog, Invalid, text};

/// A space that is compiled in, as its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltinSpace {
    /// Its name.
    pub name: &'static str,
    /// Its definition in YAML.
    pub text: &'static str,
}

impl BuiltinSpace {
    /// Its definition.
    pub fn def(&self) -> ArchSpaceDef {
        text::read(self.text).expect("the embedded spaces are checked by this crate's tests")
    }

    /// The space, compiled.
    pub fn compile(&self) -> CompiledSpace {
        let compiled = self.def().compile(Catalog::builtin());
        compiled.expect("the embedded spaces are checked by this crate's tests")
    }
}

/// The spaces that are compiled in, by name.
pub fn builtin_spaces() -> impl Iterator<Item = BuiltinSpace> {
    ARCH_SPACES.iter().map(|&(file, text)| {
        let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
        BuiltinSpace { name: name.strip_suffix(".yaml").unwrap_or(name), text }
    })
}

/// A built-in space of architectures.
///
/// # Errors
/// When there is none; the message lists them.
pub fn builtin_space(name: &str) -> Result<BuiltinSpace, Invalid> {
    builtin_spaces()
        .find(|space| space.name == name)
        .ok_or_else(|| unknown("space", name, builtin_spaces().map(|space| space.name)))
}

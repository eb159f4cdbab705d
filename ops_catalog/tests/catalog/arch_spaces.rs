//! Spaces of architectures: the built-in ones, their laws, and what is refused.

mod built_in;
mod documentation;
mod forms;
mod laws;
mod refused;

use ops_catalog::arch_space::{CompiledSpace, builtin_space};

/// A built-in space, compiled.
fn space(name: &str) -> CompiledSpace {
    builtin_space(name).unwrap().compile()
}

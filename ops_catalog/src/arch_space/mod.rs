//! Spaces of architectures: sets of networks that are declared by their choices, and genotypes, which are short strings
//! that name one network each.
//!
//! A definition ([`ArchSpaceDef`]) is compiled ([`CompiledSpace`]) into tables: for each gene, state and option, what
//! the option adds to a network. The costs of a network are then a walk of one look-up for each letter of its genotype,
//! without the network. The tables and the networks come from one interpreter of definitions, so they agree.

mod amount;
mod builtin;
mod compile;
mod count;
mod decode;
mod encode;
mod ops;
mod order;
mod program;
mod resolve;
mod run;
mod space;
mod spec;
mod tables;

pub use builtin::{BuiltinSpace, builtin_space, builtin_spaces};
pub use ops::SpaceKey;
pub use program::Gene;
pub use resolve::Restriction;
pub use space::{
    CompiledSpace, INACTIVE_LETTER, Part, PartId, StateId, Stopped, Totals, letter_of,
};
pub use spec::{ArchSpaceDef, Scalar};

//! The search side as a library: the rules that prune candidates of an architecture search.
//!
//! Everything here is pure. [`gate::Gate`] judges networks and [`gate::SpaceGate`] judges genotypes, both by the rules of
//! [`verdict::judge`].

pub mod config;
pub mod constraints;
pub mod gate;
pub mod verdict;

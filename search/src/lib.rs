//! The search side as a library: the rules that prune candidates of an architecture search.
//!
//! Everything here is pure: [`verdict::judge`] takes constraints, a plan and a prediction.

pub mod config;
pub mod constraints;
pub mod verdict;

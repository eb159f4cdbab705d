//! The search side as a library: the rules by which candidates of an architecture search are pruned.
//!
//! Everything here is pure: [`verdict::judge`] takes constraints, a plan and a prediction.

pub mod constraints;
pub mod verdict;

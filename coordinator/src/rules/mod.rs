//! The rules of a farm: pure functions of the clock and the data. Their callers do the I/O.

pub mod admission;
pub mod canary;
pub mod failures;
pub mod incidents;
pub mod lease;
pub mod plausible;
pub mod presence;
pub mod retention;
pub mod standing;
pub mod task;

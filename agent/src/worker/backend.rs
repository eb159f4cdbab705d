//! What a device has to offer so that ops can be timed on it.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Pass;

/// The samples of one pass.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Samples {
    /// Microseconds of one call each.
    pub micros: Vec<f64>,
    /// What issuing a call costs the host, where that is not the same; one per sample.
    pub host_micros: Vec<f64>,
    /// Samples that were taken and set aside, since the machine was disturbed meanwhile.
    pub rejected: u32,
    /// Samples among those above that were disturbed too, and kept because no better one came.
    pub disturbed: u32,
}

/// Something that can be run over and over.
pub trait Call {
    /// Writes a fresh input, as the op before it would: in a network, an op reads what has just been
    /// written. `copy` counts from 0 to the backend's [`Backend::copies`].
    ///
    /// # Errors
    /// What libtorch reports.
    fn produce(&mut self, copy: usize) -> Result<()>;

    /// Runs it once and drops the output.
    ///
    /// # Errors
    /// What libtorch reports.
    fn run(&mut self, copy: usize) -> Result<()>;
}

/// A device and its clock.
pub trait Backend {
    /// How many copies of weights and input are wanted for work of this size: more than one where
    /// reuse distance is made by rotating between copies.
    fn copies(&self, bytes: u64) -> usize;

    /// Takes the samples of one pass.
    ///
    /// # Errors
    /// What the device reports.
    fn sample(&mut self, pass: Pass, call: &mut dyn Call) -> Result<Samples>;
}

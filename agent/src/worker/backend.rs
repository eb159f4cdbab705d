//! What a device has to offer so that ops can be timed on it.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Pass;

/// The samples of one pass.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Samples {
    /// Microseconds of one call each.
    pub micros: Vec<f64>,
    /// Calls that each of those is the mean of, at most.
    pub calls: u32,
    /// What issuing a call costs the host, where that is not the same; one per sample.
    pub host_micros: Vec<f64>,
    /// Samples that were taken and set aside, since the machine was disturbed meanwhile.
    pub rejected: u32,
    /// Samples among those above that were disturbed too, and kept because no better one came.
    pub disturbed: u32,
    /// Microseconds in producer and op over all calls of the pass, kept or not.
    pub ops_micros: f64,
    /// Microseconds in reading other memory, to make the reuse distance; 0 where that is not how it is
    /// made.
    pub reading_micros: f64,
}

/// Something that can be run over and over, with as many copies of its weights as the backend wanted.
pub trait Call {
    /// Writes a fresh input, as the op before it would: in a network, an op reads what has just been
    /// written.
    ///
    /// # Errors
    /// What libtorch reports.
    fn produce(&mut self) -> Result<()>;

    /// Runs it once and drops the output. `copy` counts the copies of the weights from 0 to the
    /// backend's [`Backend::copies`]; all of them read one input.
    ///
    /// # Errors
    /// What libtorch reports.
    fn run(&mut self, copy: usize) -> Result<()>;

    /// Bytes of one copy of its weights.
    fn copy_bytes(&self) -> u64;

    /// Whether it is a whole network, whose result somebody waits for.
    fn is_network(&self) -> bool;
}

/// A device and its clock.
pub trait Backend {
    /// How many copies of weights of this size are wanted: more than one where reuse distance is made
    /// by rotating between copies.
    fn copies(&self, copy_bytes: u64) -> usize;

    /// Takes the samples of one pass.
    ///
    /// # Errors
    /// What the device reports.
    fn sample(&mut self, pass: Pass, call: &mut dyn Call) -> Result<Samples>;

    /// Waits until all calls have been done, where issuing and running are not one.
    ///
    /// # Errors
    /// What the device reports. After an error that the device does not get over, each call gives one.
    fn finish(&mut self) -> Result<()>;

    /// Bytes of memory that work may use, where that is not the host's memory.
    fn memory_limit(&self) -> Option<u64> {
        None
    }

    /// Bytes of the device's memory that this process holds now, where that is not the host's memory.
    ///
    /// # Errors
    /// What the device reports.
    fn held_bytes(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }
}

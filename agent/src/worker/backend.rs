//! The interface of a device on which ops are timed.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Pass;
use super::disturbance::Taken;

/// The samples of one pass.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Samples {
    /// Microseconds per call.
    pub micros: Vec<f64>,
    /// The largest number of calls over which a sample is averaged.
    pub calls: u32,
    /// Host time of issuing a call, if it differs from the latency; one value per sample. The only times of a pass
    /// that is [`Pass::host_only`].
    pub host_micros: Vec<f64>,
    /// Samples that were discarded because the machine was disturbed.
    pub rejected: u32,
    /// Kept samples that were disturbed too, because no undisturbed sample could be taken.
    pub disturbed: u32,
    /// Microseconds in producer and op over all calls of the pass, including discarded calls.
    pub ops_micros: f64,
    /// Microseconds spent reading other memory to create the reuse distance; 0 if the device creates it differently.
    pub reading_micros: f64,
}

impl Samples {
    /// Number of samples.
    pub fn count(&self) -> u32 {
        u32::try_from(self.micros.len().max(self.host_micros.len())).unwrap_or(u32::MAX)
    }

    /// The samples of the block that was kept, with those of the others counted.
    pub fn of_blocks(taken: Taken<Samples>) -> Samples {
        let mut samples = taken.kept;
        if taken.disturbed {
            samples.disturbed = samples.count();
        }
        for block in taken.rejected {
            samples.rejected += block.rejected + block.count();
            samples.ops_micros += block.ops_micros;
            samples.reading_micros += block.reading_micros;
        }
        samples
    }
}

/// Work that can be run repeatedly, with as many copies of its weights as the backend requested.
pub trait Call {
    /// Writes a new input, as the preceding op would do: in a network, an op reads data that has just been written.
    ///
    /// # Errors
    /// What libtorch reports.
    fn produce(&mut self) -> Result<()>;

    /// Runs the work once and drops the output. `copy` is the index of the copy of the weights, from 0 to below the
    /// backend's [`Backend::copies`]. All copies read the same input.
    ///
    /// # Errors
    /// What libtorch reports.
    fn run(&mut self, copy: usize) -> Result<()>;

    /// Bytes of one copy of the weights.
    fn copy_bytes(&self) -> u64;

    /// Whether the work is a whole network, whose result a caller waits for.
    fn is_network(&self) -> bool;
}

/// A device and its clock.
pub trait Backend {
    /// The number of copies for weights of this size. It exceeds one if the reuse distance is created by rotating
    /// between copies.
    fn copies(&self, copy_bytes: u64) -> usize;

    /// Takes the samples of one pass.
    ///
    /// # Errors
    /// What the device reports.
    fn sample(&mut self, pass: Pass, call: &mut dyn Call) -> Result<Samples>;

    /// Waits until all calls have finished, if calls are issued asynchronously.
    ///
    /// # Errors
    /// What the device reports. After an unrecoverable error of the device, every call fails.
    fn finish(&mut self) -> Result<()>;

    /// Bytes of memory available to the work, if the device has its own memory.
    fn memory_limit(&self) -> Option<u64> {
        None
    }

    /// Bytes of device memory that this process currently holds, if the device has its own memory.
    ///
    /// # Errors
    /// What the device reports.
    fn held_bytes(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }
}

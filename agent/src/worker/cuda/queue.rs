//! The seam between the rules of measuring on a GPU and the GPU: a queue of work with a clock at each
//! end. The rules are tested against a simulated queue.

use anyhow::Result;

/// A place in the queue at which the device notes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Before the calls that are timed.
    Start,
    /// After them.
    End,
}

/// The queue of work of a device, and the clocks of the host, which fills it, and of the device, which
/// works it off.
pub trait Queue {
    /// The host's clock in microseconds, from any point that stays the same.
    fn host_micros(&mut self) -> f64;

    /// Puts a mark into the queue. A mark that is put again moves there.
    ///
    /// # Errors
    /// What the driver reports.
    fn mark(&mut self, mark: Mark) -> Result<()>;

    /// Waits until the queue is empty.
    ///
    /// # Errors
    /// What the driver reports, including what went wrong in the work before.
    fn synchronize(&mut self) -> Result<()>;

    /// The device's time from the start to the end mark, in microseconds. Both have been passed.
    ///
    /// # Errors
    /// What the driver reports.
    fn between_marks(&mut self) -> Result<f64>;

    /// Puts pieces of work into the queue that have nothing to do with what is timed: they keep the device
    /// busy while the host gets ahead. Each size takes several times as long on the device as the one below
    /// it, and about as long to issue.
    ///
    /// # Errors
    /// What the driver or libtorch reports.
    fn occupy(&mut self, size: u32, pieces: usize) -> Result<()>;

    /// Memory of the device that nobody holds, in bytes.
    ///
    /// # Errors
    /// What the driver reports.
    fn free_bytes(&mut self) -> Result<u64>;
}

/// What a device has that decides how many copies of weights are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Size of the cache that all of the device shares, in bytes.
    pub l2_bytes: u64,
    /// Memory that work may use, in bytes.
    pub limit_bytes: u64,
}

//! A CUDA device as a backend: two times per op, taken without waiting between calls, and reuse distance
//! by rotating between copies of the weights. `docs/cuda.md` has the formulas and the reasons.

mod available;
mod driver;
mod queue;

use anyhow::Result;

pub use available::{check, facts};

use super::backend::{Backend, Call, Samples};
use super::{Pass, WorkerSettings};
use driver::Driver;
use queue::{Mark, Memory, Queue};

/// The largest share of a block that clocks, marks and waiting may make up.
const OVERHEAD_SHARE: f64 = 0.005;
/// Empty blocks that tell what marks and waiting cost.
const CALIBRATION_BLOCKS: usize = 31;
/// The most calls of a block on the device: a call that takes no time would grow it for ever.
const MOST_CALLS: usize = 20_000;
/// Calls that are in the queue before the first mark: the device has work when it gets there, so that
/// the window holds no wait for the first call to be issued.
const LEAD_CALLS: usize = 2;
/// Calls of a block on the host: enough to even out, and few enough that the queue, which takes about
/// a thousand launches, never fills and makes the host wait for the device.
const HOST_CALLS: std::ops::RangeInclusive<usize> = 4..=32;
/// The most copies of one op's weights: making one costs host time, whatever its size.
const MOST_COPIES: u64 = 256;
/// How long the calls before the first sample of a pass need to go on, even if not every copy was used.
const SETTLED_MICROS: f64 = 10_000.0;

/// A CUDA device.
pub struct CudaBackend<Q> {
    queue: Q,
    memory: Memory,
    /// The longest distance of any curve. It stands for all longer ones, so it is measured with weights
    /// that are certainly out of the cache.
    largest_reuse_distance: u64,
    /// What the host's clock costs to read.
    clock_micros: f64,
    /// What marks and waiting cost in a block without calls.
    block_micros: f64,
}

/// Opens the device for a worker.
///
/// # Errors
/// When CUDA is not there, or the driver refuses.
pub fn open(index: u32, settings: &WorkerSettings) -> Result<CudaBackend<Driver>> {
    check(index)?;
    // Autotuning may choose another algorithm in each process, and so another latency.
    tch::Cuda::cudnn_set_benchmark(false);
    let driver = Driver::open(index)?;
    let memory = driver.memory(settings.memory_limit)?;
    CudaBackend::new(driver, memory, settings.largest_reuse_distance)
}

/// Calls that go from one copy to the next.
struct Rotation<'a> {
    call: &'a mut dyn Call,
    copies: usize,
    next: usize,
}

impl Rotation<'_> {
    fn run(&mut self, calls: usize) -> Result<()> {
        for _ in 0..calls {
            self.call.run(self.next)?;
            self.next = (self.next + 1) % self.copies;
        }
        Ok(())
    }
}

impl<Q: Queue> CudaBackend<Q> {
    /// A backend on a queue that nothing else uses.
    ///
    /// # Errors
    /// What the driver reports.
    fn new(mut queue: Q, memory: Memory, largest_reuse_distance: u64) -> Result<CudaBackend<Q>> {
        let mut clock = Vec::with_capacity(CALIBRATION_BLOCKS);
        let mut block = Vec::with_capacity(CALIBRATION_BLOCKS);
        for _ in 0..CALIBRATION_BLOCKS {
            queue.synchronize()?;
            let start = queue.host_micros();
            clock.push(queue.host_micros() - start);
            queue.mark(Mark::Start)?;
            queue.mark(Mark::End)?;
            queue.synchronize()?;
            block.push(queue.host_micros() - start);
        }
        Ok(CudaBackend {
            queue,
            memory,
            largest_reuse_distance,
            clock_micros: latlas_shared::stats::median(&clock),
            block_micros: latlas_shared::stats::median(&block),
        })
    }

    /// How many copies a pass rotates between: as many as it takes for the others to make up the
    /// distance, since they are what is read between two uses of one.
    fn rotated(&self, distance: u64, copy_bytes: u64) -> usize {
        if distance == 0 || copy_bytes == 0 {
            return 1;
        }
        let others_bytes = if distance >= self.largest_reuse_distance {
            distance.max(self.memory.l2_bytes.saturating_mul(2))
        } else {
            distance
        };
        // Work whose memory is more than half of the limit counts as too large, and the op itself and
        // its activations have to fit beside.
        let fitting = self.memory.limit_bytes / 4 / copy_bytes;
        let copies = (1 + others_bytes.div_ceil(copy_bytes)).min(MOST_COPIES).min(fitting);
        usize::try_from(copies.max(1)).unwrap_or(1)
    }

    /// The device's time for so many calls, in microseconds: one wait per block.
    fn device_block(&mut self, calls: usize, rotation: &mut Rotation) -> Result<f64> {
        rotation.run(LEAD_CALLS)?;
        self.queue.mark(Mark::Start)?;
        rotation.run(calls)?;
        self.queue.mark(Mark::End)?;
        self.queue.synchronize()?;
        self.queue.between_marks()
    }

    /// The host's time for issuing so many calls, in microseconds. The queue is empty before.
    fn host_block(&mut self, calls: usize, rotation: &mut Rotation) -> Result<f64> {
        // The first call after a wait finds the host's caches cold.
        rotation.run(1)?;
        let start = self.queue.host_micros();
        rotation.run(calls)?;
        let elapsed = self.queue.host_micros() - start;
        self.queue.synchronize()?;
        Ok((elapsed - self.clock_micros).max(1e-3))
    }

    /// How many calls make up a block on the device. Grows the block until overhead is a small enough
    /// share of it, and goes on until the copies have been used as they will be in the samples.
    fn device_calls(&mut self, rotation: &mut Rotation) -> Result<usize> {
        let long_enough = self.block_micros / OVERHEAD_SHARE;
        let (mut calls, mut used, mut spent) = (1, 0, 0.0);
        loop {
            let micros = self.device_block(calls, rotation)?;
            used += calls + LEAD_CALLS;
            spent += micros;
            let grown = micros >= long_enough || calls >= MOST_CALLS;
            if grown && (used >= rotation.copies || spent >= SETTLED_MICROS) {
                return Ok(calls);
            }
            if !grown {
                // A small block holds waits that a large one does not, so it is not trusted too far.
                let wanted = calls as f64 * long_enough / micros.max(1e-3);
                calls = (wanted.ceil() as usize).clamp(calls + 1, calls * 8).min(MOST_CALLS);
            }
        }
    }

    /// How many calls make up a block on the host: as few as make reading the clock a small enough
    /// share.
    fn host_calls(&mut self, rotation: &mut Rotation) -> Result<usize> {
        let long_enough = self.clock_micros / OVERHEAD_SHARE;
        let mut calls = *HOST_CALLS.start();
        while calls < *HOST_CALLS.end() && self.host_block(calls, rotation)? < long_enough {
            calls *= 2;
        }
        Ok(calls)
    }

    fn sample_op(&mut self, pass: Pass, rotation: &mut Rotation) -> Result<Samples> {
        let mut samples = Samples::default();
        self.queue.synchronize()?;
        let host_calls = self.host_calls(rotation)?;
        let device_calls = self.device_calls(rotation)?;
        for _ in 0..pass.samples {
            let host = self.host_block(host_calls, rotation)?;
            samples.host_micros.push(host / host_calls as f64);
            let device = self.device_block(device_calls, rotation)?;
            samples.micros.push((device / device_calls as f64).max(1e-3));
        }
        Ok(samples)
    }

    /// One inference at a time, from an idle device to the end of the wait: what a prediction by the
    /// two clocks is about.
    fn sample_network(&mut self, pass: Pass, rotation: &mut Rotation) -> Result<Samples> {
        let mut samples = Samples::default();
        rotation.run(1)?;
        for _ in 0..pass.samples {
            self.queue.synchronize()?;
            let start = self.queue.host_micros();
            rotation.run(1)?;
            let issued = self.queue.host_micros();
            self.queue.synchronize()?;
            let end = self.queue.host_micros();
            samples.host_micros.push((issued - start - self.clock_micros).max(1e-3));
            samples.micros.push((end - start - 2.0 * self.clock_micros).max(1e-3));
        }
        Ok(samples)
    }
}

impl<Q: Queue> Backend for CudaBackend<Q> {
    fn copies(&self, copy_bytes: u64) -> usize {
        self.rotated(self.largest_reuse_distance, copy_bytes)
    }

    fn sample(&mut self, pass: Pass, call: &mut dyn Call) -> Result<Samples> {
        if call.is_network() {
            return self.sample_network(pass, &mut Rotation { call, copies: 1, next: 0 });
        }
        let copies = self.rotated(pass.reuse_distance_bytes, call.copy_bytes());
        self.sample_op(pass, &mut Rotation { call, copies, next: 0 })
    }

    fn finish(&mut self) -> Result<()> {
        self.queue.synchronize()
    }

    fn memory_limit(&self) -> Option<u64> {
        Some(self.memory.limit_bytes)
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

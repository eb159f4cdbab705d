//! A CUDA device as a backend: two times per op, taken without waiting between calls, and reuse distance
//! by rotating between copies of the weights. `docs/cuda.md` has the formulas and the reasons.

mod available;
mod contention;
mod driver;
mod library;
mod queue;

use anyhow::{Result, bail};
use latlas_predict::stats::median;
use latlas_shared::HOST_BOUND_SHARE;
use tch::Tensor;

pub use available::{check, facts};

use super::backend::{Backend, Call, Samples};
use super::disturbance::{MOST_BLOCK_RETAKES, retake};
use super::{Pass, WorkerSettings};
use contention::{Contention, GpuContention};
use driver::Driver;
use queue::{Mark, Memory, Queue};

/// The largest share of a block that clocks and marks may make up.
const OVERHEAD_SHARE: f64 = 0.005;
/// Empty blocks that tell what marks cost.
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
const SETTLED_MICROS: f64 = 5_000.0;
/// Calls of a block behind filler. The most are so few that they fit into the queue together with it: the host
/// has issued all of them before the device gets to the first.
const FILLED_CALLS: std::ops::RangeInclusive<usize> = 4..=32;
/// A piece of filler takes at least so many times as long to run as to issue.
const FILLER_GAIN: f64 = 4.0;
/// Sizes of filler that are tried; the last has 32 times the side of the first, which takes long on any
/// device.
const FILLER_SIZES: u32 = 6;
/// How much longer than the host is expected to need the filler goes on: the host's time scatters.
const FILLER_MARGIN: f64 = 1.5;
/// The most pieces of filler in one block, of a queue that takes about a thousand launches.
const MOST_PIECES: usize = 400;

/// Work that keeps the device busy while the host gets ahead.
#[derive(Debug, Clone, Copy)]
struct Filler {
    size: u32,
    /// By how much the host gets ahead with each piece.
    gain_micros: f64,
    /// What the marks of a block without calls cost the device when it does not wait for the host.
    marks_micros: f64,
}

/// A CUDA device.
pub struct CudaBackend<Q, C> {
    queue: Q,
    contention: C,
    filler: Option<Filler>,
    /// What was free before this process took any.
    free_at_start: u64,
    memory: Memory,
    /// The longest distance of any curve. It stands for all longer ones, so it is measured with weights
    /// that are certainly out of the cache.
    largest_reuse_distance: u64,
    /// What the host's clock costs to read.
    clock_micros: f64,
    /// What the device's clock shows between the marks of a block without calls.
    block_micros: f64,
}

/// Opens the device for a worker.
///
/// # Errors
/// When CUDA is not there, or the driver refuses.
pub fn open(index: u32, settings: &WorkerSettings) -> Result<CudaBackend<Driver, GpuContention>> {
    check(index)?;
    run_a_kernel(index)?;
    // Autotuning may choose another algorithm in each process, and so another latency.
    tch::Cuda::cudnn_set_benchmark(false);
    let driver = Driver::open(index)?;
    let memory = driver.memory(settings.memory_limit)?;
    CudaBackend::new(driver, GpuContention::of(index), memory, settings.largest_reuse_distance)
}

/// Runs one kernel. A driver and a libtorch that both know the device may still not go together: libtorch has kernels
/// for some architectures only.
///
/// # Errors
/// What stood in the way, and what to do.
fn run_a_kernel(index: u32) -> Result<()> {
    let sum = || -> Result<f64, tch::TchError> {
        let options = (tch::Kind::Float, tch::Device::Cuda(index as usize));
        f64::try_from(&Tensor::f_ones([2], options)?.f_sum(tch::Kind::Float)?)
    };
    match sum() {
        Ok(2.0) => Ok(()),
        Ok(sum) => bail!("cuda:{index} cannot be used. It adds 1 and 1 to {sum}."),
        Err(e) => bail!("cuda:{index} cannot be used. {}", available::no_kernel(&e.to_string())),
    }
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

impl<Q: Queue, C: Contention> CudaBackend<Q, C> {
    /// A backend on a queue that nothing else uses.
    ///
    /// # Errors
    /// What the driver reports.
    fn new(
        mut queue: Q,
        contention: C,
        memory: Memory,
        largest_reuse_distance: u64,
    ) -> Result<CudaBackend<Q, C>> {
        let mut clock = Vec::with_capacity(CALIBRATION_BLOCKS);
        let mut block = Vec::with_capacity(CALIBRATION_BLOCKS);
        for _ in 0..CALIBRATION_BLOCKS {
            queue.synchronize()?;
            let start = queue.host_micros();
            clock.push(queue.host_micros() - start);
            queue.mark(Mark::Start)?;
            queue.mark(Mark::End)?;
            queue.synchronize()?;
            block.push(queue.between_marks()?);
        }
        Ok(CudaBackend {
            free_at_start: queue.free_bytes()?,
            queue,
            contention,
            filler: None,
            memory,
            largest_reuse_distance,
            clock_micros: median(&clock),
            block_micros: median(&block),
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

    /// The device's time for so many calls, in microseconds, of an op that is run faster than it is issued: they
    /// are issued while the device is busy otherwise.
    fn filled_block(
        &mut self,
        calls: usize,
        host_micros: f64,
        rotation: &mut Rotation,
    ) -> Result<f64> {
        let filler = self.filler()?;
        let ahead = FILLER_MARGIN * host_micros * (LEAD_CALLS + calls) as f64;
        let pieces = 1 + (ahead / filler.gain_micros).ceil() as usize;
        self.queue.occupy(filler.size, pieces.min(MOST_PIECES))?;
        let micros = self.device_block(calls, rotation)?;
        Ok((micros - filler.marks_micros).max(1e-3))
    }

    /// The filler, which is chosen when the first op needs it.
    fn filler(&mut self) -> Result<Filler> {
        if let Some(filler) = self.filler {
            return Ok(filler);
        }
        const PIECES: usize = 16;
        let mut filler = Filler { size: 0, gain_micros: 0.0, marks_micros: 0.0 };
        for size in 0..FILLER_SIZES {
            // The first pieces of a size make its memory and load its kernel.
            self.queue.occupy(size, 2)?;
            self.queue.synchronize()?;
            let start = self.queue.host_micros();
            self.queue.mark(Mark::Start)?;
            self.queue.occupy(size, PIECES)?;
            let issued = self.queue.host_micros();
            self.queue.mark(Mark::End)?;
            self.queue.synchronize()?;
            let host = (issued - start) / PIECES as f64;
            let device = self.queue.between_marks()? / PIECES as f64;
            filler.size = size;
            filler.gain_micros = (device - host).max(1e-3);
            if device >= FILLER_GAIN * host {
                break;
            }
        }
        let mut marks = Vec::with_capacity(CALIBRATION_BLOCKS);
        for _ in 0..CALIBRATION_BLOCKS {
            self.queue.occupy(filler.size, 2)?;
            self.queue.mark(Mark::Start)?;
            self.queue.mark(Mark::End)?;
            self.queue.synchronize()?;
            marks.push(self.queue.between_marks()?);
        }
        filler.marks_micros = median(&marks);
        self.filler = Some(filler);
        Ok(filler)
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

    /// The least that a block on the device lasts, in microseconds.
    fn long_enough(&self) -> f64 {
        self.block_micros / OVERHEAD_SHARE
    }

    /// How many calls make up a block on the device. Grows the block until overhead is a small enough
    /// share of it, and goes on until the copies have been used as they will be in the samples. Gives what one
    /// call took in the last block too.
    fn device_calls(&mut self, rotation: &mut Rotation) -> Result<(usize, f64)> {
        let long_enough = self.long_enough();
        let (mut calls, mut used, mut spent) = (1, 0, 0.0);
        loop {
            let micros = self.device_block(calls, rotation)?;
            used += calls + LEAD_CALLS;
            spent += micros;
            let grown = micros >= long_enough || calls >= MOST_CALLS;
            if grown && (used >= rotation.copies || spent >= SETTLED_MICROS) {
                return Ok((calls, micros / calls as f64));
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
        if pass.host_only {
            for _ in 0..pass.samples {
                samples
                    .host_micros
                    .push(self.host_block(host_calls, rotation)? / host_calls as f64);
            }
            return Ok(samples);
        }
        let (device_calls, expected) = self.device_calls(rotation)?;
        let mut filled_calls = *FILLED_CALLS.end();
        let mut most_calls = 1;
        for _ in 0..pass.samples {
            let host = self.host_block(host_calls, rotation)? / host_calls as f64;
            samples.host_micros.push(host);
            // Where both are the device's time, it does not matter which way it is found.
            let (calls, micros) = if host >= HOST_BOUND_SHARE * expected {
                (filled_calls, self.filled_block(filled_calls, host, rotation)?)
            } else {
                (device_calls, self.device_block(device_calls, rotation)?)
            };
            most_calls = most_calls.max(calls);
            let per_call = (micros / calls as f64).max(1e-3);
            samples.micros.push(per_call);
            filled_calls = ((self.long_enough() / per_call).ceil() as usize)
                .clamp(*FILLED_CALLS.start(), *FILLED_CALLS.end());
        }
        samples.calls = u32::try_from(most_calls)?;
        Ok(samples)
    }

    fn sample_once(&mut self, pass: Pass, call: &mut dyn Call) -> Result<Samples> {
        if call.is_network() {
            return self.sample_network(pass, &mut Rotation { call, copies: 1, next: 0 });
        }
        let copies = self.rotated(pass.reuse_distance_bytes, call.copy_bytes());
        self.sample_op(pass, &mut Rotation { call, copies, next: 0 })
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

impl<Q: Queue, C: Contention> Backend for CudaBackend<Q, C> {
    fn copies(&self, copy_bytes: u64) -> usize {
        self.rotated(self.largest_reuse_distance, copy_bytes)
    }

    fn sample(&mut self, pass: Pass, call: &mut dyn Call) -> Result<Samples> {
        let start = self.queue.host_micros();
        let taken = retake(MOST_BLOCK_RETAKES, || {
            let samples = self.sample_once(pass, call)?;
            anyhow::Ok((samples, self.contention.is_present()))
        })?;
        let mut samples = taken.kept;
        if taken.disturbed {
            samples.disturbed = samples.count();
        }
        for block in taken.rejected {
            samples.rejected += block.count();
        }
        samples.ops_micros = self.queue.host_micros() - start;
        Ok(samples)
    }

    fn finish(&mut self) -> Result<()> {
        self.queue.synchronize()
    }

    fn memory_limit(&self) -> Option<u64> {
        Some(self.memory.limit_bytes)
    }

    fn held_bytes(&mut self) -> Result<Option<u64>> {
        Ok(Some(self.free_at_start.saturating_sub(self.queue.free_bytes()?)))
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

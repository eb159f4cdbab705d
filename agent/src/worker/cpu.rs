//! The worker's use of the processor: pinning, threads, allocator, clock, and the memory that is read to evict weights
//! from the caches.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use latlas_shared::{Allocator, Device};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use tch::Tensor;

use super::backend::{Backend, Call, Samples};
use super::disturbance::{
    self, Counters, MOST_BLOCK_RETAKES, MOST_RETAKES, UsualClock, online_cpus, retake,
};
use super::{Pass, WorkerSettings};

/// Sets threads, pinning and allocator. Must be called before anything else in the worker, since glibc and libtorch
/// read some of these settings only once.
///
/// # Errors
/// When there are fewer processors than threads, or the allocator cannot be set.
pub fn apply(settings: &WorkerSettings) -> Result<()> {
    if settings.allocator == Allocator::Retain {
        retain_memory()?;
    }
    let cpus = processors_of_worker(settings.threads)?;
    // The host's side of a GPU has its turns instead.
    if settings.device == Device::Cpu {
        pin(&cpus)?;
    }
    let threads = i32::try_from(settings.threads)?;
    tch::set_num_interop_threads(1);
    tch::set_num_threads(threads);
    Ok(())
}

/// The processors of a worker with so many threads: the last of the allowed ones, since interrupts are usually served by
/// the first ones.
///
/// # Errors
/// When there are fewer processors than threads.
pub fn processors_of_worker(threads: u32) -> Result<Vec<usize>> {
    let mut allowed = allowed_cpus()?;
    let count = threads as usize;
    if count == 0 || count > allowed.len() {
        bail!("{count} threads were asked for, and there are {} processors", allowed.len());
    }
    Ok(allowed.split_off(allowed.len() - count))
}

/// Keeps freed memory in the process: no `mmap` per activation, and no trimming of the heap.
#[cfg(target_env = "gnu")]
fn retain_memory() -> Result<()> {
    let options =
        [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_TOP_PAD, 64 << 20)];
    for (option, value) in options {
        // SAFETY: mallopt takes two integers and keeps no pointer; it reports a refusal by its return value.
        if unsafe { libc::mallopt(option, value) } != 1 {
            bail!("the system's allocator refused option {option}; use `--allocator system`");
        }
    }
    Ok(())
}

#[cfg(not(target_env = "gnu"))]
fn retain_memory() -> Result<()> {
    bail!("keeping freed memory is implemented for glibc only; use `--allocator system`")
}

/// The calling thread, for the system calls about processors.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Pins the calling thread, and all threads and processes that it will start.
///
/// # Errors
/// When the system call fails.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu).with_context(|| format!("pinning to processor {cpu}"))?;
    }
    sched_setaffinity(THIS_THREAD, &set).with_context(|| format!("pinning to {cpus:?}"))
}

/// The processors that issue work to a GPU, one visit each. A processor whose core is shared with another guest of
/// the machine is slower for seconds, and no counter shows it (on an H200, issuing took 1.45 times as long). Visits on
/// one processor are then wrong together; visits on several are not.
pub struct Turns {
    cpus: Vec<usize>,
    next: usize,
}

impl Turns {
    /// Turns of all allowed processors.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn new() -> Result<Turns> {
        Ok(Turns { cpus: allowed_cpus()?, next: 0 })
    }

    /// Moves the calling thread to the next processor.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn turn(&mut self) -> Result<()> {
        let cpu = self.cpus[self.next];
        self.next = (self.next + 1) % self.cpus.len();
        pin(&[cpu])
    }
}

/// The processors that the calling thread may use.
///
/// # Errors
/// When the system call fails.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(THIS_THREAD).context("reading the allowed processors")?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu) == Ok(true)).collect())
}

/// The processor as a backend. It creates reuse distance by reading other memory, and reads time from the monotonic
/// clock. It detects disturbance in two ways: an involuntary context switch means that the kernel ran another thread
/// during a sample, and system counters are compared over a block of samples.
pub struct CpuBackend {
    eviction: Eviction,
    clock: Clock,
    watch: Watch,
}

impl CpuBackend {
    /// A backend for reuse distances up to a number of bytes, for ops with this number of threads.
    ///
    /// # Errors
    /// When the system does not report the processors of this process, or there is too little memory.
    pub fn new(largest_reuse_distance: u64, threads: u32) -> Result<CpuBackend> {
        Ok(CpuBackend {
            eviction: Eviction::new(largest_reuse_distance, threads)?,
            clock: Clock::calibrate(),
            watch: Watch::new(allowed_cpus()?),
        })
    }

    /// One sample, and whether it was disturbed.
    fn sample_once(
        &self,
        distance: u64,
        call: &mut dyn Call,
        spent: &mut Samples,
    ) -> Result<(f64, bool)> {
        let before = Instant::now();
        self.eviction.read(distance)?;
        let start = Instant::now();
        spent.reading_micros += (start - before).as_secs_f64() * 1e6;
        call.produce()?;
        let switches = involuntary_switches()?;
        let (micros, result) = self.clock.time(|| call.run(0));
        result?;
        spent.ops_micros += start.elapsed().as_secs_f64() * 1e6;
        Ok((micros, involuntary_switches()? != switches))
    }

    /// The samples of one block. A disturbed sample is taken again.
    fn block(&self, pass: Pass, call: &mut dyn Call) -> Result<Samples> {
        let mut samples = Samples::default();
        for _ in 0..pass.samples {
            let taken = retake(MOST_RETAKES, || {
                self.sample_once(pass.reuse_distance_bytes, call, &mut samples)
            })?;
            samples.rejected += u32::try_from(taken.rejected.len())?;
            samples.disturbed += u32::from(taken.disturbed);
            samples.micros.push(taken.kept);
        }
        Ok(samples)
    }
}

impl Backend for CpuBackend {
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn copies(&self, _copy_bytes: u64) -> usize {
        1
    }

    fn sample(&mut self, pass: Pass, call: &mut dyn Call) -> Result<Samples> {
        let taken = retake(MOST_BLOCK_RETAKES, || {
            let (before, start) = (self.watch.counters(), Instant::now());
            let samples = self.block(pass, call)?;
            let elapsed_micros = start.elapsed().as_secs_f64() * 1e6;
            anyhow::Ok((samples, self.watch.disturbed_since(before, elapsed_micros)))
        })?;
        Ok(Samples::of_blocks(taken))
    }
}

/// The counters of a worker's processors. Their files stay open, because opening costs more than reading.
pub struct Watch {
    cpus: Vec<usize>,
    owns_machine: bool,
    stat: Option<File>,
    pressure: Option<File>,
    clocks: Vec<File>,
    usual_clock: UsualClock,
}

impl Watch {
    /// The counters of these processors.
    pub fn new(cpus: Vec<usize>) -> Watch {
        // A counter whose file is missing is not used.
        let open = |path: &str| File::open(path).ok();
        let clocks = cpus
            .iter()
            .filter_map(|cpu| {
                open(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"))
            })
            .collect();
        let online = fs::read_to_string("/proc/stat").map_or(0, |stat| online_cpus(&stat));
        Watch {
            owns_machine: cpus.len() >= online,
            stat: open("/proc/stat"),
            pressure: open("/proc/pressure/cpu"),
            clocks,
            cpus,
            usual_clock: UsualClock::default(),
        }
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        let text = |file: &File| {
            // The lines of the processors come first in `/proc/stat`, with about 70 bytes each. On most machines the
            // buffer cuts off only the long interrupt line after them.
            let mut buffer = vec![0; 1 << 15];
            let length = file.read_at(&mut buffer, 0).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        let khz = |file| text(file)?.trim().parse::<u64>().ok();
        Counters {
            steal_ticks: self
                .stat
                .as_ref()
                .and_then(text)
                .and_then(|stat| disturbance::steal_ticks(&stat, &self.cpus)),
            pressure_micros: self
                .pressure
                .as_ref()
                .and_then(text)
                .and_then(|pressure| disturbance::pressure_micros(&pressure)),
            khz: self.clocks.iter().filter_map(khz).min(),
        }
    }

    /// Whether something disturbed a block of so many microseconds that began at `before`.
    pub fn disturbed_since(&mut self, before: Counters, elapsed_micros: f64) -> bool {
        let after = self.counters();
        if let Some(khz) = after.khz {
            self.usual_clock.add(khz);
        }
        let usual = self.usual_clock.khz();
        disturbance::of_block(before, after, elapsed_micros, usual, self.owns_machine).is_some()
    }
}

/// Involuntary context switches of this process's threads so far.
fn involuntary_switches() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("reading the context switches")?;
    Ok(usage.involuntary_context_switches())
}

/// A memory area that is read to evict other data from the caches.
enum Eviction {
    /// For ops on one thread.
    Here(Vec<[u64; 8]>),
    /// For ops on several threads. Each core has private caches, and in a network each core accesses its part of the
    /// memory. So libtorch reads the memory on the same threads that run ops.
    OnAllThreads(Tensor),
}

impl Eviction {
    /// A buffer of at least `bytes`, written once so that its pages exist.
    fn new(bytes: u64, threads: u32) -> Result<Eviction> {
        if threads > 1 {
            let words = i64::try_from(bytes / 4)?;
            let kind = (tch::Kind::Float, tch::Device::Cpu);
            return Ok(Eviction::OnAllThreads(Tensor::f_ones([words], kind)?));
        }
        let lines = usize::try_from(bytes / 64).unwrap_or(usize::MAX);
        Ok(Eviction::Here(vec![[1; 8]; lines]))
    }

    fn read(&self, bytes: u64) -> Result<()> {
        match self {
            Eviction::Here(lines) => read(lines, bytes),
            Eviction::OnAllThreads(words) if bytes > 0 => {
                let count = i64::try_from(bytes / 4)?.min(words.size1()?);
                let _ = black_box(words.f_narrow(0, 0, count)?.f_sum(tch::Kind::Float)?);
            }
            Eviction::OnAllThreads(_) => {}
        }
        Ok(())
    }
}

/// Reads the first `bytes`, one word of each cache line, from four streams in turn: while a processor waits for lines
/// of one stream, it fetches lines of the others.
fn read(lines: &[[u64; 8]], bytes: u64) {
    let quarter = usize::try_from(bytes / 64).unwrap_or(usize::MAX).min(lines.len()) / 4;
    let mut sums = [0u64; 4];
    for line in 0..quarter {
        for (place, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add(lines[place * quarter + line][0]);
        }
    }
    black_box(sums);
}

/// A monotonic clock with a known reading cost.
#[derive(Debug, Clone, Copy)]
struct Clock {
    overhead_micros: f64,
}

impl Clock {
    /// Measures the cost of reading the clock: the median of many empty intervals.
    fn calibrate() -> Clock {
        let empty: Vec<f64> = (0..2000)
            .map(|_| {
                let start = Instant::now();
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        Clock { overhead_micros: latlas_predict::stats::median(&empty) }
    }

    /// Microseconds of `work`, without the cost of reading the clock. At least one nanosecond, since no op takes zero
    /// time.
    fn time<T>(&self, work: impl FnOnce() -> T) -> (f64, T) {
        let start = Instant::now();
        let result = work();
        let elapsed = start.elapsed().as_secs_f64() * 1e6;
        ((elapsed - self.overhead_micros).max(1e-3), result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allowed_processor_has_its_turn() {
        let turned = std::thread::spawn(|| {
            let allowed = allowed_cpus().unwrap();
            let mut turns = Turns::new().unwrap();
            let mut turn = || {
                turns.turn().unwrap();
                allowed_cpus().unwrap()
            };
            let turned: Vec<usize> = (0..=allowed.len()).flat_map(|_| turn()).collect();
            (allowed, turned)
        });
        let (allowed, turned) = turned.join().unwrap();
        assert_eq!(turned[..allowed.len()], allowed);
        assert_eq!(turned[allowed.len()..], allowed[..1]);
    }
}

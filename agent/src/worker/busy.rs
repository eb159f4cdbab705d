//! Runs one op repeatedly, for as long as an energy sensor needs.

use std::fs;

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{SysconfVar, sysconf};

use super::backend::{Backend, Call};
use super::disturbance;
use crate::system::energy::{Busy, monotonic_seconds};

/// The approximate duration of a block of calls between two clock readings, in seconds.
const BLOCK_SECONDS: f64 = 0.02;
/// The most calls of a block: a GPU's queue takes about a thousand launches.
const MOST_CALLS: u64 = 512;

/// Runs the work repeatedly for the given number of seconds, always with the same weights and input, so that the caches
/// keep them.
///
/// # Errors
/// What libtorch or the device reports.
pub fn keep_busy(backend: &mut dyn Backend, call: &mut dyn Call, seconds: f64) -> Result<Busy> {
    call.produce()?;
    backend.finish()?;
    let before = processor_seconds();
    let start = monotonic_seconds();
    let (mut calls, mut block) = (0, 1);
    let mut began = start;
    loop {
        for _ in 0..block {
            call.run(0)?;
        }
        backend.finish()?;
        calls += block;
        let end = monotonic_seconds();
        if end - start >= seconds {
            let others = processor_seconds().zip(before).map(|(after, before)| {
                let [all, own] = [after.0 - before.0, after.1 - before.1];
                (all - own).max(0.0)
            });
            return Ok(Busy { calls, start, end, others });
        }
        block = next_block(block, end - began);
        began = end;
    }
}

/// Seconds that the machine's processors have worked, and seconds that they have worked for this process.
fn processor_seconds() -> Option<(f64, f64)> {
    let ticks = disturbance::busy_ticks(&fs::read_to_string("/proc/stat").ok()?)?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    Some((
        ticks as f64 / per_second as f64,
        seconds(usage.user_time()) + seconds(usage.system_time()),
    ))
}

/// The number of calls of the next block, from the number of calls of the last block and its seconds.
fn next_block(calls: u64, seconds: f64) -> u64 {
    if seconds < BLOCK_SECONDS / 2.0 { (2 * calls).min(MOST_CALLS) } else { calls }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Pass;
    use super::super::backend::Samples;
    use super::*;

    /// Counts issued calls and calls that have finished.
    #[derive(Default)]
    struct Counts {
        made: u64,
        finished: u64,
    }

    impl Call for Counts {
        fn produce(&mut self) -> Result<()> {
            Ok(())
        }
        fn run(&mut self, copy: usize) -> Result<()> {
            assert_eq!(copy, 0);
            self.made += 1;
            std::thread::sleep(Duration::from_micros(50));
            Ok(())
        }
        fn copy_bytes(&self) -> u64 {
            0
        }
        fn is_network(&self) -> bool {
            false
        }
    }

    impl Backend for Counts {
        fn copies(&self, _copy_bytes: u64) -> usize {
            1
        }
        fn sample(&mut self, _pass: Pass, _call: &mut dyn Call) -> Result<Samples> {
            unreachable!()
        }
        fn finish(&mut self) -> Result<()> {
            self.finished += 1;
            Ok(())
        }
    }

    #[test]
    fn a_short_call_fills_its_window() {
        let (mut backend, mut call) = (Counts::default(), Counts::default());
        let busy = keep_busy(&mut backend, &mut call, 0.05).unwrap();
        assert_eq!(busy.calls, call.made);
        assert!(busy.end - busy.start >= 0.05);
    }

    #[test]
    fn blocks_grow_while_they_are_short() {
        for (calls, seconds, next) in
            [(1, 0.001, 2), (64, 0.0099, 128), (64, 0.01, 64), (512, 0.001, 512), (1, 3.0, 1)]
        {
            assert_eq!(next_block(calls, seconds), next, "{calls} calls in {seconds} s");
        }
    }

    #[test]
    fn a_long_call_is_made_once() {
        let (mut backend, mut call) = (Counts::default(), Counts::default());
        let busy = keep_busy(&mut backend, &mut call, 0.0).unwrap();
        assert_eq!((busy.calls, call.made, backend.finished), (1, 1, 2));
    }
}

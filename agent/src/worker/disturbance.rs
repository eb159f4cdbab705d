//! Which samples are set aside because somebody else was at work: the rules, pure.
//!
//! A sample is taken again when the kernel made one of the worker's threads stop for another in the
//! middle of it. A block, the samples that a visit takes at one distance, is taken again when what the
//! system counts says that the processor was somewhere else, or slower: such counters are too coarse
//! for one sample. Both are bounded. What is still disturbed after that is kept and counted, and a row
//! with many of those is `degraded`.

use std::collections::VecDeque;

/// How often a disturbed sample is taken again before it is kept.
pub const MOST_RETAKES: u32 = 3;

/// How often a disturbed block is taken again before it is kept.
pub const MOST_BLOCK_RETAKES: u32 = 1;

/// The share of a block in which tasks waited for a processor, from which on the block is disturbed.
const MOST_PRESSURE: f64 = 0.5;

/// The share of the usual clock of the run, below which a block is disturbed.
const LEAST_CLOCK: f64 = 0.9;

/// What the system counts at one moment; None where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Ticks of the worker's processors that the hypervisor gave to somebody else.
    pub steal_ticks: Option<u64>,
    /// Microseconds in which some task waited for a processor (the total of PSI's `some`).
    pub pressure_micros: Option<u64>,
    /// The slowest of the worker's processors, in kHz.
    pub khz: Option<u64>,
}

/// What disturbed a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// The hypervisor ran somebody else.
    Steal,
    /// Tasks waited for the worker's processors.
    Pressure,
    /// The clock was lower than it has been.
    Frequency,
}

/// Whether a block between two readings was disturbed, and by what.
///
/// `usual_khz` is the clock that this worker usually sees ([`UsualClock`]). `owns_machine` says that the worker runs
/// on all processors there are: pressure is counted for the whole machine, and a task that waits for
/// one that the worker does not use takes nothing from it. (On two processors that others kept busy, one
/// of them the worker's, the blocks with full pressure and those with none differed by 0.7% at the
/// median.)
pub fn of_block(
    before: Counters,
    after: Counters,
    elapsed_micros: f64,
    usual_khz: Option<u64>,
    owns_machine: bool,
) -> Option<Disturbance> {
    let grown = |before: Option<u64>, after: Option<u64>| Some(after?.saturating_sub(before?));
    if grown(before.steal_ticks, after.steal_ticks).is_some_and(|ticks| ticks > 0) {
        return Some(Disturbance::Steal);
    }
    let waited = grown(before.pressure_micros, after.pressure_micros);
    if owns_machine && waited.is_some_and(|micros| micros as f64 > MOST_PRESSURE * elapsed_micros) {
        return Some(Disturbance::Pressure);
    }
    let slow = |khz: u64| usual_khz.is_some_and(|usual| (khz as f64) < LEAST_CLOCK * usual as f64);
    after.khz.is_some_and(slow).then_some(Disturbance::Frequency)
}

/// The usual clock of a run: the median of the last blocks. One boost at the start of a run says nothing of the
/// rest of it, and on a box whose clock is never steady every block would be slower than the fastest.
#[derive(Debug, Clone, Default)]
pub struct UsualClock {
    seen: VecDeque<u64>,
}

impl UsualClock {
    /// Blocks that are remembered.
    const LAST: usize = 201;
    /// Fewest blocks to know what is usual.
    const FEWEST: usize = 9;

    /// Remembers the clock of one more block.
    pub fn add(&mut self, khz: u64) {
        if self.seen.len() == UsualClock::LAST {
            self.seen.pop_front();
        }
        self.seen.push_back(khz);
    }

    /// The usual clock; none as long as too few blocks were seen.
    pub fn khz(&self) -> Option<u64> {
        if self.seen.len() < UsualClock::FEWEST {
            return None;
        }
        let mut sorted: Vec<u64> = self.seen.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[sorted.len() / 2])
    }
}

/// What [`retake`] came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken<T> {
    /// What was kept.
    pub kept: T,
    /// Whether it is disturbed all the same.
    pub disturbed: bool,
    /// What was set aside before it.
    pub rejected: Vec<T>,
}

/// Takes something until it is not disturbed, but at most `most` times again.
///
/// # Errors
/// What taking it reports.
pub fn retake<T, E>(
    most: u32,
    mut take: impl FnMut() -> Result<(T, bool), E>,
) -> Result<Taken<T>, E> {
    let mut rejected = Vec::new();
    loop {
        let (kept, disturbed) = take()?;
        if !disturbed || rejected.len() >= most as usize {
            return Ok(Taken { kept, disturbed, rejected });
        }
        rejected.push(kept);
    }
}

/// The ticks stolen from some processors, from the text of `/proc/stat`. None when the text has none of
/// them.
pub fn steal_ticks(stat: &str, cpus: &[usize]) -> Option<u64> {
    per_cpu(stat)
        .filter(|(cpu, _)| cpus.contains(cpu))
        // user, nice, system, idle, iowait, irq, softirq, steal
        .filter_map(|(_, ticks)| ticks.split_ascii_whitespace().nth(7)?.parse::<u64>().ok())
        .reduce(u64::saturating_add)
}

/// How many processors there are, from the text of `/proc/stat`.
pub fn online_cpus(stat: &str) -> usize {
    per_cpu(stat).count()
}

/// The number of each processor, and the text of its counters.
fn per_cpu(stat: &str) -> impl Iterator<Item = (usize, &str)> {
    stat.lines().filter_map(|line| {
        let (cpu, ticks) = line.strip_prefix("cpu")?.split_once(' ')?;
        Some((cpu.parse().ok()?, ticks))
    })
}

/// Microseconds in which some task waited for a processor since the boot, from the text of
/// `/proc/pressure/cpu`.
pub fn pressure_micros(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    const QUIET: Counters =
        Counters { steal_ticks: Some(7), pressure_micros: Some(100), khz: Some(2_000_000) };

    fn check(after: Counters, owns_machine: bool) -> Option<Disturbance> {
        of_block(QUIET, after, 1000.0, Some(2_000_000), owns_machine)
    }

    #[test]
    fn each_sign_disturbs_a_block() {
        assert_eq!(check(QUIET, true), None);
        let stolen = Counters { steal_ticks: Some(8), ..QUIET };
        assert_eq!(check(stolen, false), Some(Disturbance::Steal));
        let waited = Counters { pressure_micros: Some(700), ..QUIET };
        assert_eq!(check(waited, true), Some(Disturbance::Pressure));
        assert_eq!(check(waited, false), None);
        let slow = Counters { khz: Some(1_700_000), ..QUIET };
        assert_eq!(check(slow, false), Some(Disturbance::Frequency));
    }

    /// A boost in the first blocks of a run does not make the rest of it disturbed; a real drop does.
    #[test]
    fn a_boost_at_the_start_disturbs_nothing_later() {
        let mut clock = UsualClock::default();
        assert_eq!(clock.khz(), None);
        (0..5).for_each(|_| clock.add(4_500_000));
        (0..20).for_each(|_| clock.add(3_000_000));
        let at = |khz| Counters { khz: Some(khz), ..QUIET };
        let check = |khz| of_block(QUIET, at(khz), 1000.0, clock.khz(), true);
        assert_eq!((check(3_000_000), check(2_000_000)), (None, Some(Disturbance::Frequency)));
        (0..500).for_each(|_| clock.add(2_000_000));
        assert_eq!(clock.khz(), Some(2_000_000));
    }

    #[test]
    fn what_cannot_be_read_disturbs_nothing() {
        let none = Counters::default();
        assert_eq!(of_block(none, none, 1000.0, None, true), None);
        assert_eq!(of_block(none, QUIET, 1000.0, None, true), None);
    }

    #[test]
    fn counters_are_read_from_the_kernels_texts() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 0 0 0 0 0 0 30 0 0\ncpu1 1 0 0 0 0 0 0 400 0 0\n\
                    cpu10 1 0 0 0 0 0 0 5000 0 0\nintr 1 2 3\n";
        assert_eq!(steal_ticks(stat, &[1]), Some(400));
        assert_eq!(steal_ticks(stat, &[0, 10]), Some(5030));
        assert_eq!(steal_ticks(stat, &[3]), None);
        assert_eq!(online_cpus(stat), 3);
        let pressure = "some avg10=89.33 avg60=62.93 avg300=22.49 total=4186335021\n\
                        full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure_micros(pressure), Some(4_186_335_021));
        assert_eq!(pressure_micros("full avg10=0.00 total=9\n"), None);
    }

    proptest! {
        #[test]
        fn retaking_is_bounded_and_prefers_the_undisturbed(
            disturbed in prop::collection::vec(any::<bool>(), 20),
            most in 0u32..10,
        ) {
            let mut turns = disturbed.iter().copied().enumerate();
            let taken = retake(most, || Ok::<_, Infallible>(turns.next().unwrap())).unwrap();
            let calls = taken.rejected.len() + 1;
            prop_assert!(calls <= most as usize + 1);
            // All that was set aside was disturbed, and what is kept is the first that was not.
            prop_assert!(taken.rejected.iter().all(|&index| disturbed[index]));
            prop_assert_eq!(taken.kept, calls - 1);
            prop_assert_eq!(taken.disturbed, disturbed[taken.kept]);
            prop_assert!(!taken.disturbed || calls == most as usize + 1);
        }

        #[test]
        fn texts_of_any_kind_are_read_without_panic(text in ".*") {
            let _ = (steal_ticks(&text, &[0, 1]), pressure_micros(&text));
        }

        #[test]
        fn more_disturbance_never_clears_a_block(
            steal in 0u64..3, waited in 0u64..2000, khz in 1_000_000u64..2_500_000, owns in any::<bool>(),
        ) {
            let after = Counters {
                steal_ticks: Some(7 + steal),
                pressure_micros: Some(100 + waited),
                khz: Some(khz),
            };
            let worse = Counters {
                steal_ticks: Some(8 + steal),
                pressure_micros: Some(200 + waited),
                khz: Some(khz - 1000),
            };
            prop_assert!(check(after, owns).is_none() || check(worse, owns).is_some());
        }
    }
}

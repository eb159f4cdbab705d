//! The rules by which samples are discarded because of other load. Pure.
//!
//! A sample is taken again if the kernel preempted one of the worker's threads during the sample. A block is all
//! samples of a visit at one distance. A block is taken again if system counters show that the processor ran something
//! else or was slower. Such counters are too coarse for single samples. Both kinds of retries are bounded. Samples that
//! are still disturbed afterwards are kept and counted, and a row with many of them is `degraded`.

use std::collections::VecDeque;

/// How often a disturbed sample is retaken before it is kept.
pub const MOST_RETAKES: u32 = 3;

/// How often a disturbed block is retaken before it is kept.
pub const MOST_BLOCK_RETAKES: u32 = 1;

/// A block is disturbed if tasks waited for a processor for more than this share of it.
const MOST_PRESSURE: f64 = 0.5;

/// A block is disturbed if its clock is below this share of the usual clock of the run.
const LEAST_CLOCK: f64 = 0.9;

/// System counters at one moment; None if a counter is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Ticks of the worker's processors that the hypervisor gave to other guests.
    pub steal_ticks: Option<u64>,
    /// Microseconds in which at least one task waited for a processor (the total of PSI's `some`).
    pub pressure_micros: Option<u64>,
    /// The clock of the slowest of the worker's processors, in kHz.
    pub khz: Option<u64>,
}

/// What disturbed a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// The hypervisor ran other guests.
    Steal,
    /// Tasks waited for the worker's processors.
    Pressure,
    /// The clock was lower than usual.
    Frequency,
}

/// The disturbance of a block between two readings, if any.
///
/// `usual_khz` is the usual clock of this worker ([`UsualClock`]). `owns_machine` says that the worker runs on all
/// processors of the machine. Pressure is counted for the whole machine, and a task that waits for a processor outside
/// the worker's set does not slow the worker. (On two busy processors, one of them the worker's, blocks with full
/// pressure and blocks without pressure differed by 0.7% at the median.)
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

/// The usual clock of a run: the median of the last blocks. The maximum would be misleading: a boost at the start says
/// nothing about the rest of the run, and on a box with a varying clock every block is slower than the fastest.
#[derive(Debug, Clone, Default)]
pub struct UsualClock {
    seen: VecDeque<u64>,
}

impl UsualClock {
    /// Number of blocks that are kept.
    const LAST: usize = 201;
    /// Fewest blocks that determine the usual clock.
    const FEWEST: usize = 9;

    /// Adds the clock of one block.
    pub fn add(&mut self, khz: u64) {
        if self.seen.len() == UsualClock::LAST {
            self.seen.pop_front();
        }
        self.seen.push_back(khz);
    }

    /// The usual clock; none if there are too few blocks.
    pub fn khz(&self) -> Option<u64> {
        if self.seen.len() < UsualClock::FEWEST {
            return None;
        }
        let mut sorted: Vec<u64> = self.seen.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[sorted.len() / 2])
    }
}

/// The result of [`retake`].
#[derive(Debug, Clone, PartialEq)]
pub struct Taken<T> {
    /// The kept sample or block.
    pub kept: T,
    /// Whether the kept one is disturbed.
    pub disturbed: bool,
    /// The discarded ones before it.
    pub rejected: Vec<T>,
}

/// Retakes something until it is undisturbed, but at most `most` times.
///
/// # Errors
/// The errors of taking it.
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

/// The stolen ticks of some processors, from the text of `/proc/stat`. None if the text contains none of these
/// processors.
pub fn steal_ticks(stat: &str, cpus: &[usize]) -> Option<u64> {
    per_cpu(stat)
        .filter(|(cpu, _)| cpus.contains(cpu))
        // user, nice, system, idle, iowait, irq, softirq, steal
        .filter_map(|(_, ticks)| ticks.split_ascii_whitespace().nth(7)?.parse::<u64>().ok())
        .reduce(u64::saturating_add)
}

/// Ticks in which the processors worked for anything, other guests included, from the text of `/proc/stat`.
pub fn busy_ticks(stat: &str) -> Option<u64> {
    let busy = |ticks: &str| {
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already
        let ticks = ticks.split_ascii_whitespace().take(8).enumerate();
        ticks
            .filter(|(place, _)| ![3, 4].contains(place))
            .filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
            .fold(0, u64::saturating_add)
    };
    per_cpu(stat).map(|(_, ticks)| busy(ticks)).reduce(u64::saturating_add)
}

/// The number of online processors, from the text of `/proc/stat`.
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

/// Microseconds since boot in which at least one task waited for a processor, from the text of `/proc/pressure/cpu`.
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

    /// A boost in the first blocks of a run does not make later blocks disturbed; a real drop does.
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
        assert_eq!(busy_ticks(stat), Some(1 + 30 + 1 + 400 + 1 + 5000));
        assert_eq!(
            busy_ticks("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 40 50 6 7 8 9 10\n"),
            Some(27)
        );
        assert_eq!(busy_ticks("intr 1\n"), None);
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
            // All discarded ones were disturbed, and the kept one is the first undisturbed one.
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

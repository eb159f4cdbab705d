//! The arithmetic from a counter's readings to the energy of one call. Pure.
//!
//! A counter shows `r(t) = floor(E(t - d) / q) * q`. `E` is the true energy, `q` the smallest step, and `d` the time
//! since the last update, at most one tick. Under a steady power `P`, the difference of two readings is off by at most
//! `P * tick + q`. Over a time `T` between them, the power is off by that divided by `T`. This is the error of gross
//! energy. The error of net energy also includes the error of the idle power, and half of the difference between the
//! idle power before and after.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One reading of a meter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Time in seconds of the monotonic clock.
    pub at: f64,
    /// Energy so far, in joules.
    pub joules: f64,
    /// The same by the meter's second method, if it has one.
    pub second_joules: Option<f64>,
}

/// The resolution of a meter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tick {
    /// The longest time between two updates, in seconds.
    pub seconds: f64,
    /// The smallest step, in joules.
    pub joules: f64,
}

/// The work of a device in the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// Number of calls.
    pub calls: u64,
    /// Begin of the first call, in seconds of the monotonic clock.
    pub start: f64,
    /// End of the last call.
    pub end: f64,
    /// Seconds of processors that other processes of the machine used meanwhile. None if that cannot be read.
    pub others: Option<f64>,
}

/// Energy of one call, in millijoules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PerCall {
    /// All energy.
    pub gross_mj: f64,
    /// Energy above the idle power.
    pub net_mj: f64,
    /// Bound of both errors, under steady power.
    pub uncertainty_mj: f64,
}

/// The reason why there is no energy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEnergy {
    /// No call, or no time.
    NothingRan,
    /// Fewer than three ticks of readings in the window or beside it.
    TooFewReadings,
    /// The counter did not move while the device worked.
    Stuck,
}

impl fmt::Display for NoEnergy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoEnergy::NothingRan => "nothing ran in the window",
            NoEnergy::TooFewReadings => "the sensor was read over fewer than three of its ticks",
            NoEnergy::Stuck => "the sensor's counter did not move",
        })
    }
}

/// Mean power between the first and the last of some readings, in watts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Power {
    /// The value.
    pub watts: f64,
    /// Bound of its error.
    pub error: f64,
}

/// The mean power over readings in order of time.
///
/// # Errors
/// When they span fewer than three ticks.
pub fn power(looks: &[Look], tick: Tick) -> Result<Power, NoEnergy> {
    let [first, .., last] = looks else { return Err(NoEnergy::TooFewReadings) };
    let seconds = last.at - first.at;
    if seconds.is_nan() || seconds < 3.0 * tick.seconds || seconds <= 0.0 {
        return Err(NoEnergy::TooFewReadings);
    }
    let joules = last.joules - first.joules;
    // The true power can exceed the shown power, and so can its error.
    let most = (joules + tick.joules) / (seconds - tick.seconds);
    Ok(Power { watts: joules / seconds, error: (most * tick.seconds + tick.joules) / seconds })
}

/// The energy of one call.
///
/// `looks` are readings in order of time. Readings outside the window of `busy` do not count, because preparing work
/// may have run then. The power within the window is multiplied by the time of one call. `idle` has the readings while
/// nothing ran, one stretch before and one after.
///
/// # Errors
/// When the readings are not sufficient.
pub fn per_call(
    looks: &[Look],
    idle: &[&[Look]],
    busy: &Busy,
    tick: Tick,
) -> Result<PerCall, NoEnergy> {
    let seconds = busy.end - busy.start;
    if busy.calls == 0 || seconds.is_nan() || seconds <= 0.0 {
        return Err(NoEnergy::NothingRan);
    }
    let gross = power(within(looks, busy), tick)?;
    if gross.watts <= 0.0 {
        return Err(NoEnergy::Stuck);
    }
    let idle = idle.iter().map(|looks| power(looks, tick)).collect::<Result<Vec<_>, _>>()?;
    let base = baseline(&idle).ok_or(NoEnergy::TooFewReadings)?;
    let millijoules = 1e3 * seconds / busy.calls as f64;
    Ok(PerCall {
        gross_mj: gross.watts * millijoules,
        net_mj: (gross.watts - base.watts) * millijoules,
        uncertainty_mj: (gross.error + base.error) * millijoules,
    })
}

/// The readings that were taken while the device worked.
pub fn within<'a>(looks: &'a [Look], busy: &Busy) -> &'a [Look] {
    let from = looks.partition_point(|look| look.at < busy.start);
    let to = looks.partition_point(|look| look.at <= busy.end);
    &looks[from..to.max(from)]
}

/// The mean of idle powers. Its error is their error plus half of their difference.
fn baseline(idle: &[Power]) -> Option<Power> {
    let count = idle.len() as f64;
    let least = idle.iter().map(|power| power.watts).min_by(f64::total_cmp)?;
    let most = idle.iter().map(|power| power.watts).max_by(f64::total_cmp)?;
    Some(Power {
        watts: idle.iter().map(|power| power.watts).sum::<f64>() / count,
        error: idle.iter().map(|power| power.error).sum::<f64>() / count + (most - least) / 2.0,
    })
}

/// The relative difference of the second method from the first, in the window; None without a second method.
pub fn disagreement(looks: &[Look], busy: &Busy) -> Option<f64> {
    let [first, .., last] = within(looks, busy) else { return None };
    let second = last.second_joules? - first.second_joules?;
    let share = second / (last.joules - first.joules) - 1.0;
    share.is_finite().then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A counter that is updated at `phase + n * tick.seconds` and shows whole multiples of `tick.joules`. The device
    /// draws `idle` watts, and `busy` watts from 10 s to 10 s + `window`.
    struct Simulated {
        idle: f64,
        busy: f64,
        window: f64,
        phase: f64,
        tick: Tick,
    }

    impl Simulated {
        fn truth(&self, at: f64) -> f64 {
            let worked = (at - 10.0).clamp(0.0, self.window);
            self.idle * (at - worked) + self.busy * worked
        }

        fn look(&self, at: f64) -> Look {
            let updated =
                ((at - self.phase) / self.tick.seconds).floor() * self.tick.seconds + self.phase;
            let joules = (self.truth(updated) / self.tick.joules).floor() * self.tick.joules;
            Look { at, joules, second_joules: None }
        }

        fn looks(&self, from: f64, to: f64, every: f64) -> Vec<Look> {
            let count = ((to - from) / every) as usize;
            (0..=count).map(|n| self.look(from + n as f64 * every)).collect()
        }

        fn per_call(&self, calls: u64, poll: f64) -> Result<PerCall, NoEnergy> {
            let end = 10.0 + self.window;
            let before = self.looks(9.0 - self.window, 9.0, poll);
            let after = self.looks(end + 1.0, end + 1.0 + self.window, poll);
            let during = self.looks(9.5, end + 0.5, poll);
            per_call(
                &during,
                &[&before, &after],
                &Busy { calls, start: 10.0, end, others: None },
                self.tick,
            )
        }
    }

    proptest! {
        #[test]
        fn the_true_energy_lies_within_the_uncertainty(
            idle in 0.0f64..50.0,
            more in 0.01f64..200.0,
            ticks in 10.0f64..200.0,
            seconds in 1e-3f64..0.1,
            joules in 1e-6f64..1e-2,
            phase in 0.0f64..1.0,
            poll in 0.05f64..2.0,
            calls in 1u64..1_000_000,
        ) {
            let tick = Tick { seconds, joules };
            let device = Simulated {
                idle, busy: idle + more, window: ticks * seconds, phase: phase * seconds, tick,
            };
            let window = device.window;
            let result = device.per_call(calls, poll * seconds);
            if result == Err(NoEnergy::Stuck) {
                // Only if the energy of the whole window is below the resolution of the counter.
                prop_assert!((idle + more) * (window - 2.0 * seconds - 2.0 * poll * seconds) <= joules);
                return Ok(());
            }
            let found = result.unwrap();
            let each = 1e3 * window / calls as f64;
            let slack = 1e-6 * found.gross_mj + found.uncertainty_mj;
            prop_assert!((found.gross_mj - (idle + more) * each).abs() <= slack, "{found:?}");
            prop_assert!((found.net_mj - more * each).abs() <= slack, "{found:?}");
        }

        #[test]
        fn a_longer_window_is_more_certain(idle in 1.0f64..50.0, more in 1.0f64..100.0) {
            let tick = Tick { seconds: 0.02, joules: 1e-3 };
            let with = |window: f64| {
                let device = Simulated { idle, busy: idle + more, window, phase: 0.0, tick };
                let found = device.per_call(1, 0.005).unwrap();
                found.uncertainty_mj / found.gross_mj
            };
            prop_assert!(with(4.0) < with(1.0));
        }
    }

    fn look(at: f64, joules: f64) -> Look {
        Look { at, joules, second_joules: Some(joules * 1.4) }
    }

    #[test]
    fn a_worked_example() {
        // 10 W idle, 30 W at work, 2 s for 1000 calls: 60 mJ each, 40 of them net.
        let before = [look(0.0, 0.0), look(0.5, 5.0), look(1.0, 10.0)];
        let during = [look(1.0, 10.0), look(1.5, 25.0), look(2.0, 40.0), look(3.0, 70.0)];
        let after = [look(3.5, 75.0), look(4.0, 80.0), look(4.5, 86.0)];
        let busy = Busy { calls: 1000, start: 1.0, end: 3.0, others: None };
        let tick = Tick { seconds: 0.02, joules: 0.001 };
        let found = per_call(&during, &[&before, &after], &busy, tick).unwrap();
        assert!((found.gross_mj - 60.0).abs() < 1e-9);
        // The idle power was 10 W before and 11 W after: a mean of 10.5 W, with a spread of half a watt.
        assert!((found.net_mj - 39.0).abs() < 1e-9);
        let gross_error = (60.001 / 1.98 * 0.02 + 0.001) / 2.0;
        let idle_error = (0.02 * (10.001 + 11.001) / 0.98 + 0.002) / 2.0 + 0.5;
        assert!((found.uncertainty_mj - 2.0 * (gross_error + idle_error)).abs() < 1e-9);
        assert!((disagreement(&during, &busy).unwrap() - 0.4).abs() < 1e-9);
    }

    #[test]
    fn what_the_readings_do_not_carry_is_no_number() {
        let tick = Tick { seconds: 0.02, joules: 0.001 };
        let idle = [look(0.0, 0.0), look(1.0, 10.0)];
        let busy = Busy { calls: 10, start: 1.0, end: 2.0, others: None };
        let stuck = [look(1.0, 10.0), look(2.0, 10.0)];
        let good = [look(1.0, 10.0), look(2.0, 30.0)];
        assert_eq!(per_call(&stuck, &[&idle, &idle], &busy, tick), Err(NoEnergy::Stuck));
        assert_eq!(per_call(&[], &[&idle, &idle], &busy, tick), Err(NoEnergy::TooFewReadings));
        assert_eq!(per_call(&good, &[&idle, &[]], &busy, tick), Err(NoEnergy::TooFewReadings));
        assert_eq!(per_call(&good, &[], &busy, tick), Err(NoEnergy::TooFewReadings));
        let none = Busy { calls: 0, ..busy };
        assert_eq!(per_call(&good, &[&idle], &none, tick), Err(NoEnergy::NothingRan));
        let coarse = Tick { seconds: 0.5, ..tick };
        assert_eq!(per_call(&good, &[&idle], &busy, coarse), Err(NoEnergy::TooFewReadings));
    }
}

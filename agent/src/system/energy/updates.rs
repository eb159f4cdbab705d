//! The update period of a sensor, learned from its readings.

use latlas_predict::stats;

/// The most gaps that are kept. The first ones of a run are as informative as later ones.
const MOST: usize = 256;
/// The fewest gaps that determine a period.
const FEWEST: usize = 3;
/// Readings that are further apart than this, in seconds, belong to two stretches.
const PAUSE: f64 = 1.0;

/// The observed updates of a sensor.
#[derive(Debug, Default)]
pub struct Updates {
    /// Time and value of the last reading.
    last: Option<(f64, f64)>,
    /// Time of the last change.
    changed: Option<f64>,
    /// Seconds between changes.
    gaps: Vec<f64>,
    /// Seconds between readings.
    polls: Vec<f64>,
}

impl Updates {
    /// Adds a reading.
    pub fn see(&mut self, now: f64, shown: f64) {
        let Some((before, value)) = self.last.replace((now, shown)) else { return };
        if now - before > PAUSE {
            self.changed = None;
            return;
        }
        if self.gaps.len() < MOST {
            self.polls.push(now - before);
        }
        if shown == value {
            return;
        }
        if let Some(changed) = self.changed.replace(now)
            && self.gaps.len() < MOST
        {
            self.gaps.push(now - changed);
        }
    }

    /// The 90th percentile of the time between two updates, in seconds, plus the time between two readings, by which
    /// each change is seen late. None while unknown.
    ///
    /// A sensor that shows the same value twice seems slower than it is, which makes its error larger.
    pub fn period(&self) -> Option<f64> {
        if self.gaps.len() < FEWEST {
            return None;
        }
        let longest = stats::quantile_of_sorted(&stats::sorted(&self.gaps), 0.9);
        Some(longest + stats::median(&self.polls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_period_is_found(seconds in 0.01f64..0.2, phase in 0.0f64..1.0) {
            let poll = 0.002;
            let mut updates = Updates::default();
            for n in 0..1000 {
                let now = f64::from(n) * poll;
                updates.see(now, (now / seconds + phase).floor());
            }
            let found = updates.period().unwrap();
            prop_assert!(found >= seconds - 1e-9 && found <= seconds + 2.0 * poll + 1e-9, "{found}");
        }
    }

    #[test]
    fn a_pause_between_two_stretches_is_no_period() {
        let mut updates = Updates::default();
        for start in [0.0, 500.0] {
            for n in 0..3 {
                updates.see(start + 0.1 * f64::from(n), start + f64::from(n));
            }
        }
        assert_eq!(updates.period(), None, "two changes in each stretch make one gap each");
        updates.see(500.3, 0.0);
        assert!(updates.period().unwrap() < 0.3);
    }

    #[test]
    fn what_never_changes_has_no_period() {
        let mut updates = Updates::default();
        (0..100).for_each(|n| updates.see(0.1 * f64::from(n), 7.0));
        assert_eq!(updates.period(), None);
    }
}
